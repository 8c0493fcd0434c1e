"""The report folder: index.html, which needs nothing else, and the tables as CSV."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from sciladm.conventions import UserError
from sciladm.data.durable import write_durably, writing
from sciladm.report import curves, tables
from sciladm.report.maps import MapPanel, map_panel
from sciladm.report.results import FILL, Results
from sciladm.report.style import CSS, words
from sciladm.report.verdicts import sentences

MARKER = ".sciladm-report"
"""A folder with this file in it is a report of ours, and may be replaced."""


def write_report(
    out: str | Path,
    scores: pd.DataFrame,
    ranks: pd.DataFrame,
    spectra: pd.DataFrame,
    comparisons: pd.DataFrame,
    panels: Sequence[MapPanel],
    provenance: Mapping[str, Any],
    notes: Sequence[str] = (),
    headline: Sequence[str] | None = None,
    units: Mapping[str, str] | None = None,
) -> None:
    """Write ``out/index.html`` and the four tables; same input, same bytes.

    Tables as `sciladm.metrics.tables` makes them. ``provenance``: name → text, number or a
    mapping of such; `recipe` is shown whole, `source` decides on the banner. UserError if
    ``out`` holds anything that is not a report of ours.
    """
    out = Path(out)
    check_folder(out)
    results = Results.of([scores, ranks, spectra, comparisons], headline, units)
    page = _page(results, panels, provenance, notes)
    files = {"scores": scores, "ranks": ranks, "spectra": spectra, "comparisons": comparisons}
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_durably(out / MARKER, b"")
        for name, table in files.items():
            text = table.to_csv(index=False, float_format="%.7g", lineterminator="\n")
            write_durably(out / f"{name}.csv", text.encode())
        write_durably(out / "index.html", page.encode())


def check_folder(out: Path) -> None:
    """UserError if a report may not be written there; call it before hours of scoring."""
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).exists():
        raise UserError(
            f"{out} holds files and is not a report that this program made; give another --out"
        )
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"{nearest} is a file; --out needs a folder for the report")


def _page(
    results: Results,
    panels: Sequence[MapPanel],
    provenance: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    named = [words(model) for model in results.models if model != "model"]
    kind = "Verification of filled gaps" if results.leads == [FILL] else "Forecast verification"
    title = ": ".join([kind, *([" and ".join(named)] if named else [])])
    simulated = "simulated" in str(provenance.get("source", ""))
    banner = (
        '<div class="banner">Simulated data: no score here is on ERA5.</div>' if simulated else ""
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(_under_title(results, provenance))}</p>',
        _verdicts(results), *(_model(results, model) for model in results.models),
        _curves(results), *(_calibration(results, model) for model in results.models),
        _maps(panels), _section("The autoencoder alone", tables.autoencoder_table(results)),
        _section("All scores", _EVERYTHING + tables.everything(results)),
        _section("Provenance", _provenance(provenance)), _notes(notes),
    ]  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n"
        f"<body>{banner}<main>\n{''.join(body)}\n</main></body></html>\n"
    )


_EVERYTHING = (
    "<p class=note>Whole region, whole year, in the variables' own units; regions, seasons and "
    "intervals are in scores.csv beside this page.</p>"
)


def _section(title: str, content: str, note: str = "") -> str:
    """A section, or nothing without content."""
    told = f"<p>{escape(note)}</p>" if note else ""
    return f"<h2>{escape(title)}</h2>{told}{content}" if content else ""


def _under_title(results: Results, provenance: Mapping[str, Any]) -> str:
    inits = int(results.scores["n_init"].max()) if len(results.scores) else 0
    members = results.scores.loc[results.scores["forecast"].isin(results.models), "n_members"]
    times = "times" if results.leads == [FILL] else "initial times"
    parts = [f"{inits} {times}", f"{int(members.max()) if len(members) else 0} members"]
    if "source" in provenance:
        parts.insert(0, f"source: {provenance['source']}")
    if "test_reads" in provenance:
        parts.append(f"test split read {provenance['test_reads']} times, this one included")
    return " · ".join(parts)


def _verdicts(results: Results) -> str:
    items = "".join(
        f'<li class="{s.tone}">{escape(s.text[:1].upper() + s.text[1:])}'
        + (f' <span class="figures">{escape(s.figures)}</span>' if s.figures else "")
        + "</li>"
        for s in sentences(results)
    )
    return f'<ul class="verdicts">{items}</ul>'


def _model(results: Results, model: str) -> str:
    title = "Score card" if len(results.models) == 1 else f"Score card: {words(model)}"
    parts = (tables.score_card, tables.verdict_table, tables.where_and_when)
    return _section(title, "".join(part(results, model) for part in parts))


def _curves(results: Results) -> str:
    if not results.headline or max(results.leads, default=FILL) == FILL:
        return ""
    return _section(
        "Error by lead",
        f"<figure>{curves.score_curves(results)}</figure>",
        "Fair CRPS of every forecast on the same initial times; lower is better. The band is the "
        "95 % interval of the model. Perfect or exact: the truth's own distribution, where it is "
        "known.",
    )


def _calibration(results: Results, model: str) -> str:
    name = "" if len(results.models) == 1 else f": {words(model)}"
    parts = []
    if len(results.select("spread_skill", forecast=model)) and max(results.leads) > FILL:
        parts.append(
            "<h3>Spread over error</h3><p>1 is calibrated; below, the ensemble is too sure of "
            "itself. The band is 0.9–1.1.</p>"
            f"<figure>{curves.spread_curves(results, model)}</figure>"
        )
    if len(results.ranks) and (picture := curves.rank_histograms(results, model)):
        parts.append(
            "<h3>Rank of the truth</h3><p>Frequency of each number of members below the truth, 1 "
            "where flat. Neighbouring cells are not independent: judge by the black line, "
            f"members of the truth's own distribution.</p><figure>{picture}</figure>"
        )
    if len(results.spectra) and (picture := curves.spectra(results, model)):
        parts.append(
            "<h3>Scales</h3><p>Power of single members over the truth's. Below 1 they are too "
            f"smooth.</p><figure>{picture}</figure>"
        )
    return _section(f"Calibration{name}", "".join(parts))


def _maps(panels: Sequence[MapPanel]) -> str:
    figures = [
        f"<h3>{escape(panel.title)}</h3><figure>{map_panel(panel)}</figure>" for panel in panels
    ]
    return _section("Maps", "".join(figures))


def _provenance(provenance: Mapping[str, Any]) -> str:
    recipe = provenance.get("recipe")
    rows = [
        (words(key), [f'<td class="text">{escape(str(value))}</td>'])
        for key, value in _flat(provenance)
        if key != "recipe"
    ]
    shown = f"<h3>Recipe</h3><pre>{escape(str(recipe))}</pre>" if recipe else ""
    return tables.html_table([], rows, kind="provenance") + shown if rows or shown else ""


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key} ")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return _section("Notes", f"<ul>{items}</ul>" if items else "")
