"""The forecast door on a tiny run: whose bits they are, what the store says, what is refused."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scores.probability
import xarray as xr
import xskillscore
import zarr

from sciladm import forecast as door
from sciladm.data.blocks import ForecastStore
from tests.conftest import DAY, QUICK, Tiny

VARIABLES = ["geopotential", "temperature", "2m_temperature", "mean_sea_level_pressure"]


@dataclass
class Caller:
    """Calls the door in this process; ``start`` is an initial time of the test split."""

    run: Path
    folder: Path
    start: str

    def __call__(self, name, *options, code=0, init=None):
        """Forecast to ``name``; → its path."""
        out = self.folder / name
        arguments = [self.run, "--init", init or self.start, "--out", out, "--quiet", *options]
        with pytest.raises(SystemExit) as end:
            door.main([str(one) for one in arguments])
        assert end.value.code == code
        return out


@pytest.fixture
def call(tiny_run: Path, tiny_cache: Tiny, tmp_path: Path) -> Caller:
    data = tiny_cache.data
    start = data.frames.times[data.indices("test")[40]]
    return Caller(tiny_run, tmp_path, str(start)[:19])


def opened(path):
    """All of a store, with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_zarr(path) as ds:
            return ds.load()


def same_values(a, b, **place):
    """Whether two stores agree bit for bit where ``place`` says."""
    a, b = (opened(p).sel(place) for p in (a, b))
    return all(a[name].values.tobytes() == b[name].values.tobytes() for name in VARIABLES)


def contents(path):
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def test_member_7_is_member_7(call):
    sixteen = call("16.zarr", "--lead", "2d", "--members", 16)
    eight = call("8.zarr", "--lead", "2d", "--members", 8)
    assert same_values(eight, sixteen, member=7)
    first = call("first.zarr", "--lead", "1d", "--members", 16)
    assert same_values(first, sixteen, member=7, lead_time=[DAY])
    for batch in (1, 3, 8):
        other = call(f"batch{batch}.zarr", "--lead", "2d", "--members", 8, "--batch", batch)
        assert contents(other) == contents(eight)
    seeded = call("seed.zarr", "--lead", "2d", "--members", 8, "--seed", 1)
    assert not same_values(seeded, eight, member=7)
    assert len(np.unique(opened(sixteen)["geopotential"][0, :, 0, 0, 3, 4])) == 16  # all differ


def test_member_7_does_not_mind_other_initial_times(call, tiny):
    times = tiny.data.frames.times[tiny.data.indices("test")]
    later = str(times[44])[:19]
    alone = call("alone.zarr", "--lead", "1d", "--members", 8)
    both = call("both.zarr", "--lead", "1d", "--members", 8, init=f"{later},{call.start}")
    place = {"init_time": [np.datetime64(call.start)], "member": 7}
    assert same_values(alone, both, **place)


def test_what_a_store_says(call):
    ds = opened(call("F.zarr", "--lead", "3d", "--members", 6))  # 4 members go together
    assert dict(ds.sizes) == {
        "init_time": 1, "member": 6, "lead_time": 3, "level": 2, "latitude": 16, "longitude": 32,
    }  # fmt: skip
    assert ds["lead_time"].values.tolist() == [1 * DAY, 2 * DAY, 3 * DAY]
    assert ds["member"].values.tolist() == list(range(6))
    expected = ds["init_time"].values[:, None] + ds["lead_time"].values
    assert (ds["valid_time"].values == expected).all()
    assert ds["geopotential"].encoding["chunks"] == (1, 4, 1, 2, 16, 32)
    assert np.isfinite(ds["geopotential"]).all() and np.isfinite(ds["2m_temperature"]).all()
    there = ds["temperature"].notnull().all(["member", "lead_time", "latitude", "longitude"])
    assert dict(zip(ds["level"].values, there.values[0], strict=True)) == {500: False, 850: True}
    assert ds["temperature"].attrs["standard_name"] == "air_temperature"
    assert ds.attrs["source"] == "simulated" and ds.attrs["synthetic"] == 1
    assert {"recipe", "data_fingerprint", "seed", "versions", "model_hash"} <= set(ds.attrs)


def test_leads_that_do_not_divide_are_refused(call, capsys):
    for lead, remedy in (("36h", "24h"), ("6h", "24h"), ("0step", "1step")):
        out = call("F.zarr", "--lead", lead, "--members", 4, code=2)
        assert remedy in capsys.readouterr().err.replace("1d", "24h")
        assert not out.exists()


def test_interrupted_and_resumed(call, monkeypatch, capsys):
    options = ("--lead", "2d", "--members", 10)
    whole = call("whole.zarr", *options)
    write, left = ForecastStore.write, iter(range(2))

    def interrupted(self, block, arrays):
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(self, block, arrays)

    monkeypatch.setattr(ForecastStore, "write", interrupted)
    cut = call("cut.zarr", *options, code=130)
    assert "same command" in capsys.readouterr().err
    written = opened(cut)["geopotential"].notnull()
    assert written[:, :8].all() and not written[:, 8:].any()
    monkeypatch.setattr(ForecastStore, "write", write)
    assert contents(call("cut.zarr", *options)) == contents(whole)


def own_files(tiny, start, folder):
    """Ten days around a time as files: as they are, upside down, ±180, with a gap, poorer."""
    assert tiny.data.path is not None
    with xr.open_zarr(tiny.data.path, consolidated=False) as record:
        around = np.datetime64(start, "ns") + np.arange(-20, 20) * (DAY // 4)
        ds = record[VARIABLES].sel(time=around).load()
    half = ds.assign_coords(longitude=(ds["longitude"] + 180) % 360 - 180).sortby("longitude")
    gap = ds.copy(deep=True)
    gap["2m_temperature"].loc[{"time": start}][3, 4] = np.nan
    variants = {
        "plain": ds,
        "north_first": ds.isel(latitude=slice(None, None, -1)),
        "half": half.transpose("longitude", "latitude", "level", "time"),
        "gap": gap,
        "poorer": ds.drop_vars("2m_temperature"),
        "shifted": ds.assign_coords(longitude=ds["longitude"] + 2.0),
    }
    for name, variant in variants.items():
        variant.drop_encoding().to_netcdf(folder / f"{name}.nc")
    return {name: folder / f"{name}.nc" for name in variants}


def test_own_data_by_their_labels(call, tiny, capsys):
    files = own_files(tiny, call.start, call.folder)
    options = ("--lead", "1d", "--members", 4, "--data")
    card = call("card.zarr", *options[:4])
    for name in ("plain", "north_first", "half"):
        assert same_values(card, call(f"{name}.zarr", *options, files[name])), name
    before = contents(call.folder)
    for name, message in {
        "gap": "has no value where the model knows the field: 2m_temperature in 1 cells",
        "poorer": "no variable 2m_temperature",
        "shifted": "longitude values are not in the data",
    }.items():
        call(f"{name}.zarr", *options, files[name], code=2)
        told = capsys.readouterr().err
        assert message in told and "Traceback" not in told
    assert contents(call.folder) == before


def test_the_sampler_may_change_and_the_network_may_not(call, capsys):
    options = ("--lead", "1d", "--members", 4)
    out = call("F.zarr", *options)
    before = contents(out)
    call("G.zarr", *options, "--set", "denoiser.steps=3", code=2)
    assert "only sampler.*, output.*, evaluation.* can change" in capsys.readouterr().err
    call("F.zarr", *options, "--set", "sampler.steps=8", code=2)
    assert "config.steps: 6 there, 8 now" in capsys.readouterr().err
    assert contents(out) == before
    other = call("H.zarr", *options, "--set", "sampler.steps=8")
    assert not same_values(out, other)
    assert QUICK["sampler.steps"] == 6


def test_a_stochastic_samplers_members_are_themselves(call):
    options = ("--lead", "1d", "--set", "sampler.name=ancestral")
    four, six = (call(f"{n}.zarr", *options, "--members", n) for n in (4, 6))
    plain = call("F.zarr", "--lead", "1d", "--members", 4)
    values = [xr.open_zarr(s)["geopotential"].sel(member=3).values for s in (four, six, plain)]
    assert np.array_equal(values[0], values[1]) and not np.allclose(values[0], values[2])


def test_weatherbench2_layout(call, capsys):
    """Point for point what WeatherBench2 and WeatherBench-X take."""
    options = ("--lead", "2d", "--members", 6)
    layout = (*options, "--set", "output.layout=weatherbench2")
    twice = (*layout, "--set", "output.simulated_as_weatherbench2=true")
    call("W.zarr", *layout, code=2)
    assert "taken for ERA5" in capsys.readouterr().err
    call("W", *twice, code=2)
    assert "ends in .zarr" in capsys.readouterr().err
    path = call("W.zarr", *twice)
    assert (path / ".zmetadata").is_file() and zarr.open_group(path).metadata.zarr_format == 2
    ds, ours = opened(path), opened(call("F.zarr", *options))
    assert ds["geopotential"].dims == (
        "time", "number", "prediction_timedelta", "level", "latitude", "longitude",
    )  # fmt: skip
    assert ds["time"].dtype == "datetime64[ns]" and "valid_time" not in ds.variables
    assert (ds["time"].values == ours["init_time"].values).all()
    assert "prediction_timedelta" in ds.coords
    assert ds["prediction_timedelta"].dtype == "timedelta64[ns]"
    assert ds["number"].dtype.kind == "i" and ds["number"].values.tolist() == [1, 2, 3, 4, 5, 6]
    assert ds["level"].dtype.kind == "i" and ds["level"].values.tolist() == [500, 850]
    assert (np.diff(ds["latitude"]) > 0).all() and (np.diff(ds["longitude"]) > 0).all()
    assert ds["longitude"].min() >= 0 and ds["longitude"].max() < 360
    assert set(ds.data_vars) == set(VARIABLES)
    assert ds["geopotential"].encoding["chunks"] == (1, 4, 1, 2, 16, 32)
    for name in VARIABLES:
        np.testing.assert_array_equal(ds[name].values, ours[name].values)


def test_scored_by_other_libraries(call, tiny):
    ds = opened(call("F.zarr", "--lead", "2d", "--members", 8))
    with xr.open_zarr(tiny.data.path, consolidated=False) as record:
        place = {"time": ds["valid_time"], "level": ds["level"]}
        truth = record[["2m_temperature", "geopotential"]].sel(place).load()
    member = ds["2m_temperature"].values.astype(np.float64)
    error = np.abs(member - truth["2m_temperature"].values[:, None]).mean(1)
    between = np.abs(member[:, :, None] - member[:, None]).sum((1, 2))
    expected = {"ecdf": error - between / (2 * 8 * 8), "fair": error - between / (2 * 8 * 7)}
    for method, value in expected.items():
        got = scores.probability.crps_for_ensemble(
            ds["2m_temperature"], truth["2m_temperature"], "member", method=method,
            preserve_dims="all",
        )  # fmt: skip
        got = got.transpose("init_time", "lead_time", "latitude", "longitude")
        np.testing.assert_allclose(got.values, value, rtol=1e-4, atol=1e-4)
    got = xskillscore.crps_ensemble(truth["2m_temperature"], ds["2m_temperature"], dim=[])
    np.testing.assert_allclose(got.values, expected["ecdf"], rtol=1e-4, atol=1e-4)
    whole = xskillscore.crps_ensemble(truth, ds[list(truth)], dim=["latitude", "longitude"])
    assert dict(whole["geopotential"].sizes) == {"init_time": 1, "lead_time": 2, "level": 2}
