"""Denoisers made of denoisers: a guided denoiser is a denoiser, and no sampler knows of it.

Guidance draws from something else than what was learnt: sharper, and with less spread
(docs/guidance.md measures how much). Ensembles that are to be calibrated do without.
"""

from collections.abc import Callable
from dataclasses import astuple
from functools import partial

import torch
from torch import Tensor

from sciladm.diffusion.denoiser import Context, Denoiser
from sciladm.diffusion.sampler.base import Denoise

Pair = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""x (batch, channel, *space), σ → what the one and what the other denoiser says."""


def guided(pair: Pair, weight: float) -> Denoise:
    """D₀ + w (D₁ − D₀) of the pair (D₁, D₀); w = 1 is D₁ alone.

    Classifier-free guidance where D₀ lacks the context that D₁ has (Ho & Salimans 2022,
    arXiv:2207.12598, eq. 6 with 1 + w there for w here), autoguidance where D₀ is a weaker copy
    with the same context (Karras et al. 2024, arXiv:2406.02507, eq. 3).
    """

    def denoise(x: Tensor, sigma: float) -> Tensor:
        good, poor = pair(x, sigma)
        return torch.lerp(poor, good, weight)

    return denoise


def resting(guided: Denoise, plain: Denoise, low: float, high: float) -> Denoise:
    """Guidance within low < σ ≤ high alone; elsewhere it rests, and costs nothing (Kynkäänniemi
    et al. 2024, arXiv:2404.07724, eq. 5)."""
    if not 0 <= low < high:
        raise ValueError(f"guidance works within low < σ ≤ high; got {low:g} and {high:g}")
    return lambda x, sigma: (guided if low < sigma <= high else plain)(x, sigma)


def apart(one: Denoise, other: Denoise) -> Pair:
    """Two denoisers, two evaluations."""
    return lambda x, sigma: (one(x, sigma), other(x, sigma))


def together(denoiser: Denoiser, context: Context, other: Context) -> Pair:
    """One network in two contexts: one evaluation of twice the batch.

    x is a whitened departure from what ``context`` expects. As a departure from what ``other``
    expects it lies elsewhere by S⁻¹ of the difference, with the same noise. Both measure
    departures by the scale of ``context``: noise that is white in one would not be in the other.
    """
    scaled = Context(other.mean, context.scale, other.features)
    shift = denoiser.white(context.mean, scaled) - denoiser.white(other.mean, scaled)
    zero = torch.zeros_like(shift)
    offset = torch.cat([zero, shift])
    pairs = zip(astuple(context), astuple(scaled), strict=True)
    both = Context(*(torch.cat(pair) for pair in pairs))

    def pair(x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        good, poor = (denoiser(torch.cat([x, x]) + offset, sigma, both) - offset).chunk(2)
        return good, poor

    return pair


def in_context(
    denoiser: Denoiser, context: Context, weight: float | None, within: tuple[float, float] | None
) -> Denoise:
    """The denoiser in a context; with a weight guided by it, ``within`` some σ alone if given."""
    plain = partial(denoiser, context=context)
    if weight is None:
        return plain
    both = guided(together(denoiser, context, denoiser.told(context, 0.0)), weight)
    return resting(both, plain, *within) if within else both
