import os
from pathlib import Path

import cftime
import numpy as np
import pytest
import xarray as xr

from sciladm.conventions import UserError
from sciladm.data.fields import Fields
from sciladm.data.frames import Frames, Stream
from sciladm.data.store import fingerprint, open_store, read

TIMES = np.datetime64("2001-01-01", "ns") + np.arange(12) * np.timedelta64(24, "h")


def make(times=TIMES, seed=0, names=("a",)):
    random = np.random.default_rng(seed)
    coords = {"time": times, "lat": np.linspace(-30, 30, 5), "lon": np.linspace(10, 70, 7)}
    data = {
        n: (("time", "lat", "lon"), random.random((len(times), 5, 7)).astype("f4")) for n in names
    }
    return xr.Dataset(data, coords)


def shared():
    for place in (os.environ.get("SCILADM_DATA"), Path(__file__).parents[2] / "shared/data"):
        if place and Path(place).is_dir():
            return Path(place)
    return pytest.skip("no real data: set SCILADM_DATA to the folder that holds them")


WRITERS = {
    "zarr2.zarr": lambda ds, path: ds.to_zarr(path, zarr_format=2, consolidated=True),
    "zarr2_not_consolidated.zarr": lambda ds, path: ds.to_zarr(
        path, zarr_format=2, consolidated=False
    ),
    "zarr3.zarr": lambda ds, path: ds.to_zarr(path, zarr_format=3, consolidated=False),
    "netcdf4.nc": lambda ds, path: ds.to_netcdf(path),
    "netcdf3.nc": lambda ds, path: ds.to_netcdf(path, format="NETCDF3_CLASSIC"),
}


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_formats_give_the_same(tmp_path, name):
    ds = make()
    WRITERS[name](ds, tmp_path / name)
    opened = open_store(tmp_path / name)
    assert not opened.a._in_memory
    xr.testing.assert_equal(opened.load(), ds)
    assert read(opened.a).dtype.isnative


def test_many_files(tmp_path):
    ds = make(names=("a", "b"))
    for i in range(12):
        ds.isel(time=[i]).to_netcdf(tmp_path / f"day{11 - i:02}.nc")
    for path in (tmp_path, tmp_path / "*.nc", sorted(tmp_path.glob("*.nc"))):
        xr.testing.assert_equal(open_store(path).load(), ds)


def test_variables_in_files_of_their_own(tmp_path):
    ds = make(names=("a", "b")).assign(hills=(("lat", "lon"), np.ones((5, 7))))
    ds[["a"]].isel(time=slice(0, 5)).to_netcdf(tmp_path / "a1.nc")
    ds[["a"]].isel(time=slice(5, None)).to_netcdf(tmp_path / "a2.nc")
    ds[["b"]].to_netcdf(tmp_path / "b.nc")
    ds[["hills"]].to_netcdf(tmp_path / "hills.nc")
    xr.testing.assert_equal(open_store(tmp_path).load(), ds)
    ds[["b"]].isel(lat=slice(0, 3)).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(UserError, match="do not fit together"):
        open_store(tmp_path)


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_calendars(tmp_path, calendar):
    times = np.array([cftime.datetime(101, 1, d, calendar=calendar) for d in range(1, 13)])
    make(times).to_netcdf(tmp_path / "old.nc")
    got = open_store(tmp_path / "old.nc").time.values
    assert list(got) == list(times)


def test_unit_for_units(tmp_path, caplog):
    ds = make()
    days = (TIMES - np.datetime64("1900-01-01", "ns")) / np.timedelta64(1, "D")
    odd = ds.assign_coords(time=("time", days, {"Unit": "days since 1900-1-1"}))
    odd.to_netcdf(tmp_path / "odd.nc")
    xr.testing.assert_equal(open_store(tmp_path / "odd.nc").load(), ds)
    assert "its `Unit` 'days since 1900-1-1' is taken" in caplog.text


def test_absent(tmp_path):
    make().to_netcdf(tmp_path / "there.nc")
    with pytest.raises(UserError, match=r"no such file: .*in that folder: there.nc"):
        open_store(tmp_path / "their.nc")
    with pytest.raises(UserError, match="no file matches"):
        open_store(tmp_path / "*.grib")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="a folder without"):
        open_store(tmp_path / "empty")


@pytest.mark.parametrize("name", ["netcdf4.nc", "netcdf3.nc"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.95])
def test_cut_short(tmp_path, name, part):
    WRITERS[name](make(), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(part * len(data))])
    with pytest.raises(UserError, match=name):
        read(open_store(tmp_path / name).a)


def test_other_files(tmp_path):
    (tmp_path / "notes.nc").write_text("no data at all")
    with pytest.raises(UserError, match=r"notes\.nc"):
        open_store(tmp_path / "notes.nc")
    (tmp_path / "weather.grib").write_bytes(b"GRIB" + bytes(100))
    with pytest.raises(UserError, match=r"weather\.grib is no netCDF|weather\.grib: cannot"):
        open_store(tmp_path / "weather.grib")


def test_groups_are_named(tmp_path):
    make().to_netcdf(tmp_path / "deep.nc", group="image1")
    with pytest.raises(UserError, match="it has groups image1"):
        open_store(tmp_path / "deep.nc")


def test_damaged_zarr(tmp_path):
    make().to_zarr(tmp_path / "z.zarr", zarr_format=2, consolidated=True)
    (tmp_path / "z.zarr/a/0.0.0").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be read"):
        read(open_store(tmp_path / "z.zarr").a)
    (tmp_path / "z.zarr/.zmetadata").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        open_store(tmp_path / "z.zarr")


def test_times_that_cannot_be(tmp_path):
    ds = make().assign_coords(time=("time", np.arange(12), {"units": "days since the flood"}))
    ds.to_netcdf(tmp_path / "t.nc")
    with pytest.raises(UserError, match="time coordinate cannot be decoded"):
        open_store(tmp_path / "t.nc")


def test_fingerprint(tmp_path):
    ds = make()
    for name, write in WRITERS.items():
        write(ds, tmp_path / name)
    prints = {fingerprint(open_store(tmp_path / name)) for name in WRITERS}
    assert prints == {fingerprint(ds)}
    assert fingerprint(make(seed=1)) not in prints
    assert fingerprint(ds.isel(time=slice(1, None))) not in prints
    assert fingerprint(ds.assign_coords(lat=ds.lat + 1)) not in prints


def test_frames(tmp_path):
    ds = make()
    ds.to_zarr(tmp_path / "z.zarr", zarr_format=2, consolidated=True)
    frames = Frames(*with_fields(open_store(tmp_path / "z.zarr")))
    picked = np.array([9, 0, 0, 11, 3])
    for wanted in (picked, np.arange(2, 9), np.array([4, 4, 5])):
        assert np.array_equal(frames.read(wanted)[:, 0], ds.a.values[wanted])
    chunk = frames.ds.a.encoding["chunks"][0]
    blocks = frames.blocks(np.array([1, 2, 3, 8, 9]))
    assert 512 <= blocks.size < 512 + chunk and not blocks.size % chunk
    assert not list(frames.blocks(np.array([], int)))
    assert [len(t) for t, _ in Stream(frames, np.array([1, 2, 3, 8, 9]), 2)] == [1, 2, 2]
    for _ in range(2):
        joined = np.concatenate([values for _, values in blocks])
        assert np.array_equal(joined[:, 0], ds.a.values[[1, 2, 3, 8, 9]])
    held = frames.hold(np.arange(2, 12))
    assert held.held is not None and frames.hold(np.arange(12), limit=100).held is None
    for some in (picked, np.array([2, 11, 5])):
        assert np.array_equal(held.read(some), frames.read(some))


def test_blocks_are_whole_chunks_where_these_fit(tmp_path, monkeypatch):
    make().to_zarr(tmp_path / "z.zarr", zarr_format=2, consolidated=True)
    frames = Frames(*with_fields(open_store(tmp_path / "z.zarr")))
    chunk = frames.ds.a.encoding["chunks"][0]
    assert chunk > 1
    for exponent, size in ((24, chunk), (30, 1)):  # bytes of a state
        monkeypatch.setattr(Frames, "_bytes", lambda _, n, by=exponent: n << by)
        assert frames.blocks(np.arange(12)).size == size


def with_fields(ds):
    return ds, Fields.from_dataset(ds, {"a": None})


def test_real_globcurrent(caplog):
    ds = open_store(sorted((shared() / "globcurrent_agulhas_daily").glob("*.nc"))[:9])
    assert str(ds.time.values[0]).startswith("2002-01-01")
    assert np.array_equal(np.diff(ds.time.values), np.full(8, np.timedelta64(1, "D")))


def test_real_oddities():
    awkward = shared() / "awkward"
    assert open_store(awkward / "A1B_north_america.nc").time.values[0].calendar == "360_day"
    with pytest.raises(UserError, match="cannot be decoded"):
        open_store(awkward / "esku_heat_budget.cdf")
    radar = sorted((shared() / "radar_knmi_5min").glob("*.h5"))[0]
    with pytest.raises(UserError, match="it has groups geographic, image1"):
        open_store(radar)
