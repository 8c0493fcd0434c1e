"""Functions of fields as observations: what linear ones must give, exact posteriors, mistakes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import sciladm
from sciladm import Derived, Points, Weighted
from sciladm.autoencoder.curved import Curved
from sciladm.conventions import UserError
from sciladm.data.fields import Fields
from sciladm.diffusion.denoiser import Denoiser
from sciladm.metrics.ensemble import fair_crps
from tests.conftest import DAY, open_in
from tests.test_infill import dense, gap, hidden, points

TIMES = np.datetime64("2250-01-01", "ns") + np.arange(3) * DAY
WINDS = {"u": [500, 850], "v": None}


def sums(one):
    """Twelve weighted sums of cells, in the order in which `Rows.of` has them."""
    random = np.random.default_rng(0)
    w = random.standard_normal((12, 8, 16)) * (random.random((12, 8, 16)) < 0.1)
    size = np.abs(w).reshape(12, -1)
    w = w[np.argsort(size @ np.arange(128.0) / size.sum(1))]
    values = xr.DataArray(
        (w * one.tracer.values).sum((1, 2))[None], {"time": one.time}, ("time", "observation")
    )
    return w, values


@pytest.mark.parametrize("method", ["guided", "oi"])
@pytest.mark.parametrize("cells", [True, False])
def test_a_linear_function_gives_what_weighted_sums_give(stills, method, cells):
    """Beside cells and points, and alone."""
    model, ds = stills
    one = ds.isel(time=[40])
    w, values = sums(one)
    weights = xr.Dataset({"tracer": (("observation", "y", "x"), w)}, {"y": one.y, "x": one.x})
    function = lambda state: (torch.from_numpy(w) * state["tracer"]).sum((1, 2))
    asked = hidden(one, gap(ds)) if cells else one * np.nan
    got = [
        model.infill(asked, 3, obs_error=0.2 if cells else 0.0, method=method, operator=told,
                     evaluations=12).tracer
        for told in (Weighted(weights, values, 0.2), Derived(function, values, 0.2))
    ]  # fmt: skip
    np.testing.assert_allclose(got[1], got[0], atol=1e-5)
    assert float(got[0].std("member").max()) > 0.1


def test_points_and_functions_are_taken_up_together(stills):
    """Points beside a function of cells that says what they say, and the other way round."""
    model, ds = stills
    one = ds.isel(time=[40])
    w, values = sums(one)
    function = lambda state: (torch.from_numpy(w) * state["tracer"]).sum((1, 2))
    both = [Points(points(one, 6, 0.2)), Derived(function, values, 0.2)]
    filled = model.infill(one * np.nan, 24, operator=both, evaluations=12).tracer[:, 0]
    said = (w[None] * filled.values[:, None]).sum((2, 3)) - values.values
    assert np.sqrt(np.mean(said**2)) < 1.6 * 0.2
    table = both[0].table
    at = filled.interp(y=("row", table.y), x=("row", table.x)) - table.value.values
    assert float((at.isel(row=slice(2, None)) ** 2).mean() ** 0.5) < 2 * 0.2


CASES = {
    "exp": (lambda u, v: u.exp(), 0.3),
    "speed": (lambda u, v: ((u + 2) ** 2 + (v + 1) ** 2).sqrt(), 0.3),
}


@pytest.mark.parametrize("kind", ["exp", pytest.param("speed", marks=pytest.mark.slow)])
def test_members_are_the_exact_posterior(stills, kind, monkeypatch):
    """By importance sampling of what a run has fitted: fair CRPS and spread–skill of 64 members
    in cells that the readings tell of. Draws that know nothing are seen to fail."""
    model, ds = stills
    white = lambda self, x, sigma, context: x / (1 + sigma**2)  # exact, of what was fitted
    monkeypatch.setattr(Denoiser, "forward", white)
    (function, error), inner = CASES[kind], model.model
    middle, covariance = dense(model, 1.0)
    one, scale = ds.isel(time=[40]), float(inner.normaliser.std[0])
    centre = inner.normaliser.centre(one.time.values)[0, 0].astype(float)
    random = np.random.default_rng(2)
    where = np.array([5, 56, 110]), np.array([38, 89, 15])
    said = lambda u: function(*(u[..., torch.from_numpy(at)] for at in where))
    climate = random.multivariate_normal(middle, covariance, 150_000, method="cholesky")[7:]
    values = said(torch.from_numpy(climate[0])).numpy() + error * random.standard_normal(3)
    read = lambda state: said(((state["tracer"] - torch.from_numpy(centre)) / scale).flatten())
    told = xr.DataArray(values[None], {"time": one.time}, ("time", "reading"))
    filled = model.infill(one * np.nan, 64, operator=Derived(read, told, error), evaluations=16)
    x = ((filled.tracer.values[:, 0] - centre) / scale).reshape(64, -1)
    off = (said(torch.from_numpy(climate[1:])).numpy() - values) / error
    weight = np.exp(-0.5 * (off**2).sum(1))
    assert weight.sum() ** 2 / (weight**2).sum() > 1000
    chosen = random.choice(len(weight), 64 + 4000, p=weight / weight.sum())
    narrowed = climate[1 + chosen].var(0) < 0.8 * covariance.diagonal()
    climate, x = climate[:, narrowed], x[:, narrowed]
    exact, truths = np.split(climate[1 + chosen], [64])
    mean, variance = truths.mean(0), truths.var(0)
    score = lambda members: np.mean([fair_crps(members, one).mean() for one in truths[:400]])
    spread = np.sqrt((x.var(0, ddof=1) * (1 + 1 / 64)).mean())
    skill = np.sqrt(((x.mean(0) - mean) ** 2 + variance).mean())
    assert score(x) < 1.03 * score(exact) and 0.95 < spread / skill < 1.05
    assert score(climate[-64:]) > 1.1 * score(exact)


def world():
    """Two levels of one wind and a logarithm of another, of which one cell is land."""
    shape = {"y": np.arange(3.0), "x": np.arange(4.0)}
    random = np.random.default_rng(0)
    data = {
        "u": (("time", "level", *shape), random.standard_normal((3, 2, 3, 4), np.float32)),
        "v": (("time", *shape), random.random((3, 3, 4), np.float32)),
    }
    ds = xr.Dataset(data, {"time": TIMES, "level": [500, 850], **shape})
    fields = Fields.from_dataset(ds, {"u": [850, 500], "v": None})
    bent = [replace(c, transform="log1p:2" if c.variable == "v" else "none")
            for c in fields.channels]  # fmt: skip
    valid = np.ones((3, 3, 4), bool)
    valid[2, 0, 0] = False
    return ds, replace(fields, channels=tuple(bent)), valid


def seen(values, error=0.1, function=None, **coords):
    told = xr.DataArray(values, {"time": TIMES[: len(values)], **coords},
                        ("time", "a", "b")[: np.ndim(values)])  # fmt: skip
    _, fields, valid = world()
    derived = Derived(function or (lambda s: s["u"][0]), told, error)
    return derived, derived.rows(fields, valid, TIMES, DAY)


def test_states_are_in_physical_units_by_name():
    """Levels in the run's order, transforms undone, land NaN; only what has a value is read."""
    ds, fields, valid = world()
    met = []
    want = np.full((1, 3, 4), np.nan, np.float32)
    want[0, 1, 2:] = 5.0
    _, (rows, none, _) = seen(want, function=lambda s: met.append(s) or s["u"][1] + s["v"] ** 2)
    state = torch.from_numpy(fields.to_array(ds)[0].astype(float))
    said = rows.read(state)
    assert met[0]["u"].shape == (2, 3, 4) and met[0]["v"].shape == (3, 4)
    land = np.where(valid[2], ds.v[0], np.nan)
    np.testing.assert_allclose(met[0]["v"], land, rtol=1e-5)
    np.testing.assert_allclose(met[0]["u"], ds.u[0].sel(level=[850, 500]))
    np.testing.assert_allclose(said, (ds.u[0].sel(level=500) + ds.v[0] ** 2)[1, 2:], rtol=1e-5)
    assert len(rows) == 2 and len(none) == 0 and list(rows.values) == [5, 5]


def test_errors_of_each_reading():
    values = np.arange(24.0).reshape(2, 3, 4)
    a = xr.DataArray([1.0, 2, 3], dims="a")
    by_time = xr.DataArray([0.1, 0.2], {"time": TIMES[:2]}, ["time"])
    _, (first, second, _) = seen(values, by_time * a)
    np.testing.assert_allclose(second.std.reshape(3, 4)[:, 0], [0.2, 0.4, 0.6])
    derived, _ = seen(values, by_time * a)
    part = derived.at(TIMES[1:], DAY)
    assert list(part.times) == [TIMES[1]] and part.error.sizes == {"time": 1, "a": 3}
    assert not len(first.values) - 12
    for wrong, message in (
        (0.0, "an error of 0; it is a standard one"),
        (np.nan, "an error of nan"),
        (np.ones(5), "do not fit together"),
    ):
        with pytest.raises(UserError, match=message):
            seen(values, wrong)


def test_mistakes_are_told(stills, monkeypatch):
    model, ds = stills
    one = ds.isel(time=[40])
    told = xr.DataArray([[1.0, 2.0]], {"time": one.time}, ("time", "reading"))
    ask = lambda f, values=told: model.infill(one * np.nan, 2, operator=Derived(f, values, 0.1))
    some = lambda s: s["tracer"][0, :2]
    for function, message in (
        (
            lambda s: s["tracer"][0, :3],
            r"gives shape \(3,\), and each time has values of .*\(2,\)",
        ),
        (lambda s: s["tracer"].sum(), "gives a single number"),
        (lambda s: some(s).detach().numpy(), "gives ndarray, not a torch tensor"),
        (lambda s: some(s).detach(), "cannot be differentiated by the state"),
        (lambda s: some(s).round() * 1.0, "derivative is 0 everywhere"),
        (lambda s: (some(s) - some(s)).sqrt(), "derivative is not finite"),
        (lambda s: (-(some(s) ** 2) - 1).log(), "gives nan for 2 of 2 values"),
        (lambda s: s["salt"], r"KeyError: 'salt'. It is given tracer \(8, 16\)"),
    ):
        with pytest.raises(UserError, match=message):
            ask(function)
    with pytest.raises(UserError, match="values over `time`"):
        ask(some, told[0])
    late = told.assign_coords(time=told.time + DAY)
    with pytest.raises(UserError, match="at none of the 1 times"):
        ask(some, late)
    many = xr.DataArray(np.zeros((1, 2000)), {"time": one.time}, ("time", "reading"))
    with pytest.raises(UserError, match="1024 of one time at most"):
        ask(lambda s: s["tracer"].flatten().repeat(16)[:2000], many)


class Cube(torch.autograd.Function):
    """An operation of a user's own, which knows nothing of batches of derivatives."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, dual):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * dual


def nothing(model):
    """What is observed of cells: none."""
    none = torch.zeros(1, 8, 16)
    return sciladm.autoencoder.observed.Observed.of(
        none.double(), none, none.bool(), model.model.residual
    )


def test_the_covariance_of_the_residual_goes_through_the_tangent(stills):
    """Brute force: J C Jᵀ + std² of each member; operations of a user's own, too."""
    model, _ = stills
    cells = nothing(model)
    _, lost = dense(model, 0.0)
    at = torch.arange(0, 128, 17)
    x = torch.randn(3, 1, 8, 16, generator=torch.Generator().manual_seed(0)).double()
    for read, slope in (
        (lambda f: f.flatten()[at].exp(), lambda f: f.exp()),
        (lambda f: Cube.apply(f.flatten()[at]), lambda f: 3 * f**2),
    ):
        curved = Curved.of(cells, read, np.zeros(8), np.full(8, 0.3))
        for one, root in zip(x, curved._root(x), strict=True):
            j = np.diag(slope(one.flatten()[at]).numpy())
            want = j @ lost[np.ix_(at, at)] @ j + 0.3**2 * np.eye(8)
            np.testing.assert_allclose(root @ root.T, want, rtol=1e-5, atol=1e-7)


def test_what_decoding_left_meets_a_function(stills):
    """Decoded fields are known; the residual's posterior in closed form, f linear, and readings
    met within their errors where it is not."""
    model, _ = stills
    cells = nothing(model)
    _, lost = dense(model, 0.0)
    generator = torch.Generator().manual_seed(0)
    count = 1000
    drawn = model.model.residual.draw(
        torch.randn(count, model.model.residual.numbers, 2, 4, generator=generator)
    ).double()
    decoded = torch.zeros(count, 1, 8, 16).double()
    error = torch.randn(count, 8, generator=generator).double()
    at = torch.arange(0, 128, 17)
    size = float(np.sqrt(lost.diagonal().mean()))
    values = np.full(8, size)
    linear = Curved.of(cells, lambda f: f.flatten()[at], values, np.full(8, size / 2))
    r = linear.residual(decoded, drawn, decoded, error).flatten(1).numpy()
    gain = lost[:, at] @ np.linalg.inv(lost[np.ix_(at, at)] + size**2 / 4 * np.eye(8))
    want = lost - gain @ lost[at]
    assert np.abs(r.mean(0) - gain @ values).max() < 4 * size / np.sqrt(count)
    assert abs((r.var(0) / want.diagonal())[at].mean() - 1) < 0.06
    bent = Curved.of(cells, lambda f: (f.flatten()[at] / size).sinh(), np.ones(8), np.full(8, 0.1))
    r = bent.residual(decoded[:99], drawn[:99], decoded[:99], error[:99])
    off = torch.stack([bent.read(x) for x in r]) - 1
    assert float(off.square().mean().sqrt()) < 0.15


def test_a_past_and_functions_are_cycled(tiny_run, tiny_cache):
    """Squares of the pressure, in `assimilate`: nearer to the truth than without."""
    model = sciladm.load(tiny_run)
    data = open_in(tiny_cache.cache, model.model.recipe)
    states = data.frames.ds.isel(time=data.indices("test")[:8:4]).load()
    name = "mean_sea_level_pressure"
    true = states[name][[1], ::4, ::4] ** 2 / 1e5
    told = Derived(lambda s: s[name][::4, ::4] ** 2 / 1e5, true, 60.0)
    past = states.isel(time=[0])
    free, analysed = (
        model.assimilate(past, some, states.time.values[1], members=4, evaluations=12)[name]
        for some in ([], told)
    )
    off = lambda drawn: float(((drawn.mean("member") - states[name][1]) ** 2).mean())
    assert off(analysed) < 0.85 * off(free)


def test_lazy_questions_take_functions(films):
    model, ds = films
    days = ds.isel(time=[3, 4, 9]) * np.nan
    values = (ds.tracer[[3, 9], ::2, ::4] / 3).map_blocks(np.exp)
    error = xr.DataArray([0.1, 0.2], {"time": values.time}, ["time"])
    told = Derived(lambda s: (s["tracer"][::2, ::4] / 3).exp(), values, error)
    want = model.infill(days, 2, evaluations=12, operator=told)
    got = model.infill(days.chunk(time=1), 2, evaluations=12, operator=told)
    xr.testing.assert_allclose(got.compute(), want)
    assert want.attrs["infill_besides"] == "Derived"
