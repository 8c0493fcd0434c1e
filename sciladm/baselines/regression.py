"""Amplitudes regressed on those one lead before: shrunk, held out by stretches, chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciladm.baselines.series import Fields, Series, spread_out
from sciladm.calendar import later

Floats = NDArray[np.floating]
FOLDS = 5
SHRINKAGE = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Ridge λ, in units of the amplitudes' variance in training, 1."""


@dataclass(frozen=True)
class Choice:
    """`predictors` k = 0: each mode by itself; `damping` 0: no forecast, climatology."""

    predictors: int
    ridge: float
    damping: float = 1.0


class LaggedRegression:
    """z(t + lead) ≈ z(t) G, over training z (time, mode) of unit variance.

    G = α·(D + (C₀ + λ)⁻¹(C_τ − C₀D)) over the leading k predictors, D the modes' own lagged
    correlations: with little data it falls back on each mode's damped persistence first, on
    climatology last. Training is cut into five stretches of time; any one can be left out.
    """

    def __init__(self, train: Series, z: Fields, lead: np.timedelta64, size: Fields) -> None:
        self.train, self.z, self.lead, self.size = train, z, lead, size
        self.starts = train.starts(np.array([lead]))
        ends = train.find(later(train.times[self.starts], lead))
        self.edges = self.starts[np.arange(1, FOLDS) * len(self.starts) // FOLDS]
        folds, count = self.fold(self.starts), z.shape[1]
        self.square = np.zeros((FOLDS, count, count))
        self.cross = np.zeros((FOLDS, count, count))
        for f in range(FOLDS):
            x, y = z[self.starts[folds == f]], z[ends[folds == f]]
            self.square[f], self.cross[f] = x.T @ x, x.T @ y

    def fold(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which stretch (0…4) each training start lies in."""
        return np.searchsorted(self.edges, starts, side="right")

    def _normal(self, fold: int | None) -> tuple[Floats, Floats, Floats]:
        """C₀, C_τ − C₀D (mode, mode) and D (mode,), without one stretch or from all."""
        keep = np.arange(FOLDS) != fold if fold is not None else np.ones(FOLDS, bool)
        square, cross = self.square[keep].sum(axis=0), self.cross[keep].sum(axis=0)
        own = np.diag(cross) / np.maximum(np.diag(square), 1e-12)
        number = len(self.starts) * keep.mean()
        return square / number, (cross - square * own) / number, own

    def operator(self, choice: Choice, fold: int | None = None) -> Fields:
        """G (mode before, mode after)."""
        k = choice.predictors
        square, cross, own = self._normal(fold)
        out = np.diag(own)
        if k:
            out[:k] += np.linalg.solve(square[:k, :k] + choice.ridge * np.eye(k), cross[:k])
        return np.asarray(choice.damping * out, np.float32)

    def _held_out(
        self, validation: Series, w: Fields
    ) -> Iterator[tuple[Fields, Fields, int | None]]:
        """(amplitudes at starts, one lead later, stretch to leave out) of all that can judge."""
        starts = validation.starts(np.array([self.lead]))
        if starts.size:
            starts = spread_out(validation, starts, 600)
            yield w[starts], w[validation.find(later(validation.times[starts], self.lead))], None
        starts = spread_out(self.train, self.starts, 600)
        ends = self.train.find(later(self.train.times[starts], self.lead))
        folds = self.fold(starts)
        for f in range(FOLDS):
            yield self.z[starts[folds == f]], self.z[ends[folds == f]], f

    def choose(self, validation: Series, w: Fields) -> Choice:
        """The choice of the least squared error in validation's amplitudes w (time, mode) and in
        training held out, in variance: one short validation period alone would mislead. The
        damping is the regression of what came on what was forecast, held within [0, 1]."""
        total = self.z.shape[1]
        products: dict[tuple[int, float], Floats] = {}

        def count(k: int, ridge: float, guess: Floats, truth: Floats) -> None:
            p, y = guess * self.size, truth * self.size
            sums = np.array([(y * y).sum(), (y * p).sum(), (p * p).sum()], np.float64)
            products[k, ridge] = products.get((k, ridge), np.zeros(3)) + sums

        for x, y, fold in self._held_out(validation, w):
            square, cross, own = self._normal(fold)
            count(0, 0.0, x * own, y)
            for k in sorted({-(-total // n) for n in (1, 2, 4, 8)}):
                values, vectors = np.linalg.eigh(square[:k, :k])
                turned, inner = x[:, :k] @ vectors, vectors.T @ cross[:k]
                for ridge in SHRINKAGE:
                    count(k, ridge, x * own + (turned / (values + ridge)) @ inner, y)
        best, least = Choice(0, 0.0, 0.0), np.inf
        for (k, ridge), (yy, yp, pp) in products.items():
            damping = float(np.clip(yp / max(pp, 1e-30), 0.0, 1.0))
            error = yy - 2 * damping * yp + damping**2 * pp
            if error < least:
                best, least = Choice(k, ridge, damping), error
        return best

    def errors(self, choice: Choice, starts: NDArray[np.int64]) -> Fields:
        """Errors (start, mode) of training starts, each by the operator without its stretch."""
        folds = self.fold(starts)
        ends = self.train.find(later(self.train.times[starts], self.lead))
        out = self.z[ends].copy()
        for f in np.unique(folds):
            out[folds == f] -= self.z[starts[folds == f]] @ self.operator(choice, int(f))
        return out
