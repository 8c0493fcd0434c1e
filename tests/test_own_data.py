"""People's own files, by the command line alone: guessed, trained for ten steps, forecast."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import sciladm
from sciladm import evaluate, forecast, train
from sciladm.conventions import UserError
from sciladm.data.cards import folder
from sciladm.tasks import cost, validate

RECIPE = str(folder().parent / "recipes" / "own-data.yaml")
SHORT = [
    "denoiser.steps=10", "denoiser.mean_steps=0", "denoiser.widths=[8, 8]", "denoiser.batch=8",
    "sampler.steps=4", "micro_batch=4", "evaluation.validation_inits=1",
]  # fmt: skip


def door(main, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def trained(data, run, *settings):
    chosen = [word for one in (*SHORT, *settings) for word in ("--set", one)]
    return door(train.main, RECIPE, "--data", data, "--run-dir", run, "--quiet", *chosen)


def drawn(run, out, *more):
    words = ("--init", "test:0:2", "--lead", "2step", "--members", 4, "--quiet", *more)
    code = door(forecast.main, run, "--out", out, *words)
    return xr.open_zarr(out) if code == 0 else code


def field(shape=(200, 9, 13), seed=0):
    """A pattern that moves along x, a few per cent of it noise."""
    t, y, x = (np.arange(n, dtype=float).reshape([-1 if i == k else 1 for i in range(3)])
               for k, n in enumerate(shape))  # fmt: skip
    noise = np.random.default_rng(seed).standard_normal(shape)
    return (np.sin(x / 2 - t / 5) + np.cos(y / 3) + 0.1 * noise).astype(np.float32)


def sea(values=None, hours=24):
    """Degrees on 9 × 13 cells with a corner of land, in somebody's names."""
    values = field() if values is None else values
    times = np.datetime64("2001-01-01", "ns") + np.arange(len(values)) * np.timedelta64(hours, "h")
    land = np.zeros(values.shape[1:], bool)
    land[:4, :5] = True
    ds = xr.Dataset(
        {"sst": (("time", "lat", "lon"), np.where(land, np.nan, values), {"units": "degC"})},
        {
            "time": times,
            "lat": ("lat", 40.0 + np.arange(9), {"units": "degrees_north"}),
            "lon": ("lon", 10.0 + np.arange(13), {"units": "degrees_east"}),
        },
    )
    return ds, land


@pytest.fixture(scope="module")
def coast(tmp_path_factory):
    """A run on daily fields with land."""
    home = tmp_path_factory.mktemp("coast")
    ds, land = sea()
    ds.to_netcdf(home / "sea.nc")
    assert trained(home / "sea.nc", home / "run") == 0
    return home, land


def test_land_stays_land(coast, tmp_path):
    home, land = coast
    ds = drawn(home / "run", tmp_path / "f.zarr")
    sizes = {"init_time": 2, "member": 4, "lead_time": 2, "latitude": 9, "longitude": 13}
    assert ds.sizes == sizes
    np.testing.assert_array_equal(np.isnan(ds.sst), np.broadcast_to(land, ds.sst.shape))
    assert ds.sst.attrs["units"] == "degC"
    assert (ds.lead_time.values == np.array([24, 48], "timedelta64[h]")).all()
    scored = (home / "run" / "validation.csv").read_text()
    assert "model" in scored and "nan" not in scored


def test_what_lies_under_the_mask_changes_nothing(coast, tmp_path):
    home, land = coast
    ds, _ = sea()
    ds["sst"] = ds.sst.where(~land, 1e30)
    ds.to_netcdf(tmp_path / "planted.nc")
    plain = drawn(home / "run", tmp_path / "a.zarr", "--data", home / "sea.nc")
    planted = drawn(home / "run", tmp_path / "b.zarr", "--data", tmp_path / "planted.nc")
    np.testing.assert_array_equal(plain.sst.values, planted.sst.values)


@pytest.mark.parametrize("shape", ["dimension", "scalar"])
def test_one_state_is_enough_for_a_forecast(shape, coast, tmp_path):
    """An analysis in a file of its own: by the door without --init, and in Python."""
    home, _ = coast
    ds = sea()[0]
    one = ds.isel(time=[150] if shape == "dimension" else 150)
    one.to_netcdf(tmp_path / "today.nc")
    words = ("--lead", "2step", "--members", 4, "--quiet")
    day = str(ds.time.values[150])[:10]
    code = [
        door(forecast.main, home / "run", "--out", tmp_path / name, *words, *more)
        for name, more in {
            "all.zarr": ("--init", day),
            "one.zarr": ("--data", tmp_path / "today.nc"),
        }.items()
    ]
    assert code == [0, 0]
    whole, alone = (xr.open_zarr(tmp_path / name) for name in ("all.zarr", "one.zarr"))
    xr.testing.assert_equal(whole, alone)
    python = sciladm.load(home / "run").forecast(one, "2d", members=4)
    np.testing.assert_array_equal(python.sst.values, alone.sst.values)


def test_a_handful_of_states_has_no_splits(coast, tmp_path, capsys):
    home, _ = coast
    sea()[0].isel(time=slice(10)).to_netcdf(tmp_path / "few.nc")
    own = ("--data", tmp_path / "few.nc", "--lead", "1step", "--members", 1, "--quiet")
    assert door(forecast.main, home / "run", "--out", tmp_path / "f.zarr", *own) == 0
    assert str(xr.open_zarr(tmp_path / "f.zarr").init_time.values[0])[:10] == "2001-01-10"
    named = (*own, "--init", "test:0", "--out", tmp_path / "g.zarr")
    assert door(forecast.main, home / "run", *named) == 2
    assert "10 times are too few to be split" in capsys.readouterr().err


def test_the_guess_is_shown_and_nothing_is_made(coast, tmp_path, capsys):
    home, _ = coast
    run = tmp_path / "none"
    assert door(train.main, RECIPE, "--data", home / "sea.nc", "--run-dir", run, "--dry-run") == 0
    said = capsys.readouterr().err
    for line in ("sst: variable [degC], the same cells always missing", "lat is latitude",
                 "step: 24h", "140 train"):  # fmt: skip
        assert line in said, said
    assert not run.exists()


@pytest.mark.parametrize(("hours", "step"), [(1, "1h"), (6, "6h"), (24, "24h")])
def test_the_step_is_the_datas_own(hours, step, tmp_path, capsys):
    sea(hours=hours)[0].to_netcdf(tmp_path / "sea.nc")
    code = door(train.main, RECIPE, "--data", tmp_path / "sea.nc", "--dry-run")
    assert code == 0 and f"step: {step}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mend", "settings", "message"),
    [
        (lambda ds: ds.isel(time=slice(24)), [], "train has 17 of the data's 24 times"),
        (lambda ds: ds.isel(time=slice(1)), [], "single time|no variable has a time"),
        (
            lambda ds: ds.where((ds.time.dt.day > 9) | (ds.lat > 42)),
            [],
            "sst: values are missing in other cells",
        ),
        (lambda ds: ds.convert_calendar("noleap", use_cftime=True), [], "calendar noleap"),
        (lambda ds: ds, ["autoencoder.channels=17"], "17, but a patch of 4 .* 16 numbers"),
        (lambda ds: ds, ["window.step=36h"], "36h is not a whole number of the data's own, 24h"),
        (lambda ds: ds, ["window.step=often"], "not a duration: 'often'"),
        (lambda ds: ds, ["data.variables={salt: null}"], "no variable salt"),
        (lambda ds: ds, ["data.missing={sst: none}"], "are missing or not finite"),
        (
            lambda ds: ds.rename(time="when").drop_vars("when"),
            [],
            "dimension when .200. is nothing known",
        ),
    ],
)
def test_what_cannot_be_trained_is_told(mend, settings, message, tmp_path, capsys):
    mend(sea()[0]).to_netcdf(tmp_path / "sea.nc")
    assert trained(tmp_path / "sea.nc", tmp_path / "run", *settings) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1 and not (tmp_path / "run").exists(), said
    assert re.search(message, said), said


def test_a_run_gone_on_with_elsewhere_is_told(coast, tmp_path, capsys):
    home, _ = coast
    run = shutil.copytree(home / "run", tmp_path / "run")
    facts = json.loads((run / "facts.json").read_text())
    assert (facts["device"], facts["threads"]) == ("cpu", 1) and facts["versions"]["torch"]
    (run / "facts.json").write_text(json.dumps(facts | {"device": "cuda"}))
    assert trained(home / "sea.nc", run) == 0
    assert "was begun elsewhere (device cuda then, cpu now)" in capsys.readouterr().err
    assert json.loads((run / "facts.json").read_text())["device"] == "cuda"
    with drawn(run, tmp_path / "f.zarr") as store:
        assert (store.attrs["device"], store.attrs["threads"]) == ("cpu", 1)


def test_time_on_a_gpu_is_taken_when_it_has_done_its_work(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for name, times in (("cpu", 0), ("cuda:1", 2)):
        waited.clear()
        cost._seconds(lambda: None, torch.device(name))
        assert waited == times * [torch.device(name)]


def test_a_validation_in_short_pieces_is_scored_as_far_as_it_goes(coast, tmp_path):
    home, _ = coast
    pieces = [[f"2001-06-{day:02}", f"2001-06-{day + 2:02}"] for day in range(1, 29, 4)]
    splits = {"train": [["2001-01-01", "2001-05-30"]], "validation": pieces,
              "test": [["2001-07-01", "2001-07-15"]]}  # fmt: skip
    run = tmp_path / "run"
    assert trained(home / "sea.nc", run, f"data.splits={json.dumps(splits)}") == 0
    assert set(pd.read_csv(run / "validation.csv").lead_hours) == {24, 48}


def test_a_run_that_cannot_be_scored_is_a_run(coast, tmp_path, monkeypatch, capsys):
    def refused(*_):
        raise UserError("no truth")

    home, _ = coast
    monkeypatch.setattr(validate, "validate", refused)
    assert trained(home / "sea.nc", tmp_path / "run") == 0
    assert "the run is trained, but not scored on validation: no truth" in capsys.readouterr().err
    drawn(tmp_path / "run", tmp_path / "f.zarr")


def test_a_past_with_a_gap_is_refused(coast, tmp_path, capsys):
    """By the door and in Python alike, where a forecast starts from two states."""
    home, _ = coast
    run = tmp_path / "run"
    assert trained(home / "sea.nc", run, "window.past=2") == 0
    ds = sea()[0].isel(time=slice(150, 160))
    gap = ds.isel(time=[0, 1, 2, 3, 5, 6])
    gap.to_netcdf(tmp_path / "gap.nc")
    model = sciladm.load(run)
    message = r"2001-06-05.* starts from 2 states 24h apart.* none at 2001-06-04"
    with pytest.raises(UserError, match=message):
        model.forecast(gap, "1d", members=1, init="2001-06-05")
    asked = ("--lead", "1d", "--members", 1, "--out", tmp_path / "f.zarr", "--quiet")
    at = ("--data", tmp_path / "gap.nc", "--init", "2001-06-05")
    assert door(forecast.main, run, *asked, *at) == 2
    assert "2001-06-05" in capsys.readouterr().err
    with pytest.raises(UserError, match="none at 2001-05-30"):
        model.forecast(ds.isel(time=slice(1)), "1d", members=1)
    other = ds.convert_calendar("noleap", use_cftime=True)
    with pytest.raises(UserError, match="calendar noleap"):
        model.forecast(other, "1d", members=1)
    pair = gap.isel(time=slice(4, 6))
    whole = model.forecast(ds, "1d", members=1, init="2001-06-06")
    xr.testing.assert_equal(model.forecast(pair, "1d", members=1), whole)


@pytest.mark.slow
def test_monthly_forecasts_are_valid_in_the_months_of_the_data(tmp_path, capsys):
    months = np.arange("1980-01", "2010-01", dtype="M8[M]")
    starts, ends = (m.astype("M8[ns]") for m in (months, months + 1))
    ds = sea(field((len(months), 9, 13)))[0].assign_coords(time=starts + (ends - starts) // 2)
    ds.to_netcdf(tmp_path / "monthly.nc")
    run = tmp_path / "run"
    assert trained(tmp_path / "monthly.nc", run) == 0
    drawn = forecast.main, run, "--out", tmp_path / "f.zarr", "--quiet", "--members", 4
    assert door(*drawn, "--lead", "3mo", "--init", "2006-01-16T12/2008-01-16T12/3mo") == 0
    store = xr.open_zarr(tmp_path / "f.zarr")
    first = store.valid_time.values[0]
    np.testing.assert_array_equal(first, ds.time.sel(time=slice("2006-02", "2006-04")))
    report = tmp_path / "report"
    chosen = "--set", "evaluation.baselines=[persistence,dressed_regression]"
    code = door(evaluate.main, tmp_path / "f.zarr", "--out", report, "--quiet", *chosen)
    assert code == 0, capsys.readouterr().err
    scores = pd.read_csv(report / "scores.csv")
    assert set(scores[scores.season == "all"].n_init) == {9} and scores.lead_hours.nunique() == 3
    assert {"model", "persistence", "dressed_regression"} <= set(scores.forecast)


def shared():
    for place in (os.environ.get("SCILADM_DATA"), Path(__file__).parents[2] / "shared/data"):
        if place and Path(place).is_dir():
            return Path(place)
    return pytest.skip("no real data: set SCILADM_DATA to the folder that holds them")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "variables", "step", "missing"),
    [
        ("oisst_tasman_daily/oisst_tasman_1982-2012.nc", ["sst"], "24h", True),
        ("globcurrent_agulhas_daily/*.nc", ["eastward_eulerian_current_velocity",
         "northward_eulerian_current_velocity"], "24h", True),
        ("cmip6_access_esm/tas_Amon*historical*.nc", ["tas"], "1mo", False),
    ],
)  # fmt: skip
def test_real_files_in_three_layouts(files, variables, step, missing, tmp_path):
    place = shared() / files
    assert trained(place, tmp_path / "run") == 0
    ds = drawn(tmp_path / "run", tmp_path / "f.zarr")
    assert sorted(ds.data_vars) == variables
    assert f"step: {step}" in (tmp_path / "run" / "recipe.yaml").read_text()
    for name in variables:
        assert bool(np.isnan(ds[name]).any()) == missing
        assert np.isfinite(ds[name]).any()
