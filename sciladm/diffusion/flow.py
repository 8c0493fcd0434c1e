"""Both ways along the probability flow: noise ⇄ data, and the path between two of them."""

import math

import numpy as np
import torch
from torch import Tensor

from sciladm.diffusion.sampler.base import Denoise, Linear, Update, log_grid
from sciladm.diffusion.sampler.multistep import Multistep, exponential_weights


class Flow(Linear):
    """The probability flow dx/d(ln σ) = x − D(x, σ) (Song et al. 2021, arXiv:2011.13456, eq. 13;
    Karras et al. 2022, arXiv:2206.00364, eq. 1), from data at σ = 0 to noise at σ_max and back;
    ``steps`` evaluations either way.

    Up it is `Multistep` on the same kind of grid, run the other way: exponential multistep of
    order 3 with corrector from σ_min to σ_max. The way from 0 to σ_min is one implicit midpoint
    step in q = σ², where dx/dq = (x − D) / 2q is smooth: m = x₀ + ½ (m − D(m, σ_min/√2)), whose
    fixed point two evaluations find, and x(σ_min) = 2m − x₀. Down it is `Multistep` itself.
    """

    def __init__(self, steps: int = 64, sigma_max: float = 80.0, sigma_min: float = 0.005) -> None:
        if steps < 6:
            raise ValueError(f"a flow needs 6 evaluations or more; got {steps}")
        self.sigmas = log_grid(steps - 2, sigma_max, sigma_min)[::-1]
        self.start = sigma_min / math.sqrt(2)
        t = -np.log(self.sigmas)
        every = range(len(t) - 1)
        self.updates = [exponential_weights(t[max(0, n - 2) : n + 1], t[n], t[n + 1])
                        for n in every]  # fmt: skip
        self.updates.append(Update(1 / sigma_max, [0.0]))
        self.corrections = [exponential_weights(t[min(n, max(0, n - 1)) : n + 2], t[n], t[n + 1])
                            for n in every]  # fmt: skip
        self.back = Multistep(steps, sigma_max, sigma_min)

    def up(self, denoise: Denoise, r: Tensor) -> Tensor:
        """Data r (batch, channel, *space) → the noise that leads to them, standard normal where
        the denoiser is that of their law."""
        middle = r + (r - denoise(r, self.start)) / 2
        middle = r + (middle - denoise(middle, self.start)) / 2
        return self.sample(denoise, (2 * middle - r) / self.sigmas[0])

    def down(self, denoise: Denoise, noise: Tensor) -> Tensor:
        """The inverse of `up`."""
        return self.back.sample(denoise, noise)

    @property
    def quadrature(self) -> list[float]:
        """Weights of ∫ f(σ) d(ln σ) from 0 to σ_max for the evaluations of `up`, in order.

        Up to σ_min f is a line in q: its value in the middle times ∫ dq / 2q · q/q_m = 1. From
        there on the trapezoidal rule in ln σ: f goes over from one constant to another, so that
        its error is beyond all orders of the step (Euler–Maclaurin).
        """
        step = math.log(self.sigmas[1] / self.sigmas[0])
        between = [step] * (len(self.sigmas) - 2)
        return [0.0, 1.0, step / 2, *between, step / 2]


def between(one: Tensor, other: Tensor, share: float) -> Tensor:
    """The point that lies ``share`` of the way from one to the other (batch, channel, *space)
    along the great circle through them: normal numbers stay normal numbers, where their mean
    would have half the variance (Shoemake 1985, section 3.3; White 2016, arXiv:1609.04468,
    section 2.1)."""
    axes = list(range(1, one.ndim))
    a, b = one.double(), other.double()
    size = [torch.linalg.vector_norm(x, dim=axes, keepdim=True).clamp(min=1e-300) for x in (a, b)]
    cosine = ((a / size[0]) * (b / size[1])).sum(axes, keepdim=True).clamp(-1, 1)
    angle = cosine.arccos()
    sine = angle.sin()
    near = sine < 1e-6
    safe = sine.where(~near, 1)
    start = ((1 - share) * angle).sin() / safe
    end = (share * angle).sin() / safe
    mixed: Tensor = start.where(~near, 1 - share) * a + end.where(~near, share) * b
    return mixed.to(one)
