"""What is kept of one forecast at one lead: weighted sums over regions, which add over cases.

Everything is in units of the normaliser (a variable's climatological standard deviation), so
that variables of any units share one array and `all` is a plain mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciladm.metrics.ensemble import (
    Blocks,
    crps_terms,
    energy_score,
    gram,
    largest_member,
    truth_ranks,
    variogram_score,
)

Floats = NDArray[np.floating]

STATISTICS = {
    "member_error": "cell", "member_distance": "cell", "median_error": "cell",
    "error": "cell", "square": "cell", "variance": "cell", "outlier": "cell",
    "change_error": "change", "change_distance": "change",
    "block_error": "block", "block_distance": "block",
    "energy": "joint", "variogram": "joint",
}  # fmt: skip
"""Statistic → the group of weights by which it is averaged."""
GROUPS = ("cell", "change", "block", "joint")
ROW = {name: i for i, name in enumerate(STATISTICS)}

SPREAD_BINS = 96
"""Bins of spread/normaliser, 8 to the octave from 2⁻⁹: fine enough to be cut into fifths later."""


@dataclass(frozen=True)
class Case:
    """Sums of one forecast at one lead. S statistics, V variables and last `all`, R regions,
    A atoms (the parts into which the regions cut the grid), M members.

    sums (S, V+1, R) over weights (group, V+1, R); ranks (V, A, M+1) and spread_bins
    (V, A, bin, 3: weight, variance, squared error), by area; largest: a number, NaN if undefined.
    """

    sums: NDArray[np.float32]
    weights: NDArray[np.float32]
    ranks: Floats
    spread_bins: Floats
    largest: float


class Cells:
    """The grid and the variables as the statistics see them; everything flattened over space.

    `winds` maps the name of a speed to the two channels of which it is the length; speeds are
    scored as further variables after the channels.
    """

    def __init__(
        self,
        channels: Sequence[str],
        regions: Mapping[str, NDArray[np.bool_]],
        area: Floats,
        normaliser: Floats,
        headline: Sequence[str],
        winds: Mapping[str, tuple[str, str]],
    ) -> None:
        self.channels, self.shape = tuple(channels), area.shape
        self.winds = [tuple(channels.index(c) for c in pair) for pair in winds.values()]
        self.variables = (*channels, *winds)
        speed = [np.hypot(*normaliser[list(pair)]) / np.sqrt(2.0) for pair in self.winds]
        self.scale = np.concatenate([normaliser, speed]).astype(np.float32)
        self.headline = [channels.index(name) for name in headline]
        self.regions = tuple(regions)
        masks = np.stack([np.broadcast_to(m, self.shape).ravel() for m in regions.values()], 1)
        share = area.reshape(-1, 1) * masks
        self.region_weights = (share / share.sum(axis=0)).astype(np.float32)
        self.atoms, self.atom = np.unique(masks, axis=0, return_inverse=True)
        self.area = (area / area.sum()).ravel().astype(np.float32)
        self.small = Blocks(self.shape, tuple(min(4, n) for n in self.shape))
        self.large = Blocks(self.shape, tuple(-(-n // 6) for n in self.shape))

    def deviations(self, members: Floats, truth: Floats, valid: NDArray[np.bool_]) -> Deviations:
        """From members (M, C, *space), truth and valid (C, *space), in physical units."""
        m, c = members.shape[:2]
        x, y, ok = members.reshape(m, c, -1), truth.reshape(c, -1), valid.reshape(c, -1)
        if not ok.all():  # first of all: what lies there may be anything
            x, y = np.where(ok, x, np.float32(0)), np.where(ok, y, np.float32(0))
            ok = np.concatenate([ok, *(ok[None, u] & ok[None, v] for u, v in self.winds)])
        else:
            ok = np.ones((len(self.variables), ok.shape[1]), bool)
        apart = np.empty((m, *ok.shape), np.float32)
        np.subtract(x, y, out=apart[:, :c])
        speeds = []
        for i, (u, v) in enumerate(self.winds, start=c):
            speeds.append(np.hypot(y[u], y[v]))
            apart[:, i] = (np.hypot(x[:, u], x[:, v]) - speeds[-1]) * ok[i]
        y = np.concatenate([y, *(s[None] for s in speeds)]).astype(np.float32)
        apart /= self.scale[:, None]
        y /= self.scale[:, None]
        return Deviations(apart, y, ok.astype(np.float32))


@dataclass(frozen=True)
class Deviations:
    """In units of the normaliser, flat over space, winds last: members minus truth (M, V, cells),
    truth (V, cells) and valid (V, cells) as 0 or 1; not valid cells hold 0."""

    members: Floats
    truth: Floats
    valid: Floats


def statistics(
    cells: Cells, now: Deviations, day_before: Deviations | None, rng: np.random.Generator
) -> Case:
    """All sums of one forecast at one lead; `rng` breaks ties of the ranks."""
    m, v, _ = now.members.shape
    sums = np.zeros((len(STATISTICS), v + 1, len(cells.regions)), np.float32)
    weights = np.zeros((len(GROUPS), v + 1, len(cells.regions)), np.float32)
    zero, mean = np.zeros_like(now.truth), now.members.mean(axis=0)
    variance = now.members.var(axis=0, ddof=1) if m > 1 else zero
    rank = truth_ranks(now.members, zero, rng)
    outlier = ((rank == 0) | (rank == m)).astype(np.float32)
    error, distance, median = crps_terms(now.members, zero)
    rows = [error, distance, np.abs(median), mean, mean**2, variance, outlier]
    _regional(rows, now.valid, cells.region_weights, "member_error", sums, weights)
    if day_before is not None:
        terms = crps_terms(now.members - day_before.members, zero)[:2]
        both = now.valid * day_before.valid
        _regional(terms, both, cells.region_weights, "change_error", sums, weights)
    means, weight = cells.small.mean(now.members, now.valid * cells.area)
    region = cells.small.total(np.ascontiguousarray(cells.region_weights.T)).T
    terms = crps_terms(means, np.zeros_like(means[0]))[:2]
    share = weight / cells.small.total(cells.area)
    _regional(terms, share, region, "block_error", sums, weights)
    largest = _joint(cells, now, sums, weights) if m > 1 else float("nan")
    weight = now.valid * cells.area
    return Case(
        sums,
        weights,
        _ranks(cells, rank, weight, m),
        _bins(cells, variance, mean, weight),
        largest,
    )


def _regional(
    rows: Sequence[Floats],
    valid: Floats,
    columns: Floats,
    first: str,
    sums: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> None:
    """Put the rows' weighted sums over regions in `sums`, from the statistic `first` on."""
    at, v = ROW[first], len(valid)
    sums[at : at + len(rows), :v] = np.stack([(row * valid) @ columns for row in rows])
    weights[GROUPS.index(STATISTICS[first]), :v] = valid @ columns


def _joint(
    cells: Cells, now: Deviations, sums: NDArray[np.float32], weights: NDArray[np.float32]
) -> float:
    """Energy and variogram score per variable and, last, of the headline, in the first region;
    returns the largest member."""
    weight = now.valid * cells.region_weights[:, 0]
    total = weight.sum(axis=1)
    seen = total > 0
    weight = weight / np.where(seen, total, 1.0)[:, None].astype(np.float32)
    products = gram(now.members, np.zeros_like(now.truth), weight)
    headline = products[cells.headline].mean(axis=0)
    sums[ROW["energy"], :, 0] = energy_score(np.concatenate([products, headline[None]]))
    truth = cells.large.mean(now.truth, weight)[0]
    members = cells.large.mean(now.members, weight)[0] + truth
    score = variogram_score(members, truth)
    sums[ROW["variogram"], :, 0] = [*score, score[cells.headline].mean()]
    complete = bool(seen[cells.headline].all())
    weights[GROUPS.index("joint"), :, 0] = [*seen, complete]
    return float(largest_member(headline)) if complete else float("nan")


def _ranks(cells: Cells, rank: NDArray[np.integer], weight: Floats, m: int) -> Floats:
    v, a = len(rank), len(cells.atoms)
    place = (np.arange(v)[:, None] * a + cells.atom) * (m + 1) + rank
    counts = np.bincount(place.ravel(), weight.ravel(), minlength=v * a * (m + 1))
    return np.asarray(counts.reshape(v, a, m + 1))


def _bins(cells: Cells, variance: Floats, mean: Floats, weight: Floats) -> Floats:
    v, a = len(variance), len(cells.atoms)
    octave = 0.5 * np.log2(np.maximum(variance, 1e-12)) + 9.0
    spread = np.clip((8.0 * octave).astype(np.int64), 0, SPREAD_BINS - 1)
    place = ((np.arange(v)[:, None] * a + cells.atom) * SPREAD_BINS + spread).ravel()
    columns = [
        np.bincount(place, row.ravel(), minlength=v * a * SPREAD_BINS)
        for row in (weight, weight * variance, weight * mean**2)
    ]
    return np.stack(columns, axis=-1, dtype=np.float64).reshape(v, a, SPREAD_BINS, 3)
