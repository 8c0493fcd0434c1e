"""What somebody's own data are: variables, statics, dimensions, gaps, guessed by CF and told."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import SPACE, UserError, rename_in, roles
from sciladm.data.cards import Missing, Variable
from sciladm.data.channels import NETCDF_FILL
from sciladm.data.labels import sizes
from sciladm.data.store import read

_SAMPLES = 8
"""Times looked at to see where values are missing."""


@dataclass(frozen=True)
class Guess:
    """What `Fields.from_dataset` takes, and ``why``, in lines."""

    variables: dict[str, list[int] | None]
    static: list[str]
    meta: dict[str, Variable]
    why: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.why)


def guess(
    ds: xr.Dataset,
    dims: Mapping[str, str] | None = None,
    missing: Mapping[str, Missing] | None = None,
) -> Guess:
    """Which variables of ``ds`` can be learnt, on which grid; what is left out, and why.

    ``dims`` (theirs → ours) and ``missing`` (per variable) overrule the guess. UserError where no
    variable has a time and a grid of two axes or more.
    """
    dims = dict(dims or {})
    why = list(roles(ds, dims).why)
    ds = rename_in(ds, dims)
    left_out = dict(_no_data(ds))
    grids: dict[tuple[str, ...], list[str]] = {}
    for name in map(str, ds.data_vars):
        if name in left_out:
            continue
        axes = tuple(dim for dim in SPACE if ds.sizes.get(dim, 0) > 1 and dim in ds[name].dims)
        odd = [d for d in ds[name].dims if d not in (*SPACE, "time", "level") and ds.sizes[d] > 1]
        if len(axes) < 2:
            left_out[name] = f"no grid of two axes ({sizes(ds[name]) or 'a single number'})"
        elif odd:
            left_out[name] = f"dimension {odd[0]} ({ds.sizes[odd[0]]}) is nothing known"
        else:
            grids.setdefault(axes, []).append(name)
    timed = {axes: [n for n in names if ds[n].sizes.get("time", 1) > 1]
             for axes, names in grids.items()}  # fmt: skip
    axes = max(timed, key=lambda a: sum(ds[n].size for n in timed[a]), default=())
    if not axes or not timed[axes]:
        raise UserError(_nothing(ds, left_out, bool(grids)))
    for other in set(grids) - {axes}:
        left_out |= {name: f"on another grid ({', '.join(other)})" for name in grids[other]}
    meta = {name: Variable(missing=(missing or {}).get(name) or _missing(ds[name]))
            for name in timed[axes]}  # fmt: skip
    static = []
    for name in set(grids[axes]) - set(timed[axes]):
        if reason := _unfit_static(ds[name]):
            left_out[name] = reason
        else:
            static.append(name)
    variables = {name: _levels(ds[name]) for name in timed[axes]}
    why += [_line(ds[name], variables[name], meta[name]) for name in variables]
    why += [f"{name}: static" for name in sorted(static)]
    why += [f"{name}: left out, {reason}" for name, reason in sorted(left_out.items())]
    return Guess(variables, sorted(static), meta, tuple(why))


def _no_data(ds: xr.Dataset) -> Iterator[tuple[str, str]]:
    """Variables that describe others, or are no quantities."""
    named: dict[str, str] = {}
    for variable in ds.variables.values():
        for key in ("bounds", "grid_mapping", "climatology"):
            value = variable.attrs.get(key, variable.encoding.get(key))
            named |= dict.fromkeys(str(value).split(), f"it is the {key} of another variable")
    for name in map(str, ds.data_vars):
        attributes, kind = ds[name].attrs, ds[name].dtype.kind
        if name in named:
            yield name, named[name]
        elif name.endswith(("_bnds", "_bounds")) or "grid_mapping_name" in attributes:
            yield name, "it describes the grid"
        elif any(key.startswith("flag_") for key in attributes) or "flag" in name.lower():
            yield name, "it holds flags"
        elif kind not in "fiu":
            yield name, f"its values are no numbers ({ds[name].dtype})"


def _missing(array: xr.DataArray) -> Missing:
    """Where values are missing, from a few times all through the data."""
    count = array.sizes["time"]
    at = np.unique(np.linspace(0, count - 1, min(count, _SAMPLES)).round().astype(int))
    gaps = [_gaps(read(array.isel(time=int(t)))) for t in at]
    if not any(gap.any() for gap in gaps):
        return "none"
    return "static" if all(np.array_equal(gap, gaps[0]) for gap in gaps) else "moving"


def _gaps(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    absent: NDArray[np.bool_] = ~np.isfinite(values) | (values >= NETCDF_FILL)
    return absent


def _unfit_static(array: xr.DataArray) -> str | None:
    values = np.asarray(read(array), dtype=np.float64)
    if values.size != np.prod([n for d, n in array.sizes.items() if d in SPACE]):
        return "without time, but on several levels"
    if _gaps(values).any():
        return "without time, and with gaps"
    return "the same everywhere" if np.ptp(values) == 0 else None


def _levels(array: xr.DataArray) -> list[int] | None:
    if "level" not in array.dims:
        return None
    there = array["level"].values
    return [int(level) for level in there] if there.dtype.kind == "i" else None


def _line(array: xr.DataArray, levels: list[int] | None, meta: Variable) -> str:
    units = array.attrs.get("units", "no units")
    on = f", levels {levels}" if levels else ""
    gaps = {"none": "no gaps", "static": "the same cells always missing", "moving": "moving gaps"}
    return f"{array.name}: variable [{units}]{on}, {gaps[meta.missing]}"


def _nothing(ds: xr.Dataset, left_out: dict[str, str], gridded: bool) -> str:
    if gridded and ds.sizes.get("time") == 1:
        return "the data have a single time: nothing can be learnt from them; give more files"
    if gridded:
        return (
            f"no variable has a time dimension (there are: {', '.join(map(str, ds.dims))}); say "
            "which one is time with `dims: {its name: time}`"
        )
    seen = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
    return (
        f"no variable lies on a grid of two axes or more ({seen}); put unstructured data on a "
        "grid first (cdo remapbil, xesmf), and name odd dimensions with `dims: {theirs: ours}`"
    )
