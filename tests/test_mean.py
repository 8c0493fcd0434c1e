"""What is expected, and how far frames depart from it, against worlds where both are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch import nn

from sciladm.diffusion.denoiser import Denoiser
from sciladm.diffusion.departure import Departure
from sciladm.diffusion.mean import BOUND, USUAL, MeanForecast, normal_crps
from sciladm.model import Model
from sciladm.nn.linear import LocalLinear
from sciladm.nn.unet import UNet
from sciladm.tasks.fit_denoiser import _fit_after
from sciladm.tasks.windows import Windows

ENDS, SHAPE = ("pole", "periodic"), (4, 6)
ROWS = torch.arange(4)[:, None].expand(SHAPE)
CLASSES = ((-9.0, -1.0), (-1.0, 1.0), (1.0, 9.0))
NOTHING = torch.zeros(0, *SHAPE)


def generator(seed):
    return torch.Generator().manual_seed(seed)


class Says(nn.Module):
    """Mean: as the linear map has it. Scale: what ``answer`` makes of the first feature."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, noise):
        size = self.answer(x[:, :1]).expand(-1, 2, -1, -1)
        return torch.cat([torch.zeros_like(x[:, :2]), size], dim=1)


def stormy(n, seed, steep=1 / 3):
    """One number f known; what comes is f, and e^(steep · f) times as far off where it is f."""
    known = torch.randn(n, 1, *SHAPE, generator=generator(seed))
    noise = torch.randn(n, 2, *SHAPE, generator=generator(seed + 1))
    size = 0.5 * torch.tensor([1.0, 0.2]).view(2, 1, 1) * (steep * known).exp()
    return known, known + size * noise, size


def forecast(network, known, came, says_scale=True):
    mean = MeanForecast(LocalLinear(1, 2, ROWS, ENDS), network, says_scale)
    mean.linear.fit([(known, None, came)], ridge=1e-6)
    return mean


def turned(mean, angle):
    """The same, with parts that mix both channels."""
    turn = torch.tensor([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]).float()
    mean.parts.turn.copy_(turn)
    mean.parts.back.copy_(turn.T)
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
    mean = forecast(Says(lambda f: f), known, came)
    for sign in (-1, 1):
        _, scale = answer(mean, torch.full((1, 1, *SHAPE), sign * 1e4))
        want = torch.full_like(scale, np.exp(USUAL + sign * BOUND))
        torch.testing.assert_close(scale, want)
        drawn = mean.joined(scale)
        torch.testing.assert_close(drawn, want * mean.linear.left())


def test_where_a_scale_is_said_the_loss_is_the_crps():
    known, came, _ = stormy(200, 0)
    mean = turned(forecast(Says(torch.sin), known, came), 0.5)
    expected, scale = answer(mean, known)
    loss = mean.loss(known, known[:, :0], NOTHING.expand(200, 0, *SHAPE), came)
    left = mean.linear.left()
    assert (left[0] / left[1] > 3).all() and scale.log().std() > 0.3
    one, two = ((came - expected) / left).unbind(1)
    parts = torch.stack(
        [np.cos(0.5) * one + np.sin(0.5) * two, np.cos(0.5) * two - np.sin(0.5) * one], 1
    )
    torch.testing.assert_close(loss, normal_crps(parts, scale))


def test_a_mean_alone_is_scored_by_its_square():
    known, came, _ = stormy(200, 0)
    for network in (None, UNet(1 + 2, 2, ENDS, widths=(8,), blocks=1, attention=False)):
        mean = forecast(network, known, came, says_scale=False)
        expected, scale = answer(mean, known)
        assert (scale == 1).all()
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
    scale = mean.joined(scale)
    assert ((expected - fresh) / size).square().mean().sqrt() < 0.15
    assert (scale / size).log().square().mean().sqrt() < 0.15
    left = (came - expected) / scale
    usual = (came - expected) / size.mean(0)
    for low, high in CLASSES:
        here = ((fresh > low) & (fresh < high)).expand_as(left)
        assert abs(float(left[here].std()) - 1) < 0.15
        assert low == -1.0 or abs(float(usual[here].std()) - 1) > 0.2  # the negative control


STEEP = 1 / 6


def knowing(f):
    """What a network says that knows the world of ``stormy(steep=STEEP)``: e^(steep · f) in units
    of its root mean square, e^(steep²)."""
    return BOUND * torch.atanh(((STEEP * f - STEEP**2 - USUAL) / BOUND).clamp(-0.999, 0.999))


@pytest.fixture
def denoiser():
    known, came, _ = stormy(4000, 3, STEEP)
    mean = forecast(Says(knowing), known, came)
    made = Denoiser(nn.Identity(), mean, Departure(2, ROWS, ENDS, 512), torch.ones(SHAPE))
    context = made.context(known, known[:, :0], NOTHING)
    made.departure.measure(lambda: [made.departed(came, context)])
    return made


def test_departures_are_white_whatever_is_known(denoiser):
    known, came, _ = stormy(4000, 21, STEEP)
    context = denoiser.context(known, known[:, :0], NOTHING)
    r = denoiser.white(came, context)
    same = replace(context, scale=context.scale.mean(0).expand_as(came))
    for low, high in CLASSES:
        here = ((known > low) & (known < high)).expand_as(r)
        assert abs(float(r[here].std()) - 1) < 0.04
        off = abs(float(denoiser.white(came, same)[here].std()) - 1)
        assert low == -1.0 or off > 0.15  # the negative control
    torch.testing.assert_close(denoiser.clean(r, context), came, atol=1e-4, rtol=1e-4)


def test_skewed_departures_are_drawn_without_bias():
    """The CRPS of a normal distribution is least beside the mean of an exponential one."""
    came = torch.empty(20000, 2, *SHAPE).exponential_(generator=generator(0)) - 1
    centre, log_std = torch.zeros((), requires_grad=True), torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([centre, log_std], max_iter=100)

    def closure():
        optimiser.zero_grad()
        loss = normal_crps(came[:1000] - centre, log_std.exp()).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert -0.2 < float(centre.detach()) < -0.1  # what the mean's network would say
    departure = Departure(2, ROWS, ENDS, 512)
    departure.measure(lambda: [came - centre.detach()])
    white = torch.randn(4000, 2, *SHAPE, generator=generator(1))
    drawn = centre.detach() + departure.colour(white)
    assert abs(float(drawn.mean())) < 0.02 and abs(float(drawn.std()) - 1) < 0.02


def test_where_no_data_can_be_the_network_is_not_asked(denoiser):
    known, _, _ = stormy(5, 4)
    cells = torch.ones(SHAPE)
    cells[1] = 0
    without = Denoiser(nn.Identity(), denoiser.base, denoiser.departure, cells)
    scale = without.context(known, known[:, :0], NOTHING).scale
    usual = denoiser.context(known, known[:, :0], NOTHING).scale
    assert (scale[:, :, 1] == 1).all() and not (usual[:, :, 1] == 1).any()
    assert torch.equal(scale[:, :, [0, 2, 3]], usual[:, :, [0, 2, 3]])


def test_volume_is_that_of_the_jacobian(denoiser):
    denoiser.base.parts.back.mul_(1.3)
    denoiser.base.parts.turn.div_(1.3)
    known, came, _ = stormy(1, 12)
    context = denoiser.context(known, known[:, :0], NOTHING)
    unit = torch.eye(came.numel()).view(-1, *came.shape[1:])
    zero = denoiser.clean(torch.zeros_like(came), context)
    columns = torch.cat([denoiser.clean(u[None], context) - zero for u in unit])
    want = torch.linalg.slogdet(columns.flatten(1).double())[1]
    got = denoiser.log_volume(context)
    assert got.shape == (1,)
    torch.testing.assert_close(got[0], want, atol=1e-3, rtol=0)


def test_what_a_network_exaggerates_is_taken_back(tiny_run, tiny, tiny_cache, monkeypatch):
    """A mean half as far again from climatology as it should be: afterwards truth regresses on it
    with slope 1. What a network knows by heart is not believed."""
    model = Model.load(tiny_run)
    mean, windows = model.denoiser.base, Windows.of(model, tiny.data.splits, "train")
    held = Windows.of(model, tiny.data.splits, "validation")
    right = mean.said
    monkeypatch.setattr(mean, "said", lambda *known: (1.5 * right(*known)[0], right(*known)[1]))
    weights = lambda: sum(float(after.weight.square().sum()) for after in mean.after)

    def slope(of):
        past, forcings, future = next(of.spread(256))
        placed = model.latent_statics.expand(len(past), *model.latent_statics.shape)
        z, _ = mean(past, forcings, placed)
        return float((future * z).sum() / (z * z).sum())

    for after in mean.after:
        after.weight.zero_()
    assert slope(windows) < 0.7
    _fit_after(model, mean, windows, held)
    assert abs(slope(windows) - 1) < 0.02 and abs(slope(held) - 1) < 0.1
    share = weights()

    class AsExaggerated:
        def spread(self, *asked):
            for past, forcings, future in held.spread(*asked):
                yield past, forcings, 1.5 * future

    _fit_after(model, mean, windows, AsExaggerated())
    assert weights() < 0.05 * share


def test_what_is_wrong_in_one_cell_alone_is_taken_back_there(tiny_run, tiny, tiny_cache):
    """A world upside down in one cell: its row cannot tell, the cell itself can."""
    model = Model.load(tiny_run)
    mean, windows = model.denoiser.base, Windows.of(model, tiny.data.splits, "train")

    class Odd:
        def spread(self, *asked):
            for past, forcings, future in windows.spread(*asked):
                future = future.clone()
                future[..., 1, 2] *= -1
                yield past, forcings, future

    def error(world):
        _fit_after(model, mean, world, world)
        past, forcings, future = next(world.spread(256))
        placed = model.latent_statics.expand(len(past), *model.latent_statics.shape)
        off = future - mean(past, forcings, placed)[0]
        return float(off[..., 1, 2].square().mean())

    mended = error(Odd())
    mean.alone = None
    assert mended < 0.3 * error(Odd())
