"""Guided denoisers, against closed forms of what guidance does to Gaussians."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sciladm.diffusion.denoiser import Context, Denoiser
from sciladm.diffusion.guidance import apart, guided, resting, together
from sciladm.diffusion.sampler import Multistep
from tests.test_departure import measured, world

SHARP, BROAD, PLACE = 0.04, 1.0, 0.8
"""Variances with and without context, and the mean with it (0 without)."""
SAMPLER = Multistep(200, 300.0, 2e-3)


def normal_denoise(mean, variance):
    return lambda x, sigma: mean + (x - mean) * variance / (variance + sigma**2)


GOOD, POOR = normal_denoise(PLACE, SHARP), normal_denoise(0.0, BROAD)


def spread(denoise):
    """Of what a denoiser that is linear in x draws."""
    ends = SAMPLER.sample(denoise, torch.tensor([0.0, 1.0], dtype=torch.float64))
    return float(ends[1] - ends[0])


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 1.5, 3.0])
def test_guided_variance_is_the_weighted_geometric_mean(weight):
    """d ln(sd) = Σ wᵢ σ²/(vᵢ + σ²) d(ln σ), hence variance v₁^w v₀^(1 − w)."""
    found = spread(guided(apart(GOOD, POOR), weight))
    assert found == pytest.approx(SHARP ** (weight / 2) * BROAD ** ((1 - weight) / 2), rel=2e-3)


def test_a_noise_interval():
    low, high, weight = 0.15, 1.1, 3.0
    within = lambda v: 0.5 * np.log((v + high**2) / (v + low**2))
    want = SHARP**0.5 * np.exp((weight - 1) * (within(BROAD) - within(SHARP)))
    rests = resting(guided(apart(GOOD, POOR), weight), GOOD, low, high)
    assert spread(rests) == pytest.approx(want, rel=0.02)  # its ends fall between two steps
    assert spread(rests) > 1.3 * spread(guided(apart(GOOD, POOR), weight))


def test_where_guidance_rests_the_other_is_not_asked():
    asked = []

    def poor(x, sigma):
        asked.append(sigma)
        return POOR(x, sigma)

    denoise = resting(guided(apart(GOOD, poor), 2.0), GOOD, 0.1, 1.0)
    x = torch.ones(3)
    for sigma in (0.05, 0.1, 0.5, 1.0, 2.0):
        denoise(x, sigma)
    assert asked == [0.5, 1.0]
    with pytest.raises(ValueError, match="low < σ"):
        resting(GOOD, POOR, 1.0, 0.5)


class Linear(nn.Module):
    """A backbone that mixes channels, its input and the noise level, and counts its calls."""

    def __init__(self, inputs, outputs):
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.calls = nn.Conv2d(inputs, outputs, 1), []

    def forward(self, x, noise):
        self.calls.append(len(x))
        return torch.tanh(self.mix(x) + noise.view(-1, 1, 1, 1))


def contexts(n, shape):
    generator = torch.Generator().manual_seed(3)
    draw = lambda k: torch.randn(n, k, *shape, generator=generator)
    return [Context(draw(2), draw(2).exp(), draw(3)) for _ in range(2)]


def test_two_contexts_in_one_evaluation():
    shape, ends = (4, 6), ("pole", "periodic")
    departure = measured(world(500, shape, 0) + 0.5, shape, ends)
    backbone = Linear(2 + 3, 2)
    denoiser = Denoiser(backbone, nn.Identity(), departure, torch.ones(2, *shape))
    here, there = contexts(5, shape)
    scaled = replace(there, scale=here.scale)
    x = torch.randn(5, 2, *shape, generator=torch.Generator().manual_seed(4))
    pair = together(denoiser, here, there)
    with torch.no_grad():
        good, poor = pair(x, 0.7)
        assert backbone.calls == [10]
        torch.testing.assert_close(good, denoiser(x, 0.7, here))
        # What the other context makes of the same noisy latents, as latents.
        noisy = denoiser.clean(x, here)
        want = denoiser.clean(denoiser(denoiser.white(noisy, scaled), 0.7, there), scaled)
        torch.testing.assert_close(denoiser.clean(poor, here), want, atol=1e-4, rtol=1e-4)
        wrong = denoiser(x, 0.7, there)  # as if both expected the same
        assert (wrong - poor).abs().max() > 0.1


def test_weight_one_is_no_guidance():
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(guided(apart(GOOD, POOR), 1.0)(x, 0.4), GOOD(x, 0.4))
