"""What is expected, and how far frames depart from it, against worlds where both are known."""

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch import nn

from sciladm.diffusion.denoiser import Denoiser
from sciladm.diffusion.departure import Departure
from sciladm.diffusion.mean import BOUND, USUAL, MeanForecast, normal_crps
from sciladm.nn.linear import LocalLinear
from sciladm.nn.unet import UNet

ENDS, SHAPE = ("pole", "periodic"), (4, 6)
ROWS = torch.arange(4)[:, None].expand(SHAPE)
NOTHING = torch.zeros(0, *SHAPE)


def generator(seed):
    return torch.Generator().manual_seed(seed)


class Says(nn.Module):
    """Mean: as the linear map has it. Scale: as the first feature has it, for both channels."""

    def forward(self, x, noise):
        return torch.cat([torch.zeros_like(x[:, :2]), x[:, :1], x[:, :1]], dim=1)


def stormy(n, seed):
    """One number f known; what comes is f, and e^(f/3) times as far off where it is f."""
    known = torch.randn(n, 1, *SHAPE, generator=generator(seed))
    noise = torch.randn(n, 2, *SHAPE, generator=generator(seed + 1))
    size = 0.5 * torch.tensor([1.0, 0.2]).view(2, 1, 1) * (known / 3).exp()
    return known, known + size * noise, size


def forecast(network, known, came):
    mean = MeanForecast(LocalLinear(1, 2, ROWS, ENDS), network)
    mean.linear.fit([(known, None, came)])
    return mean


def answer(mean, known):
    nothing = known[:, :0]
    return mean(known, nothing, NOTHING.expand(len(known), 0, *SHAPE))


@pytest.mark.parametrize("std", [0.3, 2.0])
def test_crps_is_the_integral_that_defines_it(std):
    came = torch.linspace(-3, 3, 13, dtype=torch.float64)
    y = np.linspace(-20, 20, 400_001)
    off = (ndtr(y / std) - (y >= came.numpy()[:, None])) ** 2
    want = np.trapezoid(off, y, axis=1)
    got = normal_crps(came, torch.full_like(came, std))
    np.testing.assert_allclose(got.numpy(), want, atol=1e-4)


def test_scale_is_bounded_and_in_units_of_what_the_linear_map_leaves():
    known, came, _ = stormy(200, 0)
    mean = forecast(Says(), known, came)
    for sign in (-1, 1):
        _, scale = answer(mean, torch.full((1, 1, *SHAPE), sign * 1e4))
        want = np.exp(USUAL + sign * BOUND) * mean.linear.left()[None]
        torch.testing.assert_close(scale, want)


def test_one_answer_is_the_mean_alone_and_scored_by_its_square():
    known, came, _ = stormy(200, 0)
    for network in (None, UNet(1 + 2, 2, ENDS, widths=(8,), blocks=1, attention=False)):
        mean = forecast(network, known, came)
        expected, scale = answer(mean, known)
        assert scale is None
        loss = mean.loss(known, known[:, :0], NOTHING.expand(200, 0, *SHAPE), came)
        torch.testing.assert_close(loss, ((came - expected) / mean.linear.left()).square())


def test_a_network_learns_how_far_frames_depart():
    torch.manual_seed(0)
    known, came, _ = stormy(4000, 0)
    mean = forecast(UNet(1 + 2, 4, ENDS, widths=(16,), blocks=1, attention=False), known, came)
    optimiser = torch.optim.Adam(mean.network.parameters(), lr=5e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 200)
    statics = NOTHING.expand(64, 0, *SHAPE)
    for step in range(200):
        part = torch.randint(len(came), (64,), generator=generator(step))
        loss = mean.loss(known[part], known[part][:, :0], statics, came[part]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    fresh, came, size = stormy(1000, 5)
    with torch.no_grad():
        expected, scale = answer(mean, fresh)
    assert ((expected - fresh) / size).square().mean().sqrt() < 0.15
    assert (scale / size).log().square().mean().sqrt() < 0.15
    left = (came - expected) / scale
    usual = (came - expected) / size.mean(0)
    for low, high in ((-9.0, -1.0), (-1.0, 1.0), (1.0, 9.0)):
        here = ((fresh > low) & (fresh < high)).expand_as(left)
        assert abs(float(left[here].std()) - 1) < 0.15
        assert low == -1.0 or abs(float(usual[here].std()) - 1) > 0.2  # the negative control


@pytest.fixture
def denoiser():
    known, came, _ = stormy(500, 3)
    mean = forecast(Says(), known, came)
    departure = Departure(2, ROWS, ENDS, 512)
    expected, scale = answer(mean, known)
    departure.measure(lambda: [(came - expected) / scale])
    return Denoiser(nn.Identity(), mean, departure, torch.ones(2, *SHAPE))


def test_departures_are_white_given_what_is_known(denoiser):
    known, came, _ = stormy(4000, 21)
    context = denoiser.context(known, known[:, :0], NOTHING)
    assert context.scale.log().std() > 0.3
    r = denoiser.white(came, context)
    assert abs(float(r.std()) - 1) < 0.05
    torch.testing.assert_close(denoiser.clean(r, context), came, atol=1e-4, rtol=1e-4)


def test_volume_is_that_of_the_jacobian(denoiser):
    known, came, _ = stormy(1, 12)
    context = denoiser.context(known, known[:, :0], NOTHING)
    unit = torch.eye(came.numel()).view(-1, *came.shape[1:])
    zero = denoiser.clean(torch.zeros_like(came), context)
    columns = torch.cat([denoiser.clean(u[None], context) - zero for u in unit])
    want = torch.linalg.slogdet(columns.flatten(1).double())[1]
    got = denoiser.log_volume(context)
    assert got.shape == (1,)
    torch.testing.assert_close(got[0], want, atol=1e-3, rtol=0)
