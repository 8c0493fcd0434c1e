"""Which noise levels a network is trained on: those at which something about the data changes.

As σ falls, a mode of variance λ comes out of the noise: what the best denoiser leaves of it,
λ σ² / (λ + σ²), changes with ln σ as a logistic density does, centred at ½ ln λ, of standard
deviation π / √12. Over all modes that makes a mean and a standard deviation of ln σ. Below and
above nothing is left to tell, but a sampler passes there too, and an untrained network is wrong
there: training is half as wide again.
"""

from math import pi, sqrt

import torch
from torch import Tensor

WIDER = 1.5
"""Measured (docs/log.md): with 1 the ends stay untrained, 2 is no better."""
LEAST = 1e-6
"""Of the largest variance: what varies less, a channel that is constant, has no level."""


def spectrum(r: Tensor) -> Tensor:
    """Variances of the modes of r (sample, channel, *space): waves along every axis, and for each
    wave the patterns of channels that vary most in every other sample, as the samples between
    have them: few samples do not bend the spectrum."""
    waves = torch.fft.fftn(r, dim=list(range(2, r.ndim)), norm="ortho")
    rows = waves.flatten(2).movedim(2, 0)
    found, other = rows[:, ::2], rows[:, 1::2]
    patterns = torch.linalg.eigh(found.mH @ found).eigenvectors
    variances: Tensor = (other @ patterns).abs().square().mean(1)
    return variances


def training_levels(r: Tensor) -> tuple[float, float]:
    """Centre and standard deviation of ln σ for departures r (sample, channel, *space). Two
    digits, so that the last bits of an eigenvalue do not matter."""
    variances = spectrum(r).clamp(min=1e-12)
    half = variances[variances >= LEAST * variances.max()].log() / 2
    spread = WIDER * sqrt(pi**2 / 12 + float(half.var(correction=0)))
    return round(float(half.mean()), 2), round(spread, 2)
