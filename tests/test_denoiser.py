import numpy as np
import pytest
import torch
from torch import nn

from sciladm.diffusion.denoiser import Denoiser
from sciladm.diffusion.departure import Departure
from sciladm.diffusion.mean import MeanForecast
from sciladm.diffusion.sampler import Multistep
from sciladm.nn.linear import LocalLinear
from sciladm.nn.unet import UNet

BOUNDARIES = ("pole", "periodic")
ROWS = torch.arange(4)[:, None].expand(4, 6)


def linear_world(n, seed, noise=0.3):
    """Target = W_row · (past in the 3 × 3 cells around) + forcing + noise, with known W."""
    gen = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 2, 3 * 9, generator=torch.Generator().manual_seed(1)) * 0.2
    past = torch.randn(n, 3, 4, 6, generator=gen)
    forcing = torch.randn(n, 1, 4, 6, generator=gen)
    exact = LocalLinear(3, 2, ROWS, BOUNDARIES, 1)
    exact.weight[..., :27], exact.weight[..., 27], exact.weight[..., 28] = weight, 0.5, 0.1
    mean = exact(past, forcing)
    target = mean + noise * torch.randn(mean.shape, generator=gen)
    return past, forcing, target, exact


def test_linear_forecast_finds_the_truth():
    past, forcing, target, exact = linear_world(600, 0)
    base = LocalLinear(3, 2, ROWS, BOUNDARIES, 1)
    base.fit(((past[i::6], forcing[i::6], target[i::6]) for i in range(6)), ridge=1e-6)
    assert (base.weight - exact.weight).abs().max() < 0.03
    mean, std = base(past, forcing), base.left()
    assert std.shape == (2, 4, 6) and (std - 0.3).abs().max() < 0.02
    left = (target - mean).std((0, 3))
    torch.testing.assert_close(left, std[..., 0], rtol=0.02, atol=0)


def test_linear_forecast_neighbours_are_where_they_should_be():
    """Predictor by predictor against a plain loop."""
    base = LocalLinear(1, 1, ROWS, ("bounded", "periodic"))
    field = torch.randn(1, 1, 4, 6)
    for n, (i, j) in enumerate((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
        base.weight.zero_()
        base.weight[..., n] = 1
        mean = base(field)
        for a in range(4):
            for b in range(6):
                assert mean[0, 0, a, b] == field[0, 0, min(max(a + i, 0), 3), (b + j) % 6]


def test_ridge_is_noise_that_the_map_bears():
    """On redundant channels: the same map as from noisy inputs, and it damps errors."""
    past, forcing, target, _ = linear_world(3000, 2)
    past[:, 1] = past[:, 0] + 0.05 * past[:, 1]
    target = target + 20 * (past[:, 1:2] - past[:, :1])
    maps = [LocalLinear(3, 2, ROWS, BOUNDARIES, 1) for _ in range(3)]
    noisy = past + 0.02**0.5 * torch.randn(past.shape, generator=torch.Generator().manual_seed(3))
    maps[0].fit([(past, forcing, target)], ridge=0.02)
    maps[1].fit([(noisy, forcing, target)], ridge=1e-9)
    maps[2].fit([(past, forcing, target)], ridge=1e-4)
    apart = [(m.weight - maps[1].weight).abs().max() for m in maps]
    assert apart[0] < 0.2 < 5 < apart[2], apart
    error = torch.randn(500, 3, 4, 6, generator=torch.Generator().manual_seed(4))
    nothing = torch.zeros(500, 1, 4, 6)
    gain = [float((m(error, nothing) - m(0 * error, nothing)).std()) for m in maps]
    assert gain[0] < 4 and gain[2] > 8, gain


def test_cells_with_maps_of_their_own():
    """Cells whose laws differ: own maps find them, drawn to the common one as asked."""
    gen = torch.Generator().manual_seed(5)
    past = torch.randn(900, 1, 4, 6, generator=gen)
    gain = torch.linspace(0.2, 2.0, 24).view(4, 6)
    target = gain * past + 0.1 * gain * torch.randn(past.shape, generator=gen)
    fitted = {}
    for local in (0, 1, 10**9):
        fitted[local] = LocalLinear(1, 1, 0 * ROWS, BOUNDARIES, local=local)
        fitted[local].fit([(past, None, target)], ridge=1e-6)
    own, common, drawn = fitted[1], fitted[0], fitted[10**9]
    torch.testing.assert_close(own.weight[:, 0, 4], gain.flatten(), rtol=0.05, atol=0)
    torch.testing.assert_close(own.left()[0], 0.1 * gain, rtol=0.1, atol=0)
    torch.testing.assert_close(drawn(past), common(past), rtol=1e-4, atol=1e-4)
    assert (common.left() > 0.5).all()


def test_a_map_of_the_cell_alone_is_least_squares_cell_by_cell():
    gen = torch.Generator().manual_seed(6)
    past, law = torch.randn(400, 2, 4, 6, generator=gen), torch.randn(2, 4, 6, generator=gen)
    target = (law * past).sum(1, keepdim=True) + 0.1 * torch.randn(400, 1, 4, 6, generator=gen)
    own = LocalLinear(2, 1, ROWS, BOUNDARIES, local=1, reach=0)
    own.fit([(past, None, target)], ridge=1e-9)
    for n, (i, j) in enumerate((i, j) for i in range(4) for j in range(6)):
        known = np.column_stack([past[:, :, i, j], np.ones(400)])
        want = np.linalg.lstsq(known, target[:, 0, i, j].numpy(), rcond=None)[0]
        torch.testing.assert_close(
            own.weight[n, 0], torch.from_numpy(want).float(), atol=0.01, rtol=0
        )
    past[..., 0] = 0  # land: nothing varies, and nothing is said there
    own.fit([(past, None, target)], ridge=1e-9)
    assert own.weight.isfinite().all() and own(past)[..., 0].std(0).max() < 1e-6
    moved = past.roll(1, dims=3)  # what the neighbours are changes nothing
    torch.testing.assert_close(
        own(past)[..., 2], own(moved.where(torch.arange(6) != 2, past))[..., 2]
    )


def test_linear_forecast_leaves_out_neighbours_where_samples_are_few():
    past, forcing, target, _ = linear_world(4, 0)
    base = LocalLinear(3, 2, ROWS, BOUNDARIES, 1)
    base.fit([(past, forcing, target)], ridge=0.02)
    own = torch.zeros(29, dtype=bool)
    own[12:15] = own[27:] = True
    assert (base.weight[..., own] != 0).all() and (base.weight[..., ~own] == 0).all()


def test_linear_forecast_refuses_too_few_samples():
    past, forcing, target = (x[..., :1, :4] for x in linear_world(1, 0)[:3])
    base = LocalLinear(3, 2, ROWS[:1, :4], BOUNDARIES, 1)
    with pytest.raises(ValueError, match="needs more samples"):
        base.fit([(past, forcing, target)], ridge=0.02)


class Exact(nn.Module):
    """The network that makes a preconditioned denoiser exact for r ~ N(0, variance)."""

    def __init__(self, variance):
        super().__init__()
        self.variance = variance

    def forward(self, x, noise):
        level = (4 * noise).exp().view(-1, 1, 1, 1)
        x = x[:, :2] * (1 + level**2).sqrt()
        best = x * self.variance / (self.variance + level**2)
        return (best - x / (1 + level**2)) * (1 + level**2).sqrt() / level


def make(backbone, past=3):
    base = MeanForecast(LocalLinear(past, 2, ROWS, BOUNDARIES, 1), None, False)
    return Denoiser(backbone, base, Departure(2, ROWS, BOUNDARIES, 512), torch.ones(4, 6))


def test_preconditioning_and_loss_at_the_optimum():
    variance = 0.36
    model = make(Exact(variance))
    past, forcing, _, _ = linear_world(4000, 3)
    context = model.context(past, forcing, torch.zeros(1, 4, 6))
    gen = torch.Generator().manual_seed(0)
    r = torch.randn(4000, 2, 4, 6, generator=gen) * variance**0.5
    noise = torch.randn(r.shape, generator=gen)
    for sigma in (0.05, 0.6, 4.0):
        level = torch.full((4000,), sigma)
        x = r + sigma * noise
        want = x * variance / (variance + sigma**2)
        torch.testing.assert_close(model(x, sigma, context), want, atol=1e-5, rtol=1e-4)
        posterior = variance * sigma**2 / (variance + sigma**2)
        weighted = posterior * (1 + sigma**2) / sigma**2  # 1 / c_out²
        assert float(model.loss(r, context, level, noise)) == pytest.approx(weighted, rel=0.02)


def test_untrained_network_is_the_white_gaussian_and_loss_one():
    model = make(UNet(3 + 2 + 2 + 1 + 1, 2, BOUNDARIES, widths=(16, 16), blocks=1))
    past, forcing, _, _ = linear_world(200, 3)
    context = model.context(past, forcing, torch.zeros(1, 4, 6))
    x = torch.randn(200, 2, 4, 6)
    torch.testing.assert_close(model(x, 2.0, context), x / 5)
    level = torch.linspace(-3, 3, 200).exp()
    loss = model.loss(torch.randn_like(x), context, level, torch.randn_like(x))
    assert float(loss.detach()) == pytest.approx(1, abs=0.05)


def test_weights_of_the_loss():
    model = make(Exact(1.0))
    model.base.parts.counts.copy_(torch.tensor([0.0, 2.0]))
    heavy = torch.zeros(4, 6)
    heavy[2] = 3.0
    weighted = Denoiser(Exact(1.0), model.base, model.departure, heavy)
    assert float(weighted.weight.mean()) == pytest.approx(1)
    assert (weighted.weight[1, 2] == 8).all() and weighted.weight.count_nonzero() == 6
    past, forcing, _, _ = linear_world(8, 3)
    context = weighted.context(past, forcing, torch.zeros(1, 4, 6))
    r, noise = torch.randn(2, 8, 2, 4, 6)
    r[:, 0] = 1e3  # counts nothing
    assert weighted.loss(r, context, torch.ones(8), noise) < 10


def test_forecast_of_a_linear_world_is_calibrated():
    """Closed-form base + exact denoiser + sampler = the true predictive distribution."""
    past, forcing, target, exact = linear_world(600, 0)
    model = make(Exact(1.0))
    model.base.linear.fit([(past, forcing, target)], ridge=1e-6)
    context = model.context(past, forcing, torch.zeros(1, 4, 6))
    model.departure.measure(lambda: [model.departed(target, context)])
    past, forcing, target, _ = linear_world(500, 9)
    context = model.context(past, forcing, torch.zeros(1, 4, 6))
    noise = torch.randn(500, 2, 4, 6, generator=torch.Generator().manual_seed(4))
    r = Multistep(16, 30, 0.2).sample(lambda x, s: model(x, s, context), noise)
    z = model.clean(r, context)
    truth = exact(past, forcing)
    assert np.isclose(float((z - truth).std()), 0.3, rtol=0.03)
    assert np.isclose(float((target - truth).std()), 0.3, rtol=0.03)
    torch.testing.assert_close(model.white(z, context), r, atol=1e-4, rtol=1e-4)


class Shift(nn.Module):
    """A network that adds one unit of what the linear map leaves."""

    def forward(self, x, noise):
        return torch.ones(len(x), 2, *x.shape[2:])


def test_mean_adds_its_network_in_units_of_what_the_linear_map_leaves():
    past, forcing, target, _ = linear_world(600, 0)
    statics = torch.zeros(1, 4, 6)
    mean = MeanForecast(LocalLinear(3, 2, ROWS, BOUNDARIES, 1), Shift(), False)
    mean.linear.fit([(past, forcing, target)], ridge=0.02)
    got, _ = mean(past, forcing, statics.expand(600, 1, 4, 6))
    left = mean.linear.left()
    torch.testing.assert_close(got, mean.linear(past, forcing) + left)
    loss = mean.loss(past, forcing, statics.expand(600, 1, 4, 6), target)
    assert float(loss.mean()) == pytest.approx(2, rel=0.02)  # noise 1 and shift 1
