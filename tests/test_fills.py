"""Filled gaps are scored where they were hidden, beside what fills gaps without a denoiser."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import sciladm
from sciladm import evaluate as evaluation
from sciladm import infill as filling
from sciladm.baselines.filling import OrthogonalFunctions
from sciladm.baselines.linear import interpolated
from sciladm.conventions import UserError
from sciladm.metrics.ensemble import fair_crps
from sciladm.model import Model
from sciladm.tasks.fill_rivals import fill_rivals
from sciladm.tasks.fills import Filled, hidden_from
from sciladm.tasks.gaps import Gaps
from sciladm.tasks.run import open_run
from sciladm.tasks.score_fills import score_fills
from sciladm.tasks.voice import Silent
from sciladm.tasks.withhold import withheld
from tests.test_infill import gap, hidden


def door(program, *arguments):
    with pytest.raises(SystemExit) as ended:
        program.main([*map(str, arguments), "--quiet"], name="sciladm")
    return ended.value.code


def test_linear_interpolation_is_exact_for_what_is_linear():
    y, x = np.meshgrid(np.arange(9.0), np.arange(7.0), indexing="ij")
    field = 3 + 2 * y - x
    seen = np.random.default_rng(0).random(field.shape) < 0.4
    seen[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    told = np.where(seen, field, 99.0)
    np.testing.assert_allclose(interpolated(told, seen, ("bounded",) * 2), field, atol=1e-9)


def test_linear_interpolation_goes_around_and_beyond():
    ring = np.zeros((3, 8))
    ring[:, [1, 7]] = [2.0, 6.0]
    seen = np.zeros_like(ring, bool)
    seen[:, [1, 7]] = True
    assert np.allclose(interpolated(ring, seen, ("bounded", "periodic"))[:, 0], 4.0)
    assert np.allclose(interpolated(ring, seen, ("bounded",) * 2)[:, 0], 2.0)
    one = np.zeros_like(seen)
    one[1, 1] = True
    assert (interpolated(ring, one, ("bounded",) * 2) == 2.0).all()
    assert not interpolated(ring, np.zeros_like(seen), ("bounded",) * 2).any()


def test_a_share_or_a_mask_is_withheld(stills):
    model, ds = stills
    days, inner = ds.isel(time=slice(4, 8)), model.model
    some = withheld(inner, days, 0.3, 0)
    lost = some.tracer.isnull()
    assert abs(float(lost.mean()) - 0.3) < 0.06 and (some.tracer == days.tracer).where(~lost).all()
    xr.testing.assert_identical(some, withheld(inner, days, 0.3, 0))
    assert not some.equals(withheld(inner, days, 0.3, 1))
    assert (lost.isel(time=0) != lost.isel(time=1)).any()
    for mask in (gap(days), gap(days).astype(int), gap(days).to_dataset(name="any")):
        xr.testing.assert_equal(withheld(inner, days, mask, 0), hidden(days, gap(days)))
    filled = model.infill(days, 2, evaluations=12, withhold=gap(days))
    xr.testing.assert_equal(filled.tracer_observed, days.tracer.notnull() & ~gap(days))
    lazy = model.infill(days.chunk(time=1), 2, evaluations=12, withhold=gap(days))
    xr.testing.assert_allclose(lazy.compute(), filled)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (1.5, "between 0 and 1"),
        (np.zeros((8, 16), bool), "masks in a Dataset"),
        (lambda where: where.rename(x="lon"), "has lon"),
        (lambda where: where.assign_coords(x=where.x + 1), "other labels"),
        (lambda where: where * 0.5, "true or false"),
        (lambda where: xr.Dataset({"a": where, "b": where}), "has no tracer"),
    ],
)
def test_what_cannot_be_withheld(stills, what, said):
    model, ds = stills
    what = what(gap(ds)) if callable(what) else what
    with pytest.raises(UserError, match=said):
        withheld(model.model, ds, what, 0)


def test_a_fill_is_scored_where_it_was_hidden(stills, tmp_path, capsys):
    model, ds = stills
    days, run = ds.isel(time=slice(4, 10)), model.model.path
    days.to_netcdf(tmp_path / "whole.nc")
    gap(days).to_dataset(name="mask").to_netcdf(tmp_path / "mask.nc")
    out, report = tmp_path / "filled.zarr", tmp_path / "report"
    asking = (run, tmp_path / "whole.nc", "--members", 8, "--evaluations", 12, "--out", out)
    assert door(filling, *asking, "--withhold", tmp_path / "mask.nc") == 0
    told = (out, "--truth", tmp_path / "whole.nc", "--out", report)
    assert door(evaluation, *told) == 2 and "give --run DIR" in capsys.readouterr().err
    assert door(evaluation, *told, "--run", run) == 0
    scores = pd.read_csv(report / "scores.csv")
    assert scores.lead_hours.isna().all()
    names = {"model", "climatology", "optimal_interpolation", "eof", "linear"}
    assert set(scores.forecast) == names
    one = scores[(scores.region == scores.region[0]) & (scores.season == "all")]
    table = one[one.variable == "tracer"].pivot(index="forecast", columns="metric", values="value")
    filled, where = xr.open_zarr(out).tracer.values, gap(days).values
    truth = days.tracer.values
    by_hand = fair_crps(filled, truth)[:, where].mean()
    assert np.isclose(table.fair_crps["model"], by_hand, rtol=1e-4)
    error = np.sqrt(np.mean((filled.mean(0) - truth)[:, where] ** 2))
    assert np.isclose(table.rmse["model"], error, rtol=1e-4)
    best = table.fair_crps[["optimal_interpolation", "eof"]]
    assert (best < 0.95 * table.fair_crps["climatology"]).all()
    oi = model.infill(hidden(days, gap(days)), 8, method="oi")
    again = fair_crps(oi.tracer.values, truth)[:, where].mean()
    assert np.isclose(table.fair_crps["optimal_interpolation"], again, rtol=1e-4)
    (line,) = (run / "test_reads.jsonl").read_text().splitlines()[-1:]
    assert '"times": 6' in line and "infill_method" in line
    page = (report / "index.html").read_text()
    assert "filled gaps" in page and "observed" in page and "Forecast verification" not in page


def test_stores_are_compared_where_all_of_them_were_asked(stills, tmp_path):
    model, ds = stills
    days = ds.isel(time=slice(4, 8))
    days.to_netcdf(tmp_path / "whole.nc")
    small = gap(days) & (days.x < days.x[8])
    filled = {}
    for name, where in (("wide", gap(days)), ("narrow", small)):
        filled[name] = model.infill(days, 4, method="oi", withhold=where)
        filled[name].to_zarr(tmp_path / f"{name}.zarr", consolidated=False)
    stores = [tmp_path / "wide.zarr", tmp_path / "narrow.zarr"]
    scored = score_fills(stores, tmp_path / "whole.nc", model.model.path)
    for name, one in filled.items():
        by_hand = fair_crps(one.tracer.values, days.tracer.values)[:, small.values].mean()
        assert np.isclose(value(scored.scores, name, "tracer"), by_hand, rtol=1e-4)


def test_a_baseline_that_fails_on_the_way_is_left_out(stills, tmp_path, monkeypatch):
    model, ds = stills
    days = ds.isel(time=slice(4, 7))
    days.to_netcdf(tmp_path / "whole.nc")
    filled = model.infill(days, 2, method="oi", withhold=0.3)
    filled.to_zarr(tmp_path / "filled.zarr", consolidated=False)

    def failing(hidden):
        def rival(number):
            if number:
                raise UserError("no more")
            return hidden.truth[[number]]

        return rival

    monkeypatch.setattr("sciladm.tasks.fill_rivals._linear", failing)
    given = ([tmp_path / "filled.zarr"], tmp_path / "whole.nc", model.model.path)
    scored = score_fills(*given)
    assert "linear" not in set(scored.scores.forecast) and "eof" in set(scored.scores.forecast)
    assert "The baseline linear is left out: no more" in scored.notes
    monkeypatch.setattr(Filled, "read", lambda *_: failing(None)(1))
    with pytest.raises(UserError, match="no more"):
        score_fills(*given)


@pytest.mark.slow
def test_levels_and_a_past_are_scored(tiny_run, tiny, tiny_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("sciladm.tasks.fill_rivals.LARGEST", 512)
    run = shutil.copytree(tiny_run, tmp_path / "run")  # it is written there that test is read
    model = sciladm.load(run)
    past, test = model.model.recipe.window.past, tiny.data.indices("test")
    times = tiny.data.frames.times[test]
    step = int(model.model.step / np.diff(times).min())
    ds = tiny.data.frames.ds.isel(time=test[: (past + 2) * step : step]).load()
    ds = ds[list(model.model.fields.groups)]
    ds.to_netcdf(tmp_path / "whole.nc")
    where = xr.zeros_like(ds["geopotential"], dtype=bool)
    where[{"time": slice(past, None), "level": 1, "latitude": slice(4, 8)}] = True
    mask = xr.Dataset({name: where.isel(level=0, drop=True) for name in ds})
    mask["geopotential"] = where
    filled = model.infill(ds, 3, evaluations=12, withhold=mask)
    filled.to_zarr(tmp_path / "filled.zarr", consolidated=False)
    scored = score_fills([tmp_path / "filled.zarr"], tmp_path / "whole.nc", run)
    level = int(ds.level[1])
    assert set(scored.scores.variable) <= {f"geopotential_{level}", "all"}
    assert "optimal_interpolation" in set(scored.scores.forecast)
    assert any("eof is left out: a state has" in note for note in scored.notes)
    members, truth = (
        one["geopotential"].sel(level=level).transpose("time", "latitude", "longitude", ...).values
        for one in (filled, ds)
    )
    hidden_there = where.isel(level=1).transpose("time", "latitude", "longitude").values
    area = model.model.fields.grid.area
    each = fair_crps(np.moveaxis(members, -1, 0), truth) * area
    weight = (hidden_there * area).sum()
    assert np.isclose(
        value(scored.scores, "model", f"geopotential_{level}"), each[hidden_there].sum() / weight,
        rtol=1e-3,
    )  # fmt: skip


def value(scores, forecast, variable, metric="fair_crps"):
    whole = scores[(scores.region == scores.region.iloc[0]) & (scores.season == "all")]
    (found,) = whole.loc[
        (whole.forecast == forecast) & (whole.variable == variable) & (whole.metric == metric),
        "value",
    ]
    return found


def test_no_baseline_knows_what_was_hidden(stills, tmp_path):
    model, ds = stills
    days = ds.isel(time=slice(4, 6))
    where = gap(days)
    model.infill(days, 3, method="oi", withhold=where).to_zarr(
        tmp_path / "filled.zarr", consolidated=False
    )
    drawn = []
    for shift in (0.0, 5.0):
        truth = days.assign(tracer=days.tracer + shift * where)
        truth.to_netcdf(tmp_path / f"{shift}.nc")
        drawn.append(rivals(model, tmp_path / "filled.zarr", tmp_path / f"{shift}.nc"))
    assert set(drawn[0]) == {"climatology", "optimal_interpolation", "eof", "linear"}
    for name, members in drawn[0].items():
        assert np.array_equal(members, drawn[1][name]), name


def rivals(model, store, truth):
    """Members of each baseline at the first time."""
    inner, data = open_run(model.model.path, torch.device("cpu"), {}, None, Silent())
    fills = [Filled.open(store, "model", inner.fields)]
    hidden = hidden_from(fills, inner, data, truth, [])
    return {name: make(0) for name, make in fill_rivals(hidden, Silent(), [])}


def test_errors_are_known_to_baselines_where_they_can_be(stills, tmp_path):
    model, ds = stills
    days = ds.isel(time=slice(4, 6))
    noisy = days + 0.3
    filled = model.infill(noisy, 3, obs_error={"tracer": 0.3}, withhold=gap(days))
    filled.to_zarr(tmp_path / "filled.zarr", consolidated=False)
    for name, fields in (("noisy", noisy), ("clean", days)):
        fields.to_netcdf(tmp_path / f"{name}.nc")
    assert len(rivals(model, tmp_path / "filled.zarr", tmp_path / "noisy.nc")) == 4
    assert list(rivals(model, tmp_path / "filled.zarr", tmp_path / "clean.nc")) == ["climatology"]


def test_a_run_with_a_past_keeps_what_it_begins_from(tiny_run, tiny, tiny_cache):
    model = Model.load(tiny_run)
    ds = tiny.data.frames.ds.isel(time=slice(0, 24)).load()
    lost = withheld(model, ds, 0.5, 0)["2m_temperature"].isnull().any(("latitude", "longitude"))
    (whole,) = np.nonzero(~lost.values)
    first = [numbers[: model.recipe.window.past] for numbers in Gaps.of(model, ds).series()]
    assert sorted(np.concatenate(first)) == whole.tolist()


def test_functions_draw_what_their_numbers_share():
    rng = np.random.default_rng(0)
    windows = rng.standard_normal((400, 3)) @ rng.standard_normal((3, 12))
    fitted = OrthogonalFunctions(np.linalg.svd(windows / 20)[2][:3].T * 2.0, np.full(12, 0.1))
    seen = np.arange(12) < 2
    error = np.where(seen, 0.3, 9.0)
    mean, std = fitted.fill(windows[0], seen, error)
    drawn = fitted.draw(windows[0], seen, error, rng.standard_normal, 20000)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(drawn.std(0), std, rtol=0.05)
    rows = fitted.functions[seen] / np.hypot(0.1, 0.3)
    exact = fitted.functions @ np.linalg.inv(np.eye(3) + rows.T @ rows) @ fitted.functions.T
    np.testing.assert_allclose(np.cov(drawn.T), exact + 0.01 * np.eye(12), atol=0.06)


def test_fills_that_cannot_be_scored(stills, tmp_path, capsys):
    model, ds = stills
    days, run = ds.isel(time=slice(4, 6)), model.model.path
    asked = hidden(days, gap(days))
    asked.to_netcdf(tmp_path / "gappy.nc")
    ds.isel(time=[9]).to_netcdf(tmp_path / "other.nc")
    for name, output in (("members", "members"), ("told", "mean_std")):
        filled = model.infill(asked, 2, method="oi", output=output)
        filled.to_zarr(tmp_path / f"{name}.zarr", consolidated=False)
    for store, truth, said in (
        ("members", "gappy", "--withhold"), ("members", "other", "no time in common"),
        ("told", "gappy", "holds no members"),
    ):  # fmt: skip
        told = (tmp_path / f"{store}.zarr", "--truth", tmp_path / f"{truth}.nc", "--run", run)
        assert door(evaluation, *told, "--out", tmp_path / "report") == 2
        assert said in capsys.readouterr().err
    (tmp_path / "members.zarr").rename(tmp_path / "linear.zarr")
    (tmp_path / "told.zarr").rename(tmp_path / "other.zarr")
    two = (tmp_path / "linear.zarr", tmp_path / "other.zarr", "--run", run)
    assert door(evaluation, *two, "--out", tmp_path / "report") == 2
    assert "called as a baseline" in capsys.readouterr().err
    asking = (tmp_path / "linear.zarr", "--out", tmp_path / "report", "--run")
    assert (
        door(evaluation, *asking, tmp_path) == 2 and "no run is there" in capsys.readouterr().err
    )
    (tmp_path / "facts.json").write_text('{"model_hash": "another"}')
    assert door(evaluation, *asking, tmp_path) == 2
    assert "another run" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
    assert door(filling, run, "--withhold", "0.1", "--out", tmp_path / "a.zarr") == 2
