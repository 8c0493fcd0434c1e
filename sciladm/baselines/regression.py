"""Amplitudes regressed on those one lead before: shrunk, chosen on validation, cross-validated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sciladm.baselines.series import Fields, Series, spread_out

Floats = NDArray[np.floating]
FOLDS = 5
SHRINKAGE = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
"""Ridge λ on amplitudes of unit variance, G = C(τ)(C(0) + λ)⁻¹; beyond them ∞, climatology."""


class LaggedRegression:
    """Regression of amplitudes on those one lead before, with each fifth of training (a
    stretch of time, not a random fifth) able to be left out."""

    def __init__(self, train: Series, z: Fields, lead: np.timedelta64, size: Fields) -> None:
        self.train, self.z, self.lead, self.size = train, z, lead, size
        starts = train.starts(np.array([lead]))
        ends = train.find(train.times[starts] + lead)
        self.edges = starts[np.arange(1, FOLDS) * len(starts) // FOLDS]
        folds = self.fold(starts)
        count = z.shape[1]
        self.square = np.zeros((FOLDS, count, count), np.float64)
        self.cross = np.zeros((FOLDS, count, count), np.float64)
        self.number = np.bincount(folds, minlength=FOLDS).astype(np.float64)
        for f in range(FOLDS):
            x, y = z[starts[folds == f]], z[ends[folds == f]]
            self.square[f], self.cross[f] = x.T @ x, x.T @ y

    def fold(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which stretch (0…4) each training start lies in."""
        return np.searchsorted(self.edges, starts, side="right")

    def _normal(self, k: int, fold: int | None) -> tuple[Floats, Floats]:
        keep = np.arange(FOLDS) != fold if fold is not None else np.ones(FOLDS, bool)
        number = self.number[keep].sum()
        square = self.square[keep, :k, :k].sum(axis=0) / number
        return square, self.cross[keep, :k].sum(axis=0) / number

    def operator(self, choice: tuple[int, float], fold: int | None) -> Fields:
        """(mode, mode) from the leading k predictors, training without one fold or with all."""
        k, ridge = choice
        out = np.zeros((self.z.shape[1], self.z.shape[1]), np.float32)
        if np.isfinite(ridge):
            square, cross = self._normal(k, fold)
            out[:k] = np.linalg.solve(square + ridge * np.eye(k), cross)
        return out

    def choose(self, validation: Series, w: Fields) -> tuple[int, float]:
        """(number of predictors, λ) of the least squared error in validation, all variance."""
        starts = validation.starts(np.array([self.lead]))
        if not starts.size:
            return 1, float("inf")
        starts = spread_out(validation, starts, 600)
        x, y = w[starts], w[validation.find(validation.times[starts] + self.lead)]
        total = self.z.shape[1]
        best, least = (1, float("inf")), float(((y * self.size) ** 2).sum())
        for k in sorted({-(-total // n) for n in (1, 2, 4, 8, 16)}):
            square, cross = self._normal(k, None)
            values, vectors = np.linalg.eigh(square)
            turned, inner = x[:, :k] @ vectors, vectors.T @ cross
            for ridge in SHRINKAGE:
                guess = (turned / (values + ridge)) @ inner
                error = float((((y - guess) * self.size) ** 2).sum())
                if error < least:
                    best, least = (k, ridge), error
        return best

    def errors(self, choice: tuple[int, float], starts: NDArray[np.int64]) -> Fields:
        """Errors (start, mode) of training starts, each by the operator without its fold."""
        folds = self.fold(starts)
        ends = self.train.find(self.train.times[starts] + self.lead)
        out = self.z[ends].copy()
        for f in np.unique(folds):
            out[folds == f] -= self.z[starts[folds == f]] @ self.operator(choice, int(f))
        return out
