"""The climatological mean as two annual harmonics for each time of day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciladm.baselines.series import YEAR, Fields, Series, Times, time_of_day, year_day
from sciladm.conventions import UserError

SHORTEST = np.timedelta64(int(1.9 * YEAR), "D")
"""Training over less than about two years gives a mean per time of day, without a year in it."""


def annual_basis(times: Times, terms: int) -> NDArray[np.float64]:
    """1, cos, sin of one and two waves a year (time, terms): the first `terms` of these."""
    phase = 2.0 * np.pi * year_day(times) / YEAR
    columns = [np.ones_like(phase)]
    columns += [f(k * phase) for k in (1, 2) for f in (np.cos, np.sin)]
    return np.stack(columns[:terms], axis=-1)


@dataclass(frozen=True)
class HarmonicMean:
    """coefficients (time of day, term, channel, *space), least squares over training."""

    of_day: NDArray[np.timedelta64]
    coefficients: Fields

    @classmethod
    def fit(cls, train: Series) -> HarmonicMean:
        """One pass over training, by normal equations."""
        terms = 5 if train.times[-1] - train.times[0] >= SHORTEST else 1
        of_day = np.unique(time_of_day(train.times))
        normal = np.zeros((len(of_day), terms, terms))
        right: NDArray[np.float64] | None = None
        for times, values in train.blocks():
            basis = annual_basis(times, terms)
            flat = values.reshape(len(values), -1)
            right = np.zeros((len(of_day), terms, flat.shape[1])) if right is None else right
            for i, t in enumerate(of_day):
                rows = time_of_day(times) == t
                normal[i] += basis[rows].T @ basis[rows]
                right[i] += basis[rows].astype(np.float32).T @ flat[rows]
        if right is None:
            raise UserError("There is no training data to take a climatology from.")
        solved = np.linalg.solve(normal, right).astype(np.float32)
        return cls(of_day, solved.reshape(len(of_day), terms, *values.shape[1:]))

    def at(self, times: Times) -> Fields:
        """The mean (time, channel, *space), physical units."""
        which = np.searchsorted(self.of_day, time_of_day(times)) % len(self.of_day)
        if (self.of_day[which] != time_of_day(times)).any():
            hours = ", ".join(f"{t / np.timedelta64(1, 'h'):g}" for t in self.of_day)
            raise UserError(
                f"There is no training data at the time of day of {times[0]}, only at {hours} h."
            )
        shape = self.coefficients.shape
        basis = annual_basis(times, shape[1]).astype(np.float32)
        out = np.empty((len(times), *shape[2:]), np.float32)
        for i in np.unique(which):
            rows = which == i
            out[rows] = np.tensordot(basis[rows], self.coefficients[i], axes=1)
        return out
