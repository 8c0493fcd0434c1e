"""A Gaussian field given linear observations of it: y = A x + e, e ~ N(0, R)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from sciladm.simulate.waves import Covariance, Real


class Prior(Protocol):
    """A Gaussian law."""

    @property
    def mean(self) -> Real:
        """(…, channel, *space)."""
        ...

    @property
    def covariance(self) -> Covariance:
        """Of all fields of the batch."""
        ...

    def sample(self, random: np.random.Generator, count: int) -> Real:
        """(count, …, channel, *space)."""
        ...


@dataclass(frozen=True, eq=False)
class Conditional:
    """N(μ + K(y − Aμ), C − K A C), K = C Aᵀ S⁻¹, S = A C Aᵀ + R.

    operator A (observation, size), values y (…, observation), noise R (observation, observation),
    crossed A C (observation, size), factor the lower Cholesky factor of S.
    """

    prior: Prior
    operator: Real
    values: Real
    noise: Real
    crossed: Real
    factor: Real

    @property
    def mean(self) -> Real:
        """(…, channel, *space)."""
        return self.corrected(self.prior.mean, np.zeros(()))

    @cached_property
    def variance(self) -> Real:
        """Of each number (channel, *space): the same whatever was observed."""
        whitened = self._whiten(self.crossed)
        known = (whitened**2).sum(axis=0).reshape(self.prior.covariance.layout.shape)
        return np.asarray(np.maximum(self.prior.covariance.diagonal - known, 0.0))

    @cached_property
    def log_evidence(self) -> Real:
        """log N(y; Aμ, S), in nats (…)."""
        misfit = self._misfit(self.prior.mean, 0.0)
        apart = self._whiten(misfit.reshape(-1, misfit.shape[-1]).T)
        scale = 2 * np.log(np.diag(self.factor)).sum() + len(self.factor) * np.log(2 * np.pi)
        return np.asarray(-0.5 * ((apart**2).sum(axis=0).reshape(misfit.shape[:-1]) + scale))

    def sample(self, random: np.random.Generator, count: int) -> Real:
        """By conditional simulation, (count, …, channel, *space): a draw x of the prior with an
        error e of its own becomes x + K(y − A x − e)."""
        drawn = self.prior.sample(random, count)
        lead = drawn.ndim - len(self.prior.covariance.layout.shape)
        white = random.standard_normal((*drawn.shape[:lead], len(self.noise)))
        values, vectors = np.linalg.eigh(self.noise)
        error = (white * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        return self.corrected(drawn, error)

    def corrected(self, x: Real, error: Real) -> Real:
        """x + K(y − A x − error)."""
        misfit = self._misfit(x, error)
        flat = misfit.reshape(-1, misfit.shape[-1])
        dual = cho_solve((self.factor, True), flat.T).T.reshape(misfit.shape)
        gained = (dual @ self.crossed).reshape(
            *misfit.shape[:-1], *self.prior.covariance.layout.shape
        )
        return np.asarray(x + gained)

    def _whiten(self, columns: Real) -> Real:
        return np.asarray(solve_triangular(self.factor, columns, lower=True))

    def _misfit(self, x: Real, error: Real | float) -> Real:
        lead = x.ndim - len(self.prior.covariance.layout.shape)
        told = x.reshape(*x.shape[:lead], -1) @ self.operator.T
        return np.asarray(self.values - told - error)


def observe(prior: Prior, operator: ArrayLike, values: ArrayLike, error: ArrayLike) -> Conditional:
    """The law of a field given values = operator · x + e; shapes as `Gaussian.condition` says.

    ValueError where the observations contradict each other for want of an error.
    """
    layout = prior.covariance.layout
    rows = np.asarray(operator, np.float64)
    rows = rows.reshape(len(rows), layout.size)
    spread = np.asarray(error, np.float64)
    if spread.ndim < 2:
        spread = np.diag(np.broadcast_to(spread**2, len(rows)))
    crossed = prior.covariance.times(rows.reshape(-1, *layout.shape)).reshape(rows.shape)
    try:
        factor = cho_factor(crossed @ rows.T + spread, lower=True)[0]
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{len(rows)} observations without error say more than the field is free to do; "
            "give an error above 0, or fewer of them"
        ) from None
    told = np.asarray(values, np.float64)
    return Conditional(prior, rows, told, spread, crossed, np.tril(factor))
