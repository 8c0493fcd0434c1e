import pytest
import torch
from torch.nn import functional as F

from sciladm.nn.layers import Attention, Block, Conv, Fourier
from sciladm.nn.loglinear import LogLinear
from sciladm.nn.shrink import TINY, evened, grown, total
from sciladm.nn.unet import UNet

BOUNDARIES = {1: ("periodic",), 2: ("pole", "periodic"), 3: ("bounded", "pole", "periodic")}


def wake(module):
    """Replace every zero-initialised weight, so that all of the network speaks."""
    gen = torch.Generator().manual_seed(2)
    for p in module.parameters():
        if not p.any():
            p.data = 0.1 * torch.randn(p.shape, generator=gen)
    return module


def test_convolution_is_torch_on_a_torus_and_never_sees_zeros():
    conv = Conv(2, 3, ("periodic", "periodic"))
    x = torch.randn(2, 2, 5, 6)
    want = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), conv.weight, conv.bias)
    torch.testing.assert_close(conv(x), want)
    for ends in (("bounded", "bounded"), ("pole", "periodic"), ("bounded", "periodic")):
        out = Conv(2, 3, ends)(torch.ones(1, 2, 5, 6))
        torch.testing.assert_close(out, out[..., :1, :1].expand_as(out))


@pytest.mark.parametrize(
    "space", [(8, 16), (7, 14), (1, 1), (1, 4), (5, 3), (9,), (8,), (2, 3, 5), (1, 2, 4)]
)
def test_any_size_works_with_the_same_weights(space):
    net = wake(UNet(3, 2, BOUNDARIES[len(space)], widths=(8, 8, 8), blocks=1, embedding=16))
    out = net(torch.randn(2, 3, *space), torch.randn(2))
    assert out.shape == (2, 2, *space) and torch.isfinite(out).all()


def test_untrained_network_says_zero_and_every_weight_learns():
    net = UNet(3, 2, BOUNDARIES[2], widths=(8, 16), blocks=1, embedding=16)
    assert not net(torch.randn(2, 3, 4, 6), torch.randn(2)).any()
    wake(net)(torch.randn(2, 3, 4, 6), torch.randn(2)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_moves_with_the_data_along_a_periodic_axis():
    net = wake(UNet(3, 2, BOUNDARIES[2], widths=(8, 16), blocks=1, embedding=16))
    x, noise = torch.randn(2, 3, 4, 8), torch.randn(2)
    torch.testing.assert_close(
        net(x.roll(2, -1), noise), net(x, noise).roll(2, -1), atol=1e-5, rtol=1e-4
    )
    bounded = wake(UNet(3, 2, ("bounded", "bounded"),
                        widths=(8, 16), blocks=1, embedding=16))  # fmt: skip
    assert (bounded(x.roll(2, -1), noise) - bounded(x, noise).roll(2, -1)).abs().max() > 1e-2


def test_samples_of_a_batch_do_not_see_each_other():
    more = {"widths": (8, 16), "blocks": 1, "embedding": 16, "gains": True}
    net = wake(UNet(3, 2, BOUNDARIES[2], **more)).eval()
    x, noise = torch.randn(3, 3, 4, 8), torch.randn(3)
    together = net(x, noise)
    for i in range(3):
        alone = net(x[i : i + 1], noise[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-4)


def test_noise_level_reaches_every_block():
    block = Block(8, 8, BOUNDARIES[2], embedding=16)
    wake(block)
    x, embed = torch.randn(2, 8, 4, 6), Fourier(16)
    assert not torch.allclose(block(x, embed(torch.zeros(2))), block(x, embed(torch.ones(2))))
    near = Fourier(64)(torch.tensor([0.0, 0.001, 0.5]))
    assert (near[0] - near[1]).abs().max() < 0.1 * (near[0] - near[2]).abs().max()


@pytest.mark.parametrize("gains", [False, True])
def test_gains_tell_calm_days_from_rough_ones(gains):
    """White fields of standard deviation 0.1 on some days and 1.4 on others, noised: the best that
    can be said is a multiple of what is seen, by how large it is; what is said beyond that, as a
    share of what there is to learn."""
    torch.manual_seed(0)
    more = {"widths": (16,), "blocks": 1, "embedding": 32, "attention": False, "gains": gains}
    net, steps = UNet(4, 4, BOUNDARIES[2], **more), 150
    found = torch.optim.Adam(net.parameters())

    def days(count):
        std = torch.where(torch.rand(count) < 0.5, 0.1, 1.4)[:, None, None, None]
        sigma = torch.exp(torch.randn(count))[:, None, None, None]
        x = std * torch.randn(count, 4, 6, 6)
        seen = x + sigma * torch.randn(x.shape)
        left = sigma / (1 + sigma**2).sqrt()
        goal = lambda says: (says - seen / (1 + sigma**2)) / left
        best = goal(std**2 / (std**2 + sigma**2) * seen)
        return seen / (1 + sigma**2).sqrt(), sigma.log().flatten() / 4, goal(x), best

    for step in range(steps):
        seen, level, goal, _ = days(48)
        found.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        found.zero_grad()
        (net(seen, level) - goal).square().mean().backward()
        found.step()
    with torch.no_grad():
        seen, level, _, best = days(512)
        off = float((net(seen, level) - best).square().mean() / best.square().mean())
    assert off < 0.1 if gains else off > 0.15, off


def test_attention_is_the_textbook_formula():
    layer = wake(Attention(8, heads=2))
    x = torch.randn(2, 8, 3, 4)
    cells = layer.norm(x).flatten(2).transpose(1, 2)
    q, k, v = layer.qkv(cells).chunk(3, -1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / 2, -1)
        heads.append(weights @ v[..., part])
    want = x + layer.out(torch.cat(heads, -1)).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(layer(x), want)


@pytest.mark.parametrize("samples", [20, 2000])
def test_variances_are_drawn_together_and_none_is_lost(samples):
    """Cells of two groups, of which one varies by itself and a tenth as much on the whole."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(40) // 20
    true = torch.where(group == 0, 1.0, 0.1 * torch.linspace(-1, 1, 40).exp()).double()
    noise = torch.randn(samples, 40, 1, generator=generator).double()
    square = (noise.square().sum(0).T * true).T
    before = samples * torch.ones(40, 1).double()
    found = grown(square, before, group, samples)
    torch.testing.assert_close(total(found * before, group), total(square, group))
    off = lambda ratio: (ratio[:, 0] / true).log().square().mean()
    assert off(found) < (0.9 if samples == 20 else 1.1) * off(square / before)


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_groups_are_drawn_together_as_far_as_they_are_alike(apart):
    """Thirty groups of eight cells of unequal variance, thirty samples; their ratios all alike, or
    far from it."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(240) // 8
    before = 30 * torch.linspace(0, 3, 8).exp().double().repeat(30)
    true = torch.exp(apart * torch.randn(30, generator=generator).double())
    noise = torch.randn(30, 240, generator=generator).double().square().sum(0) / 30
    square = noise * before * true[group]
    found = evened(square, before, group, 30)
    ratio = lambda x: total(x, group)[::8] / total(before, group)[::8]
    off = lambda x: (ratio(x) / true).log().square().mean()
    torch.testing.assert_close(found / square, (found / square)[::8][group])  # one number a group
    assert off(found) < (0.2 if apart == 0 else 1.02) * off(square)


def test_cells_that_tell_nothing_do_not_count():
    """Land beside sea whose ratios are one and the same but for what few samples make of them."""
    generator = torch.Generator().manual_seed(0)
    sea = torch.randn(100, 400, 1, generator=generator).double().square().sum(0)
    whole = torch.cat([sea, torch.full((600, 1), TINY / 100).double()])
    before = torch.cat([torch.full((400, 1), 100.0), torch.full((600, 1), TINY)]).double()
    found = grown(whole, before, torch.zeros(1000, dtype=torch.int64), 100)[:400]
    assert found.std() < 0.3 * (sea / 100).std()


def seasonal(batch, number=6, size=0.25):
    """Forcings (batch, 2, 4, 4) of times of the year, cells of two groups, and departures whose
    ln size is ``size`` · (sin, −cos/2), twice that in the second group, plus 0.2."""
    season = 2 * torch.pi * torch.rand(batch)
    x = torch.stack([season.sin(), season.cos()], dim=1)[:, :, None, None].expand(-1, -1, 4, 4)
    groups = (torch.arange(16).view(4, 4) > 7).long()
    size = size * (x[:, :1] - x[:, 1:] / 2) * (1 + groups) + 0.2
    return x, size.exp() * torch.randn(batch, number, 4, 4), groups, size.exp()


def test_log_linear_scales_are_found():
    torch.manual_seed(0)
    x, left, groups, true = seasonal(3000)
    scale = LogLinear(2, 6, groups)
    assert (scale(x) == 1).all()
    scale.fit([(x[:1000], left[:1000]), (x[1000:], left[1000:])])
    off = scale(x) / true - 1
    assert off.square().mean().sqrt() < 0.03  # 24 000 numbers a coefficient
    normalised = left / scale(x)
    assert abs(normalised.square().mean() - 1) < 0.02
    # the score of the likelihood is 0 there, but for the ridge
    assert (normalised.square() - 1).mul(x[:, :1]).mean().abs() < 0.01
    assert (left.square() - 1).mul(x[:, :1]).mean().abs() > 0.2


def test_where_nothing_depends_on_the_season_scales_say_nearly_nothing():
    torch.manual_seed(1)
    x, left, groups, _ = seasonal(3000, size=0.0)
    scale = LogLinear(2, 6, groups)
    scale.fit([(x, left)])
    assert scale(x).std() < 0.02 and abs(scale(x).mean() - 1.2214) < 0.02


def test_log_linear_scales_are_bounded():
    scale = LogLinear(1, 1, torch.zeros(4, dtype=torch.int64))
    scale.weight.fill_(50.0)
    size = scale(torch.tensor([-1e3, 1e3]).view(2, 1, 1).expand(2, 1, 4))
    assert size.min() > 1 / 2.72 and size.max() < 2.72
