"""Langevin predictor–corrector: Markov chain Monte Carlo at every noise level."""

import math

from torch import Tensor

from sciladm.diffusion.sampler.base import Denoise, Fresh, log_grid, no_fresh


class Langevin:
    """Predictor–corrector (Song et al. 2021, arXiv:2011.13456, algorithm 1): an ancestral step
    down to each noise level, then `corrections` Langevin steps at it, whose stationary
    distribution is p(x; σ). More of them take away what the steps before got wrong.

    A corrector of the usual kind, x ← x + ε ∇ln p + √(2ε) n, has a bias of O(ε) of its own that
    no number of corrections removes, and the usual ε is made of norms over the batch, so that a
    member would depend on its neighbours. Here ε = δ σ², δ = `stride`, and the rule is that of
    Leimkuhler & Matthews (2013, AMRX, eq. 1.7; arXiv:1203.5428): y lives at τ = σ √(1 − δ/2),

        x = y + σ √(δ/2) n,    y ← 2x − y + δ (D(x, σ) − x).

    Modes of variance v contract to their exact variance by (1 − δ σ²/(v + σ²))² a step, without
    a bias for any Gaussian and with O(δ²) otherwise. Uniform in ln τ from τ = σ_max √(1 − δ/2) to
    τ = σ_min √(1 − δ/2), and the sample is D(y, τ): 1 + (`corrections` + 1) · (`steps` − 1)
    evaluations. Draws are numbered in the order of their use.
    """

    def __init__(
        self,
        steps: int = 40,
        sigma_max: float = 80.0,
        sigma_min: float = 0.002,
        corrections: int = 1,
        stride: float = 0.5,
    ) -> None:
        if corrections < 0 or not 0 < stride <= 1:
            raise ValueError(
                f"Langevin needs corrections ≥ 0 and 0 < stride ≤ 1; got {corrections}, {stride:g}"
            )
        self.sigmas = log_grid(steps, sigma_max, sigma_min)
        self.corrections, self.stride = corrections, stride

    def sample(self, denoise: Denoise, noise: Tensor, fresh: Fresh = no_fresh) -> Tensor:
        """Standard normal `noise` (batch, channel, *space) → samples of the same shape."""
        below, draw = math.sqrt(1 - self.stride / 2), 0
        y = noise * (self.sigmas[0] * below)
        kept = (self.sigmas[-1] / self.sigmas[0]) ** (2 / (len(self.sigmas) - 1))  # σ′²/σ²
        for before, sigma in zip(self.sigmas[:-1], self.sigmas[1:], strict=True):
            draw += 1
            drift = denoise(y, before * below) * (1 - kept)
            y = drift.add(y, alpha=kept).add(
                fresh(draw), alpha=sigma * below * math.sqrt(1 - kept)
            )
            for _ in range(self.corrections):
                draw += 1
                lift = fresh(draw) * (sigma * math.sqrt(self.stride / 2))
                x = y + lift
                y = (x + lift).add(denoise(x, sigma) - x, alpha=self.stride)
        return denoise(y, self.sigmas[-1] * below)
