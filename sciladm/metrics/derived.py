"""From mean statistics to metrics: every one a function of means over cases and area."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sciladm.metrics.statistics import GROUPS, STATISTICS

Values = dict[str, NDArray[np.float64]]

MEAN_OF_RATIOS = ("fair_crps", "crps", "rmse", "change_crps", "block_crps")
"""Metrics whose `all` is the mean over headline variables of the ratio to the normaliser."""

LOWER_IS_BETTER = (*MEAN_OF_RATIOS, "mae", "energy_score", "variogram_score")

WITHOUT_UNITS = ("spread_skill", "outliers", "share_of_skill")


def means(
    sums: NDArray[np.float32], weights: NDArray[np.float32], cases: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Mean statistics, each (resample, V+1, R), NaN where nothing was seen.

    sums (case, S, V+1, R), weights (case, group, V+1, R), cases (resample, case): how often
    each case counts.
    """

    def total(x: NDArray[np.float32]) -> NDArray[np.float64]:
        flat = cases @ x.reshape(len(x), -1).astype(np.float64)
        return flat.reshape(len(cases), *x.shape[1:])

    upper, lower = total(sums), total(weights)
    lower = np.where(lower > 0, lower, np.nan)
    return {
        name: upper[:, i] / lower[:, GROUPS.index(group)]
        for i, (name, group) in enumerate(STATISTICS.items())
    }


def metrics(mean: Mapping[str, NDArray[np.float64]], m: int, headline: Sequence[int]) -> Values:
    """Metrics (…, V+1, R) of M-member forecasts, in units of the normaliser; the last variable is
    `all`, NaN where VERIFICATION defines none."""
    out: Values = {
        "mae": mean["median_error"],
        "rmse": np.sqrt(mean["square"]),
        "bias": mean["error"].copy(),
    }
    if m > 1:
        biased = (m - 1) / m
        inflated = (m + 1) / m * mean["variance"]
        out |= {
            "fair_crps": mean["member_error"] - mean["member_distance"],
            "crps": mean["member_error"] - biased * mean["member_distance"],
            "spread": np.sqrt(mean["variance"]),
            "spread_skill": np.sqrt(inflated / mean["square"]),
            "outliers": mean["outlier"] * ((m + 1) / 2),
            "change_crps": mean["change_error"] - mean["change_distance"],
            "block_crps": mean["block_error"] - mean["block_distance"],
            "energy_score": mean["energy"],
            "variogram_score": mean["variogram"],
        }
        pooled = [x[..., headline, :].sum(axis=-2) for x in (inflated, mean["square"])]
        out["spread_skill"][..., -1, :] = np.sqrt(pooled[0] / pooled[1])
    for name in MEAN_OF_RATIOS:
        if name in out:
            out[name][..., -1, :] = out[name][..., headline, :].mean(axis=-2)
    return out


def share_of_skill(climatology: Values, model: Values, perfect: Values) -> NDArray[np.float64]:
    """(climatology − model)/(climatology − perfect), fair CRPS; `all` from the three `all`.
    NaN where the sample's own denominator (row 0) is under 0.1 × climatology's."""
    c, f, p = (x["fair_crps"] for x in (climatology, model, perfect))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (c - f) / (c - p)
    return np.asarray(np.where((c - p)[0] < 0.1 * c[0], np.nan, share))


def spread_classes(
    bins: NDArray[np.float64], m: int, classes: int = 5
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cells sorted by spread into classes of equal area: (expected error, error, weight), shape
    (3, …, class), and the slope (…,) of the second on the first.

    bins (…, bin, 3: weight, variance, squared error). A bin that straddles two classes is
    shared between them. The expected error is √((M+1)/M · variance). The spread of few members
    is itself noisy, which flattens the slope of a perfect ensemble too: compare with its.
    """
    weight = bins[..., 0]
    ends = np.cumsum(weight, axis=-1)
    total = ends[..., -1:]
    edges = np.arange(classes + 1) / classes * total
    upper = np.minimum(ends[..., None, :], edges[..., 1:, None])
    lower = np.maximum((ends - weight)[..., None, :], edges[..., :-1, None])
    share = np.maximum(upper - lower, 0.0) / np.where(weight > 0, weight, 1.0)[..., None, :]
    held = share @ bins
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.sqrt((m + 1) / m * held[..., 1] / held[..., 0])
        error = np.sqrt(held[..., 2] / held[..., 0])
        away = expected - expected.mean(axis=-1, keepdims=True)  # classes weigh the same
        slope = (away * error).sum(axis=-1) / (away**2).sum(axis=-1)
    return np.stack([expected, error, held[..., 0]]), slope


def find_winds(channels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Pairs of wind components among channel names: `wind_speed_500`, `10m_wind_speed`."""
    found = {}
    for name in channels:
        other = name.replace("u_component", "v_component")
        if other != name and other in channels:
            found[re.sub(r"u_component_of_wind", "wind_speed", name)] = (name, other)
    return found


def verdict(low: float, high: float, score: float) -> str:
    """Of a − b where lower is better: better if the interval lies below zero, no worse if its
    upper end is below 1 % of b's score, worse if it lies above zero, else unclear."""
    if np.isnan(low):
        return "too few"
    if high < 0:
        return "better"
    if high < 0.01 * score:
        return "no worse"
    return "worse" if low > 0 else "unclear"
