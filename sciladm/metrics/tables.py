"""What a `Scorer` has collected, as DataFrames with the columns of scores.csv and its sisters.

Intervals are 95 % ones; they are blank where fewer than 15 blocks of time fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sciladm.metrics.bootstrap import Resamples, interval
from sciladm.metrics.derived import LOWER_IS_BETTER, share_of_skill, spread_classes, verdict
from sciladm.metrics.regions import SEASONS, in_season
from sciladm.metrics.scorer import Scorer

Floats = NDArray[np.floating]
SCORES = (
    "forecast", "variable", "region", "season", "lead_hours", "metric", "value", "low", "high",
    "n_init", "n_members",
)  # fmt: skip
SEASONAL = ("fair_crps", "rmse", "bias", "spread_skill")
"""Metrics that are also given by season of the initial time."""
ORACLES = ("perfect", "exact")
"""Ensembles of the truth's own distribution: from the model's own state, or by its law."""


def score_table(
    scorer: Scorer,
    resamples: int = 1000,
    seasons: bool = True,
    climatology: str = "climatology",
) -> pd.DataFrame:
    """scores.csv, in physical units; `all` in units of the normaliser.

    share_of_skill is there for every forecast scored beside `climatology` and an oracle, on the
    initial times that the three have in common. largest_member is the maximum over cases.
    """
    parts: list[pd.DataFrame] = []
    oracle = next((name for name in ORACLES if name in scorer.forecasts), "")
    for name in scorer.forecasts:
        for lead in range(len(scorer.leads)):
            parts += _forecast_rows(scorer, name, lead, resamples, seasons)
            if {climatology, oracle} <= set(scorer.forecasts) - {name}:
                parts += _share_rows(scorer, (climatology, name, oracle), lead, resamples)
    if not parts:
        return pd.DataFrame(columns=list(SCORES))
    return pd.concat(parts, ignore_index=True)[list(SCORES)]


def _forecast_rows(
    scorer: Scorer, name: str, lead: int, resamples: int, seasons: bool
) -> list[pd.DataFrame]:
    parts: list[pd.DataFrame] = []
    times = scorer.seen(name, lead)
    for season in SEASONS if seasons else SEASONS[:1]:
        chosen = times[in_season(times, season)]
        if not chosen.size:
            continue
        drawn = scorer.resamples(chosen, resamples)
        for metric, value in scorer.values(name, lead, chosen, drawn.weights).items():
            if season == "all" or metric in SEASONAL:
                labels = _labels(scorer, name, lead, len(chosen))
                labels |= {"metric": metric, "season": season}
                parts.append(_rows(scorer, value * scorer.units(metric), drawn, labels))
        if season == "all":
            parts += _single_rows(scorer, name, lead, chosen)
    return parts


def _labels(scorer: Scorer, name: str, lead: int, n_init: int) -> dict[str, str | float]:
    members, hours = scorer.forecasts[name].members, scorer.leads[lead]
    labels: dict[str, str | float] = {"forecast": name, "season": "all", "lead_hours": hours}
    return labels | {"n_init": n_init, "n_members": members}


def _rows(
    scorer: Scorer, values: Floats, drawn: Resamples, labels: Mapping[str, str | float]
) -> pd.DataFrame:
    """Rows (variable, region) of values (resample, V+1, R); undefined ones are left out."""
    low, high = interval(np.asarray(values, np.float64), drawn.blocks)
    index = pd.MultiIndex.from_product(
        [[*scorer.cells.variables, "all"], scorer.cells.regions], names=["variable", "region"]
    )
    columns = {"value": values[0].ravel(), "low": low.ravel(), "high": high.ravel()}
    frame = pd.DataFrame(columns, index=index)
    frame = frame.loc[np.isfinite(frame["value"].to_numpy())].reset_index()
    return _label(frame, labels)


def _single_rows(
    scorer: Scorer, name: str, lead: int, times: NDArray[np.datetime64]
) -> list[pd.DataFrame]:
    """Metrics without interval: the largest member, and the slope of error on spread."""
    record = scorer.forecasts[name]
    if record.members == 1:
        return []
    labels = _labels(scorer, name, lead, len(times))
    blank = Resamples(np.ones((1, len(times))), 0)
    largest = np.full((1, len(scorer.cells.variables) + 1, len(scorer.cells.regions)), np.nan)
    largest[0, -1, 0] = np.max([record.largest[t][lead] for t in times])
    slope = np.full_like(largest, np.nan)
    slope[0, :-1] = spread_classes(scorer.regional(record.spread_bins[lead]), record.members)[1]
    return [
        _rows(scorer, largest, blank, labels | {"metric": "largest_member"}),
        _rows(scorer, slope, blank, labels | {"metric": "spread_slope"}),
    ]


def _share_rows(
    scorer: Scorer, names: tuple[str, str, str], lead: int, resamples: int
) -> list[pd.DataFrame]:
    times = scorer.common(names, lead)
    if not times.size:
        return []
    drawn = scorer.resamples(times, resamples)
    climatology, model, perfect = (
        scorer.values(name, lead, times, drawn.weights) for name in names
    )
    if not all("fair_crps" in x for x in (climatology, model, perfect)):
        return []
    labels = _labels(scorer, names[1], lead, len(times)) | {"metric": "share_of_skill"}
    share = share_of_skill(climatology, model, perfect)
    return [_rows(scorer, share, drawn, labels)]


def paired_table(
    scorer: Scorer,
    a: str,
    b: str,
    metrics: Sequence[str] = LOWER_IS_BETTER,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Score of `a` minus score of `b` on the initial times that both have, with the same
    resamples: columns forecast, reference, variable, region, season, lead_hours, metric,
    difference, low, high, score (of b), verdict (of a, see `derived.verdict`), n_init,
    n_members (of a)."""
    parts: list[pd.DataFrame] = []
    for lead in range(len(scorer.leads)):
        times = scorer.common((a, b), lead)
        if not times.size:
            continue
        drawn = scorer.resamples(times, resamples)
        first, second = (scorer.values(name, lead, times, drawn.weights) for name in (a, b))
        for metric in metrics:
            if metric not in first or metric not in second:
                continue
            units = scorer.units(metric)
            labels = _labels(scorer, a, lead, len(times)) | {"metric": metric, "reference": b}
            rows = _rows(scorer, (first[metric] - second[metric]) * units, drawn, labels)
            alone = Resamples(drawn.weights[:1], 0)
            score = _rows(scorer, second[metric][:1] * units, alone, {})
            rows = rows.merge(
                score[["variable", "region", "value"]].rename(columns={"value": "score"})
            )
            parts.append(rows)
    if not parts:
        raise ValueError(f"{a} and {b} have no initial time and lead in common")
    table = pd.concat(parts, ignore_index=True).rename(columns={"value": "difference"})
    limits = zip(table["low"], table["high"], table["score"], strict=True)
    table["verdict"] = [verdict(low, high, score) for low, high, score in limits]
    return table


def rank_table(scorer: Scorer) -> pd.DataFrame:
    """ranks.csv: frequency of each rank of the truth (0…M members below it), 1 where flat.

    Neighbouring cells are not independent: judge flatness by the rows of `perfect` or `exact`.
    """
    parts: list[pd.DataFrame] = []
    for name, record in scorer.forecasts.items():
        counts = np.stack([scorer.regional(x) for x in record.ranks])
        total = counts.sum(axis=-1, keepdims=True)
        with np.errstate(invalid="ignore"):
            frequency = counts / total * (record.members + 1)
        for lead, hours in enumerate(scorer.leads):
            frame = _melt(
                {"frequency": frequency[lead]},
                {
                    "variable": scorer.cells.variables,
                    "region": scorer.cells.regions,
                    "rank": range(record.members + 1),
                },
            )
            parts.append(
                frame.assign(
                    forecast=name,
                    lead_hours=hours,
                    n_init=len(scorer.seen(name, lead)),
                    n_members=record.members,
                )
            )
    return pd.concat(parts, ignore_index=True)


def class_table(scorer: Scorer) -> pd.DataFrame:
    """Error in five classes of spread, of equal area: columns forecast, variable, region,
    lead_hours, spread_class, spread (√((M+1)/M · variance)), error, in physical units."""
    parts: list[pd.DataFrame] = []
    scale = scorer.cells.scale[:, None, None]
    for name, record in scorer.forecasts.items():
        for lead, hours in enumerate(scorer.leads):
            if record.members == 1:
                continue
            spread, error, _ = spread_classes(
                scorer.regional(record.spread_bins[lead]), record.members
            )[0]
            frame = _melt(
                {"spread": spread * scale, "error": error * scale},
                {
                    "variable": scorer.cells.variables,
                    "region": scorer.cells.regions,
                    "spread_class": range(1, spread.shape[-1] + 1),
                },
            )
            parts.append(frame.assign(forecast=name, lead_hours=hours))
    return pd.concat(parts, ignore_index=True)


def spectrum_table(scorer: Scorer, resamples: int = 1000) -> pd.DataFrame:
    """spectra.csv: mean power of members and of the truth per wavenumber, physical units², and
    their ratio with its interval; `aliased` marks scales that the grid does not carry."""
    if scorer.spectrum is None:
        raise ValueError("this Scorer was built without a spectrum")
    scale = scorer.cells.scale[: len(scorer.cells.channels), None] ** 2
    axes: dict[str, Sequence[object]] = {"variable": scorer.cells.channels}
    axes["wavenumber"] = scorer.spectrum.wavenumbers.tolist()
    parts: list[pd.DataFrame] = []
    for name, record in scorer.forecasts.items():
        for lead in range(len(scorer.leads)):
            times = scorer.seen(name, lead)
            if not times.size:
                continue
            drawn = scorer.resamples(times, resamples)
            power = np.stack([record.power[t][lead] for t in times]).astype(np.float64)
            flat = drawn.weights @ power.reshape(len(times), -1) / len(times)
            members, truth = np.moveaxis(flat.reshape(-1, *power.shape[1:]), 1, 0)
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = members / truth
            low, high = interval(ratio, drawn.blocks)
            columns = {"power": members[0] * scale, "power_truth": truth[0] * scale}
            frame = _melt(columns | {"ratio": ratio[0], "low": low, "high": high}, axes)
            aliased = np.tile(scorer.spectrum.aliased, len(scorer.cells.channels))
            labels = _labels(scorer, name, lead, len(times))
            frame = _label(frame.assign(aliased=aliased), labels).drop(columns="season")
            parts.append(frame.loc[np.isfinite(frame["power"].to_numpy())])
    return pd.concat(parts, ignore_index=True)


def _label(frame: pd.DataFrame, labels: Mapping[str, str | float]) -> pd.DataFrame:
    for column, value in labels.items():
        frame[column] = value
    return frame


def _melt(columns: Mapping[str, Floats], axes: Mapping[str, Sequence[object]]) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([list(a) for a in axes.values()], names=list(axes))
    flat = {name: values.ravel() for name, values in columns.items()}
    return pd.DataFrame(flat, index=index).reset_index()
