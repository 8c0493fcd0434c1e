"""Euler and Heun with churn, on the grid of Karras et al. 2022 (arXiv:2206.00364)."""

import math

from torch import Tensor

from sciladm.diffusion.sampler.base import Denoise, Fresh, Linear, Update, no_fresh, power_grid


def churned(sigmas: list[float], churn: float) -> list[float]:
    """The levels σ̂ = (1 + γ) σ to which noise is added before each step,
    γ = min(churn / steps, √2 − 1) (algorithm 2, line 4)."""
    if churn < 0:
        raise ValueError(f"churn is 0 (no fresh noise) or more; got {churn:g}")
    return [sigma * (1 + min(churn / len(sigmas), math.sqrt(2) - 1)) for sigma in sigmas]


class Euler(Linear):
    """Euler's method for dx/dσ = (x − D)/σ (algorithm 2 without its lines 7 and 8); `steps`
    evaluations, first order. Without churn the same map as `Ddim`, on another grid.

    The noise that lifts x from σ to σ̂ is added where a step ends, and at the start is part of
    the start: x = σ̂₀ n.
    """

    def __init__(
        self,
        steps: int = 100,
        sigma_max: float = 80.0,
        sigma_min: float = 0.002,
        churn: float = 0.0,
    ) -> None:
        sigmas = power_grid(steps, sigma_max, sigma_min)
        self.sigmas = churned(sigmas, churn)
        self.updates = []
        for now, after, lifted in zip(self.sigmas, [*sigmas[1:], 0.0], [*self.sigmas[1:], 0.0],
                                      strict=True):  # fmt: skip
            spread = math.sqrt(lifted**2 - after**2)
            self.updates.append(Update(after / now, [1 - after / now], spread))


class Heun:
    """Heun's method with churn (algorithm 2, S_noise = 1 at all σ); 2 · `steps` − 1 evaluations,
    order 2. The reference; over-dispersive in every mode when steps are few.

    Fresh noise lifts x from σ to σ̂; an Euler step to σ′ follows, and is repeated with the mean
    of the slopes at both ends. Step k = 1, 2, … uses draw k.
    """

    def __init__(
        self,
        steps: int = 64,
        sigma_max: float = 80.0,
        sigma_min: float = 0.002,
        churn: float = 0.0,
    ) -> None:
        self.sigmas = [*power_grid(steps, sigma_max, sigma_min), 0.0]
        self.lifted = churned(self.sigmas[:-1], churn)

    def sample(self, denoise: Denoise, noise: Tensor, fresh: Fresh = no_fresh) -> Tensor:
        """Standard normal `noise` (batch, channel, *space) → samples of the same shape."""
        x = noise * self.sigmas[0]
        for n, now in enumerate(self.lifted):
            sigma, after = self.sigmas[n : n + 2]
            if now > sigma:
                x = x.add(fresh(n + 1), alpha=math.sqrt(now**2 - sigma**2))
            slope = (x - denoise(x, now)) / now
            euler = x.add(slope, alpha=after - now)
            if after:
                slope = (slope + (euler - denoise(euler, after)) / after) / 2
                euler = x.add(slope, alpha=after - now)
            x = euler
        return x
