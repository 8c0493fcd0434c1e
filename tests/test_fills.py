"""Filled gaps are scored where they were hidden, beside what fills gaps without a denoiser."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciladm import evaluate as evaluation
from sciladm import infill as filling
from sciladm.baselines.linear import interpolated
from sciladm.conventions import UserError
from sciladm.metrics.ensemble import fair_crps
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
    assert not (tmp_path / "report").exists()
    assert door(filling, run, "--withhold", "0.1", "--out", tmp_path / "a.zarr") == 2
