import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sciladm.conventions import (
    UserError,
    format_duration,
    parse_duration,
    rename_in,
    rename_out,
    roles,
)


def field(dims, **coords):
    sizes = {"member": 2}
    shape = tuple(len(coords[d]) if d in coords else sizes.get(d, 3) for d in dims)
    return xr.Dataset({"v": (dims, np.zeros(shape))}, coords)


TIMES = np.arange("2000-01-01", "2000-01-04", dtype="M8[D]").astype("M8[ns]")


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (("time", "level", "longitude", "latitude"), ("time", "level", "longitude", "latitude")),
        (("valid_time", "latitude", "longitude"), ("time", "latitude", "longitude")),
        (("TIME", "lev", "LAT", "Lon"), ("time", "level", "latitude", "longitude")),
        (("number", "time", "step", "isobaricInhPa", "lat", "lon"),
         ("member", "init_time", "lead_time", "level", "latitude", "longitude")),
        (("time", "number", "prediction_timedelta", "lat", "lon"),
         ("init_time", "member", "lead_time", "latitude", "longitude")),
        (("k", "j", "i"), ("z", "y", "x")),
        (("dim0", "dim1"), ("y", "x")),
        (("time", "xcoord", "ycoord"), ("time", "x", "y")),
    ],
)  # fmt: skip
def test_names_and_position(dims, expected):
    assert rename_in(field(dims))["v"].dims == expected


@pytest.mark.parametrize(
    ("attributes", "ours"),
    [
        ({"standard_name": "latitude"}, "latitude"),
        ({"units": "degrees North"}, "latitude"),
        ({"units": "degrees_east"}, "longitude"),
        ({"axis": "X"}, "x"),
        ({"units": "hPa"}, "level"),
    ],
)
def test_attributes(attributes, ours):
    ds = xr.Dataset(
        {"v": (("time", "q"), np.zeros((3, 3)))},
        {"q": ("q", [1, 2, 3], attributes), "time": TIMES},
    )
    assert roles(ds).names["q"] == ours


def test_dates_make_a_time():
    assert roles(field(("when", "lat", "lon"), when=TIMES)).names["when"] == "time"


def test_guess_by_position_is_said():
    assert any("guess" in line for line in roles(field(("a", "b"))).why)
    assert not any("guess" in line for line in roles(field(("lat", "lon"))).why)


def test_month_is_left_without_a_role():
    assert "month" not in roles(field(("month", "lat", "lon"))).names
    assert rename_in(field(("month", "lat", "lon")), {"month": "time"})["v"].dims[0] == "time"


def test_pressure_in_pascal():
    level = xr.Variable("plev", [85000.0, 50000.0], {"units": "Pa"})
    ds = field(("plev", "lat", "lon"), plev=level)
    level = rename_in(ds)["level"]
    assert level.values.tolist() == [850, 500] and level.dtype.kind == "i"
    assert level.attrs["units"] == "hPa"


def test_cfgrib_scalar_time_does_not_collide():
    ds = field(("valid_time", "lat", "lon"), valid_time=TIMES).assign_coords(time=TIMES[0])
    assert rename_in(ds)["v"].dims == ("time", "latitude", "longitude")


def test_two_of_a_kind_are_refused():
    with pytest.raises(UserError, match="lat, nav_lat all look like latitude"):
        roles(field(("lat", "nav_lat")))
    assert roles(field(("lat", "nav_lat")), {"nav_lat": "x", "lat": "y"}).names["lat"] == "y"


def test_given_must_exist():
    with pytest.raises(UserError, match="dimensions there: lat, lon"):
        roles(field(("lat", "lon")), {"latt": "latitude"})


def test_weatherbench2_layout():
    dims = ("init_time", "member", "lead_time", "longitude", "latitude")
    ds = field(dims, member=[0, 1]).assign_coords(valid_time=("init_time", TIMES))
    out = rename_out(ds, "weatherbench2")
    assert out["v"].dims == ("time", "number", "prediction_timedelta", "latitude", "longitude")
    assert out["number"].values.tolist() == [1, 2] and out["number"].dtype == np.int32
    assert "valid_time" not in out.variables


@given(st.integers(1, 200), st.sampled_from(["s", "min", "h", "d", "w", "mo", "y"]))
def test_durations_round_trip(count, unit):
    duration = parse_duration(f"{count}{unit}")
    assert parse_duration(format_duration(duration)) == duration


def test_durations():
    assert parse_duration("36h") == np.timedelta64(36, "h")
    assert format_duration(parse_duration("24h")) == "24h"
    assert format_duration(parse_duration("5d")) == "5d"
    assert format_duration(parse_duration("90min")) == "90min"


@pytest.mark.parametrize("text", ["", "5", "h", "-6h", "0h", "6 hours", "1step", "5D"])
def test_bad_durations(text):
    with pytest.raises(UserError, match="not a duration"):
        parse_duration(text)
