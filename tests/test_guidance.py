"""Guided denoisers, against closed forms of what guidance does to Gaussians."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sciladm.conventions import UserError
from sciladm.diffusion.denoiser import Context, Denoiser
from sciladm.diffusion.departure import Departure
from sciladm.diffusion.guidance import apart, guided, resting, together
from sciladm.diffusion.mean import MeanForecast
from sciladm.diffusion.noise import Key, training_sigma
from sciladm.diffusion.sampler import Multistep
from sciladm.model import Model
from sciladm.nn.linear import LocalLinear
from sciladm.nn.unet import UNet
from sciladm.tasks.fit_denoiser import _told
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
    base = MeanForecast(
        LocalLinear(1, 2, torch.zeros(shape, dtype=torch.int64), ends), None, False
    )
    denoiser = Denoiser(backbone, base, departure, torch.ones(shape))
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


def test_training_without_context():
    """r is ±0.8, as a label says, and noise of 0.6: with the label a normal distribution, without
    it the mixture of both. Against the exact denoisers of the two."""
    torch.manual_seed(0)
    ends, shape, n = ("periodic",), (4,), 128
    rows = torch.zeros(shape, dtype=torch.int64)
    base = MeanForecast(LocalLinear(1, 1, rows, ends), None, says_scale=False)
    backbone = UNet(1 + 2, 1, ends, widths=(16,), blocks=1, attention=False)
    model = Denoiser(backbone, base, Departure(1, rows, ends, 0), torch.ones(shape))
    optimiser = torch.optim.Adam(backbone.parameters(), lr=8e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 300)

    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        label = torch.randint(2, (n, 1, 1), generator=generator).expand(n, 1, *shape) * 2.0 - 1
        r = PLACE * label + 0.6 * torch.randn(n, 1, *shape, generator=generator)
        return label, r, torch.randn(n, 1, *shape, generator=generator)

    for step in range(300):
        label, r, noise = drawn(step)
        context = model.context(label, label[:, :0], torch.zeros(0, *shape))
        context = model.told(context, _told(0, step, n, 0.5))
        loss = model.loss(r, context, training_sigma(0, step, n, 0.0, 1.0), noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()

    label, r, noise = drawn(10_000)
    context = model.context(label, label[:, :0], torch.zeros(0, *shape))
    for sigma in (0.3, 1.0, 3.0):
        x = r + sigma * noise
        one, other = (normal_denoise(sign * PLACE, 0.36)(x, sigma) for sign in (1, -1))
        odds = (2 * PLACE * x.sum(-1, keepdim=True) / (0.36 + sigma**2)).sigmoid()
        want = torch.where(label > 0, one, other), odds * one + (1 - odds) * other
        with torch.no_grad():
            found = model(x, sigma, context), model(x, sigma, model.told(context, 0.0))
        apart = (want[0] - want[1]).square().mean()
        for got, right in zip(found, want, strict=True):
            assert (got - right).square().mean() < 0.1 * apart + 0.003


def test_as_many_windows_are_without_context_as_was_said():
    told = torch.stack([_told(0, step, 48, 0.3) for step in range(200)])
    assert abs(float(1 - told.mean()) - 0.3) < 0.02 and set(told.unique().tolist()) == {0, 1}
    assert torch.equal(told[7], _told(0, 7, 48, 0.3)) and not torch.equal(told[7], told[8])
    assert _told(0, 3, 48, 0.0).all()


def test_guidance_in_a_run(tiny_run):
    model = Model.load(tiny_run)
    past = torch.zeros(2, 1, model.recipe.autoencoder.channels, *model.grid.shape)
    times = np.array(["2001-01-01"], "M8[ns]")

    def drawn(**sampler):
        model.recipe = model.recipe.model_copy(
            update={"sampler": model.recipe.sampler.model_copy(update=sampler)}
        )
        return model.sample(past, times, [Key(0, 1, 0, member) for member in range(2)])[0]

    plain, same, more = drawn(), drawn(guidance=1.0), drawn(guidance=3.0)
    torch.testing.assert_close(same, plain, atol=1e-4, rtol=1e-4)
    assert (more - plain).abs().max() > 1e-3
    assert torch.equal(drawn(guidance=3.0, guidance_interval=(1e5, 1e6)), plain)
    with pytest.raises(UserError, match=r"denoiser\.dropout"):
        Model.load(tiny_run, changes={"sampler.guidance": 2.0})
