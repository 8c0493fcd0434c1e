"""Intervals for scores of dependent cases: circular blocks of elapsed time.

Whole initial times are resampled, with all their leads, variables and members; the weights
depend on the times alone, so that scores of two forecasts on the same times are paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

FEWEST_BLOCKS = 15
MOST_BLOCKS = 25
SHORTEST_BLOCK = np.timedelta64(10, "D")


@dataclass(frozen=True)
class Resamples:
    """`weights` (1 + resamples, case): how often each case counts. Row 0 is the sample itself;
    there is no other row where fewer than 15 blocks fit (`blocks`)."""

    weights: NDArray[np.float64]
    blocks: int


def resample(
    times: NDArray[np.datetime64],
    last_lead: np.timedelta64,
    resamples: int = 1000,
    seed: int = 0,
) -> Resamples:
    """Circular block bootstrap (Politis & Romano 1992) over times (case,), in any order.

    Blocks are stretches of max(10 days, `last_lead`, 1/25 of the whole), laid anywhere on the
    time axis closed to a circle; where there is time for it they are longer than need be, since
    a block hides the dependence beyond its ends. A pause longer than a block (another
    realisation, another year) counts as one shortest block: what lies beyond is independent,
    and a block in the middle of it would be empty.
    """
    shortest = float(max(SHORTEST_BLOCK, last_lead) / np.timedelta64(1, "s"))
    order = np.argsort(times, kind="stable")
    gaps = np.diff(times[order]) / np.timedelta64(1, "s")
    gaps = np.minimum(gaps, shortest)
    place = np.concatenate([[0.0], np.cumsum(gaps)])
    around = place[-1] + (float(np.median(gaps)) if gaps.size else shortest)
    length = max(shortest, around / MOST_BLOCKS)
    blocks = int(around / length + 1e-9)
    same = np.ones((1, len(times)))
    if blocks < FEWEST_BLOCKS:
        return Resamples(same, blocks)
    start = np.random.default_rng(seed).random((resamples, round(around / length))) * around
    inside = (place - start[:, :1]) % around < length
    counts = inside.astype(np.float64)
    for k in range(1, start.shape[1]):
        counts += (place - start[:, k : k + 1]) % around < length
    weights = np.empty_like(counts)
    weights[:, order] = counts
    return Resamples(np.concatenate([same, weights]), blocks)


def interval(
    values: NDArray[np.float64], blocks: int, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of the estimate values[0] from its resamples values[1:] (resample, …); NaN where
    there are none.

    The percentiles' distances from the estimate are widened by t_{n−1}/z · √(n/(n−1)), n
    blocks: the plain percentile interval of few blocks is that much too narrow for a mean.
    """
    if len(values) == 1:
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing
    tail = (1.0 - level) / 2.0
    widen = stdtrit(blocks - 1, tail) / ndtri(tail) * (blocks / (blocks - 1)) ** 0.5
    columns = np.ascontiguousarray(values[1:].reshape(len(values) - 1, -1).T)
    ends = np.quantile(columns, [tail, 1.0 - tail], axis=1, overwrite_input=True)
    ends = ends.reshape(2, *values.shape[1:])
    return values[0] + widen * (ends[0] - values[0]), values[0] + widen * (ends[1] - values[0])
