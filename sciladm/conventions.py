"""Names at the border: dimensions, coordinates, attributes, durations; any known spelling → ours.

Inside, a dimension has one name (``DIMS``). Files come in with WeatherBench2's, CF's, cfgrib's or
their author's names; what a dimension *is* follows from its name, else from its coordinate's
``standard_name``, ``axis``, ``units`` or values, else from its position, and that is then said.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import cftime  # type: ignore[import-untyped]
import numpy as np
import xarray as xr


class UserError(Exception):
    """A mistake that the user can mend: one message with what, where and the remedy."""


DIMS = (
    "time", "init_time", "member", "lead_time", "level", "latitude", "longitude", "z", "y", "x",
)  # fmt: skip
"""Canonical names of dimensions."""
SPACE = ("z", "y", "x", "latitude", "longitude")
"""Dimensions that can be axes of a grid, in the order of a tensor's."""

_SPELLINGS: dict[str, tuple[str, ...]] = {
    "time": ("time", "valid_time", "t", "date", "datetime", "time_counter"),
    "init_time": ("init_time", "initial_time", "forecast_reference_time", "reftime"),
    "member": ("member", "number", "realization", "realisation", "ensemble", "ens", "member_id"),
    "lead_time": ("lead_time", "prediction_timedelta", "step", "leadtime", "forecast_period"),
    "level": (
        "level", "isobaricinhpa", "plev", "pressure_level", "pressure", "lev", "depth", "deptht",
        "height", "altitude",
    ),
    "latitude": ("latitude", "lat", "nav_lat"),
    "longitude": ("longitude", "lon", "long", "nav_lon"),
    "z": ("z", "k", "nk"),
    "y": ("y", "yc", "ycoord", "j", "nj", "rlat", "projection_y_coordinate", "south_north"),
    "x": ("x", "xc", "xcoord", "i", "ni", "rlon", "projection_x_coordinate", "west_east"),
}  # fmt: skip
BY_NAME = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
"""Known spellings, in small letters → ours."""
_BY_STANDARD_NAME = {
    "time": "time", "forecast_reference_time": "init_time", "forecast_period": "lead_time",
    "realization": "member", "air_pressure": "level", "depth": "level", "height": "level",
    "altitude": "level", "latitude": "latitude", "longitude": "longitude",
    "grid_latitude": "y", "grid_longitude": "x",
    "projection_y_coordinate": "y", "projection_x_coordinate": "x",
}  # fmt: skip
_BY_AXIS = {"T": "time", "Z": "level", "Y": "y", "X": "x"}
_BY_UNITS = (
    (re.compile(r"^degrees?[ _]?n(orth)?$", re.I), "latitude"),
    (re.compile(r"^degrees?[ _]?e(ast)?$", re.I), "longitude"),
    (re.compile(r"^(h?pa|m(illi)?bars?|mb)$", re.I), "level"),
    (re.compile(r"^\w+ since ", re.I), "time"),
)

ATTRIBUTES: dict[str, dict[str, str]] = {
    "time": {"standard_name": "time"},
    "init_time": {"standard_name": "forecast_reference_time"},
    "lead_time": {"standard_name": "forecast_period"},
    "valid_time": {"standard_name": "time"},
    "member": {"standard_name": "realization", "units": "1"},
    "level": {"standard_name": "air_pressure", "units": "hPa", "positive": "down", "axis": "Z"},
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
}
"""CF attributes of coordinates that we write."""

VARIABLES: dict[str, tuple[str, str]] = {
    "geopotential": ("geopotential", "m2 s-2"),
    "temperature": ("air_temperature", "K"),
    "u_component_of_wind": ("eastward_wind", "m s-1"),
    "v_component_of_wind": ("northward_wind", "m s-1"),
    "specific_humidity": ("specific_humidity", "kg kg-1"),
    "vertical_velocity": ("lagrangian_tendency_of_air_pressure", "Pa s-1"),
    "2m_temperature": ("air_temperature", "K"),
    "10m_u_component_of_wind": ("eastward_wind", "m s-1"),
    "10m_v_component_of_wind": ("northward_wind", "m s-1"),
    "mean_sea_level_pressure": ("air_pressure_at_mean_sea_level", "Pa"),
    "surface_pressure": ("surface_air_pressure", "Pa"),
    "sea_surface_temperature": ("sea_surface_temperature", "K"),
    "total_precipitation_6hr": ("lwe_thickness_of_precipitation_amount", "m"),
    "total_precipitation_24hr": ("lwe_thickness_of_precipitation_amount", "m"),
    "land_sea_mask": ("land_area_fraction", "1"),
    "geopotential_at_surface": ("surface_geopotential", "m2 s-2"),
}
"""WeatherBench2's names: CF standard name, units."""


@dataclass(frozen=True)
class Roles:
    """What dimensions are: ``names`` (theirs → ours) and ``why``, one line each."""

    names: dict[str, str]
    why: tuple[str, ...]


def roles(ds: xr.Dataset, given: dict[str, str] | None = None) -> Roles:
    """Find the role of every dimension that a data variable has.

    ``given`` (their name → ours) wins. Two spatial dimensions that nothing identifies are taken as
    (y, x) by position; other unknown dimensions keep their names and stay without a role.
    """
    given = given or {}
    for theirs, ours in given.items():
        if theirs not in ds.dims or ours not in DIMS:
            known = f"dimensions there: {', '.join(map(str, ds.dims))}; ours: {', '.join(DIMS)}"
            raise UserError(f"`dims: {{{theirs}: {ours}}}` does not fit the data; {known}")
    dims = [str(dim) for dim in ds.dims]
    found: dict[str, tuple[str, str]] = {dim: (ours, "you said so") for dim, ours in given.items()}
    for dim in dims:
        if dim not in found and (role := _role(ds, dim)):
            found[dim] = role
    _settle_time(found)
    _settle_position(ds, found)
    _one_each(ds, found)
    why = tuple(f"{dim} is {ours}: {reason}" for dim, (ours, reason) in found.items())
    return Roles({dim: ours for dim, (ours, _) in found.items()}, why)


def _role(ds: xr.Dataset, dim: str) -> tuple[str, str] | None:
    """Role of one dimension and the reason, from its name, then its coordinate."""
    if ours := BY_NAME.get(dim.lower()):
        return ours, "by its name"
    coordinate = ds.variables.get(dim)
    if coordinate is None:
        return None
    attributes = coordinate.attrs
    if ours := _BY_STANDARD_NAME.get(str(attributes.get("standard_name", ""))):
        return ours, f"by standard_name {attributes['standard_name']!r}"
    units = str(attributes.get("units", attributes.get("Unit", ""))).strip()
    for pattern, ours in _BY_UNITS:
        if pattern.match(units):
            return ours, f"by units {units!r}"
    if ours := _BY_AXIS.get(str(attributes.get("axis", attributes.get("cartesian_axis", "")))):
        return ours, "by its axis attribute"
    if is_time(coordinate):
        return "time", "by its values, which are dates"
    if coordinate.dtype.kind == "m":
        return "lead_time", "by its values, which are durations"
    return None


def is_time(variable: Any) -> bool:
    """Whether values are dates: datetime64, or cftime objects of another calendar."""
    if variable.dtype.kind == "M":
        return True
    if variable.dtype.kind != "O" or not variable.size:
        return False
    return isinstance(np.asarray(variable[(0,) * variable.ndim]).item(), cftime.datetime)


def _settle_time(found: dict[str, tuple[str, str]]) -> None:
    """A ``time`` beside lead times is the initial time (WeatherBench2, cfgrib)."""
    ours = {role for role, _ in found.values()}
    if "lead_time" in ours and "init_time" not in ours:
        for dim, (role, reason) in list(found.items()):
            if role == "time":
                found[dim] = ("init_time", f"{reason}, beside lead times")


def _settle_position(ds: xr.Dataset, found: dict[str, tuple[str, str]]) -> None:
    """Unknown dimensions at the end of the largest variable are (y, x), where those are free."""
    horizontal = {role for role, _ in found.values()} & set(SPACE) - {"z"}
    if horizontal and horizontal not in ({"y"}, {"x"}):
        return
    bounds = {v.attrs.get("bounds", v.encoding.get("bounds")) for v in ds.variables.values()}
    fields = [ds[name] for name in ds.data_vars if name not in bounds]
    largest = max(fields, key=lambda v: v.size, default=None)
    last = [] if largest is None else [str(dim) for dim in largest.dims[-2:]]
    unknown = [dim for dim in last if dim not in found]
    free = [ours for ours in ("y", "x") if ours not in horizontal]
    if len(last) == 2 and len(unknown) == len(free):
        for dim, ours in zip(unknown, free, strict=True):
            found[dim] = (ours, "a guess from its position; say `dims:` if it is wrong")


def _one_each(ds: xr.Dataset, found: dict[str, tuple[str, str]]) -> None:
    """Two dimensions cannot be the same thing: of that very name, or of more than one label."""
    for ours in {role for role, _ in found.values()}:
        same = [dim for dim, (role, _) in found.items() if role == ours]
        if len(same) > 1:
            said = [dim for dim in same if found[dim][1] == "you said so"]
            exact = said or [dim for dim in same if dim.lower() == ours]
            exact = exact or [dim for dim in same if ds.sizes[dim] > 1]
            if len(exact) != 1:
                raise UserError(
                    f"dimensions {', '.join(same)} all look like {ours}; say which is which with "
                    f"`dims: {{{same[0]}: {ours}, …}}`, or drop one"
                )
            for dim in same:
                if dim != exact[0]:
                    del found[dim]


def rename_in(ds: xr.Dataset, given: dict[str, str] | None = None) -> xr.Dataset:
    """Give dimensions our names; levels in Pa become hPa, whole levels integers. Sorts nothing."""
    names = {theirs: ours for theirs, ours in roles(ds, given).names.items() if theirs != ours}
    clash = {ours for ours in names.values() if ours in ds.variables or ours in ds.dims}
    for ours in clash - set(names):
        # A scalar or 2-D coordinate of that name (cfgrib's `time`, curvilinear `longitude`).
        if ours in ds.coords:
            ds = ds.rename({ours: f"{ours}_coordinate"})
        else:
            ds = ds.rename({ours: f"{ours}_variable"})
    ds = ds.rename(names)
    if "level" in ds.variables and ds["level"].dims == ("level",):
        ds = ds.assign_coords(level=_levels(ds["level"].variable))
    return ds


def _levels(level: xr.Variable) -> xr.Variable:
    values, attributes = np.asarray(level.values, float), dict(level.attrs)
    if str(attributes.get("units", "")).lower() in ("pa", "pascal"):
        values, attributes = values / 100.0, attributes | {"units": "hPa"}
    whole = np.rint(values)
    if np.allclose(values, whole, rtol=0.0, atol=1e-3):
        return xr.Variable("level", whole.astype(np.int64), attributes)
    return xr.Variable("level", values, attributes)


def rename_out(ds: xr.Dataset, layout: Literal["weatherbench2"]) -> xr.Dataset:
    """A forecast in another project's names and order; members count from 1 in WeatherBench2."""
    if layout != "weatherbench2":
        raise UserError(f"unknown layout {layout!r}; there is: weatherbench2")
    ds = ds.drop_vars("valid_time", errors="ignore")
    if "member" in ds.dims:
        ds = ds.assign_coords(member=("member", (ds["member"].values + 1).astype(np.int32)))
    names = {"init_time": "time", "member": "number", "lead_time": "prediction_timedelta"}
    ds = ds.rename({ours: theirs for ours, theirs in names.items() if ours in ds.dims})
    order = ("time", "number", "prediction_timedelta", "level", "latitude", "longitude")
    return ds.transpose(*order, ..., missing_dims="ignore")


# Calendar months are of unequal length; as a duration a month is the Gregorian mean (`calendar`).
_SECONDS = {
    "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800, "mo": 2629746, "y": 31556952,
}  # fmt: skip
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*$")


def parse_duration(text: str) -> np.timedelta64:
    """``"36h"``, ``"5d"``, ``"30min"``, ``"1mo"`` → timedelta64[ns], positive."""
    match = _DURATION.match(str(text))
    if not match or match[2] not in _SECONDS or float(match[1]) == 0:
        raise UserError(
            f"not a duration: {text!r}; write a positive number and a unit, such as 6h or 5d "
            f"(units: {', '.join(_SECONDS)})"
        )
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > 200 * _SECONDS["y"]:
        raise UserError(f"a duration of {text} is longer than 200 years")
    return np.timedelta64(round(seconds * 1e9), "ns")


def format_duration(duration: np.timedelta64) -> str:
    """The shortest spelling that ``parse_duration`` reads back; a day is written ``24h``."""
    seconds = int(duration / np.timedelta64(1, "ns")) / 1e9
    for unit in ("y", "mo", "d", "h", "min"):
        count = seconds / _SECONDS[unit]
        if count == int(count) and (unit != "d" or count > 1):
            return f"{int(count)}{unit}"
    return f"{seconds:g}s"
