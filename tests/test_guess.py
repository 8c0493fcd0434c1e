import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciladm.conventions import UserError, rename_in
from sciladm.data.fields import Fields
from sciladm.data.guess import guess
from sciladm.data.store import open_store
from sciladm.data.times import spaced

TIMES = np.datetime64("2001-01-01", "ns") + np.arange(6) * np.timedelta64(24, "h")


def make(**more):
    random = np.random.default_rng(0)
    dims = ("time", "lat", "lon")
    ds = xr.Dataset(
        {
            "sst": (dims, random.random((6, 4, 5)), {"units": "K", "grid_mapping": "crs"}),
            "depth": (dims[1:], random.random((4, 5))),
            "crs": ((), 0, {"grid_mapping_name": "latitude_longitude"}),
            "time_bnds": (("time", "nv"), np.zeros((6, 2))),
            "quality_flags": (dims, np.ones((6, 4, 5))),
            "name": (("time",), np.array(list("abcdef"))),
            "index": (("time",), np.arange(6.0)),
            "same": (dims[1:], np.ones((4, 5))),
        },
        {
            "time": ("time", TIMES, {"bounds": "time_bnds"}),
            "lat": ("lat", np.arange(4.0), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(5.0), {"units": "degrees_east"}),
        },
    )
    return ds.assign(more)


def test_what_is_what():
    found = guess(make())
    assert found.variables == {"sst": None} and found.static == ["depth"]
    assert found.meta["sst"].missing == "none"
    text = str(found)
    for line in (
        "lat is latitude: by its name", "sst: variable [K], no gaps", "depth: static",
        "crs: left out, it is the grid_mapping of another variable",
        "time_bnds: left out, it is the bounds of another variable",
        "quality_flags: left out, it holds flags", "name: left out, its values are no numbers",
        "index: left out, no grid of two axes (time 6)", "same: left out, the same everywhere",
    ):  # fmt: skip
        assert line in text


def test_gaps():
    ds = make()
    ds.sst[:, 0, 0] = np.nan
    assert guess(ds).meta["sst"].missing == "static"
    ds.sst[3, 1, 1] = 9.96921e36
    assert guess(ds).meta["sst"].missing == "moving"
    assert guess(ds, missing={"sst": "none"}).meta["sst"].missing == "none"


def test_levels_and_other_grids():
    air = (("time", "plev", "lat", "lon"), np.random.default_rng(1).random((6, 2, 4, 5)))
    other = (("time", "y", "x"), np.random.default_rng(1).random((6, 3, 3)))
    ds = make(air=air, other=other).assign_coords(
        plev=("plev", [85000.0, 50000.0], {"units": "Pa"})
    )
    found = guess(ds)
    assert found.variables == {"sst": None, "air": [850, 500]}
    assert "other: left out, on another grid (y, x)" in found.why
    fields = Fields.from_dataset(rename_in(ds), found.variables, found.static, found.meta)
    assert fields.names == ["sst", "air_850", "air_500"]


def test_dims_that_are_said():
    ds = xr.Dataset({"v": (("step_", "a", "b"), np.random.default_rng(0).random((6, 4, 5)))})
    with pytest.raises(UserError, match=r"no variable has a time|is nothing known"):
        guess(ds)
    found = guess(ds, dims={"step_": "time"})
    assert found.variables == {"v": None}
    assert any("a guess from its position" in line for line in found.why)


def test_unstructured_is_refused():
    cells = xr.Dataset({"tas": (("time", "i"), np.zeros((6, 99)))}, {"time": TIMES})
    with pytest.raises(UserError, match=r"no grid of two axes \(time 6, x 99\).*cdo remapbil"):
        guess(cells)


def test_no_time_is_refused():
    with pytest.raises(UserError, match="no variable has a time dimension"):
        guess(make().isel(time=0))


def shared():
    for place in (os.environ.get("SCILADM_DATA"), Path(__file__).parents[2] / "shared/data"):
        if place and Path(place).is_dir():
            return Path(place)
    return pytest.skip("no real data: set SCILADM_DATA to the folder that holds them")


@pytest.mark.parametrize(
    ("file", "names", "shape", "missing"),
    [
        ("oisst_tasman_daily/oisst_tasman_1982-2012.nc", ["sst"], (32, 32), "static"),
        ("cmip6_access_esm/tas_Amon*piControl*", ["tas"], (19, 36), "none"),
        ("cmip6_access_esm/tos_Omon*", ["tos"], (30, 36), "static"),
        ("era5_cds_new_layout/*.nc", ["u10", "v10"], (32, 37), "none"),
        ("alboran_sst_clouds/*.nc", ["SST"], (201, 301), "moving"),
        ("awkward/A1B_north_america.nc", ["air_temperature"], (37, 49), "none"),
        ("awkward/ostia_monthly.nc", ["surface_temperature"], (18, 432), "static"),
        ("awkward/SMALL_total_column_co2.nc", ["tcco2"], (161, 320), "none"),
        ("awkward/tas.sresb1*", ["tas"], (6, 5), "none"),
    ],
)
def test_real_files(file, names, shape, missing):
    ds = open_store(shared() / file)
    found = guess(ds)
    assert list(found.variables) == names
    assert {found.meta[name].missing for name in names} == {missing}
    ds = rename_in(ds)
    fields = Fields.from_dataset(ds, found.variables, found.static, found.meta)
    assert fields.grid.shape == shape
    assert fields.to_array(ds.isel(time=slice(0, 2))).shape == (2, len(names), *shape)
    spaced(ds.time.values)


def test_real_cmip_variables_in_files_of_their_own():
    files = [
        path for path in sorted((shared() / "cmip6_access_esm").glob("*.nc"))
        if "piControl" not in path.name and "tos" not in path.name
    ]  # fmt: skip
    found = guess(open_store(files))
    assert sorted(found.variables) == ["pr", "rlut", "rsdt", "rsut", "tas", "ts"]
    assert found.static == ["areacella", "sftlf"]


def test_real_unstructured():
    file = next((shared() / "awkward").glob("tas_Amon_ICON*"))
    with pytest.raises(UserError, match="no variable lies on a grid of two axes"):
        guess(open_store(file))
