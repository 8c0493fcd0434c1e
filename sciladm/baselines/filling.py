"""What fills gaps without a network: optimal interpolation, and empirical orthogonal functions.

Both work on anomalies of a window of frames, flattened to one vector (number,), know its training
covariance, and give a mean and a standard deviation for every number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import ndtr

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Answer = tuple[Floats, Floats]
"""Mean and standard deviation (number,)."""
SHARES = (0.0, 0.003, 0.01, 0.03, 0.1)
"""Of a covariance that is drawn to its own diagonal, among which validation chooses."""
MODES = (10, 20, 40, 80, 160, 320, 640, 1280)
"""Orthogonal functions kept, among which validation chooses."""


@dataclass(frozen=True, eq=False)
class OptimalInterpolation:
    """E[x | y] and its standard deviation for x ~ N(0, C), y = x + e where observed (Gandin
    1963). ``covariance`` (number, number): of training windows, drawn to its diagonal by
    ``share``, since so many numbers are estimated from few independent windows."""

    covariance: Floats
    share: float

    @classmethod
    def fit(
        cls, windows: Floats, validation: Sequence[tuple[Floats, Mask]], error: float
    ) -> OptimalInterpolation:
        """windows (n, number): anomalies of training; validation: whole windows, and where they
        are taken to be observed with that ``error``; the share is that of the least CRPS there."""
        sample = windows.T @ windows / len(windows)
        made = [cls(_drawn(sample, share), share) for share in SHARES]
        return min(made, key=lambda one: filled_crps(one.fill, validation, error))

    def fill(self, values: Floats, observed: Mask, error: float | Floats) -> Answer:
        """values (number,), looked at where ``observed``; error: their standard deviation, one or
        (number,)."""
        if not observed.any():
            return np.zeros(len(values)), np.sqrt(self.covariance.diagonal())
        crossed = self.covariance[observed]
        seen = crossed[:, observed] + np.diag(_least(error, observed) ** 2)
        lower, _ = factor = cho_factor(seen, lower=True)
        mean = cho_solve(factor, values[observed]) @ crossed
        known = (solve_triangular(lower, crossed, lower=True) ** 2).sum(axis=0)
        return mean, np.sqrt(np.maximum(self.covariance.diagonal() - known, 0.0))


@dataclass(frozen=True, eq=False)
class OrthogonalFunctions:
    """x = E a + rest, with the leading functions E of training: a by regression on what was
    observed, as many functions as validation likes best (Beckers & Rixen 2003; the error map of
    Beckers et al. 2006, with the variance of each amplitude and of the rest known from training).

    functions (number, mode), each with its standard deviation; rest (number,), what they leave.
    """

    functions: Floats
    rest: Floats

    @classmethod
    def fit(
        cls, windows: Floats, validation: Sequence[tuple[Floats, Mask]], error: float
    ) -> OrthogonalFunctions:
        """As `OptimalInterpolation.fit`."""
        values, vectors = np.linalg.eigh(windows.T @ windows / len(windows))
        size = np.sqrt(np.maximum(values[::-1], 0.0))
        all_ = vectors[:, ::-1] * size
        total = (all_**2).sum(axis=1)
        made = []
        for count in (n for n in MODES if n < len(total)):
            kept = all_[:, :count]
            left = np.maximum(total - (kept**2).sum(axis=1), 0.0)
            made.append(cls(kept, np.sqrt(left)))
        return min(made, key=lambda one: filled_crps(one.fill, validation, error))

    def fill(self, values: Floats, observed: Mask, error: float | Floats) -> Answer:
        """As `OptimalInterpolation.fill`."""
        amplitude, lower = self._regressed(values, observed, error)
        spread = solve_triangular(lower, self.functions.T, lower=True)
        return self.functions @ amplitude, np.sqrt((spread**2).sum(axis=0) + self.rest**2)

    def draw(
        self, values: Floats, observed: Mask, error: float | Floats, normal: Callable[..., Floats],
        members: int,
    ) -> Floats:  # fmt: skip
        """Draws (member, number) from that normal distribution, with what its numbers share."""
        amplitude, lower = self._regressed(values, observed, error)
        apart = solve_triangular(lower, normal((len(lower), members)), lower=True, trans="T")
        rest = self.rest * normal((members, len(self.rest)))
        return np.asarray((self.functions @ (amplitude[:, None] + apart)).T + rest)

    def _regressed(
        self, values: Floats, observed: Mask, error: float | Floats
    ) -> tuple[Floats, Floats]:
        """Amplitudes, and the lower factor of their precision."""
        noise = np.hypot(self.rest[observed], _least(error, observed))
        rows = self.functions[observed] / noise[:, None]
        precision = np.eye(rows.shape[1]) + rows.T @ rows
        lower = cho_factor(precision, lower=True)[0]
        return cho_solve((lower, True), rows.T @ (values[observed] / noise)), lower


def _least(error: float | Floats, observed: Mask) -> Floats:
    """Standard deviations of what was observed; equations want some."""
    return np.broadcast_to(np.maximum(error, 1e-4), observed.shape)[observed]


def gaussian_crps(mean: Floats, std: Floats, truth: Floats) -> Floats:
    """CRPS of N(mean, std²) (Gneiting et al. 2005, eq. 5), in the unit of all three."""
    std = np.maximum(std, 1e-9)
    z = (truth - mean) / std
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(std * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi)))


def _drawn(sample: Floats, share: float) -> Floats:
    drawn = (1 - share) * sample
    drawn[np.diag_indices_from(drawn)] = sample.diagonal()
    return drawn


def filled_crps(
    fill: Callable[[Floats, Mask, float], Answer],
    validation: Sequence[tuple[Floats, Mask]],
    error: float,
) -> float:
    """Mean CRPS over what was hidden of whole windows, each with where it was observed."""
    total, count = 0.0, 0
    for truth, observed in validation:
        mean, std = fill(truth, observed, error)
        total += gaussian_crps(mean, std, truth)[~observed].sum()
        count += int((~observed).sum())
    return total / max(count, 1)
