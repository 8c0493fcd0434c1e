"""In-filling Datasets: against the exact posterior of what a run has fitted, and as users hand
their data over."""

import signal
import subprocess
import sys
import time
from copy import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import sciladm
from sciladm import AreaMean, Points
from sciladm import infill as program
from sciladm.conventions import UserError
from sciladm.data.answers import AnswerStore
from sciladm.data.blocks import unfinished
from sciladm.diffusion.denoiser import Context, Denoiser
from sciladm.diffusion.known import Informed
from sciladm.diffusion.posterior import Curvature
from sciladm.observe import Rows
from sciladm.tasks.errors import errors
from sciladm.tasks.fills import Filled
from sciladm.tasks.gaps import Gaps
from sciladm.tasks.given import Given, Plan
from sciladm.tasks.regression import RolledOut
from sciladm.tasks.seen import Precise
from sciladm.tasks.trained import TrainedModel
from tests.conftest import open_in
from tests.test_blocks import contents

SHAPE = (8, 16)
ERROR = 0.05


def hidden(ds, where):
    """``ds`` with NaN where."""
    return ds.assign(tracer=ds.tracer.where(~where))


def gap(ds):
    """A block of a quarter of the cells."""
    where = xr.zeros_like(ds.tracer.isel(time=0), dtype=bool)
    where[2:6, 4:12] = True
    return where


def smaller(share, x, sigma, context, known):
    """E[r | x, y] for r of variance ``share``, given E[r | y] for one of variance 1."""
    flat = known.law.stretched(known.mean, lambda v: 1 + v) + x / sigma**2
    return known.law.stretched(flat, lambda v: 1 / (1 / share + 1 / sigma**2 + v))


def dense(model, share):
    """Mean and covariance (cells, cells) of what the run has fitted to a single state, where r has
    the variance ``share``."""
    inner, unit = model.model, torch.eye(10 * 2 * 4).view(-1, 10, 2, 4)
    times = np.array(["2250-01-01"], "M8[ns]")
    nothing = torch.zeros(1, 0, 2, 4)
    context = inner.denoiser.context(nothing, inner.forcings(times)[None], inner.latent_statics)
    decode = lambda r: inner.autoencoder.decode(inner.denoiser.clean(r, context), inner.statics)
    with torch.no_grad():
        middle = decode(torch.zeros(1, 10, 2, 4))
        small = 1e-2  # the decoder bends a little far from the middle
        columns = ((decode(small * unit) - middle) / small).flatten(1).double().numpy()
    covariance = share * columns.T @ columns
    patches = inner.residual.covariance().double()
    size = patches.shape[1]
    blocks = torch.zeros(8, size, 8, size, dtype=torch.float64)
    blocks[range(8), :, range(8)] = patches
    number = torch.arange(128).view(1, 1, *SHAPE)
    place = inner.autoencoder.patches.split(number)[0].flatten(1).T.flatten()
    lost = np.zeros((128, 128))
    lost[np.ix_(place, place)] = blocks.reshape(128, 128).numpy()
    return middle.flatten().double().numpy(), covariance + lost


@pytest.mark.parametrize(
    ("method", "share"),
    [
        ("oi", 1.0),
        ("guided", 0.25),
        ("amortised", 1.0),
        ("amortised", 0.25),
        pytest.param("guided", 1.0, marks=pytest.mark.slow),
    ],
)
def test_members_are_the_posterior_of_what_was_fitted(stills, masked, method, share, monkeypatch):
    """Mean and spread in the gap of many members; the exact ones from dense matrices. A network
    that knows r to be half as large as whitening has it is believed."""
    model, ds = masked if method == "amortised" else stills
    if share != 1:
        exact = lambda self, x, sigma, context: x * (share / (share + sigma**2))
        monkeypatch.setattr(Denoiser, "forward", exact)
        monkeypatch.setattr(Informed, "forward", lambda self, *told: smaller(share, *told))
    holds_for_a_gap(model, ds, method, share)


@pytest.mark.parametrize("method", ["oi", "amortised"])
def test_members_go_as_far_as_is_usual_at_the_time(masked, method):
    """Here little more than half as far as at all times."""
    weight = masked[0].model.denoiser.base.season.weight
    before = weight.clone()
    weight[..., -1] = -0.5
    try:
        holds_for_a_gap(*masked, method, 1.0)
    finally:
        weight.copy_(before)


def holds_for_a_gap(model, ds, method, share):
    """Mean and spread of 240 members in it, and of the observed cells beside it."""
    one = ds.isel(time=[40])
    where = gap(ds)
    scale = float(model.model.normaliser.std[0])
    members = 240
    filled = model.infill(
        hidden(one, where), members, obs_error=ERROR * scale, method=method, evaluations=16
    )
    centre = model.model.normaliser.centre(one.time.values)[0, 0]
    x = ((filled.tracer.isel(time=0).values - centre) / scale).reshape(members, -1)
    y = ((one.tracer.values[0] - centre) / scale).ravel()
    middle, covariance = dense(model, share)
    seen = ~where.values.ravel()
    kalman = covariance[:, seen] @ np.linalg.inv(
        covariance[np.ix_(seen, seen)] + ERROR**2 * np.eye(seen.sum())
    )
    mean = middle + kalman @ (y - middle)[seen]
    std = np.sqrt((covariance - kalman @ covariance[seen]).diagonal())
    off = (x.mean(0) - mean) / std
    assert np.sqrt(np.mean(off[~seen] ** 2)) < 3 / np.sqrt(members) + 0.05
    assert abs(np.sqrt(np.mean(x.var(0)[~seen] / std[~seen] ** 2)) - 1) < 0.05
    assert abs(np.sqrt(np.mean(x.var(0)[seen] / std[seen] ** 2)) - 1) < 0.15
    assert std[~seen].mean() < 0.9 * np.sqrt(covariance.diagonal()).mean()  # it was no prior


def blocks(ds):
    """Means over 4 × 4 cells."""
    return ds.coarsen(y=4, x=4).mean()


def points(ds, count, error):
    """A table of ``count`` places between cells, and what a field says there, with errors."""
    random = np.random.default_rng(3)
    at = {n: random.uniform(ds[n].min(), ds[n].max(), count) for n in ("y", "x")}
    told = ds.tracer.interp({name: ("row", where) for name, where in at.items()})
    value = told.values + error * random.standard_normal(told.shape)
    times = np.repeat(ds.time.values, count)
    where = {name: np.tile(column, ds.sizes["time"]) for name, column in at.items()}
    return pd.DataFrame(where | {"time": times, "value": value.ravel(), "error": error})


@pytest.mark.parametrize(
    ("method", "share", "cells"),
    [
        ("oi", 1.0, True),
        pytest.param("guided", 0.25, True, marks=pytest.mark.slow),
        ("amortised", 0.25, True),
        pytest.param("guided", 1.0, False, marks=pytest.mark.slow),
    ],
)
def test_members_are_the_posterior_given_points_and_means(
    stills, masked, method, share, cells, monkeypatch
):
    """With some cells observed beside them, and none."""
    model, ds = masked if method == "amortised" else stills
    if share != 1:
        exact = lambda self, x, sigma, context: x * (share / (share + sigma**2))
        monkeypatch.setattr(Denoiser, "forward", exact)
        monkeypatch.setattr(Informed, "forward", lambda self, *told: smaller(share, *told))
    one, scale = ds.isel(time=[40]), float(model.model.normaliser.std[0])
    where = gap(ds) if cells else gap(ds) | True
    told = [AreaMean(blocks(one), ERROR * scale), Points(points(one, 12, ERROR * scale))]
    members = 240
    filled = model.infill(
        hidden(one, where), members, obs_error=ERROR * scale, method=method, evaluations=16,
        operator=told,
    )  # fmt: skip
    inner = model.model
    centre = inner.normaliser.centre(one.time.values)[0, 0]
    x = ((filled.tracer.isel(time=0).values - centre) / scale).reshape(members, -1)
    y = ((one.tracer.values[0] - centre) / scale).ravel()
    middle, covariance = dense(model, share)
    seen = ~where.values.ravel()
    rows = Rows.of([o.rows(inner.fields, inner.normaliser.valid, one.time.values, inner.step)[0]
                    for o in told])  # fmt: skip
    a = np.concatenate([np.eye(128)[seen], rows.weights.toarray()])
    wanted = np.concatenate([y[seen], (rows.values - rows.weights @ centre.ravel()) / scale])
    kalman = covariance @ a.T @ np.linalg.inv(a @ covariance @ a.T + ERROR**2 * np.eye(len(a)))
    mean = middle + kalman @ (wanted - a @ middle)
    std = np.sqrt((covariance - kalman @ a @ covariance).diagonal())
    off = (x.mean(0) - mean) / std
    assert np.sqrt(np.mean(off[~seen] ** 2)) < 3 / np.sqrt(members) + 0.05
    assert abs(np.sqrt(np.mean(x.var(0)[~seen] / std[~seen] ** 2)) - 1) < 0.05
    assert std[~seen].mean() < 0.8 * np.sqrt(covariance.diagonal()).mean()
    sums = rows.weights @ (x * scale + centre.ravel()).T - rows.values[:, None]
    assert np.sqrt(np.mean(sums**2)) < 1.6 * ERROR * scale


def test_downscaling_gives_fields_with_these_means(stills):
    model, ds = stills
    days = ds.isel(time=[8, 9])
    fine = model.downscale(blocks(days), 4, evaluations=12)
    assert fine.tracer.dims == ("member", *ds.tracer.dims) and (fine.y == ds.y).all()
    scale = float(model.model.normaliser.std[0])
    off = fine.tracer.coarsen(y=4, x=4).mean() - blocks(days).tracer
    assert float(np.abs(off).max()) < 0.1 * scale
    turned = blocks(days).isel(y=slice(None, None, -1), time=[1, 0]).transpose("x", "time", "y")
    xr.testing.assert_allclose(model.downscale(turned, 4, evaluations=12), fine, atol=1e-4)
    width = fine.tracer.std("member").mean()
    assert 0.1 * scale < float(width) < 0.9 * scale
    with pytest.raises(UserError, match="the means have no `time`"):
        model.downscale(blocks(days).isel(time=0, drop=True), 4)
    with pytest.raises(UserError, match="no past for it to go on from"):
        model.assimilate(days, [], members=2)


@pytest.mark.parametrize("method", ["oi", "guided", "amortised"])
def test_what_was_observed_comes_back_bit_for_bit(stills, masked, method):
    model, ds = masked if method == "amortised" else stills
    days = ds.isel(time=slice(3, 6)).assign(other=("time", [1, 2, 3]))
    asked = hidden(days, gap(ds) & (days.time != days.time[1]))
    filled = model.infill(asked, 3, method=method, evaluations=12)
    assert filled.tracer.dims == ("member", *ds.tracer.dims)
    assert np.isfinite(filled.tracer).all()
    seen = filled.tracer_observed
    assert (seen == asked.tracer.notnull()).all() and not seen.all()
    same = filled.tracer.where(seen).drop_vars("member")
    assert same.equals(asked.tracer.expand_dims(member=3))
    assert (filled.tracer.isel(time=1) == days.tracer[1]).all()
    width = filled.tracer.max("member") - filled.tracer.min("member")
    assert float(width.where(~seen).min()) > 0 and float(width.where(seen).max()) == 0
    assert filled.other.identical(days.other) and filled.attrs["infill_method"] == method
    assert filled.tracer.attrs == ds.tracer.attrs


def test_the_answer_has_the_form_of_the_question(stills):
    """Other names, orders and directions of axes, float64, a scalar time: the same cells."""
    model, ds = stills
    usual = hidden(ds.isel(time=[8]), gap(ds))
    want = model.infill(usual, 2, evaluations=12)
    odd = usual.isel(x=slice(None, None, -1)).transpose("x", "time", "y").astype("f8")
    odd = odd.isel(time=0)
    odd.tracer.encoding = {"dtype": "int16", "scale_factor": 0.1}
    got = model.infill(odd, 2, evaluations=12)
    assert got.tracer.dims == ("member", "x", "y") and got.tracer.dtype == np.float64
    assert got.time.ndim == 0 and (got.x == odd.x).all()
    same = got.tracer.isel(x=slice(None, None, -1)).transpose("member", "y", "x")
    np.testing.assert_allclose(same, want.tracer[:, 0], rtol=1e-6)
    assert odd.tracer.isnull().any()  # the question is as it was


def test_times_in_any_order(stills):
    model, ds = stills
    usual = hidden(ds.isel(time=slice(20, 24)), gap(ds))
    mixed = usual.isel(time=[2, 0, 3, 1])
    want, got = (model.infill(one, 2, evaluations=12) for one in (usual, mixed))
    assert got.isel(time=[1, 3, 0, 2]).identical(want)


@pytest.mark.parametrize("method", ["oi", "guided", "amortised"])
def test_a_member_is_the_same_whoever_else_is_asked(stills, masked, method):
    model, ds = masked if method == "amortised" else stills
    asked = hidden(ds.isel(time=[8]), gap(ds))
    few, many = (model.infill(asked, n, method=method, evaluations=12).tracer for n in (3, 11))
    assert few.equals(many[:3])
    other = model.infill(asked, 3, method=method, evaluations=12, seed=1).tracer
    assert not other.isel(member=0).equals(few.isel(member=0))


def test_what_members_have_in_common_is_made_once_a_worker(films, monkeypatch):
    """And changes no bit."""
    model, ds = films
    asked = hidden(ds.isel(time=slice(3, 8)), gap(ds))
    made, of = [], Curvature.of
    monkeypatch.setattr(Curvature, "of", lambda *told: made.append(1) or of(*told))
    once = model.infill(asked, 24, method="oi", evaluations=12, workers=1)
    windows = len(made)
    thrice = model.infill(asked, 24, method="oi", evaluations=12, workers=3)
    assert windows > 1 and len(made) == 4 * windows and once.identical(thrice)


@pytest.mark.parametrize("method", ["guided", "amortised"])
def test_nothing_observed_is_the_climate(stills, masked, method):
    model, ds = masked if method == "amortised" else stills
    asked = ds.isel(time=[8]).assign(tracer=ds.tracer[[8]] * np.nan)
    drawn = model.infill(asked, 64, method=method, evaluations=16).tracer[:, 0]
    climate = ds.tracer
    assert abs(float(drawn.std() / climate.std()) - 1) < 0.08
    assert abs(float(drawn.mean() - climate.mean())) < 0.2 * float(climate.std())


def test_mean_and_quantiles(stills):
    model, ds = stills
    asked = hidden(ds.isel(time=[8]), gap(ds))
    members = model.infill(asked, 9, evaluations=12).tracer
    moments = model.infill(asked, 9, evaluations=12, output="mean_std")
    np.testing.assert_allclose(moments.tracer, members.mean("member"), rtol=1e-5)
    np.testing.assert_allclose(moments.tracer_std, members.std("member", ddof=1), atol=3e-6)
    assert moments.tracer_std.attrs["units"] == ds.tracer.attrs["units"]
    quantiles = model.infill(asked, 9, evaluations=12, output="quantiles")
    middle = quantiles.tracer.sel(quantile=0.5)
    np.testing.assert_allclose(middle, members.median("member"), rtol=1e-6)


def test_plans_cover_every_frame_and_look_ahead():
    assert Plan.of(0, 1) == Plan(1, 0, 0) and Plan.of(0, 1).starts(4) == [0, 1, 2, 3]
    for past, future, frames in ((0, 3, 8), (0, 6, 20), (1, 3, 7), (2, 1, 5), (0, 2, 2)):
        plan = Plan.of(past, future)
        starts = plan.starts(frames)
        step = plan.length - plan.fixed - plan.ahead
        assert step > 0 and starts[0] == 0 and starts[-1] + plan.length >= frames
        assert (np.diff(starts) == step).all()
        assert len(starts) == 1 or starts[-2] + plan.length < frames
        assert past or future == 1 or plan.fixed > 0


@pytest.mark.slow
def test_gaps_are_filled_in_step_with_the_days_around(films):
    """The middle of five days is hidden. Members resemble the days before and after it as much as
    truth does, where a day by itself resembles neither."""
    model, ds = films
    found = {"members": [], "truth": [], "alone": []}
    for start in range(0, 300, 20):
        days = ds.isel(time=slice(start, start + 5))
        asked = days.assign(tracer=days.tracer.where(days.time != days.time[2]))
        filled = model.infill(asked, 4, evaluations=12).tracer
        for kind, middle in (
            ("members", filled[:, 2]), ("truth", days.tracer[[2]]),
            ("alone", ds.tracer[[(start + 150) % 700]]),
        ):  # fmt: skip
            for other in (days.tracer[1], days.tracer[3]):
                found[kind].append(np.mean((middle.values - other.values) ** 2))
    apart = {kind: np.mean(values) for kind, values in found.items()}
    assert 0.85 < apart["members"] / apart["truth"] < 1.15 < apart["alone"] / apart["truth"]


def untaught(trained):
    """A run whose denoiser sees what is known and has not learnt anything of it."""
    inner, old = copy(trained.model), trained.model.denoiser
    told = inner.recipe.denoiser.model_copy(update={"masks": 1, "scale": False})
    inner.recipe = inner.recipe.model_copy(update={"denoiser": told})
    del inner.__dict__["denoiser"]
    inner.denoiser.base, inner.denoiser.departure = old.base, old.departure
    return TrainedModel(inner)


@pytest.mark.parametrize("method", [pytest.param("guided", marks=pytest.mark.slow), "amortised"])
def test_series_longer_than_a_window_have_no_seam(films, method):
    """Nothing observed for nine days: from day to day drawn fields change as the truth does,
    within a window of three and from one to the next."""
    model, ds = films
    if method == "amortised":
        model = untaught(model)
    asked = ds.isel(time=slice(0, 9)).assign(tracer=ds.tracer[:9] * np.nan)
    drawn = model.infill(asked, 32, method=method, evaluations=12).tracer
    change = ((drawn.diff("time")) ** 2).mean(("member", "y", "x")) / drawn.var()
    usual = float((ds.tracer.diff("time") ** 2).mean() / ds.tracer.var())
    assert np.abs(change / usual - 1).max() < 0.25 and abs(float(change.mean()) / usual - 1) < 0.1


@pytest.mark.parametrize(
    "output", ["members", pytest.param("mean_std", marks=pytest.mark.slow), "quantiles"]
)
def test_lazy_questions_have_lazy_answers(films, output):
    """Nothing is read before it is asked for; then series by series, the same bits."""
    model, ds = films
    days = hidden(ds.isel(time=[3, 4, 5, 9, 10]), gap(ds)).assign_attrs(kept=1)
    want = model.infill(days, 3, evaluations=12, output=output)
    read = []

    def reading(block):
        read.append(block.shape)
        return block

    chunked = days.chunk(time=1)
    chunked["tracer"] = chunked.tracer.copy(
        data=chunked.tracer.data.map_blocks(reading, meta=np.zeros((0, 0, 0), np.float32))
    )
    got = model.infill(chunked, 3, evaluations=12, output=output)
    assert not read and all(v.chunks for v in got.data_vars.values())
    axis = got.tracer.dims.index("time")
    assert got.tracer.chunks[axis] == (3, 2) and got.tracer.dims == want.tracer.dims
    one = got.isel(time=slice(3, 5)).compute()
    assert len(read) == 2
    xr.testing.assert_identical(one.drop_attrs(), want.isel(time=slice(3, 5)).drop_attrs())
    xr.testing.assert_identical(got.compute().drop_attrs(), want.drop_attrs())
    assert got.tracer.attrs == want.tracer.attrs and got.attrs["kept"] == 1
    assert set(want.attrs) - set(got.attrs) == {
        "infill_given", "infill_misfit_left", "infill_solved", "infill_observations_far_off"
    }  # fmt: skip


def test_lazy_questions_take_points(films):
    model, ds = films
    days = ds.isel(time=[3, 4, 9]) * np.nan
    told = Points(points(ds.isel(time=[3, 4, 9]), 6, 0.2))
    want = model.infill(days, 2, evaluations=12, operator=told)
    got = model.infill(days.chunk(time=1), 2, evaluations=12, operator=told)
    xr.testing.assert_allclose(got.compute(), want)
    means = AreaMean(blocks(ds.isel(time=[9])))  # none in the first series
    want = model.infill(days, 2, evaluations=12, operator=means)
    got = model.infill(days.chunk(time=1), 2, evaluations=12, operator=means)
    xr.testing.assert_allclose(got.compute(), want)
    with pytest.raises(UserError, match="at none of the 3 times"):
        model.infill(days.chunk(time=1), 2, operator=Points(points(ds.isel(time=[6]), 6, 0.2)))


def test_drawn_values_are_packed_as_far_as_they_fit(stills, tmp_path):
    """The integers of a file hold the range it had; what is drawn may lie beyond it."""
    model, ds = stills
    asked = hidden(ds.isel(time=[8]), gap(ds))
    low, high = float(asked.tracer.min()), float(asked.tracer.max())
    for wide, kept in ((20.0, True), (0.2, False)):
        middle, scale = (low + high) / 2, wide * (high - low) / 65000
        asked.tracer.encoding = {
            "dtype": "int16", "scale_factor": scale, "add_offset": middle, "_FillValue": -32768
        }  # fmt: skip
        filled = model.infill(asked, 2, evaluations=12)
        assert ("scale_factor" in filled.tracer.encoding) is kept
        filled.to_netcdf(tmp_path / f"{kept}.nc")
        with xr.open_dataset(tmp_path / f"{kept}.nc") as back:
            assert float(np.abs(back.tracer - filled.tracer).max()) <= scale


def test_series_are_times_a_step_apart(films):
    model, ds = films
    days = ds.isel(time=[3, 4, 5, 9, 10, 20])
    found = [list(n) for n in Gaps.of(model.model, days).series()]
    assert found == [[0, 1, 2], [3, 4], [5]]


def test_errors_are_in_the_unit_of_the_variable(stills):
    """Also where the networks see a logarithm of it."""
    model, ds = stills
    gaps = Gaps.of(model.model, ds.isel(time=[8]))
    np.testing.assert_allclose(errors(gaps, 0.2), 0.2, rtol=1e-3)
    channel = replace(model.model.fields.channels[0], transform="log1p:2")
    fields = replace(model.model.fields, channels=(channel,))
    bent = Gaps(replace(model.model, fields=fields), gaps.given, gaps.frames)
    vars(bent)["values"] = gaps.values / 10
    slope = np.exp(-gaps.values / 10) / 2  # d ln(1 + x/2) / dx
    np.testing.assert_allclose(errors(bent, 0.2), 0.2 * slope, rtol=0.1)


def test_errors_may_differ_from_cell_to_cell(stills):
    """Found by label, in any order; one that lacks where there is an observation is refused."""
    model, ds = stills
    days = hidden(ds.isel(time=[8, 9]), gap(ds))
    told = 0.1 + 0.01 * days.x + xr.DataArray([0.0, 1.0], {"time": days.time})
    got = errors(Gaps.of(model.model, days), told.isel(x=slice(None, None, -1), time=[1, 0]))
    want = (
        told.broadcast_like(days.tracer)
        .where(days.tracer.notnull(), 0)
        .transpose(*days.tracer.dims)
    )
    np.testing.assert_allclose(got[:, 0], want, rtol=1e-4, atol=1e-6)
    some = model.infill(days, 2, obs_error=told.where(days.x < 8, 0), evaluations=12).tracer
    same = (some == days.tracer) | days.tracer.isnull()
    assert same.isel(x=slice(8, None)).all() and not same.isel(x=slice(8)).any("x").all()
    for wrong, message in (
        (told.isel(x=slice(4)), "12 of 16 x values are not in the data"),
        (told.isel(time=[0]), "is nan where there is an observation"),
        (told.expand_dims(depth=2), "has a dimension level"),
        ({"tracer": -told}, "it is a standard deviation"),
    ):
        with pytest.raises(UserError, match=message):
            model.infill(days, 2, obs_error=wrong)


def test_levels_are_told_apart_and_unknown_ones_stay_as_they_were(tiny_run, tiny_cache):
    model = sciladm.load(tiny_run)
    data = open_in(tiny_cache.cache, model.model.recipe)
    states = data.frames.ds.isel(time=data.indices("test")[:8:4]).load()
    asked = states[list(model.model.fields.attributes)].isel(level=slice(None, None, -1))
    asked = asked.where(asked.time == asked.time[0])
    filled = model.infill(asked, 2, evaluations=12)
    for name, near in (("geopotential", 5000), ("temperature", 10)):  # m² s⁻², K
        known = [c.level for c in model.model.fields.channels if c.variable == name]
        unknown = [level for level in asked.level.values if level not in known]
        assert unknown and filled[name].sel(level=known).notnull().all()
        assert filled[name].sel(level=unknown).isel(time=1).isnull().all()
        for level in known:
            true = states[name].sel(level=level)[1].mean()
            assert abs(float(filled[name].sel(level=level).isel(time=1).mean() - true)) < near


def test_cells_that_never_hold_data_are_not_observed(stills):
    model, ds = stills
    valid = model.model.normaliser.valid.copy()
    valid[0, 1, 2] = False
    sea = replace(model.model, normaliser=replace(model.model.normaliser, valid=valid))
    where = Gaps.of(sea, ds.isel(time=[8])).seen()["tracer_observed"]
    assert not where[0, 1, 2] and int(where.sum()) == 127


def test_what_is_under_a_mask_changes_no_bit(masked):
    ds, inner = masked[1], masked[0].model
    where = torch.from_numpy(gap(ds).values)[None, None]
    values = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    drawn = []
    for planted in (0.0, 1e30):
        told = values.masked_fill(where, planted)
        given = Given(
            inner, Precise.of(inner), ds.time.values[[8]], told, ~where, 0 * values, "amortised",
            12, 0,
        )  # fmt: skip
        drawn.append(given.members(0))
    assert np.array_equal(*drawn) and np.isfinite(drawn[0]).all()


def test_each_frame_is_of_the_draw_that_knows_what_follows(films, monkeypatch):
    """Draw n gives 10 n, 10 n + 1, 10 n + 2: the first of a later draw was there before, the last
    of an earlier one is drawn again."""
    model, _ = films
    blank = torch.zeros(5, 1, *SHAPE)
    times = np.datetime64("2250-01-01", "ns") + np.arange(5) * np.timedelta64(1, "D")
    given = Given(
        model.model, Precise.of(model.model), times, blank, blank.bool(), blank, "guided", 12, 0
    )
    told = []

    def draw(self, here, past, kept, members, made):
        frames = [torch.full((8, 1, *SHAPE), 10.0 * len(told) + n) for n in range(len(here))]
        told.append([float(z[0, 0, 0, 0]) for z in kept])
        return frames, frames

    monkeypatch.setattr(Given, "_draw", draw)
    assert given.members(0)[0, :, 0, 0, 0].tolist() == [0, 1, 11, 21, 22]
    assert told == [[], [1], [11]]


@pytest.mark.parametrize("method", ["guided", "oi"])
def test_what_is_left_unsolved_is_told(stills, method, caplog):
    """Less is left where less may be; more than that is said, and how much it was."""
    model, ds = stills
    asked = hidden(ds.isel(time=[8]), gap(ds))
    ask = lambda tol: model.infill(asked, 3, obs_error=0.1, method=method, evaluations=12, tol=tol)
    rough, fine = (ask(tol).attrs for tol in (0.5, 0.004))
    assert fine["infill_misfit_left"] <= 0.004 < rough["infill_misfit_left"] <= 0.5
    assert [one["infill_tol"] for one in (rough, fine)] == [0.5, 0.004]
    assert rough["infill_solved"] == fine["infill_solved"] == 1
    assert not [r for r in caplog.records if "is left in one draw" in r.message]
    for tol in (0.0, 1.0, np.nan):
        with pytest.raises(UserError, match="a share of the equations"):
            ask(tol)


def test_a_tolerance_that_is_not_met_is_told(stills, monkeypatch, caplog):
    model, ds = stills
    monkeypatch.setattr("sciladm.tasks.given.MOST", {"guided": 0, "oi": 0})
    asked = hidden(ds.isel(time=[8]), gap(ds))
    told = model.infill(asked, 2, obs_error=0.1, evaluations=12, tol=0.01).attrs
    assert told["infill_solved"] == 0 and told["infill_misfit_left"] > 0.01
    assert "is left in one draw, and 1 % may be" in caplog.text


def test_questions_that_cannot_be_asked(stills, tiny_run, tiny_cache):
    model, ds = stills
    asked = hidden(ds.isel(time=[8]), gap(ds))
    for options, told in (
        ({"method": "magic"}, "there is auto, amortised, guided, oi"),
        ({"output": "map"}, "there is members, mean_std, quantiles"),
        ({"members": 1, "output": "mean_std"}, "needs 2 members"),
        ({"members": 0}, "at least 1"),
        ({"evaluations": 8}, "at least 12"),
        ({"obs_error": -1.0}, "it is a standard deviation"),
        ({"obs_error": {"salt": 1.0}}, "no variable salt; there are tracer"),
    ):
        with pytest.raises(UserError, match=told):
            model.infill(asked, **({"members": 2} | options))
    twice = xr.concat([asked, asked], "time")
    with pytest.raises(UserError, match="comes twice"):
        model.infill(twice, 2)
    with pytest.raises(UserError, match="`member` already"):
        model.infill(asked.expand_dims(member=1), 2)
    wild = asked.copy(deep=True)
    wild["tracer"][0, 0, 0] = -999.0
    with pytest.raises(UserError, match=r"-999 of tracer at .* standard deviations"):
        model.infill(wild, 2)
    weather = sciladm.load(tiny_run)
    data = open_in(tiny_cache.cache, weather.model.recipe)
    states = data.frames.ds.isel(time=data.indices("test")[:8:4]).load()
    with pytest.raises(UserError, match="of which variable"):
        weather.infill(states, 2, obs_error=1.0)
    states["temperature"][0, ..., 3] = np.nan
    with pytest.raises(UserError, match="first 1 of each stretch must be whole"):
        weather.infill(states, 2)


def test_a_run_with_a_past_takes_up_what_was_observed_on_its_way(tiny_run, tiny_cache):
    """Half of the second state hidden: nearer to it than a forecast is, in the other half, too."""
    model = sciladm.load(tiny_run)
    data = open_in(tiny_cache.cache, model.model.recipe)
    states = data.frames.ds.isel(time=data.indices("test")[:8:4]).load()
    west = states.longitude < 180
    asked = states.where(west | (states.time == states.time[0]))
    asked = asked[list(model.model.fields.attributes)]
    filled = model.infill(asked, 8, evaluations=12)
    first = filled.isel(time=0)[list(model.model.fields.attributes)]
    assert float((first.max("member") - first.min("member")).to_array().max()) == 0
    name = "mean_sea_level_pressure"
    true = states[name][1]
    assert (
        filled[name][:, 1]
        .where(west, drop=True)
        .drop_vars("member")
        .equals(true.where(west, drop=True).expand_dims(member=8))
    )
    nothing = asked.where(asked.time == asked.time[0])
    forecast = model.infill(nothing, 8, evaluations=12)
    near = states.longitude.isin(states.longitude[states.longitude >= 180][:3].values)
    off = lambda drawn: float(((drawn[name][:, 1].mean("member") - true).where(near) ** 2).mean())
    assert off(filled) < 0.8 * off(forecast)


@pytest.mark.parametrize("method", [pytest.param("guided", marks=pytest.mark.slow), "oi"])
def test_where_nothing_is_told_a_run_with_a_past_forecasts(tiny_run, tiny_cache, method):
    """As wide as `forecast` is in first windows and in later ones, which roll-outs decided."""
    model = sciladm.load(tiny_run)
    data = open_in(tiny_cache.cache, model.model.recipe)
    states = data.frames.ds.isel(time=data.indices("test")[:12:4]).load()
    states = states[list(model.model.fields.attributes)]
    with torch.no_grad():
        model.model.rolled.alike.size[0] *= 0.25
        model.model.rolled.alike.size[1] *= 0.6
        model.model.rolled.lost.fill_(1)
    nothing = states.where(states.time == states.time[0])
    drawn = model.infill(nothing, 16, method=method, evaluations=12).isel(time=slice(1, None))
    lead = {"lead_time": "time"}
    forecast = model.forecast(states.isel(time=[0]), lead="2d", members=16).isel(init_time=0)
    for name in ("temperature", "geopotential"):
        width = drawn[name].var("member").mean(("latitude", "longitude", "level"))
        want = forecast[name].var("member").mean(("latitude", "longitude", "level"))
        assert np.allclose(width / want.rename(lead).values, 1, atol=0.3), (width, want)


def test_what_a_number_adds_to_the_fields(tiny_run):
    """The slope of all that lies between white numbers and fields, in either kind of window."""
    model = sciladm.load(tiny_run).model
    with torch.no_grad():
        model.rolled.decoded.size[1] *= 0.5
    precise, shape = Precise.of(model), model.denoiser.weight.shape
    nothing = torch.zeros(1, *shape).double()
    r, other = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0)).double()
    scale = (0.3 * other).exp()
    context = Context(nothing, scale, nothing)
    fields = lambda r, later: precise.autoencoder.decode(
        precise.clean(r, context, later), precise.statics
    )
    added = []
    for later in (False, True):
        want = (fields(1e-4 * r, later) - fields(-1e-4 * r, later)) / 2e-4
        d = r.flatten() @ precise.coloured(scale)
        added.append(torch.einsum("n,nfc...->fc...", d, precise.response(later)))
        assert (added[-1] - want).abs().max() < 1e-3 * want.abs().max()
    assert (added[0] - added[1]).square().mean() > 0.01 * added[0].square().mean()


def test_members_that_differ_share_nothing(tiny_run, tiny_cache):
    """What they go on from decides how far they may depart, and that how equations are solved."""
    model = sciladm.load(tiny_run)
    data = open_in(tiny_cache.cache, model.model.recipe)
    states = data.frames.ds.isel(time=data.indices("test")[:12:4]).load()
    asked = states.where((states.longitude < 180) | (states.time == states.time[0]))
    asked = asked[list(model.model.fields.attributes)]
    one, two = (model.infill(asked, 5, method="oi", evaluations=12, workers=n) for n in (1, 2))
    assert one.equals(two)


@pytest.mark.slow
def test_a_past_and_stations_are_cycled(tiny_run, tiny_cache):
    """An ensemble of pasts goes on; stations draw it to the truth, time after time."""
    model = sciladm.load(tiny_run)
    data = open_in(tiny_cache.cache, model.model.recipe)
    states = data.frames.ds.isel(time=data.indices("test")[:16:4]).load()
    past = xr.concat([states.isel(time=[0]), states.isel(time=[0]) * 1.0], "member")
    name = "mean_sea_level_pressure"
    at = states.isel(time=[1, 2])[name].stack(row=["latitude", "longitude"]).isel(
        row=slice(None, None, 7)
    )  # fmt: skip
    parts = [at.isel(time=n) for n in range(2)]
    stations = pd.concat([
        pd.DataFrame({
            "time": p.time.values, "latitude": p.latitude, "longitude": p.longitude,
            "value": p.values, "error": 30.0, "variable": name, "level": np.nan,
        })
        for p in parts
    ])  # fmt: skip
    until = states.time.values[3]
    later = states.isel(time=[3]).assign_coords(time=states.time[:1])
    two = model.assimilate(xr.concat([states.isel(time=[0]), later], "member"), [], members=4,
                           evaluations=12)[name][:, 0]  # fmt: skip
    apart = lambda a, b: float(((two[a] - two[b]) ** 2).mean())
    assert apart(0, 2) + apart(1, 3) < 0.5 * (apart(0, 1) + apart(2, 3))
    analysed = model.assimilate(past, Points(stations), until, members=5, evaluations=12)
    assert analysed[name].dims[:2] == ("member", "time") and analysed.sizes["time"] == 3
    assert (analysed.time.values == states.time.values[1:4]).all()
    free = model.assimilate(past, [], until, members=5, evaluations=12)
    error = lambda ds: ((ds[name].mean("member") - states[name]) ** 2).mean(
        ("latitude", "longitude")
    )
    better = (error(analysed) / error(free)).values
    assert (better[:2] < 0.5).all() and better[2] < 1
    width = analysed[name].std("member").mean(("latitude", "longitude")).values
    assert width[0] < width[2]


def test_what_cannot_be_cycled(tiny_run, tiny_cache):
    model = sciladm.load(tiny_run)
    data = open_in(tiny_cache.cache, model.model.recipe)
    states = data.frames.ds.isel(time=data.indices("test")[:16:4]).load()
    past, until = states.isel(time=[0]), states.time.values[3]
    with pytest.raises(UserError, match="2 states; the 1 before the first"):
        model.assimilate(states.isel(time=[0, 1]), [], members=2)
    early = {"time": [states.time.values[0]], "latitude": [0.0], "longitude": [0.0],
             "value": [1e5], "error": [30.0], "variable": ["mean_sea_level_pressure"],
             "level": [np.nan]}  # fmt: skip
    with pytest.raises(UserError, match="which the run takes as it is"):
        model.assimilate(past, Points(pd.DataFrame(early)), until, members=2)
    with pytest.raises(UserError, match="not a whole number of steps"):
        model.assimilate(past, [], until + np.timedelta64(1, "h"), members=2)


def door(*arguments):
    with pytest.raises(SystemExit) as ended:
        program.main([*map(str, arguments), "--quiet"], name="sciladm infill")
    return ended.value.code


def test_the_door_writes_what_the_method_gives(stills, tmp_path, capsys):
    """Of several files, with numbers and labels that the run knows nothing of."""
    model, ds = stills
    asked = hidden(ds.isel(time=slice(4, 6)), gap(ds)).assign(other=2 * ds.tracer)
    asked = asked.assign_coords(place=(("y", "x"), np.arange(128.0).reshape(SHAPE)))
    asked.isel(time=[0]).to_netcdf(tmp_path / "early.nc")
    asked.isel(time=[1]).to_netcdf(tmp_path / "late.nc")
    out, run = tmp_path / "filled.zarr", model.model.path
    gappy = (tmp_path / "early.nc", tmp_path / "late.nc")
    asking = (run, *gappy, "--members", 3, "--evaluations", 12, "--out", out)
    assert door(*asking, "--obs-error", "tracer=0.1", "--method", "auto") == 0
    want = model.infill(asked, 3, obs_error=0.1, evaluations=12)
    with xr.open_zarr(out) as got:
        xr.testing.assert_equal(got.load(), want)
        assert got.attrs["infill_run"] == model.model.facts["model_hash"]
        assert got.attrs["infill_method"] == "guided"
    assert door(*asking) == 2 and "another configuration" in capsys.readouterr().err
    asked.isel(y=slice(None, None, -1)).to_netcdf(tmp_path / "turned.nc")
    turned = (run, tmp_path / "turned.nc", *asking[3:], "--obs-error", 0.1)
    assert door(*turned) == 2 and "labels: " in capsys.readouterr().err
    assert door(*asking, "--obs-error", "x=y") == 2
    assert "write a number" in capsys.readouterr().err
    assert door(*asking, "--means-error", 1) == 2
    assert "--means-error without --means" in capsys.readouterr().err
    assert door(run, "--out", out) == 2 and "nothing is asked" in capsys.readouterr().err
    assert door(*asking, "--method", "magic", "--overwrite") == 2
    with xr.open_zarr(out) as kept:
        assert kept.attrs["infill_members"] == 3  # a mistake loses nothing
    assert door(*asking, "--overwrite", "--output", "mean_std", "--method", "oi") == 0
    with xr.open_zarr(out) as got:
        assert set(got.data_vars) == {"other", "tracer", "tracer_std", "tracer_observed"}
    (tmp_path / "mine").mkdir()
    mine = (*asking[:-1], tmp_path / "mine", "--overwrite")
    assert door(*mine) == 2 and "no filled store" in capsys.readouterr().err
    assert (tmp_path / "mine").is_dir()


def interrupted(monkeypatch, blocks):
    """The door is interrupted before it has written one block more."""
    left, write = iter(range(blocks)), AnswerStore.write

    def stopped(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(AnswerStore, "write", stopped)


@pytest.mark.parametrize("output", ["members", pytest.param("quantiles", marks=pytest.mark.slow)])
def test_the_door_goes_on_where_it_was_stopped(films, tmp_path, capsys, monkeypatch, output):
    """Times in any order, a day that lacks nothing, two micro-batches of members: the same bytes,
    and what Python gives."""
    model, ds = films
    days = ds.isel(time=[9, 3, 4, 5, 20])
    asked = hidden(days, gap(ds) & (days.time != days.time[4]))
    asked.to_netcdf(tmp_path / "gappy.nc")
    asking = (model.model.path, tmp_path / "gappy.nc", "--members", 9, "--evaluations", 12,
              "--output", output, "--obs-error", 0.1)  # fmt: skip
    assert door(*asking, "--out", tmp_path / "whole.zarr") == 0
    out = tmp_path / "filled.zarr"
    with monkeypatch.context() as patch:
        interrupted(patch, 2)
        assert door(*asking, "--out", out) == 130
    assert unfinished(out) == (4 if output == "members" else 1)
    with pytest.raises(UserError, match="is not finished"):
        Filled.open(out, "filled", model.model.fields)
    assert door(*asking, "--out", out, "--seed", 1) == 2
    assert "infill_seed: 0 there, 1 now" in capsys.readouterr().err
    assert door(*asking, "--out", out) == 0
    assert contents(out) == contents(tmp_path / "whole.zarr")
    want = model.infill(asked, 9, obs_error=0.1, evaluations=12, output=output)
    with xr.open_zarr(out) as got:
        xr.testing.assert_equal(got.load(), want)
        assert got.attrs == want.attrs
    assert door(*asking, "--out", out, "--seed", 1, "--members", 2, "--overwrite") == 0


@pytest.mark.slow
def test_the_door_survives_real_kills(stills, tmp_path):
    model, ds = stills
    hidden(ds.isel(time=slice(0, 40)), gap(ds)).to_netcdf(tmp_path / "gappy.nc")
    asking = [sys.executable, "-m", "sciladm.infill", model.model.path, tmp_path / "gappy.nc",
              *["--members", "16", "--evaluations", "12", "--quiet"]]  # fmt: skip
    whole, out = tmp_path / "whole.zarr", tmp_path / "filled.zarr"
    subprocess.run([*asking, "--out", whole], check=True)
    done = out / ".sciladm" / "done"
    for blocks in (1, 20, 45):
        child = subprocess.Popen([*asking, "--out", out])
        while child.poll() is None and len(list(done.glob("c.*"))) < blocks:
            time.sleep(0.01)
        child.kill()
        assert child.wait() == -signal.SIGKILL
    subprocess.run([*asking, "--out", out], check=True)
    assert contents(out) == contents(whole)


def test_the_door_takes_points_and_means(stills, tmp_path, capsys):
    model, ds = stills
    days, out = ds.isel(time=slice(4, 6)), tmp_path / "fine.zarr"
    blocks(days).to_netcdf(tmp_path / "coarse.nc")
    points(days.isel(time=[1]), 9, 0.2).to_csv(tmp_path / "points.csv")
    asking = (model.model.path, "--members", 2, "--evaluations", 12, "--out", out)
    told = ("--points", tmp_path / "points.csv", "--means", tmp_path / "coarse.nc")
    assert door(*asking, *told, "--means-error", 0.1) == 0
    want = model.infill(
        model.unknown(days.time.values), 2, evaluations=12,
        operator=[Points(points(days.isel(time=[1]), 9, 0.2)), AreaMean(blocks(days), 0.1)],
    )  # fmt: skip
    with xr.open_zarr(out) as got:
        xr.testing.assert_allclose(got.load(), want)
    assert got.tracer.notnull().all() and not got.tracer_observed.any()
    (tmp_path / "points.csv").write_text("time,y,x,value,error\nyesterday,1,1,1,1\n")
    assert door(*asking, *told, "--overwrite") == 2
    assert "times as 2011-02-01T12:00, please" in capsys.readouterr().err


def test_without_a_past_forecasts_are_draws_of_the_climate(stills):
    """And states have a likelihood, and noise of their own."""
    model, ds = stills
    drawn = model.forecast(ds.isel(time=[8]), lead="2d", members=24).tracer
    assert drawn.sizes == {"init_time": 1, "member": 24, "lead_time": 2, "y": 8, "x": 16}
    assert abs(float(drawn.std() / ds.tracer.std()) - 1) < 0.1
    two = (drawn[0] - ds.tracer.mean()).values.reshape(24, 2, -1)
    assert abs(np.mean(two[:, 0] * two[:, 1]) / two.var()) < 0.15  # of independent days
    days = ds.isel(time=slice(3, 5))
    assert np.isfinite(model.log_likelihood(days, 12, 2).log_likelihood).all()
    back = model.draw(model.invert(days, 24), days, 24)
    want = model.decode(model.encode(days))
    assert float(((back.tracer - want.tracer) ** 2).mean() ** 0.5) < 0.05


def test_a_run_without_a_past_is_scored_beside_its_regression(stills):
    model, ds = stills
    network = model.model.mean_forecast(0, says_scale=False)
    refuse = lambda time: pytest.fail("nothing before the initial time is known")
    leads = np.array([1, 2], "m8[D]").astype("m8[ns]")
    fields = RolledOut(model.model, network, refuse)(ds.time.values[8], leads)
    climate = model.model.normaliser.centre(ds.time.values[9:11])
    assert fields.shape == (2, 1, *SHAPE)
    assert np.abs(fields - climate).max() < 0.2 * ds.tracer.std()  # untrained, it expects that
