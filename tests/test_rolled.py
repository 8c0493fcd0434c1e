"""Ensembles that go on from their own draws: worlds in which what they need is known."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from sciladm.conventions import UserError
from sciladm.data.plan import Block
from sciladm.diffusion.mean import MeanForecast
from sciladm.diffusion.rolled import KEPT, SIZE, Patterns, Rolled, Tally
from sciladm.model import Model
from sciladm.nn.linear import LocalLinear
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


ALIKE = torch.ones(2)


def drawn(patterns, mean, apart, later=True):
    return sum(patterns(mean, apart, later))


def improved(patterns, memory, told, rounds=8, ensembles=4000, members=4, normal=normal):
    """`patterns` after ensembles of two days in a world z ← memory z + √(1 − memory²) noise, whose
    mean is forecast to be told · z."""
    wide = (1 - memory**2).sqrt()
    for _ in range(rounds):
        g = torch.Generator().manual_seed(0)
        start = normal(g, ensembles)
        came = memory * start + wide * normal(g, ensembles)
        later = memory * came + wide * normal(g, ensembles)
        mean = (told * start).repeat_interleave(members, 0)
        first = drawn(patterns, mean, wide * normal(g, len(mean)), later=False)
        mean = told * first
        second = drawn(patterns, mean, wide * normal(g, len(mean)))
        both = zip((first, second), (came, later), strict=True)
        patterns.improve(
            *(patterns.tally(z.view(-1, members, *z.shape[1:]), true) for z, true in both), 1
        )
    return patterns


def fitted(patterns, memory, told, **also):
    made = Patterns(2, AREA, ENDS, patterns, rest=True)
    g = torch.Generator().manual_seed(99)
    made.measure((normal(g, 500) for _ in range(8)), ALIKE)
    return improved(made, memory, told, **also)


def factors(patterns, channel):
    """What a mean, and departures in first windows and later, are multiplied by where they are in
    one channel alone."""
    x, none = torch.zeros(2, 20, 2, *SHAPE)
    x[:, channel] = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(5))
    along = lambda y: float((x * y).sum() / (x * x).sum())
    return (along(drawn(patterns, x, none)), along(drawn(patterns, none, x, later=False)),
            along(drawn(patterns, none, x)))  # fmt: skip


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("patterns", [512, 3, 0])
def test_until_fitted_nothing_changes(patterns, later):
    rolled, x = Rolled(2, AREA, ENDS, patterns), torch.randn(2, 5, 2, *SHAPE)
    torch.testing.assert_close(rolled(x[0], x[1], later), x[1])


@pytest.mark.parametrize("patterns", [512, 3])
def test_what_exaggerates_is_damped_as_much_as_the_world_says(patterns):
    """kept · told² = memory², and the spread of each day is the error that is left."""
    memory, told = each(0.9, 0.6), each(0.95, 0.9)
    made = fitted(patterns, memory, told, ensembles=8000)
    for channel in (0, 1) if patterns == 512 else ():
        a, g = float(memory.flatten()[channel]), float(told.flatten()[channel])
        kept, first, size = factors(made, channel)
        q = 1 - a**2
        assert kept == pytest.approx((a / g) ** 2, abs=0.03)
        assert first == pytest.approx((1 + (a - g) ** 2 / q) ** 0.5, abs=0.02)
        left = (1 - a**4) - (kept * g * first) ** 2 * q
        assert size == pytest.approx((left / q) ** 0.5, abs=0.03)
    g = torch.Generator().manual_seed(123)
    start, wide = normal(g, 4000), (1 - memory**2).sqrt()
    mean = told * drawn(made, told * start, wide * normal(g, 4000), later=False)
    power = drawn(made, mean, wide * normal(g, 4000)).square().mean((0, 2, 3)).sqrt()
    mean = told * (told * start + wide * normal(g, 4000))
    before = (mean + wide * normal(g, 4000)).square().mean((0, 2, 3)).sqrt()
    off = lambda found: (found / CLIMATE.flatten() - 1).abs()
    if patterns == 512:
        assert off(power).max() < 0.02 < off(before).min()
    assert off(power).max() < off(before).max()


def test_a_perfect_model_is_left_alone():
    memory = each(0.9, 0.6)
    for channel in (0, 1):
        assert factors(fitted(512, memory, memory), channel) == pytest.approx((1, 1, 1), abs=0.02)


def test_what_is_damped_is_made_larger_within_bounds():
    """Means that lose 2 % a day are given them back; what has lost its way is not blown up."""
    memory = each(0.9, 0.9)
    kept = factors(fitted(512, memory, 0.98 * memory, ensembles=8000), 0)[0]
    assert kept == pytest.approx(1 / 0.98**2, abs=0.01)
    far = fitted(512, memory, each(0.5, 0.5), rounds=3, ensembles=500)
    assert far.kept.max() == pytest.approx(KEPT[1])
    assert SIZE[0] <= far.size.min() and far.size.max() <= SIZE[1]


def test_combinations_that_hardly_vary_are_made_narrow():
    """A hundredfold too wide along a pattern of little variance, in first windows and later."""
    climate = torch.tensor([1.0, 0.01])[:, None, None]
    quiet = lambda g, *lead: torch.randn(*lead, 2, *SHAPE, generator=g) * climate
    made, memory = Patterns(2, AREA, ENDS, 512, rest=True), each(0.8, 0.0)
    g = torch.Generator().manual_seed(1)
    made.measure((quiet(g, 500) for _ in range(8)), ALIKE)
    start, wide = quiet(g, 4000), (1 - memory**2).sqrt()
    for _ in range(6):
        tallies = []
        for later in (False, True):
            mean = (memory * start).repeat_interleave(4, 0)
            apart = torch.randn(len(mean), 2, *SHAPE, generator=g) * wide * each(1.0, 0.3)
            z = drawn(made, mean, apart, later)
            came = memory * start + wide * quiet(g, len(start))
            tallies.append(made.tally(z.view(-1, 4, *z.shape[1:]), came))
        made.improve(*tallies, 1)
    for wide in factors(made, 1)[1:]:
        assert wide == pytest.approx(1 / 30, rel=0.1)


def test_leading_patterns_are_those_of_what_decodes():
    """Channels that vary together, one of which is exaggerated and decodes to nearly all: among
    patterns of latents, each a mixture of both, no number can mend that."""
    mix = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    both = lambda g, *lead: torch.einsum("ij,...jyx->...iyx", mix, normal(g, *lead) / CLIMATE)
    memory, told = each(0.9, 0.9), each(0.95, 0.9)

    def found(patterns, rest, worth):
        made, g = Patterns(2, AREA, ENDS, patterns, rest=rest), torch.Generator().manual_seed(1)
        made.measure((both(g, 500) for _ in range(8)), worth)
        return improved(made, memory, told, ensembles=16000, normal=both)

    leading = found(3, False, torch.tensor([1e4, 1.0]))
    off = {}
    for made in (leading, found(512, True, ALIKE)):
        g = torch.Generator().manual_seed(7)
        wide, start = (1 - memory**2).sqrt(), both(g, 16000)
        mean = told * drawn(made, told * start, wide * both(g, 16000), later=False)
        after = drawn(made, mean, wide * both(g, 16000))
        power = [leading._along(leading._rows(z)).abs().square().mean(0) for z in (after, start)]
        off[made] = (power[0] / power[1] - 1).abs().mean()
    mended, mixed = off.values()
    assert mended < 0.02 < mixed
    x = torch.randn(5, 2, *SHAPE)  # what the three patterns do not hold stays as it is
    rows = leading._rows(x)
    held = torch.einsum("bkp,knp->bkn", leading._along(rows), leading.patterns)
    x = leading.waves.fields(rows - held) / leading.root
    torch.testing.assert_close(drawn(leading, x, 0 * x), x, atol=1e-4, rtol=1e-4)


def tally_of(made, error, missed, agreed=1.0, expected=1.0, spread=0.8, ensembles=50):
    """Sums that are alike for all numbers, but for the first of each block, if two are given."""
    own = torch.ones_like(made.kept).double()

    def numbers(x):
        first, others = x if isinstance(x, tuple) else (x, x)
        return torch.cat([first * own[:, :1], others * own[:, 1:]], dim=1)

    return Tally(*map(numbers, (agreed, expected, spread, error, missed)), ensembles)


@pytest.mark.parametrize("nothing", [False, True])
def test_a_slope_of_which_nothing_is_known_draws_no_other_down(nothing):
    """Of few ensembles that spread too far, an error may come out below nothing, and where nothing
    varies all is nothing; such a slope is not the surest of all."""
    made = Patterns(2, AREA, ENDS, 512, rest=True)
    if nothing:
        odd = {"agreed": (0.0, 1.0), "expected": (0.0, 1.0), "error": (0.0, 0.2),
               "missed": (0.0, 0.4), "spread": (0.0, 0.8)}  # fmt: skip
    else:
        odd = {"agreed": (0.0, 1.0), "error": (-0.1, 0.2), "missed": (0.1, 0.4)}
    tally = tally_of(made, **odd)
    made.improve(tally, tally, 1)
    assert made.kept[:, 1:].min() > 0.9
    if not nothing:
        assert made.kept[:, 0].max() < 0.7


def test_few_ensembles_do_not_tell_wavenumbers_apart():
    """All ensembles spread a fifth too far, in variance; one pattern's error came out below
    nothing: the others' sizes become alike, which without it they are."""
    torch.manual_seed(0)
    long, worst, n = torch.ones(1, 40), [], 50
    for below in (False, True):
        made = Patterns(2, long, ("bounded", "periodic"), 512, rest=True)
        free = n * made.free.expand(made.kept.shape)
        missed = torch.distributions.Chi2(free).sample() / free
        tally = tally_of(made, 0.0, 0.0)
        tally.missed, tally.error = missed, missed - 0.2
        if below:
            tally.error[3, 0] = -0.01
        made.improve(tally, tally, 1)
        others = torch.ones_like(missed, dtype=torch.bool)
        others[3] = False
        worst.append(made.size[0][others].log().std() / (missed - 0.2)[others].sqrt().log().std())
    assert max(worst) < 0.35


def test_an_error_below_nothing_does_not_hide_that_others_differ():
    """Sizes of a block that truly differ stay apart, whatever one of them came out at."""
    made = Patterns(40, torch.ones(1, 40), ("bounded", "periodic"), 512, rest=True)
    wide = torch.linspace(-1, 1, made.kept.shape[1]).exp().double().expand(made.kept.shape)
    tally = tally_of(made, 0.0, 0.0, ensembles=1000)
    tally.error, tally.missed = 0.8 * wide, wide.clone()
    tally.error[:, 0] = -0.001
    made.improve(tally, tally, 1)
    torch.testing.assert_close(made.size[0][:, 1:].double(), wide[:, 1:].sqrt(), rtol=0.02, atol=0)


@pytest.mark.parametrize(("held", "ends"), [(3, ENDS), (512, ENDS), (3, ("bounded", "bounded"))])
def test_how_far_sums_of_squares_scatter(held, ends):
    """By 2 / samples of their square, where all is white: complex numbers count twice, and what
    no pattern holds counts its cells."""
    made, flat = Patterns(2, torch.ones(3, 4), ends, held, rest=True), torch.zeros(4000, 2, 3, 4)
    rows = made._rows(flat.normal_(generator=torch.Generator().manual_seed(0)))
    along = made._along(rows).abs().square()
    if made.kept.shape[1] > along.shape[2]:
        rest = rows.abs().square().sum(2) - along.sum(2)
        along = torch.cat([along, rest[..., None]], dim=2)
    found = 2 * along.mean(0).square() / along.var(0)
    torch.testing.assert_close(found.double(), made.free, rtol=0.25, atol=0)


def test_means_that_know_their_training_data_are_kept_as_far_as_others_bear_them_out():
    """Means that 120 training windows have lent 20 false predictors: in training truth regresses
    on them with slope 1, elsewhere with less, as their larger errors give away."""
    g, n, false = torch.Generator().manual_seed(4), 120, 20
    made = Patterns(2, AREA, ENDS, 512, rest=True)
    made.measure((normal(g, 500) for _ in range(8)), ALIKE)
    share = each(0.8, 0.3)  # of the standard deviation, that is there to be known
    numbers = 2 * SHAPE[0] * SHAPE[1]

    def world(count):
        known, seen = normal(g, count), torch.randn(numbers, count, false, generator=g)
        return share * known, share * known + (1 - share**2).sqrt() * normal(g, count), seen

    def told(known, came, seen, fit):
        mean = known + (seen @ fit).view(numbers, -1).T.view(known.shape)
        return made.tally(torch.stack([mean, mean], 1), came)

    train, other = world(n), world(20_000)
    left = (train[1] - train[0]).flatten(1).T[..., None]
    fit = torch.linalg.lstsq(train[2], left).solution
    before, after = (told(*some, fit) for some in (train, other))
    more = float(after.error.sum() / len(other[1]) / (before.error.sum() / n))
    assert more > 1.3
    made.doubt(before, more, 2)
    slope = (after.agreed / after.expected).float()
    off = (slope - made.kept.square()).abs()
    assert slope.max() < 0.97 and float((1 - slope).mean()) > 0.1
    assert float((off / (1 - slope)).mean()) < 0.25


def test_a_mean_that_is_nothing_is_doubted_as_its_block_is():
    made = Patterns(2, AREA, ENDS, 512, rest=True)
    tally = tally_of(made, 0.1, 0.1)
    tally.expected[0, 0] = -1e-3
    tally.expected[0, 1:] = 0.2 + 1e-3 / (tally.expected.shape[1] - 1)
    made.doubt(tally, 1.2, 1)
    block = tally.error[0].sum() / tally.expected[0].sum()
    assert float(made.kept[0, 0]) == pytest.approx(1 - 0.1 * float(block), rel=1e-4)
    assert (made.kept[0] > 0.9).all()


def test_one_channel_is_its_own_part():
    rolled, frames = Rolled(1, AREA, ENDS, 512), torch.randn(50, 1, *SHAPE)
    linear = LocalLinear(1, 1, torch.arange(3)[:, None].expand(SHAPE), ENDS)
    base = MeanForecast(linear, None, False)
    rolled.parted.measure([frames], torch.ones(1), base)
    x = torch.randn(4, 1, *SHAPE)
    torch.testing.assert_close(drawn(rolled.parted, x, 0 * x), x, atol=1e-4, rtol=1e-4)


def test_channels_that_decode_to_nothing_have_patterns_too():
    made, g = Patterns(2, AREA, ENDS, 512, rest=True), torch.Generator().manual_seed(0)
    made.measure([normal(g, 50)], torch.tensor([1.0, 0.0]))
    x = normal(g, 5)
    torch.testing.assert_close(drawn(made, x, 0 * x), x, atol=1e-3, rtol=1e-3)


def test_a_number_of_many_cells_is_sure_of_itself():
    """One number a wavenumber, of many cells: what tells wavenumbers apart is no noise."""
    channels, long = 200, torch.ones(1, 40)
    made = Patterns(channels, long, ("bounded", "periodic"), 0, rest=True)
    wide = torch.linspace(-0.1, 0.1, len(made.kept)).exp().double()[:, None]
    tally = tally_of(made, 0.0, 0.0)
    tally.error, tally.missed = 0.8 * wide, wide
    made.improve(tally, tally, 1)
    torch.testing.assert_close(made.size[0].double(), wide.sqrt(), rtol=0.01, atol=0)


def test_parts_have_patterns_of_their_own():
    """Channels of equal variance that are the sum and the difference of two parts, one of which is
    exaggerated: patterns of latents mix them where they vary alike, patterns of parts do not."""
    memory, told = each(0.9, 0.9), each(0.97, 0.9)
    turn = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
    turned = lambda x: torch.einsum("ij,...jyx->...iyx", turn, x)
    alike = lambda g, *lead: turned(normal(g, *lead) / CLIMATE)
    base = MeanForecast(
        LocalLinear(1, 2, torch.zeros(SHAPE, dtype=torch.int64), ENDS), None, False
    )
    base.parts.turn.copy_(turn)
    base.parts.back.copy_(turn.T)
    made, g = Patterns(2, AREA, ENDS, 512, rest=True, groups=2), torch.Generator().manual_seed(1)
    made.measure((alike(g, 500) for _ in range(8)), ALIKE, base)
    x = torch.randn(3, 2, *SHAPE)
    torch.testing.assert_close(made._fields(made._rows(x)), x, atol=1e-5, rtol=1e-5)
    wide = (1 - memory**2).sqrt()
    for _ in range(6):
        g = torch.Generator().manual_seed(0)
        start = alike(g, 8000)
        came = memory * start + turned(wide * turned(alike(g, 8000)))
        later = memory * came + turned(wide * turned(alike(g, 8000)))
        said = lambda z: turned(told * turned(z))
        first = drawn(made, said(start).repeat_interleave(4, 0),
                      turned(wide * turned(alike(g, 32000))), later=False)  # fmt: skip
        second = drawn(made, said(first), turned(wide * turned(alike(g, 32000))))
        both = zip((first, second), (came, later), strict=True)
        made.improve(*(made.tally(z.view(-1, 4, *z.shape[1:]), true) for z, true in both), 1)
    kept = made.kept.view(-1, 2, made.kept.shape[1]).mean((0, 2))
    assert kept[0] == pytest.approx((0.9 / 0.97) ** 2, abs=0.03)
    assert kept[1] == pytest.approx(1, abs=0.03)


def test_wide_blocks_share_one_number_per_wavenumber(monkeypatch):
    monkeypatch.setattr("sciladm.diffusion.rolled.LARGEST", 3)
    wide = fitted(512, each(0.8, 0.8), each(0.9, 0.9))
    assert wide.patterns.shape[2] == 0 and wide.kept.shape[1] == 1
    assert factors(wide, 0)[0] == pytest.approx((0.8 / 0.9) ** 2, abs=0.02)


def test_beyond_the_leading_patterns_is_what_they_leave(monkeypatch):
    monkeypatch.setattr("sciladm.diffusion.rolled.LEADING", 2)
    made, g = Patterns(2, AREA, ENDS, 512, rest=True), torch.Generator().manual_seed(3)
    made.measure((normal(g, 500) for _ in range(8)), ALIKE)
    x = normal(g, 7)
    along = made._along(made._rows(x)).abs().square()[..., :-2].sum(2)
    left = along @ made.waves.mirrored().float()
    torch.testing.assert_close(made.beyond(x), left, rtol=1e-4, atol=1e-4)
    none, share = Patterns(2, AREA, ENDS, 0, rest=True), AREA / AREA.mean()
    torch.testing.assert_close(none.beyond(x), (share * x.square()).sum((1, 2, 3)))
    monkeypatch.setattr("sciladm.diffusion.rolled.LEADING", 99)
    assert (made.beyond(x) == 0).all()


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
    model.rolled.alike.size[1].mul_(1.5)
    after = forecast.states(block)
    assert np.array_equal(before[:, 0], after[:, 0], equal_nan=True)
    assert not np.allclose(before[:, 1], after[:, 1], equal_nan=True)
    own = (model.rolled.parted, model.rolled.decoded)
    for number in [n for one in own for n in (one.kept, one.size[1])]:
        number.mul_(1.05)
        more = forecast.states(block)
        assert np.array_equal(before[:, 0], more[:, 0], equal_nan=True)
        assert not np.allclose(after[:, 1], more[:, 1], equal_nan=True)
        after = more
    for patterns in model.rolled.kinds:
        patterns.size[0].mul_(1.5)
        more = forecast.states(block)
        assert not np.allclose(before[:, 0], more[:, 0], equal_nan=True)
        before = more
    model.rolled.lost.mul_(1.5)  # in fields alone, at every lead
    more = forecast.states(block)
    off = np.abs(more - before).reshape(*more.shape[:2], -1).max(2)
    assert (off > 1e-3).all()


def test_ensembles_of_a_run_become_as_wide_as_they_are_wrong(
    tiny_run, tiny, tiny_cache, tmp_path, monkeypatch
):
    model = Model.load(tiny_run)
    model.path = tmp_path
    (tmp_path / "latents.zarr").symlink_to(tiny_run / "latents.zarr")
    model.denoiser.departure.std.mul_(0.5)
    windows, starts = fit_rolled._starts(model, tiny.data, "train")
    assert windows == fit_rolled.FREELY

    alike, decoded = model.rolled.alike, model.rolled.decoded

    def narrow():
        batches = enumerate(starts.chosen(64, 16))
        with ThreadPoolExecutor(1) as threads:
            told = fit_rolled._tallied(model, alike, threads, starts, windows, batches)
            both = list(zip(*told, strict=True))
        error, spread = (np.array([[float(getattr(t, k).sum()) for t in some] for some in both])
                         for k in ("error", "spread"))  # fmt: skip
        error, spread = error.sum(1), spread.sum(1)
        return error / spread

    def afresh():
        for patterns in model.rolled.kinds:
            patterns.kept.fill_(1), patterns.size.fill_(1)

    afresh()
    before = narrow()
    fit_rolled.fit_rolled(model, open_in(tiny.cache, model.recipe), lambda *_: None)
    assert (before > 2).all() and (narrow() < 1 + 0.4 * (before - 1)).all()
    fitted = read_tensors(tmp_path / "rolled.safetensors")[0]
    assert torch.equal(fitted["rolled.alike.size"], alike.size)
    assert (fitted["rolled.lost"] - 1).abs().max() > 0.05
    afresh()
    model.facts["white_width"] *= 1.2
    usual, said = fit_rolled._missing, {1: (2.0, 1.0), windows: (1.5, 4.5)}

    def told(model, data, threads, windows, ensembles):
        beyond, whole = usual(model, data, threads, windows, ensembles)
        more = said[windows] if asked else (1.0, 1.0)
        asked.append(windows)
        return more[0] * beyond, more[1] * whole

    asked = []
    monkeypatch.setattr(fit_rolled, "_missing", told)
    fit_rolled.fit_rolled(model, open_in(tiny.cache, model.recipe), lambda *_: None)
    for patterns, by in ((alike, (2.4, 1.8)), (decoded, (0.5, 3))):
        name = "alike" if patterns is alike else "decoded"
        for size, had, times in zip(patterns.size, fitted[f"rolled.{name}.size"], by, strict=True):
            torch.testing.assert_close(size, (times * had).clamp(*SIZE))
    assert asked == [windows, 1, windows]
    torch.testing.assert_close(model.rolled.parted.kept, fitted["rolled.parted.kept"])


@pytest.mark.parametrize(("lacks", "more"), [(1.05, 1.05**2), (0.9, 1.0)])
def test_what_validation_lacks_is_doubted_before_sizes_are_asked_for(
    tiny_run, tiny, tiny_cache, tmp_path, monkeypatch, lacks, more
):
    model, said = Model.load(tiny_run), []
    model.path = tmp_path
    (tmp_path / "latents.zarr").symlink_to(tiny_run / "latents.zarr")
    tallies = []

    def improve(self, first, later, windows):
        tallies.append((self, first, later, windows))

    def doubt(self, later, more, windows):
        said.append(("doubt", self, later, more, windows))

    def lacking(model, data, threads, windows, ensembles):
        said.append(("lacks", windows, ensembles))
        return 7.0, lacks

    monkeypatch.setattr(
        fit_rolled, "ROUNDS", (("parted", 16, 0), ("parted", 16, 0), ("decoded", 16, 0))
    )
    monkeypatch.setattr(Patterns, "improve", improve)
    monkeypatch.setattr(Patterns, "doubt", doubt)
    monkeypatch.setattr(fit_rolled, "_missing", lacking)
    fit_rolled.fit_rolled(model, open_in(tiny.cache, model.recipe), lambda *_: None)
    held, first, again = (("lacks", *case) for case in (
        (fit_rolled.FREELY, fit_rolled.HELD), (1, fit_rolled.FIRST),
        (fit_rolled.FREELY, fit_rolled.HELD),
    ))  # fmt: skip
    parted, _, later, windows = tallies[1]
    assert parted is model.rolled.parted and windows == fit_rolled.FREELY / 2
    assert said == [held, ("doubt", parted, later, more, windows), first, again]


def test_first_windows_alone_are_of_training_and_tell_of_first_windows(
    tiny_run, tiny, tiny_cache, tmp_path, monkeypatch
):
    model, found = Model.load(tiny_run), []
    model.path = tmp_path
    (tmp_path / "latents.zarr").symlink_to(tiny_run / "latents.zarr")
    drawn = fit_rolled._rolled_out
    monkeypatch.setattr(fit_rolled, "ROUNDS", (("parted", 16, 0), ("parted", 32, 64)))
    monkeypatch.setattr(
        Patterns, "improve", lambda self, first, later, windows: found.append((first, later))
    )
    begun = []

    def rolled_out(model, windows, number, batch):
        begun.append((windows, number, batch))
        return drawn(model, windows, number, batch)

    monkeypatch.setattr(fit_rolled, "_rolled_out", rolled_out)
    monkeypatch.setattr(fit_rolled, "_as_validation_says", lambda *_: None)
    fit_rolled.fit_rolled(model, open_in(tiny.cache, model.recipe), lambda *_: None)
    counts = [(first.ensembles, later.ensembles) for first, later in found]
    after = fit_rolled.FREELY - 1
    assert counts == [(16, 16 * after), (32 + 64, 32 * after)]
    second = begun[1:]
    assert sorted(number for _, number, _ in second) == list(range(6))
    windows = fit_rolled.Windows.of(model, tiny.data.splits, "train")
    known = {past.numpy().tobytes() for past, _, _ in windows.spread(len(windows), 1)}
    for _, _, (past, *_) in begun:
        assert {one[None].numpy().tobytes() for one in past} <= known
    assert {w: future.shape[1] for w, _, (_, _, future) in begun} == {
        1: model.recipe.autoencoder.channels,
        fit_rolled.FREELY: fit_rolled.FREELY * model.recipe.autoencoder.channels,
    }


def test_members_leads_and_batches_of_roll_outs_have_noise_of_their_own(
    tiny_run, tiny, tiny_cache
):
    model = Model.load(tiny_run)
    windows, starts = fit_rolled._starts(model, tiny.data, "train")
    seen, usual = [], model.denoiser.clean

    def clean(white, context):
        seen.append(white.flatten(1))
        return usual(white, context)

    model.denoiser.clean = clean
    for number in (0, 1):
        list(fit_rolled._rolled_out(model, windows, number, starts.at(np.arange(2))))
    rows = torch.cat(seen)
    assert len(rows) == 2 * windows * 2 * fit_rolled.MEMBERS
    alike = torch.corrcoef(rows) - torch.eye(len(rows))
    assert alike.abs().max() < 0.5


def test_single_windows_of_validation_say_how_wide_first_ones_are(
    tiny_run, tiny, tiny_cache, tmp_path, monkeypatch
):
    model, of = Model.load(tiny_run), fit_rolled.Windows.of
    model.path = tmp_path
    (tmp_path / "latents.zarr").symlink_to(tiny_run / "latents.zarr")
    monkeypatch.setattr(fit_rolled, "ROUNDS", (("parted", 16, 0),))
    monkeypatch.setattr(Patterns, "improve", lambda *_: None)
    monkeypatch.setattr(
        fit_rolled.Windows, "of",
        lambda model, splits, split, rolled=1: [] if split == "validation" and rolled > 1
        else of(model, splits, split, rolled),
    )  # fmt: skip
    for patterns in model.rolled.kinds:
        patterns.kept.fill_(1), patterns.size.fill_(1)
    fit_rolled.fit_rolled(model, open_in(tiny.cache, model.recipe), lambda *_: None)
    white = torch.as_tensor(model.facts["white_width"]).float()
    assert (model.rolled.parted.kept == 1).all()
    torch.testing.assert_close(
        model.rolled.alike.size[1], white.expand_as(model.rolled.alike.size[1])
    )
    assert (model.rolled.alike.size[0] / white - 1).abs().min() > 1e-3


def test_validation_says_how_much_is_missing(tiny_run, tiny, tiny_cache):
    model = Model.load(tiny_run)
    with ThreadPoolExecutor(1) as threads:
        cases = (1, fit_rolled.FIRST), (fit_rolled.FREELY, fit_rolled.HELD)
        one = lambda case: fit_rolled._missing(model, tiny.data, threads, *case)
        told = lambda: np.array([one(case) for case in cases])
        usual = told()
        assert (usual > 0.7).all() and (usual < 1.4).all()
        model.rolled.alike.size[0].mul_(0.5)
        first, later = told() / usual
        assert (first > 1.6).all() and (first < 2.1).all() and (later < 1.2).all()
        model.rolled.alike.size[1].mul_(0.5)
        more = told() / usual
        assert (more > 1.6).all() and (more < 2.4).all()
    torch.manual_seed(0)
    spread = torch.rand(4000).double() + 0.5
    assert missing(2.25 * spread * (1 + torch.randn(4000) / 3), spread) == pytest.approx(
        1.5, abs=0.02
    )
    assert abs(missing(spread[:9] * (1 + torch.randn(9) / 3), spread[:9]) - 1) < 0.02
    assert missing(0 * spread, 0 * spread) == missing(9 * spread[:1], spread[:1]) == 1
    assert missing(spread, spread) == 1


def test_draws_that_run_away_are_an_error(tiny_run, tiny, tiny_cache, tmp_path, monkeypatch):
    model = Model.load(tiny_run)
    model.path = tmp_path
    (tmp_path / "latents.zarr").symlink_to(tiny_run / "latents.zarr")
    monkeypatch.setattr(fit_rolled, "ROUNDS", (("parted", 16, 0),))
    model.denoiser.departure.std.fill_(torch.inf)
    with pytest.raises(UserError, match="have not learnt"):
        fit_rolled.fit_rolled(model, open_in(tiny.cache, model.recipe), lambda *_: None)
    assert not (tmp_path / "rolled.safetensors").exists()


def test_a_split_of_single_windows_leaves_ensembles_alone(tiny_run, tiny, tiny_cache, monkeypatch):
    model, none = Model.load(tiny_run), []
    monkeypatch.setattr(fit_rolled.Windows, "of", lambda *_: none)
    assert fit_rolled._starts(model, tiny.data, "train") is None
    assert fit_rolled._missing(model, tiny.data, None, 2, 9) == (1, 1)


def test_what_decoding_loses_is_as_large_as_it_adds_to_errors(
    tiny_run, tiny, tiny_cache, monkeypatch
):
    """Forecasts whose other errors go against what is lost in the west and along with it in the
    east: E[r² + 2 r e] is 0.5 and 2 times E[r²]."""
    model = Model.load(tiny_run)
    data = open_in(tiny.cache, model.recipe)
    shape = (len(model.fields.channels), *model.fields.grid.shape)
    g, drawn, west = torch.Generator().manual_seed(0), [], shape[-1] // 2
    along = torch.full(shape, 0.5)
    along[..., :west] = -0.25

    def fields(model, z):  # of the mean, then of what came
        if len(drawn) % 2 == 0:
            drawn.append(torch.randn(len(z), *shape, generator=g))
            return -drawn[-1] - along * drawn[-1]
        drawn.append(drawn[-1])
        return -drawn[-1]

    monkeypatch.setattr(fit_rolled, "_fields", fields)
    monkeypatch.setattr(model, "anomalies", lambda values, times: torch.zeros(len(values), *shape))
    lost = fit_rolled._lost(model, data).view(-1, *model.grid.shape)
    half = model.grid.shape[-1] // 2
    for there, share in ((lost[..., :half], 0.5), (lost[..., half:], 2)):
        torch.testing.assert_close(there, torch.full_like(there, share**0.5), atol=0.02, rtol=0)
    noise = torch.randn(3, model.residual.numbers, *model.grid.shape, generator=g)
    twice = model.residual.draw(noise, torch.full_like(model.rolled.lost, 2))
    torch.testing.assert_close(twice, 2 * model.residual.draw(noise))
