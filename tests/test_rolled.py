"""Ensembles that go on from their own draws: worlds in which what they need is known."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from sciladm.data.plan import Block
from sciladm.diffusion.rolled import RANGE, Rolled
from sciladm.model import Model
from sciladm.nn.shrink import pooled
from sciladm.tasks import fit_rolled
from sciladm.tasks.fit_denoiser import missing
from sciladm.tasks.forecast import from_states
from sciladm.training.checkpoint import read_tensors
from tests.conftest import open_in

AREA, ENDS, SHAPE = torch.tensor([[0.5], [1.0], [0.7]]).expand(3, 4), ("pole", "periodic"), (3, 4)
CLIMATE = torch.tensor([2.0, 1.0])[:, None, None]  # standard deviations of two channels


def normal(generator, *lead):
    return torch.randn(*lead, 2, *SHAPE, generator=generator) * CLIMATE


def each(*numbers):
    return torch.tensor(numbers)[:, None, None]


def rolled_out(rolled, memory, told, rounds=8, ensembles=4000, members=4):
    """`rolled` after ensembles of two days in a world z ← memory z + √(1 − memory²) noise, whose
    mean is forecast to be told · z, with departures of the right size on the first day."""
    wide = (1 - memory**2).sqrt()
    for _ in range(rounds):
        g = torch.Generator().manual_seed(0)
        start = normal(g, ensembles)
        came = memory * (memory * start + wide * normal(g, ensembles)) + wide * normal(
            g, ensembles
        )
        first = told * start[:, None] + wide * normal(g, ensembles, members)
        mean = (told * first).flatten(0, 1)
        second = rolled(mean, mean + wide * normal(g, ensembles * members))
        rolled.improve(rolled.tally(second.view(ensembles, members, 2, *SHAPE), came), 1)
    return rolled


def fitted(patterns, memory, told, **also):
    rolled = Rolled(2, AREA, ENDS, patterns)
    g = torch.Generator().manual_seed(99)
    rolled.measure(normal(g, 500) for _ in range(8))
    return rolled_out(rolled, memory, told, **also)


def factors(rolled, channel):
    """What a mean and a departure in one channel alone are multiplied by."""
    x = torch.zeros(20, 2, *SHAPE)
    x[:, channel] = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(5))
    along = lambda y: float((x * y).sum() / (x * x).sum())
    return along(rolled(x, x)), along(rolled(torch.zeros_like(x), x))


def test_until_fitted_nothing_changes():
    rolled, x = Rolled(2, AREA, ENDS, 512), torch.randn(2, 5, 2, *SHAPE)
    torch.testing.assert_close(rolled(x[0], x[1]), x[1])


@pytest.mark.parametrize("patterns", [512, 3])
def test_what_exaggerates_is_damped_as_much_as_the_world_says(patterns):
    """kept · told² = memory², and the spread of day two is the error that is left."""
    memory, told = each(0.9, 0.6), each(0.95, 0.9)
    rolled = fitted(patterns, memory, told, ensembles=8000)
    for channel in (0, 1) if patterns == 512 else ():
        a, g = float(memory.flatten()[channel]), float(told.flatten()[channel])
        kept, size = factors(rolled, channel)
        q = 1 - a**2
        assert kept == pytest.approx((a / g) ** 2, abs=0.03)
        assert size == pytest.approx((((1 - a**4) - (kept * g) ** 2 * q) / q) ** 0.5, abs=0.03)
    g = torch.Generator().manual_seed(123)
    start, wide = normal(g, 4000), (1 - memory**2).sqrt()
    mean = told * (told * start + wide * normal(g, 4000))
    power = rolled(mean, mean + wide * normal(g, 4000)).square().mean((0, 2, 3)).sqrt()
    before = (mean + wide * normal(g, 4000)).square().mean((0, 2, 3)).sqrt()
    off = lambda found: (found / CLIMATE.flatten() - 1).abs()
    if patterns == 512:
        assert off(power).max() < 0.02 < off(before).min()
    assert off(power).max() < off(before).max()


def test_a_perfect_model_is_left_alone():
    memory = each(0.9, 0.6)
    for kept, size in (factors(fitted(512, memory, memory), c) for c in (0, 1)):
        assert kept == pytest.approx(1, abs=0.01) and size == pytest.approx(1, abs=0.02)


def test_nothing_is_ever_made_larger():
    rolled = fitted(512, each(0.9, 0.9), each(0.5, 0.5), rounds=3, ensembles=500)
    assert rolled.kept.max() == 1
    assert RANGE[0] <= rolled.size.min() and rolled.size.max() <= RANGE[1]


def test_wide_blocks_share_one_number_per_wavenumber(monkeypatch):
    monkeypatch.setattr("sciladm.diffusion.rolled.LARGEST", 3)
    rolled = fitted(512, each(0.8, 0.8), each(0.9, 0.9))
    assert rolled.patterns.shape[2] == 0 and rolled.kept.shape[1] == 1
    assert factors(rolled, 0)[0] == pytest.approx((0.8 / 0.9) ** 2, abs=0.02)


def test_pooling_keeps_what_is_sure_and_shares_what_is_not():
    group = torch.arange(2).repeat_interleave(500)
    g = torch.Generator().manual_seed(0)
    same = group + 0.3 * torch.randn(1000, generator=g)
    drawn = pooled(same, torch.full((1000,), 0.09), group)
    assert (drawn - group).abs().max() < 0.25 and (same - group).abs().max() > 0.8
    apart = torch.randn(1000, generator=g)
    kept = pooled(apart + 0.1 * torch.randn(1000, generator=g), torch.full((1000,), 0.01), group)
    assert (kept - apart).square().mean() < 0.012


def test_the_first_window_starts_from_what_was_analysed(tiny_run, tiny, tiny_cache):
    model = Model.load(tiny_run)
    data = open_in(tiny.cache, model.recipe)
    init = data.indices("test")[20:21]
    step = np.timedelta64(24, "h")
    forecast = from_states(model, data.frames, init, step * np.arange(1, 4), 0)
    block = Block(0, 0, range(0, 2))
    before = forecast.states(block)
    model.rolled.size.mul_(1.5)
    after = forecast.states(block)
    assert np.array_equal(before[:, 0], after[:, 0], equal_nan=True)
    assert not np.allclose(before[:, 1], after[:, 1], equal_nan=True)


def test_ensembles_of_a_run_become_as_wide_as_they_are_wrong(
    tiny_run, tiny, tiny_cache, tmp_path, monkeypatch
):
    model = Model.load(tiny_run)
    model.path = tmp_path
    (tmp_path / "latents.zarr").symlink_to(tiny_run / "latents.zarr")
    model.denoiser.departure.std.mul_(0.5)
    windows, starts = fit_rolled._starts(model, tiny.data, "train")
    assert windows == fit_rolled.FREELY

    def narrow():
        batches = enumerate(starts.spread(64, 16))
        tallies = [fit_rolled._tally(model, windows, *batch) for batch in batches]
        spread, error = (sum(float(getattr(t, k).sum()) for t in tallies)
                         for k in ("spread", "error"))  # fmt: skip
        return error / spread

    for number in (model.rolled.kept, model.rolled.size):
        number.fill_(1)
    before = narrow()
    fit_rolled.fit_rolled(model, tiny.data, lambda *_: None)
    assert before > 2 and narrow() < 1 + 0.4 * (before - 1)
    fitted = read_tensors(tmp_path / "rolled.safetensors")[0]["rolled.size"]
    assert torch.equal(fitted, model.rolled.size)
    for number in (model.rolled.kept, model.rolled.size):
        number.fill_(1)
    usual = fit_rolled._missing
    monkeypatch.setattr(fit_rolled, "_missing", lambda *given: 2 * usual(*given))
    fit_rolled.fit_rolled(model, tiny.data, lambda *_: None)
    torch.testing.assert_close(model.rolled.size, 2 * fitted)


def test_validation_says_how_much_is_missing(tiny_run, tiny, tiny_cache):
    model = Model.load(tiny_run)
    with ThreadPoolExecutor(1) as threads:
        usual = fit_rolled._missing(model, tiny.data, threads)
        assert 0.8 < usual < 1.3
        model.rolled.size.mul_(0.5)
        assert 1.6 < fit_rolled._missing(model, tiny.data, threads) / usual < 2.1
    torch.manual_seed(0)
    spread = torch.rand(4000).double() + 0.5
    assert missing(2.25 * spread * (1 + torch.randn(4000) / 3), spread) == pytest.approx(
        1.5, abs=0.02
    )
    assert abs(missing(spread[:9] * (1 + torch.randn(9) / 3), spread[:9]) - 1) < 0.02


def test_a_split_of_single_windows_leaves_ensembles_alone(tiny_run, tiny, tiny_cache, monkeypatch):
    model, none = Model.load(tiny_run), []
    monkeypatch.setattr(fit_rolled.Windows, "of", lambda *_: none)
    assert fit_rolled._starts(model, tiny.data, "train") is None
    assert fit_rolled._missing(model, tiny.data, None) == 1
