"""What a network is trained to say of the clean field r and the noise n that it sees mixed.

Everything else works on x = r + σ n and asks for D(x, σ) = E[r | x]. Each method of the literature
is that question with x divided by a number, σ written as a time t, and the answer given as a sum
of r and n:

    x_t = c_in(σ) x,   t = c_noise(σ),   F = signal(σ) r + noise(σ) n

From n = (x − r) / σ follows, for all of them alike,

    D = c_skip x + c_out F,   c_skip = −noise / size,   c_out = σ / size,   size = σ signal − noise
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

Curve = Callable[[Tensor], Tensor]
"""A function of σ, or of t, number by number."""


@dataclass(frozen=True)
class Parametrisation:
    """Five curves; ``level`` is the inverse of ``c_noise``. In all methods σ broadcasts with x."""

    c_in: Curve
    c_noise: Curve
    level: Curve
    signal: Curve
    noise: Curve

    def seen(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(x, σ) → (x_t, t)."""
        return self.c_in(sigma) * x, self.c_noise(sigma)

    def mixed(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `seen`."""
        sigma = self.level(t)
        return x_t / self.c_in(sigma), sigma

    def goal(self, r: Tensor, n: Tensor, sigma: Tensor) -> Tensor:
        """What the network should say, were r and n known. Nothing large cancels at any σ."""
        return self.signal(sigma) * r + self.noise(sigma) * n

    def denoised(self, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """F → D."""
        size = sigma * self.signal(sigma) - self.noise(sigma)
        return (-self.noise(sigma) / size) * x + (sigma / size) * output

    def output(self, clean: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """D → F: the inverse of `denoised`, and what this network would say where another
        one says ``clean``."""
        return self.goal(clean, (x - clean) / sigma, sigma)


def score(clean: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """∇ₓ log p(x; σ) from D (Karras et al. 2022, eq. 3)."""
    return (clean - x) / sigma**2


def clean_of_score(slope: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """The inverse of `score` (Tweedie's formula)."""
    return x + sigma**2 * slope


def _unit(sigma: Tensor) -> Tensor:
    """What makes r + σ n of variance 1 if r has it."""
    return (1 + sigma**2).rsqrt()


def _angle(sigma: Tensor) -> Tensor:
    """t of the cosine schedule, x_t = cos(π t / 2) r + sin(π t / 2) n."""
    return sigma.atan() * (2 / pi)


def _of_angle(t: Tensor) -> Tensor:
    return (t * (pi / 2)).tan()


EDM = Parametrisation(
    c_in=_unit,
    c_noise=lambda sigma: sigma.log() / 4,
    level=lambda t: (4 * t).exp(),
    signal=lambda sigma: sigma * _unit(sigma),
    noise=lambda sigma: -_unit(sigma),
)
"""Karras et al. 2022, eq. 7 and table 1, σ_data = 1."""

FLOW = Parametrisation(
    c_in=lambda sigma: 1 / (1 + sigma),
    c_noise=lambda sigma: sigma / (1 + sigma),
    level=lambda t: t / (1 - t),
    signal=lambda sigma: -torch.ones_like(sigma),
    noise=torch.ones_like,
)
"""x_t = (1 − t) r + t n, dx_t/dt = n − r (Lipman et al. 2023, arXiv:2210.02747, eq. 22–23, time
reversed; Liu et al. 2023, arXiv:2209.03003)."""

V = Parametrisation(
    c_in=_unit,
    c_noise=_angle,
    level=_of_angle,
    signal=lambda sigma: -sigma * _unit(sigma),
    noise=_unit,
)
"""v = α n − σ_t r = dx_t/dφ (Salimans & Ho 2022, arXiv:2202.00512, appendix D). But for its sign
and for how σ is told, this is EDM at σ_data = 1."""

NOISE = Parametrisation(
    c_in=_unit,
    c_noise=_angle,
    level=_of_angle,
    signal=torch.zeros_like,
    noise=torch.ones_like,
)
"""n itself (Ho et al. 2020, arXiv:2006.11239, eq. 11–12): D = x − σ F, errors grow with σ."""

PARAMETRISATIONS = {"edm": EDM, "flow": FLOW, "v": V, "noise": NOISE}
