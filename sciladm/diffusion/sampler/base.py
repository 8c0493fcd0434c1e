"""What samplers share: their interface, their grids of noise levels, and the linear step.

A sampler knows a function denoise(x, σ) → E[x₀ | x₀ + σ n = x] and nothing else: guided, tiled or
exact, a denoiser is a denoiser. All work in x = x₀ + σ n; a network of another kind (v, flow) is
brought to it by `Denoise`. Coefficients are Python floats, computed in float64 before the loop,
so that no loop waits for the device.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
Fresh = Callable[[int], Tensor]
"""Draw 1, 2, … of standard normal numbers (batch, channel, *space): always the same numbers for
the same draw. Whoever calls the sampler owns the labels, so that a draw belongs to its member;
draw 0 is free for the start. For a device, copy from pinned memory, which does not wait."""


def no_fresh(draw: int) -> Tensor:
    """The draws of a caller that gives none; deterministic samplers never ask."""
    raise ValueError(
        f"this sampler is stochastic and asks for fresh noise, draw {draw}: give "
        "`fresh`, a function from the draw's number to standard normal numbers"
    )


class Sampler(Protocol):
    """What every sampler offers. Start and fresh draws are two arguments because the start may be
    anything (the noise of an inverted state, noise that remembers the day before)."""

    def sample(self, denoise: Denoise, noise: Tensor, fresh: Fresh = no_fresh) -> Tensor:
        """Standard normal `noise` (batch, channel, *space) → samples of the same shape."""
        ...


def checked(steps: int, sigma_max: float, sigma_min: float) -> None:
    """ValueError for settings that no sampler has."""
    if steps < 2 or not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            "a sampler needs steps ≥ 2 and 0 < sigma_min < sigma_max; got "
            f"{steps}, {sigma_min:g}, {sigma_max:g}"
        )


def log_grid(steps: int, sigma_max: float, sigma_min: float) -> list[float]:
    """`steps` noise levels, evenly spaced in ln σ: modes of all variances fare alike."""
    checked(steps, sigma_max, sigma_min)
    return [float(s) for s in np.geomspace(sigma_max, sigma_min, steps)]


def power_grid(steps: int, sigma_max: float, sigma_min: float, rho: float = 7.0) -> list[float]:
    """`steps` noise levels, evenly spaced in σ^{1/ρ} (Karras et al. 2022, arXiv:2206.00364,
    eq. 5): dense at small σ."""
    checked(steps, sigma_max, sigma_min)
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [float(s) for s in np.linspace(*ends, steps) ** rho]


class Update(NamedTuple):
    """x ← decay · x + Σ weights · D + spread · n, the weights for the newest evaluations D of the
    denoiser, newest last."""

    decay: float
    weights: Sequence[float]
    spread: float = 0.0

    def apply(self, x: Tensor, seen: Sequence[Tensor], fresh: Fresh, draw: int) -> Tensor:
        """The next x; `draw` numbers the noise, if there is any."""
        out = x * self.decay
        for evaluation, weight in zip(seen[-len(self.weights) :], self.weights, strict=True):
            out.add_(evaluation, alpha=weight)
        if self.spread:
            out.add_(fresh(draw), alpha=self.spread)
        return out


class Linear:
    """A sampler that is nothing but coefficients: at each of `sigmas` one evaluation, then one of
    `updates`, whose last one arrives at σ = 0. Step k = 1, 2, … uses draw k.

    With `corrections`, one per step but the last, each step is repeated from where it started
    once the evaluation at its end is known, which the next step needs anyway. That evaluation is
    not repeated: the noise found at the guess is taken to be the noise, so D moves with x.
    """

    sigmas: Sequence[float]
    updates: Sequence[Update]
    corrections: Sequence[Update] = ()

    def sample(self, denoise: Denoise, noise: Tensor, fresh: Fresh = no_fresh) -> Tensor:
        """Standard normal `noise` (batch, channel, *space) → samples of the same shape."""
        x = guess = noise * self.sigmas[0]
        seen: list[Tensor] = []
        for n, (sigma, update) in enumerate(zip(self.sigmas, self.updates, strict=True)):
            seen = [*seen[-2:], denoise(guess, sigma)]
            if n and self.corrections:
                x = self.corrections[n - 1].apply(x, seen, fresh, n)
                seen[-1] = seen[-1] + (x - guess)
            else:
                x = guess
            guess = update.apply(x, seen, fresh, n + 1)
        return guess
