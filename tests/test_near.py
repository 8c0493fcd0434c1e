"""Draws near what is given, from white Gaussian departures and their exact denoiser."""

import math

import pytest
import torch

from sciladm.diffusion.sampler import SAMPLERS, Near
from sciladm.diffusion.sampler.near import SMALLEST, keeping, kept
from tests.oracles import gaussian_denoise

NUMBERS = 40_000
DENOISE = gaussian_denoise(1.0)
SAMPLERS_AND_KEYS = [(name, {}) for name in SAMPLERS] + [
    ("heun", {"churn": 10.0}), ("euler", {"churn": 10.0}), ("ddim", {"eta": 0.5}),
    ("langevin", {"corrections": 3}),
]  # fmt: skip


def normal(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 1, NUMBERS, generator=generator, dtype=torch.float64)


def made(name, steps=60, **own):
    return lambda sigma: SAMPLERS[name](steps, sigma, min(0.02, sigma / 4), **own)


def drawn(sampler):
    """r and what is drawn near it."""
    r = normal(1000)
    return r, Near(sampler, r).sample(DENOISE, normal(0), normal)


def correlation(a, b):
    return float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt())


@pytest.mark.parametrize(("name", "own"), SAMPLERS_AND_KEYS)
@pytest.mark.parametrize("share", [0.97, 0.8, 0.4])
def test_draws_keep_what_they_were_asked_to(name, own, share):
    r, x = drawn(keeping(made(name, **own), share, 30.0))
    error = 4 * (1 - share**2) / math.sqrt(NUMBERS)
    assert abs(correlation(r, x) - share) < error + 0.02 * (1 - share)
    assert abs(float(x.var()) - 1) < 0.04 + 0.1 * (1 - share)  # samplers of order 1 lose some


def test_the_flow_and_the_reverse_diffusion_keep_what_theory_says():
    for sigma in (0.1, 0.7, 3.0):
        start, flow = kept(made("multistep")(sigma))
        assert start == pytest.approx(sigma)
        assert flow == pytest.approx((1 + sigma**2) ** -0.5, abs=1e-4)
        diffusion = kept(made("ancestral", 1000)(sigma))[1]
        assert diffusion == pytest.approx(1 / (1 + sigma**2), abs=3e-3)


@pytest.mark.parametrize(("name", "own"), [("euler", {"churn": 10.0}), ("langevin", {})])
def test_samplers_that_begin_elsewhere_than_at_their_first_level(name, own):
    """Churn lifts it, Langevin begins below; what is given must not be scaled with the noise."""
    sampler, r = made(name, **own)(0.6), normal(1000)

    def given(near):
        seen = []
        near.sample(
            lambda x, sigma: seen.append(x.clone()) or DENOISE(x, sigma), normal(0), normal
        )
        return float((seen[0] * r).mean() / r.square().mean())

    near = Near(sampler, r)
    assert given(near) == pytest.approx(1, abs=0.02)
    near.sigma = 0.6  # as if it began where it was told
    assert abs(given(near) - 1) > 0.05


def test_both_ends():
    make = made("multistep", 18)
    assert keeping(make, 0.0, 30.0) is None and keeping(make, 0.02, 30.0) is None
    assert kept(keeping(make, 0.05, 30.0))[0] < 30
    assert kept(keeping(make, 1.0, 30.0))[0] == pytest.approx(SMALLEST, rel=1e-3)
