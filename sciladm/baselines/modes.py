"""Empirical orthogonal functions: anomalies as a few numbers, and what these leave out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciladm.baselines.harmonics import HarmonicMean
from sciladm.baselines.series import Fields, Series, Times, spread_out

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Modes:
    """patterns (mode, channel·cell), orthonormal over anomalies times weight (channel·cell,) =
    √(relative area)/normaliser; amplitudes are divided by `size` (mode,), their sd in training.

    Cells that are NaN in the mean (masked) hold 0 here and NaN in every field made.
    """

    mean: HarmonicMean
    weight: Fields
    valid: NDArray[np.bool_]
    patterns: Fields
    size: Fields

    @classmethod
    def fit(
        cls,
        train: Series,
        mean: HarmonicMean,
        area: Floats,
        normaliser: Floats,
        modes: int,
        snapshots: int = 1500,
    ) -> Modes:
        """Eigenvectors of the Gram matrix of at most about `snapshots` training fields, up to
        `modes`, a third of the fields, or 99.9 % of the variance."""
        weight = np.sqrt(area / area.mean()).ravel() / np.asarray(normaliser)[:, None]
        weight = weight.astype(np.float32).ravel()
        valid = np.isfinite(mean.coefficients).all(axis=(0, 1)).ravel()
        blank = np.zeros((0, weight.size), np.float32)
        bare = cls(mean, weight, valid, blank, blank[:, 0])
        index = spread_out(train, np.arange(len(train.times)), snapshots)
        sample = np.concatenate(
            [
                bare.anomalies(train.times[some], train.read(some))
                for some in np.array_split(index, -(-len(index) // 128))
            ]
        )
        values, vectors = np.linalg.eigh((sample @ sample.T).astype(np.float64) / len(index))
        values, vectors = values[::-1], vectors[:, ::-1]
        enough = int(np.searchsorted(np.cumsum(values) / values.sum(), 0.999)) + 1
        count = max(1, min(modes, enough, len(index) // 3))
        size = np.sqrt(values[:count])
        patterns = (vectors[:, :count] / (size * np.sqrt(len(index)))).T.astype(np.float32)
        return cls(mean, weight, valid, patterns @ sample, size.astype(np.float32))

    def anomalies(self, times: Times, values: Fields) -> Fields:
        """Weighted anomalies (time, channel·cell) of values (time, channel, *space)."""
        flat = (values - self.mean.at(times)).reshape(len(values), -1)
        return np.where(self.valid, flat, np.float32(0.0)) * self.weight

    def amplitudes(self, anomalies: Fields) -> Fields:
        """(time, mode), of unit variance in training."""
        return np.asarray((anomalies @ self.patterns.T) / self.size)

    def anomaly(self, amplitudes: Fields) -> Fields:
        """Weighted anomalies (…, channel·cell)."""
        return np.asarray((amplitudes * self.size) @ self.patterns)

    def left_out(self, anomalies: Fields) -> Fields:
        """What the modes do not hold of weighted anomalies (time, channel·cell)."""
        return anomalies - self.anomaly(self.amplitudes(anomalies))

    def fields(self, times: Times, anomalies: Fields) -> Fields:
        """Physical fields (…, time, channel, *space) of weighted anomalies (…, time, cell)."""
        mean = self.mean.at(times)
        free = np.where(self.valid, anomalies / self.weight, np.float32(np.nan))
        return np.asarray(mean + free.reshape(*anomalies.shape[:-1], *mean.shape[1:]))
