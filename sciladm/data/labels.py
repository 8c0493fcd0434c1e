"""Find by label: variables, levels and cells of a Dataset, in the order that a grid wants."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.store import read
from sciladm.grid import Axis, Grid

Array = NDArray[np.float32]


def get(ds: xr.Dataset, name: str) -> xr.DataArray:
    """A variable by its name; UserError with the nearest name where there is none."""
    if name not in ds.data_vars:
        near = difflib.get_close_matches(name, map(str, ds.data_vars), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(map(str, ds.data_vars))
        raise UserError(f"no variable {name} in the data; {hint}there are: {known}")
    return ds[name]


def level_numbers(array: xr.DataArray, levels: Sequence[int]) -> list[int]:
    """Where ``levels`` stand in an array; UserError for one that it does not have."""
    if "level" not in array.dims:
        raise UserError(f"{array.name}: levels {list(levels)} expected; the data have none")
    there = np.asarray(array["level"].values).tolist()
    if absent := [level for level in levels if level not in there]:
        raise UserError(f"{array.name}: no level {absent} in the data; there are {there}")
    return [there.index(level) for level in levels]


def as_slice(numbers: list[int]) -> slice | list[int]:
    """Numbers that follow each other as a slice: stores and arrays read these several times as
    fast as a list."""
    first, count = numbers[0], len(numbers)
    return slice(first, first + count) if numbers == [*range(first, first + count)] else numbers


def axis_values(ds: xr.Dataset, name: str) -> NDArray[np.float64]:
    """Coordinate of an axis; 0, 1, 2 … where it has none."""
    if name not in ds.variables or ds[name].dims != (name,):
        return np.arange(ds.sizes[name], dtype=np.float64)
    return np.asarray(ds[name].values, dtype=np.float64)


def modulo(ds: xr.Dataset, names: Sequence[str]) -> dict[str, float]:
    """Axes whose coordinates say after what length they begin again: attribute `modulo`."""
    told = {name: ds[name].attrs.get("modulo") for name in names if name in ds.variables}
    return {name: float(m) for name, m in told.items() if isinstance(m, int | float | np.number)}


def places(axis: Axis, ds: xr.Dataset, variable: Any) -> NDArray[np.int64]:
    """For each cell of ``axis``, where its label stands in ``ds``: (cell,).

    Labels agree within a thousandth of a cell; longitudes also 360° apart.
    """
    there = axis_values(ds, axis.name)
    apart = np.abs(axis.values[:, None] - there[None, :])
    if axis.name == "longitude":
        apart = np.abs((apart + 180.0) % 360.0 - 180.0)
    place: NDArray[np.int64] = apart.argmin(axis=1)
    scale = max(np.abs(axis.values).max(), np.abs(there).max())
    tolerance = max(1e-3 * abs(axis.spacing), 4 * np.finfo(np.float32).eps * scale)
    off = apart[np.arange(len(axis)), place] > tolerance
    if off.any():
        raise UserError(
            f"{variable}: {off.sum()} of {len(axis)} {axis.name} values are not in the data "
            f"({axis.values[0]:g} … {axis.values[-1]:g}, {len(axis)} expected; "
            f"{there[0]:g} … {there[-1]:g}, {there.size} got); interpolate to the grid of the run"
        )
    return place


def aligned(ds: xr.Dataset, array: xr.DataArray, grid: Grid, levels: bool) -> Array:
    """Read a variable as (time, level, *space), its cells in the order of ``grid``.

    Without a time or (``levels`` false) a level that dimension has length 1. Other dimensions of
    length 1 are dropped, longer ones refused.
    """
    lead = [*(["time"] if "time" in ds.dims else []), *(["level"] if levels else [])]
    wanted = [*lead, *grid.names]
    for dim in [d for d in array.dims if d not in wanted]:
        if array.sizes[dim] != 1:
            raise UserError(
                f"{array.name}: dimension {dim} ({array.sizes[dim]}) is not time, level or an "
                f"axis of the grid; select one with ds.isel({dim}=0), or say `dims: {{{dim}: …}}`"
            )
        array = array.isel({dim: 0})
    if absent := [d for d in wanted if d not in array.dims]:
        raise UserError(f"{array.name}: {sizes(array)} given, {' and '.join(absent)} wanted too")
    place = {axis.name: places(axis, ds, array.name) for axis in grid.axes}
    span = {name: slice(int(p.min()), int(p.max()) + 1) for name, p in place.items()}
    values = read(array.isel(span).transpose(*wanted)).astype(np.float32, copy=False)
    shape = (
        values.shape[0] if "time" in lead else 1,
        values.shape[len(lead) - 1] if levels else 1,
    )
    values = values.reshape(*shape, *values.shape[len(lead) :])
    for number, (name, p) in enumerate(place.items()):
        if not np.array_equal(local := p - span[name].start, np.arange(values.shape[2 + number])):
            values = values.take(local, axis=2 + number)
    return values


def sizes(array: xr.DataArray) -> str:
    """Dimensions and their lengths, for messages."""
    return ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())


def plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as JSON can hold them."""
    return {
        str(key): value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        for key, value in attributes.items()
    }
