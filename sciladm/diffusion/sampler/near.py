"""Draws near something given: a sampler that starts from it under noise, not from noise alone."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sciladm.diffusion.sampler.base import Denoise, Fresh, Sampler, no_fresh

SMALLEST = 1e-3
"""σ below which a draw cannot be told from what it starts from."""
DRAWS = 4096
"""More than a sampler has."""


class Near:
    """A sampler is a sampler: this one starts from ``given`` white departures r (batch, channel,
    *space) under the noise that ``sampler`` starts from, r + σ n."""

    def __init__(self, sampler: Sampler, given: Tensor) -> None:
        self.sampler, self.given = sampler, given
        self.sigma = kept(sampler)[0]

    def sample(self, denoise: Denoise, noise: Tensor, fresh: Fresh = no_fresh) -> Tensor:
        """Standard normal `noise` (batch, channel, *space) → samples of the same shape."""
        return self.sampler.sample(denoise, noise + self.given / self.sigma, fresh)


def kept(sampler: Sampler) -> tuple[float, float]:
    """σ of the noise that a sampler starts from, and the correlation ρ that white Gaussian r have
    with what it draws from r + σ n.

    Samplers are linear in x where the denoiser is, so their answers to the start and to each fresh
    draw, one number of x for each, tell. The probability flow shrinks x, ρ = (1 + σ²)^−½. Fresh
    noise on the way keeps less: a draw from p(r | r + σ n) has ρ = 1 / (1 + σ²), so `ancestral`
    starts at a smaller σ for the same ρ.
    """
    seen: list[Tensor] = []
    each = torch.eye(DRAWS, 1, dtype=torch.float64).T[None]

    def denoise(x: Tensor, sigma: float) -> Tensor:
        seen.append(x.clone())
        return x / (1 + sigma**2)

    end = sampler.sample(denoise, each, lambda draw: each.roll(draw, -1))[0, 0]
    sigma = float(seen[0][0, 0, 0])
    of_r = float(end[0]) / sigma
    return sigma, of_r / math.hypot(of_r, float(end.norm()))


def keeping(make: Callable[[float], Sampler], share: float, sigma_max: float) -> Sampler | None:
    """Of samplers made for a first σ the one that keeps the correlation ``share``; None where even
    σ_max keeps more, so that noise alone is as good a start."""
    if share <= kept(make(sigma_max))[1]:
        return None
    low, high = np.log([SMALLEST, sigma_max])
    while high - low > 1e-4:
        middle = (low + high) / 2
        more = kept(make(float(np.exp(middle))))[1] > share
        low, high = (middle, high) if more else (low, middle)
    return make(float(np.exp(high)))
