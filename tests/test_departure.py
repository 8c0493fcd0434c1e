"""Departures against worlds whose covariance is known."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from sciladm.diffusion.departure import Departure, alike

ENDS = {
    ("pole", "periodic"): (4, 6),
    ("bounded", "bounded"): (4, 5),
    ("periodic", "periodic"): (4, 5),
    ("periodic", "bounded", "periodic"): (3, 2, 4),
}


def rows(shape):
    return torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1)).expand(shape)


def smooth(x):
    """The same blur along every axis, all of them closed to circles."""
    for axis in range(2, x.ndim):
        x = x + 0.6 * x.roll(1, axis)
    return x


def world(n, shape, seed, scale=None):
    """Two channels of blurred noise that have much in common."""
    noise = torch.randn(n, 2, *shape, generator=torch.Generator().manual_seed(seed))
    d = smooth(noise)
    d = torch.stack([d[:, 0], 0.5 * d[:, 0] + 0.2 * d[:, 1]], dim=1)
    return d if scale is None else d * scale


def measured(d, shape, ends, patterns=512, parts=3):
    found = Departure(2, rows(shape), ends, patterns)
    found.measure(lambda: d.chunk(parts))
    return found


def covariance(x):
    flat = x.flatten(1).double()
    return flat.T @ flat / len(flat)


@pytest.mark.parametrize("ends", ENDS, ids="-".join)
def test_whitening_is_exact_where_the_world_is_homogeneous(ends):
    shape = ENDS[ends]
    fitted = measured(world(20000, shape, 0), shape, ends)
    fresh = world(20000, shape, 1)
    eye = torch.eye(fresh[0].numel(), dtype=torch.float64)
    assert (covariance(fresh) - eye).abs().max() > 0.9
    assert (covariance(fitted.whiten(fresh)) - eye).abs().max() < 0.06
    white = torch.randn(fresh.shape, generator=torch.Generator().manual_seed(2))
    drawn, true = covariance(fitted.colour(white)), covariance(fresh)
    assert (drawn - true).abs().max() < 0.06 * true.max()


@pytest.mark.parametrize("ends", ENDS, ids="-".join)
def test_whiten_is_the_inverse_of_colour(ends):
    shape = ENDS[ends]
    scale = torch.linspace(0.1, 3, int(np.prod(shape))).view(shape)
    fitted = measured(world(500, shape, 0, scale), shape, ends)
    d = world(7, shape, 3, scale)
    torch.testing.assert_close(fitted.colour(fitted.whiten(d)), d, atol=1e-5, rtol=1e-4)


def test_the_root_is_the_symmetric_one():
    """Of one channel on a circle: what a dense root of the covariance gives."""
    shape = (1, 8)
    noise = torch.randn(40000, 1, *shape, generator=torch.Generator().manual_seed(0))
    d = noise + 0.6 * noise.roll(1, -1)
    fitted = Departure(1, rows(shape), ("bounded", "periodic"), 512)
    fitted.measure(lambda: [d])
    unit = torch.eye(8).view(8, 1, 1, 8)
    mixing = np.eye(8) + 0.6 * np.roll(np.eye(8), 1, axis=1)
    want = sqrtm(mixing.T @ mixing).real
    np.testing.assert_allclose(fitted.colour(unit).view(8, 8).numpy(), want, atol=0.02)


def test_every_cell_has_its_own_size_and_correlations():
    shape, ends = (2, 3), ("bounded", "periodic")
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(20000, 2, *shape, generator=generator)
    d[:, 1, :, 0] = (d[:, 0, :, 0] + d[:, 1, :, 0]) / 2**0.5  # the first cell of each row alone
    d = d * torch.tensor([1.0, 0.2, 5.0])
    fitted = measured(d, shape, ends, patterns=0)
    white = covariance(fitted.whiten(d)).view(2, 6, 2, 6)
    for cell in range(6):
        torch.testing.assert_close(
            white[:, cell, :, cell], torch.eye(2, dtype=torch.float64), atol=0.06, rtol=0
        )


def test_few_patterns_are_those_of_the_largest_variance():
    shape, ends = (4, 5), ("bounded", "bounded")
    d = world(20000, shape, 0)
    whole, some, none = (measured(d, shape, ends, patterns=k) for k in (512, 5, 0))
    assert some.patterns.shape == (1, 40, 5) and none.patterns.shape == (1, 40, 0)
    torch.testing.assert_close(some.amplitude, whole.amplitude[:, -5:])
    before, after = (torch.linalg.eigvalsh(covariance(f.whiten(d))) for f in (none, some))
    assert before[-5] > 1.5  # what the five held
    rest = before[:-5] / before[:-5].mean()  # they share one amplitude: their variance is kept
    want = torch.cat([rest, torch.ones(5)]).sort().values
    torch.testing.assert_close(after, want, atol=0.02, rtol=0.02)
    kept = some.amplitude.square().sum() + 35 * some.rest.square()
    assert float(kept) == pytest.approx(float(whole.amplitude.square().sum()))


def test_large_blocks_leave_cells_by_themselves():
    fitted = Departure(2, rows((50, 50)), ("bounded", "bounded"), 512)
    d = torch.randn(3, 2, 50, 50)
    fitted.measure(lambda: [d])
    assert fitted.patterns.shape == (1, 5000, 0)
    torch.testing.assert_close(fitted.colour(fitted.whiten(d)), d, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ends", ENDS, ids="-".join)
def test_few_samples_do_not_make_patterns_up(ends):
    """White samples, too few for a covariance: what is fitted stays near white."""
    shape = ENDS[ends]
    few, fresh = torch.randn(2, 12, 2, *shape, generator=torch.Generator().manual_seed(0))
    fitted = measured(few, shape, ends)
    assert 0.7 < float(fitted.amplitude.min()) <= float(fitted.amplitude.max()) < 1.4
    assert 0.6 < float(fitted.whiten(fresh).square().mean()) < 1.7


def test_where_departures_have_a_mean_it_is_drawn_too():
    shape, ends = (4, 6), ("pole", "periodic")
    offset = torch.linspace(-2, 2, 24).view(shape)
    fitted = measured(world(20000, shape, 0) + offset, shape, ends)
    fresh = world(20000, shape, 1) + offset
    white = fitted.whiten(fresh)
    assert white.mean(0).abs().max() < 0.05
    eye = torch.eye(fresh[0].numel(), dtype=torch.float64)
    assert (covariance(white) - eye).abs().max() < 0.06
    fitted.rescale(lambda: [fresh])
    r = torch.randn(fresh.shape, generator=torch.Generator().manual_seed(2))
    drawn = fitted.colour(r)
    assert (drawn.mean(0) - offset).abs().max() < 0.1
    apart = drawn - drawn.mean(0), fresh - fresh.mean(0)
    assert (covariance(apart[0]) - covariance(apart[1])).abs().max() < 0.2


def test_few_samples_scale_the_sizes_that_were_there():
    shape, ends = (4, 6), ("pole", "periodic")
    fitted = Departure(2, rows(shape), ends, 0)
    before = torch.linspace(0.5, 1.5, 48).view(24, 2)
    fitted.std.copy_(before)
    noise = torch.randn(20, 2, *shape, generator=torch.Generator().manual_seed(0))
    fitted.rescale(lambda: [3 * noise * before.T.view(1, 2, *shape)])
    ratio = fitted.std / before
    own = 3 * noise.square().mean(0).sqrt().flatten(1).T
    assert (own - 3).square().mean() > 3 * (ratio - 3).square().mean()


def test_many_samples_set_the_sizes_anew_and_nothing_else():
    shape, ends = (4, 6), ("pole", "periodic")
    fitted = measured(world(5000, shape, 0), shape, ends)
    std, axes, amplitude = (t.clone() for t in (fitted.std, fitted.axes, fitted.amplitude))
    scale = torch.linspace(0.5, 2, 24).view(shape)
    fitted.rescale(lambda: world(20000, shape, 0, scale).chunk(4))
    torch.testing.assert_close(fitted.std, std * scale.flatten()[:, None], rtol=0.03, atol=0)
    assert torch.equal(fitted.axes, axes) and torch.equal(fitted.amplitude, amplitude)


def test_a_channel_that_never_departs():
    shape, ends = (4, 6), ("pole", "periodic")
    d = world(300, shape, 0)
    d[:, 1] = 0
    fitted = measured(d, shape, ends)
    white = torch.randn(d.shape, generator=torch.Generator().manual_seed(1))
    fitted.rescale(lambda: [d])
    assert float(fitted.std.min()) > 9e-7  # rounding is not to become a storm
    assert float(fitted.colour(white)[:, 1].abs().max()) < 1e-5
    assert torch.isfinite(fitted.whiten(d)).all()


def test_measuring_in_parts_is_measuring_at_once():
    shape, ends = (4, 6), ("pole", "periodic")
    d = world(600, shape, 0)
    at_once, in_parts = (measured(d, shape, ends, parts=n) for n in (1, 7))
    white = torch.randn(5, 2, *shape)
    torch.testing.assert_close(at_once.colour(white), in_parts.colour(white))


def test_a_coast_is_a_group_of_its_own():
    share = torch.tensor([[1.0, 0.4, 1.0], [0.0, 0.7, 1.0]])
    found = alike(torch.tensor([[0, 0, 0], [1, 1, 1]]), share)
    assert found[0, 0] == found[0, 2] and found[1, 0] == found[1, 2]
    assert len(found.unique()) == 4 and int(found.max()) == 3


def test_laws_without_a_stretch_whiten_it_as_new_samples():
    """Few samples are smaller along the patterns that were found in them than new ones."""
    shape, ends = (8, 8), ("bounded", "bounded")
    d, fresh = world(150, shape, 0), world(150, shape, 1)
    fitted = measured(d, shape, ends)
    laws = fitted.without(lambda: d.chunk(4))
    size = lambda law, x: float(law.whiten(x).square().mean())
    unseen = np.mean([size(law, x) for law, x in zip(laws, d.chunk(3), strict=True)])
    assert size(fitted, d) < 0.95 * size(fitted, fresh)
    assert unseen == pytest.approx(size(fitted, fresh), rel=0.08)


def test_where_waves_make_blocks_small_the_law_is_left_alone():
    fitted = measured(world(50, (4, 6), 0), (4, 6), ("bounded", "periodic"))
    assert fitted.without(lambda: []) == [fitted]
