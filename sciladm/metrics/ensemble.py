"""Scores of one ensemble against one truth: numpy kernels that know no names, grids or files.

Members lie on the leading axis. A fair score is unbiased for the infinite ensemble from which
the members were drawn, hence comparable between ensemble sizes; members drawn in antithetic
pairs break it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
_SLAB = 16384  # columns sorted at once: with 16 members 1 MB, which stays in cache


def crps_terms(members: Floats, truth: Floats) -> tuple[Floats, Floats, Floats]:
    """The parts of the CRPS, and the ensemble's median; each of the shape of `truth`.

    error = M⁻¹ Σᵢ |xᵢ − y|;  distance = Σ_{i<j} |xᵢ − xⱼ| / (M(M−1)), from the sorted members
    as Σᵢ (2i − M − 1) x₍ᵢ₎ / (M(M−1)); zero for a single member. Then (Ferro 2014, eq. 8)
    fair CRPS = error − distance and the biased CRPS = error − distance·(M−1)/M.
    """
    m = members.shape[0]
    x, y = members.reshape(m, -1), truth.reshape(-1)
    error, distance, median = (np.empty_like(x[0]) for _ in range(3))
    gini = (2.0 * np.arange(1, m + 1) - m - 1.0) / max(m * (m - 1), 1)
    weights = np.zeros((m, 2), x.dtype)
    weights[:, 0] = gini
    weights[[(m - 1) // 2, m // 2], 1] += 0.5
    for start in range(0, y.size, _SLAB):
        slab = slice(start, start + _SLAB)
        centred = np.ascontiguousarray((x[:, slab] - y[slab]).T)
        error[slab] = np.abs(centred) @ np.full(m, 1.0 / m, x.dtype)
        centred.sort(axis=1)
        distance[slab], middle = (centred @ weights).T
        median[slab] = middle + y[slab]
    return error.reshape(truth.shape), distance.reshape(truth.shape), median.reshape(truth.shape)


def fair_crps(members: Floats, truth: Floats) -> Floats:
    """The M(M−1) estimator, per cell."""
    error, distance, _ = crps_terms(members, truth)
    return np.asarray(error - distance)


def crps(members: Floats, truth: Floats) -> Floats:
    """CRPS of the members' empirical distribution (M²), per cell: too high by O(1/M)."""
    error, distance, _ = crps_terms(members, truth)
    return np.asarray(error - distance * ((members.shape[0] - 1) / members.shape[0]))


def truth_ranks(members: Floats, truth: Floats, rng: np.random.Generator) -> NDArray[np.integer]:
    """How many members lie below the truth, 0…M, per cell; ties are broken at random."""
    below = (members < truth).sum(axis=0, dtype=np.int64)
    ties = (members == truth).sum(axis=0, dtype=np.int64)
    tied = np.nonzero(ties)
    if tied[0].size:
        below[tied] += rng.integers(0, ties[tied] + 1)
    return np.asarray(below)


def gram(members: Floats, truth: Floats, weights: Floats) -> NDArray[np.float64]:
    """Scalar products (…, M+1, M+1) of the M deviations from the ensemble mean and, last, of
    the mean's error. members (M, …, n), truth (…, n), weights (…, n), which should sum to 1.

    Gram matrices of disjoint sets of cells or variables add. About the mean, not the truth:
    else the distances of close members drown in the mean's error.
    """
    mean = members.mean(axis=0)
    rows = np.concatenate([members - mean, (mean - truth)[None]]) * np.sqrt(weights)
    rows = np.ascontiguousarray(np.moveaxis(rows, 0, -2))
    return np.asarray(rows @ np.swapaxes(rows, -1, -2), np.float64)


def energy_score(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fair energy score (Gneiting & Raftery 2007, eq. 22) from `gram`:
    M⁻¹ Σᵢ ‖xᵢ − y‖ − Σᵢⱼ ‖xᵢ − xⱼ‖ / (2M(M−1))."""
    m = products.shape[-1] - 1
    own = np.diagonal(products, axis1=-2, axis2=-1)
    to_truth = own[..., :m] + own[..., m:] + 2.0 * products[..., :m, m]
    inner = products[..., :m, :m]
    between = own[..., :m, None] + own[..., None, :m] - 2.0 * inner
    between[..., range(m), range(m)] = 0.0
    pairs = np.sqrt(np.maximum(between, 0.0)).sum(axis=(-2, -1)) / (2 * m * (m - 1))
    return np.asarray(np.sqrt(np.maximum(to_truth, 0.0)).mean(axis=-1) - pairs)


def largest_member(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest over median distance of a member from the ensemble mean, from `gram`; NaN where
    the members coincide."""
    own = np.diagonal(products, axis1=-2, axis2=-1)[..., :-1]
    distance = np.sqrt(np.maximum(own, 0.0))
    median = np.median(distance, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(median > 0, distance.max(axis=-1) / median, np.nan))


def variogram_score(members: Floats, truth: Floats, power: float = 0.5) -> Floats:
    """Mean over pairs of places k < l of (|y_k − y_l|ᵖ − M⁻¹ Σᵢ |x_ik − x_il|ᵖ)² (Scheuerer &
    Hamill 2015, eq. 5, equal weights). members (M, …, n), truth (…, n) → (…).

    Not fair: compare equal M only.
    """
    k, l = np.triu_indices(truth.shape[-1], 1)

    def variogram(x: Floats) -> Floats:
        return np.asarray(np.abs(x[..., k] - x[..., l]) ** power)

    return np.asarray(((variogram(truth) - variogram(members).mean(axis=0)) ** 2).mean(axis=-1))


class Blocks:
    """Weighted means over blocks of cells: `count` blocks at most along each axis of `shape`,
    the last of an axis smaller where it does not divide."""

    def __init__(self, shape: tuple[int, ...], width: tuple[int, ...]) -> None:
        self.shape = shape
        self.blocks = tuple(-(-n // w) for n, w in zip(shape, width, strict=True))
        self._sum = [
            (np.arange(n)[:, None] // w == np.arange(-(-n // w))).astype(np.float32)
            for n, w in zip(shape, width, strict=True)
        ]

    def total(self, x: Floats) -> Floats:
        """Sums (…, blocks) of x (…, cells), both flattened over space."""
        y = x.reshape(*x.shape[:-1], *self.shape)
        for axis in range(-1, -len(self.shape) - 1, -1):
            y = np.moveaxis(np.moveaxis(y, axis, -1) @ self._sum[axis], -1, axis)
        return np.asarray(y.reshape(*x.shape[:-1], -1))

    def mean(self, x: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Means of x (…, n, cells) under `weights` (n, cells), 0 where a block has none, and
        the blocks' weights (n, blocks)."""
        weight = self.total(weights)
        return self.total(x * weights) / np.where(weight > 0, weight, 1.0), weight
