"""What the numbers say, in sentences; losing is said in plain words."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from sciladm.report.results import SIDE, Results, records
from sciladm.report.style import BAND, few, lead, leads, number, tenth, words


@dataclass(frozen=True)
class Sentence:
    """One finding: ``tone`` is good, bad or plain; ``figures`` is the evidence."""

    tone: str
    text: str
    figures: str = ""


def sentences(results: Results) -> list[Sentence]:
    """Every finding of the heading, the comparisons first."""
    found: list[Sentence] = []
    for model in results.models:
        if len(results.comparisons):
            found += _against_all(results, model)
            found += _earned(results, model)
        found += _share(results, model)
        found += _calibration(results, model)
        found += _spectra(results, model)
    return found


def compared(
    results: Results, model: str, variable: str = "all", metric: str = "fair_crps"
) -> pd.DataFrame:
    """Paired comparisons of a model with everything it competes with, over the whole region."""
    table = results.comparisons
    if not len(table):
        return table
    keep = (table["forecast"] == model) & ~table["reference"].isin(SIDE)
    keep &= (table["variable"] == variable) & (table["metric"] == metric)
    return table[keep & (table["region"] == results.region)].sort_values("lead_hours")


def _against_all(results: Results, model: str) -> Iterable[Sentence]:
    for reference, rows in compared(results, model).groupby("reference", sort=False):
        by = {str(v): [float(t) for t in r["lead_hours"]] for v, r in rows.groupby("verdict")}
        name, other = called(model), called(str(reference))
        if won := by.get("better"):
            yield Sentence(
                "good", f"{name} beats {other} at {leads(won)}.", _figures(rows, [won[0], won[-1]])
            )
        if lost := by.get("worse"):
            yield Sentence("bad", f"{other} beats {name} at {leads(lost)}.", _figures(rows, lost))
        if even := sorted(by.get("no worse", []) + by.get("unclear", [])):
            yield Sentence(
                "plain",
                f"Neither {name} nor {other} is shown to be better at {leads(even)}.",
                _figures(rows, even),
            )
        if scarce := by.get("too few"):
            yield Sentence(
                "plain",
                f"Too few independent initial times to judge {name} against {other} "
                f"at {leads(scarce)}.",
                _figures(rows, scarce),
            )
    yield from _variables_lost(results, model)
    yield from _regions_lost(results, model)


def _figures(rows: pd.DataFrame, chosen: list[float]) -> str:
    """Relative difference of fair CRPS with its paired interval, for some leads."""
    parts = []
    for row in records(rows[rows["lead_hours"].isin(chosen)]):
        low, mid, high = (100 * x / row.score for x in (row.low, row.difference, row.high))
        interval = f" [{tenth(low)}, {tenth(high)}]" if low == low else ""
        parts.append(f"{lead(row.lead_hours)} {tenth(mid)} %{interval}")
    shown = parts if len(parts) <= 4 else [*parts[:3], f"… {parts[-1]}"]
    return "fair CRPS, paired: " + "; ".join(shown)


def _variables_lost(results: Results, model: str) -> Iterable[Sentence]:
    """One sentence for each variable in which something beats the model."""
    for variable in results.variables[1:]:
        rows = compared(results, model, variable)
        if not len(rows):
            continue
        lost = [
            f"{called(str(reference))} beats {called(model)} at {_when(some)}"
            for reference, some in rows[rows["verdict"] == "worse"].groupby("reference")
        ]
        if lost:
            yield Sentence("bad", f"{words(variable)}: {'; '.join(lost)}.")


def _regions_lost(results: Results, model: str) -> Iterable[Sentence]:
    """One sentence for each forecast that beats the model somewhere."""
    table = results.comparisons
    own = (table["forecast"] == model) & ~table["reference"].isin(SIDE)
    own &= (table["metric"] == "fair_crps") & (table["variable"] != "all")
    rows = table[own & (table["region"] != results.region)]
    for reference, some in rows.groupby("reference", sort=False):
        lost = some[some["verdict"] == "worse"]
        places = [
            f"{words(str(variable))}, {words(str(region))}, {_when(there)}"
            for (variable, region), there in lost.groupby(["variable", "region"], sort=False)
        ]
        if places:
            yield Sentence(
                "bad", f"By region {called(str(reference))} beats {called(model)} in {len(lost)} "
                f"of {len(some)} cases (variable × region × lead).", "; ".join(places)
            )  # fmt: skip


def _when(rows: pd.DataFrame) -> str:
    return leads([float(t) for t in rows["lead_hours"]])


def called(forecast: str) -> str:
    """A forecast's name within a sentence."""
    article = forecast == "model" or forecast in ("linear_inverse_model", "dressed_regression")
    return f"the {words(forecast)}" if article else words(forecast)


def _earned(results: Results, model: str) -> Iterable[Sentence]:
    """Diffusion has to beat the same network trained for the mean and dressed."""
    for metric in ("fair_crps", "energy_score"):
        rows = compared(results, model, metric=metric)
        if not len(rows):
            continue
        rows = rows[rows["reference"] == "dressed_regression"]
        scarce = rows["verdict"] == "too few"
        if len(lost := rows[(rows["verdict"] != "better") & ~scarce]):
            yield Sentence(
                "bad", f"Diffusion earned nothing in {words(metric)} at {_when(lost)}: "
                f"{called(model)} is not better than the dressed regression."
            )  # fmt: skip
        if scarce.any():
            yield Sentence(
                "plain", f"Too few independent initial times to say whether diffusion earned "
                f"anything in {words(metric)} at {_when(rows[scarce])}."
            )  # fmt: skip


def _share(results: Results, model: str) -> Iterable[Sentence]:
    rows = results.select("share_of_skill", forecast=model, variable="all")
    if len(rows):
        parts = []
        for row in records(rows[rows["lead_hours"].isin(few(rows["lead_hours"].tolist()))]):
            interval = f" [{number(row.low)}, {number(row.high)}]" if row.low == row.low else ""
            parts.append(f"{lead(row.lead_hours)} {number(row.value)}{interval}")
        there = set(results.scores["forecast"])
        oracle = "perfect model" if "perfect" in there else "exact ensemble"
        yield Sentence(
            "plain", f"Share of the {oracle}'s skill over climatology that {called(model)} "
            "reaches, mean of headline variables.", "; ".join(parts)
        )  # fmt: skip


def _calibration(results: Results, model: str) -> Iterable[Sentence]:
    table = results.scores
    keep = (table["metric"] == "spread_skill") & (table["forecast"] == model)
    keep &= (table["season"] == "all") & table["variable"].isin(results.headline)
    rows = table[keep]
    if not len(rows):
        return
    outside = rows[(rows["value"] < BAND[0]) | (rows["value"] > BAND[1])]
    inside = len(rows) - len(outside)
    text = (
        f"Spread matches error within {BAND[0]}–{BAND[1]} in {inside} of {len(rows)} cases "
        f"(headline variable × region × lead) for {called(model)}."
    )
    if not len(outside):
        yield Sentence("good", text)
        return
    worst = outside.iloc[int((outside["value"] - 1).abs().to_numpy().argmax())]
    sort = "over" if worst["value"] > 1 else "under"
    yield Sentence(
        "bad" if 2 * inside < len(rows) else "plain",
        text,
        f"worst: {words(worst['variable'])}, {words(worst['region'])}, "
        f"{lead(worst['lead_hours'])}: {number(worst['value'])}, {sort}-dispersed",
    )


def _spectra(results: Results, model: str) -> Iterable[Sentence]:
    """Members' variance at every scale that the grid carries."""
    table = results.spectra
    if not len(table):
        return
    keep = (table["forecast"] == model) & ~table["aliased"].astype(bool)
    rows = table[keep & (table["wavenumber"] > 0) & table["ratio"].notna()]
    own = rows["variable"].isin(results.headline)
    parts = []
    for name, some in (("headline variables", rows[own]), ("the others", rows[~own])):
        if len(some):
            inside = int(some["ratio"].between(*BAND).sum())
            parts.append(
                f"{name}: {inside} of {len(some)} ({number(some['ratio'].min())} to "
                f"{number(some['ratio'].max())})"
            )
    if parts:
        yield Sentence(
            "plain", f"Members of {called(model)} have {BAND[0]}–{BAND[1]} times the truth's "
            "variance, by scale and lead.", "; ".join(parts)
        )  # fmt: skip
