"""Gaussian fields and mixtures of them, about which everything is known in closed form.

Shapes: a field is (channel, *space); a law may be that of a batch of fields (…, channel, *space),
each with its own mean (and, for a mixture, weights (…, component)) and one covariance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from sciladm.simulate.conditional import Conditional, observe
from sciladm.simulate.waves import Covariance, Real

OFF = 1e-9
"""Share of the variance that a field may hold outside the support of its law: rounding."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(``mean``, ``covariance``), mean (…, channel, *space)."""

    mean: Real
    covariance: Covariance

    @property
    def variance(self) -> Real:
        """Of each number (…, channel, *space)."""
        return np.broadcast_to(self.covariance.diagonal, self.mean.shape)

    def sample(self, random: np.random.Generator, count: int) -> Real:
        """(count, …, channel, *space)."""
        return self.colour(random.standard_normal((count, *self.mean.shape)))

    def colour(self, white: Real) -> Real:
        """μ + √C times white noise (…, channel, *space): a draw."""
        return self.mean + self.covariance.function(np.sqrt, white)

    def log_likelihood(self, x: Real, sigma: float = 0.0) -> Real:
        """log N(x; μ, C + σ²I) of fields x (…, channel, *space), in nats (…).

        Where C is singular and σ is 0 the density is that on the support of C, in orthonormal
        coordinates, and −∞ for a field outside it.
        """
        power = np.abs(self.covariance.coefficients(x - self.mean)) ** 2
        variance = self.covariance.eigenvalues + sigma**2
        free = variance > 0
        within = power[..., free] / variance[free] + np.log(2 * np.pi * variance[free])
        outside = power[..., ~free].sum(axis=-1) > OFF * variance.sum()
        return np.where(outside, -np.inf, -0.5 * within.sum(axis=-1))

    def score(self, x: Real, sigma: float) -> Real:
        """∇ₓ log N(x; μ, C + σ²I) = −(C + σ²I)⁻¹ (x − μ)."""
        if sigma == 0 and not self.covariance.eigenvalues.all():
            raise ValueError("a field confined to a subspace has no score at σ = 0; take σ > 0")
        return -self.covariance.function(lambda λ: 1 / (λ + sigma**2), x - self.mean)

    def clean(self, x: Real, sigma: float) -> Gaussian:
        """The law of x₀ given x₀ + σn = x, n white: its mean is the denoiser's answer, its
        covariance σ² C (C + σ²I)⁻¹ that of what the denoiser cannot know."""
        shrunk = self.covariance.function(lambda λ: λ / (λ + sigma**2), x - self.mean)
        left = self.covariance.mapped(lambda λ: λ * sigma**2 / (λ + sigma**2))
        return Gaussian(self.mean + shrunk, left)

    def denoise(self, x: Real, sigma: float) -> Real:
        """E[x₀ | x₀ + σn = x]."""
        return self.clean(x, sigma).mean

    def condition(self, operator: ArrayLike, values: ArrayLike, error: ArrayLike) -> Conditional:
        """The law given values = operator · x + e, e ~ N(0, R).

        operator (observation, channel · space), or with the field's own axes; values
        (…, observation); error: the standard deviation of e, one or (observation,), or R.
        """
        return observe(self, operator, values, error)


class Law(Protocol):
    """What every law tells."""

    @property
    def mean(self) -> Real:
        """(…, channel, *space)."""
        ...

    @property
    def variance(self) -> Real:
        """(…, channel, *space)."""
        ...

    def sample(self, random: np.random.Generator, count: int) -> Real:
        """(count, …, channel, *space)."""
        ...


L = TypeVar("L", bound=Law, covariant=True)


@dataclass(frozen=True, eq=False)
class Blend(Generic[L]):
    """One of several laws: ``components`` with the logarithms of their shares (…, component)."""

    log_weights: Real
    components: tuple[L, ...]

    @property
    def weights(self) -> Real:
        """Shares (…, component), which sum to 1."""
        return np.exp(self.log_weights)

    @property
    def mean(self) -> Real:
        """Σ w μ."""
        return self._average([one.mean for one in self.components])

    @property
    def variance(self) -> Real:
        """Σ w (variance + (μ − mean)²)."""
        mean = self.mean
        return self._average([one.variance + (one.mean - mean) ** 2 for one in self.components])

    def sample(self, random: np.random.Generator, count: int) -> Real:
        """(count, …, channel, *space); members fall to components as their shares say."""
        chance = random.random((count, *self.log_weights.shape[:-1]))
        edges = np.cumsum(self.weights, axis=-1)[..., :-1]
        chosen = (chance[..., None] >= edges).sum(axis=-1)
        drawn = [one.sample(random, count) for one in self.components]
        out = drawn[0].copy()
        for k, fields in enumerate(drawn):
            out[chosen == k] = fields[chosen == k]
        return out

    def _average(self, parts: list[Real]) -> Real:
        return weighted(self.weights, parts)


def weighted(weights: Real, parts: list[Real]) -> Real:
    """Σ w parts: weights (…, component), parts (…, channel, *space) each."""
    lead = weights.ndim - 1
    total = np.zeros(())
    for k, part in enumerate(parts):
        w = weights[..., k]
        total = total + w.reshape(*w.shape, *(1,) * (part.ndim - lead)) * part
    return np.asarray(total)


class Mixture(Blend[Gaussian]):
    """Σ w N(μ, C). Whatever is asked, each component answers for itself and counts as much as
    it is likely, given what is known."""

    def responsibilities(self, x: Real, sigma: float = 0.0) -> Real:
        """log p(component | x) for x = x₀ + σn: (…, component)."""
        return normalised(self._joint(lambda one: one.log_likelihood(x, sigma)))

    def log_likelihood(self, x: Real, sigma: float = 0.0) -> Real:
        """log of the density of x₀ + σn at x, in nats (…)."""
        joint = self._joint(lambda one: one.log_likelihood(x, sigma))
        return np.asarray(logsumexp(joint, axis=-1))

    def score(self, x: Real, sigma: float) -> Real:
        """∇ₓ of the `log_likelihood` at σ."""
        own = np.exp(self.responsibilities(x, sigma))
        return weighted(own, [one.score(x, sigma) for one in self.components])

    def clean(self, x: Real, sigma: float) -> Mixture:
        """The law of x₀ given x₀ + σn = x."""
        parts = tuple(one.clean(x, sigma) for one in self.components)
        return Mixture(self.responsibilities(x, sigma), parts)

    def denoise(self, x: Real, sigma: float) -> Real:
        """E[x₀ | x₀ + σn = x]."""
        return self.clean(x, sigma).mean

    def condition(
        self, operator: ArrayLike, values: ArrayLike, error: ArrayLike
    ) -> Blend[Conditional]:
        """The law given values = operator · x + e, as `Gaussian.condition` takes them."""
        parts = tuple(one.condition(operator, values, error) for one in self.components)
        joint = self.log_weights + np.stack([one.log_evidence for one in parts], axis=-1)
        return Blend(normalised(joint), parts)

    def _joint(self, log_likelihood: Callable[[Gaussian], Real]) -> Real:
        each = [log_likelihood(one) for one in self.components]
        return self.log_weights + np.stack(each, axis=-1)


def normalised(joint: NDArray[np.float64]) -> Real:
    """log weights (…, component) that sum to 1."""
    return np.asarray(joint - logsumexp(joint, axis=-1, keepdims=True))
