import json
import os
from pathlib import Path

import cftime
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from sciladm.conventions import UserError
from sciladm.data.cards import Variable
from sciladm.data.channels import NETCDF_FILL
from sciladm.data.fields import Fields
from sciladm.data.forcings import cos_zenith
from sciladm.data.times import ticks
from sciladm.grid import Grid

TIMES = np.arange("2001-01-01", "2001-01-06", dtype="M8[D]").astype("M8[ns]")
LATITUDE = np.array([-60.0, -20.0, 20.0, 60.0], np.float32)
LONGITUDE = np.arange(0, 360, 60, dtype=np.float32)
VARIABLES = {"warmth": [850, 500], "pressure": None}


def make(seed=0):
    random = np.random.default_rng(seed)
    shape = (len(TIMES), 3, len(LATITUDE), len(LONGITUDE))
    dims = ("time", "level", "latitude", "longitude")
    flat = ("time", "latitude", "longitude")
    ds = xr.Dataset(
        {
            "warmth": (dims, random.normal(280, 10, shape).astype("f4"), {"units": "K"}),
            "pressure": (flat, random.normal(1e5, 500, shape[:1] + shape[2:]).astype("f4")),
            "hills": (flat[1:], random.normal(300, 99, shape[2:]).astype("f4")),
        },
        {
            "time": TIMES,
            "level": ("level", [200, 500, 850], {"units": "hPa"}),
            "latitude": ("latitude", LATITUDE, {"units": "degrees_north"}),
            "longitude": ("longitude", LONGITUDE, {"units": "degrees_east", "note": "east"}),
        },
    )
    return ds


DATA = make()
FIELDS = Fields.from_dataset(DATA, VARIABLES, ["hills"])
ARRAY = FIELDS.to_array(DATA)


def test_channels_and_values():
    assert FIELDS.names == ["warmth_850", "warmth_500", "pressure"]
    assert ARRAY.dtype == np.float32 and ARRAY.shape == (5, 3, 4, 6)
    assert np.array_equal(ARRAY[:, 0], DATA.warmth.sel(level=850))
    assert np.array_equal(ARRAY[:, 2], DATA.pressure)


def shuffled(ds, order):
    return ds.transpose(*order)


def big_endian(ds):
    return ds.map(lambda v: v.astype(v.dtype.newbyteorder(">")))


def as_180(ds):
    longitude = ds.longitude.copy(data=(ds.longitude + 180) % 360 - 180)
    return ds.assign_coords(longitude=longitude).sortby("longitude")


CHANGES = {
    "reversed": lambda ds: ds.isel(latitude=slice(None, None, -1)),
    "as_180": as_180,
    "rolled": lambda ds: ds.roll(longitude=2, roll_coords=True),
    "double": lambda ds: ds.astype("f8"),
    "coordinates": lambda ds: ds.assign_coords(
        latitude=ds.latitude.astype("f8") + 1e-5, level=ds.level.astype("f4")
    ),
    "big_endian": big_endian,
    "names": lambda ds: ds.rename(latitude="lat", longitude="lon", level="isobaricInhPa"),
    "levels": lambda ds: ds.isel(level=[2, 0, 1]),
    "more": lambda ds: ds.assign(other=ds.pressure * 0).expand_dims(height=[2.0]),
    "lazy": lambda ds: ds.chunk({"time": 2}),
}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from(sorted(CHANGES)), unique=True, max_size=5),
    st.permutations(["time", "level", "latitude", "longitude"]),
)
def test_labels_rule(changes, order):
    ds = DATA.transpose(*order)
    for change in sorted(changes, key=lambda c: c in ("names", "more")):
        ds = CHANGES[change](ds)
    assert np.array_equal(FIELDS.to_array(ds), ARRAY)


def test_packed_gives_the_same_bits(tmp_path):
    packed = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}
    encoding = {"warmth": packed}
    DATA.to_netcdf(tmp_path / "a.nc", encoding=encoding)
    DATA.to_netcdf(tmp_path / "b.nc", encoding=encoding, format="NETCDF3_CLASSIC")  # big-endian
    DATA.to_zarr(tmp_path / "c.zarr", encoding=encoding, zarr_format=2)
    first, *others = (
        FIELDS.to_array(xr.open_dataset(tmp_path / name)) for name in ("a.nc", "b.nc", "c.zarr")
    )
    assert np.abs(first - ARRAY).max() < 0.02
    for other in others:
        assert np.array_equal(first, other)


def test_round_trip():
    ds = DATA.sel(level=[850, 500]).drop_vars("hills")
    back = FIELDS.to_dataset(ARRAY, ("time",), {"time": DATA.time})
    xr.testing.assert_identical(back, ds)
    for name in ("latitude", "longitude", "level"):
        assert back[name].dtype == ds[name].dtype


def test_members_and_uneven_levels():
    fields = Fields.from_dataset(make(), {"warmth": [500], "pressure": None})
    two = Fields.from_dataset(make().assign(wind=DATA.warmth), {"warmth": [500], "wind": [200]})
    values = np.random.default_rng(1).normal(size=(3, 2, 2, 4, 6)).astype("f4")
    out = fields.to_dataset(values, ("member", "time"), {"member": [0, 1, 2], "time": TIMES[:2]})
    assert out.warmth.dims == ("member", "time", "level", "latitude", "longitude")
    out = two.to_dataset(values, ("member", "time"), {"time": TIMES[:2]})
    assert np.array_equal(out.wind.sel(level=200), values[:, :, 1])
    assert out.wind.sel(level=500).isnull().all()


def test_stored_fields_are_the_same():
    tree = json.loads(json.dumps(FIELDS.as_dict()))
    again = Fields.from_dict(tree, FIELDS.statics)
    assert np.array_equal(again.to_array(DATA), ARRAY)
    xr.testing.assert_identical(
        again.to_dataset(ARRAY, ("time",), {"time": TIMES}),
        FIELDS.to_dataset(ARRAY, ("time",), {"time": TIMES}),
    )
    assert again.as_dict() == FIELDS.as_dict()


def test_statics_are_standardised():
    area = FIELDS.grid.area
    assert FIELDS.statics.shape == (1, 4, 6)
    assert abs((FIELDS.statics[0] * area).sum()) < 1e-5
    assert (FIELDS.statics[0] ** 2 * area).sum() == pytest.approx(1, abs=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(-8, 2))
def test_transform(power):
    scale = 10.0**power
    ds = abs(DATA) * scale
    fields = Fields.from_dataset(
        ds, {"pressure": None}, meta={"pressure": Variable(transform=f"log1p:{scale}")}
    )
    values = fields.to_array(ds)
    assert np.allclose(values[:, 0], np.log1p(ds.pressure / scale), rtol=1e-5)
    back = fields.to_dataset(values, ("time",), {"time": TIMES})
    assert np.allclose(back.pressure, ds.pressure, rtol=1e-4)
    with pytest.raises(UserError, match="takes values above"):
        fields.to_array(-ds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars("pressure").assign(presure=0), "did you mean presure"),
        (lambda ds: ds.sel(level=[200, 500]), r"no level \[850\]"),
        (lambda ds: ds.isel(latitude=slice(1, None)), "1 of 4 latitude values"),
        (lambda ds: ds.assign_coords(longitude=ds.longitude + 10), "longitude values"),
        (lambda ds: ds.expand_dims(number=3), r"member \(3\)"),
        (lambda ds: ds.isel(longitude=0), "longitude wanted too"),
        (lambda ds: ds.where(ds.latitude < 50), "missing or not finite"),
        (lambda ds: ds.fillna(0) + np.inf, "missing or not finite"),
    ],
)
def test_refusals(change, message):
    with pytest.raises((UserError), match=message):
        FIELDS.to_array(change(DATA))


def test_undeclared_fill_is_missing():
    ds = DATA.copy(deep=True)
    ds.pressure[2, 1, 1] = NETCDF_FILL
    with pytest.raises(UserError, match=r"pressure: 1 of 120 .*first at 2001-01-03"):
        FIELDS.to_array(ds)
    static = Fields.from_dataset(ds, VARIABLES, meta={"pressure": Variable(missing="static")})
    assert np.isnan(static.to_array(ds)).sum() == 1
    assert np.isnan(FIELDS.to_array(ds, gaps=True)).sum() == 1


def test_grids_that_are_none():
    cells = xr.Dataset({"tas": (("time", "i"), np.zeros((2, 50)))}, {"lat": ("i", np.zeros(50))})
    with pytest.raises(UserError, match="no grid of two or more axes"):
        Fields.from_dataset(cells, {"tas": None})
    half = DATA.assign_coords(level=[200.5, 500, 850])
    with pytest.raises(UserError, match="not whole numbers"):
        Fields.from_dataset(half, VARIABLES)
    with pytest.raises(UserError, match="says nothing"):
        Fields.from_dataset(DATA.assign(hills=DATA.hills * 0), VARIABLES, ["hills"])


def test_curvilinear_is_a_plane():
    ds = xr.Dataset(
        {"tos": (("time", "j", "i"), np.random.default_rng(0).random((2, 5, 7)))},
        {
            "latitude": (("j", "i"), np.arange(35.0).reshape(5, 7)),
            "longitude": (("j", "i"), np.ones((5, 7))),
        },
    )
    fields = Fields.from_dataset(ds, {"tos": None})
    assert fields.grid.names == ("y", "x") and fields.grid.geometry == "plane"
    again = Fields.from_dict(json.loads(json.dumps(fields.as_dict())), fields.statics)
    back = again.to_dataset(fields.to_array(ds), ("time",), {})
    assert "y" not in back.coords
    assert np.array_equal(back.latitude, ds.latitude) and back.latitude.dims == ("y", "x")


def test_question_has_no_nan():
    values = ARRAY.copy()
    values[1, 0, 0] = np.nan
    valid = np.ones(ARRAY.shape[1:], bool)
    valid[1, 2] = False
    values[:, 1, 2] = 1e30
    question = FIELDS.question(values, TIMES, valid, np.full_like(values, 0.5))
    assert torch.isfinite(question.values).all() and question.values.max() < 1e6
    assert not question.observed[1, 0, 0].any() and not question.observed[:, 1, 2].any()
    assert (question.values[~question.observed] == 0).all()
    assert set(question.error_std.unique().tolist()) == {0.0, 0.5}
    assert question.keys.tolist() == ticks(TIMES).tolist()
    other = values.copy()
    other[:, 1, 2] = -7
    again = FIELDS.question(other, TIMES, valid, np.full_like(values, 0.5))
    assert all(torch.equal(getattr(question, k), getattr(again, k)) for k in vars(question))


def test_an_axis_with_a_modulo_is_periodic():
    axes = {"y": ("y", np.arange(3.0), {"modulo": " "}), "x": ("x", np.arange(4.0), {"modulo": 4})}
    ds = xr.Dataset({"u": (("y", "x"), np.zeros((3, 4)), {})}, axes)
    fields = Fields.from_dataset(ds, {"u": None})
    assert fields.grid.boundaries == ("bounded", "periodic")
    assert Fields.from_dataset(ds.isel(x=[0, 1]), {"u": None}).grid.boundaries[1] == "bounded"
    back = fields.to_dataset(np.zeros((1, 3, 4), np.float32), (), {})
    assert Fields.from_dataset(back, {"u": None}).grid == fields.grid


def test_sun():
    grid = Grid.from_coords(
        {"latitude": np.linspace(-88.75, 88.75, 72), "longitude": np.arange(0, 360, 5.0)}
    )
    hours = np.arange(24) / 24
    γ = np.zeros((24, 1, 1)) + 2 * np.pi * 79.5 / 365
    equinox = (cos_zenith(γ, hours.reshape(-1, 1, 1), grid) * grid.area).sum((1, 2))
    assert np.allclose(equinox, 0.25, atol=2e-3)  # a disc over a sphere
    noon = cos_zenith(γ[:1], np.full((1, 1, 1), 0.5), grid)[0]
    assert np.unravel_index(noon.argmax(), noon.shape)[1] == 0  # 12 UTC at Greenwich
    summer = cos_zenith(γ * 0 + 2 * np.pi * 171 / 365, hours.reshape(-1, 1, 1), grid)
    assert (summer[:, -1] > 0.3).all() and (summer[:, 0] == 0).all()  # midnight sun
    tropic = grid.axes[0].values[summer.max((0, 2)).argmax()]
    assert tropic == pytest.approx(23.4, abs=1.5)


def test_forcings_in_any_calendar():
    assert FIELDS.forcings(TIMES).shape == (5, 5, 4, 6)
    plane = Grid.from_coords({"y": np.arange(3), "x": np.arange(4)})
    noleap = np.array([cftime.DatetimeNoLeap(2001, 1, d) for d in range(1, 6)])
    a, b = FIELDS.forcings(TIMES, plane), FIELDS.forcings(noleap, plane)
    assert a.shape == (5, 6, 3, 4) and np.allclose(a, b, atol=1e-6)
    assert np.abs(a).max() <= 1


def shared():
    for place in (os.environ.get("SCILADM_DATA"), Path(__file__).parents[2] / "shared/data"):
        if place and Path(place).is_dir():
            return Path(place)
    return pytest.skip("no real data: set SCILADM_DATA to the folder that holds them")


def test_real_air_temperature():
    store = shared() / "ncep_air_na_zarr/air_temperature.zarr"
    ds = xr.open_zarr(store, chunks=None).isel(time=slice(0, 8))
    fields = Fields.from_dataset(ds, {"air": None})
    assert fields.grid.shape == (25, 53) and set(fields.grid.boundaries) == {"bounded"}
    back = fields.to_dataset(fields.to_array(ds), ("time",), {"time": ds.time})
    assert np.array_equal(back.air, ds.air.astype("f4")) and back.air.attrs == ds.air.attrs


def test_real_era5_longitude_first():
    ds = xr.open_dataset(shared() / "era5_tl31_37lev/era5_tl31_19590102T00.nc")
    fields = Fields.from_dataset(ds, {"temperature": [500], "sea_ice_cover": None},
                                 meta={"sea_ice_cover": Variable(missing="static")})  # fmt: skip
    values = fields.to_array(ds)
    assert fields.grid.boundaries == ("pole", "periodic") and values.shape == (1, 2, 32, 64)
    assert np.array_equal(values[0, 0], ds.temperature.sel(level=500).T.astype("f4"))
