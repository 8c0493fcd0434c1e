"""Implicit and ancestral sampling, the first order of all: DDIM and DDPM."""

import math

from sciladm.diffusion.sampler.base import Linear, Update, log_grid


class Ddim(Linear):
    """Denoising diffusion implicit model (Song et al. 2021, arXiv:2010.02502, eq. 12 and 16).

    In x = x₀ + σ n, with s = η σ′ √(1 − σ′²/σ²) and n fresh,

        x′ = D + √(σ′² − s²)/σ · (x − D) + s n.

    η = 0 is deterministic, and then the same map as Euler's method in σ, on another grid; η = 1
    is ancestral sampling. Uniform in ln σ, the last step goes to D(σ_min); `steps` evaluations.
    First order: every mode comes out too small, by ¼ h (1 + η²) of its amplitude with h = ln σ/σ′.
    """

    def __init__(
        self,
        steps: int = 100,
        sigma_max: float = 80.0,
        sigma_min: float = 0.002,
        eta: float = 0.0,
    ) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta goes from 0, deterministic, to 1, ancestral; got {eta:g}")
        self.sigmas = log_grid(steps, sigma_max, sigma_min)
        self.updates = []
        for sigma, after in zip(self.sigmas, [*self.sigmas[1:], 0.0], strict=True):
            spread = eta * after * math.sqrt(1 - (after / sigma) ** 2)
            decay = math.sqrt(after**2 - spread**2) / sigma
            self.updates.append(Update(decay, [1 - decay], spread))


class Ancestral(Ddim):
    """Ancestral sampling (DDPM; Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7): x′ is drawn from
    q(x′ | x, x₀ = D) = N(D + σ′²/σ² (x − D), σ′² (1 − σ′²/σ²)). This is DDIM at η = 1."""

    def __init__(
        self, steps: int = 200, sigma_max: float = 80.0, sigma_min: float = 0.002
    ) -> None:
        super().__init__(steps, sigma_max, sigma_min, eta=1.0)
