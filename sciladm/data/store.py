"""Open what people have, lazily: zarr 2 and 3, netCDF 3 and 4, GRIB, one file or many."""

import glob
import hashlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import scipy.io
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError, is_time, roles

log = logging.getLogger(__name__)
_said: set[str] = set()
_SINCE = re.compile(r"(years?|months?|days?|hours?|minutes?|seconds?)\s+since\s+\S+", re.I)
_FAILURES = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    IndexError,
    TypeError,
    NotImplementedError,
)


def open_store(path: str | Path | Sequence[str | Path]) -> xr.Dataset:
    """Open a zarr store, a netCDF or GRIB file, a glob, or a list of files that follow in time.

    Nothing but coordinates is read; times are decoded (cftime for other calendars). Names stay
    the file's own. UserError for what is absent, cut short or not gridded data.
    """
    paths = _expand(path)
    if not paths:
        raise UserError("no file is named; give data.path, or --data, at least one")
    ds = _combine([_open_one(p) for p in paths], paths)
    if not ds.data_vars:
        raise UserError(f"{paths[0]}: no variables at the top of the file{_groups(paths[0])}")
    return ds


def read(array: xr.DataArray) -> NDArray[Any]:
    """Values of a lazy array, in native byte order; a damaged file is told by its name."""
    where = f"{array.encoding.get('source', 'the data')}, variable {array.name}"
    with _told(where), dask.config.set(scheduler="synchronous"):
        values = np.asarray(array.values)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def fingerprint(ds: xr.Dataset) -> str:
    """sha256 of what identifies a data set: names, labels, and values of its first and last time.

    Nothing of it depends on where or how the data lie.
    """
    digest = hashlib.sha256()
    times = {dim for dim, ours in roles(ds).names.items() if ours in ("time", "init_time")}
    for name in sorted(map(str, ds.variables)):
        variable = ds[name]
        digest.update(
            f"{name} {sorted(map(str, variable.dims))} {sorted(variable.shape)}".encode()
        )
        dims = sorted(map(str, variable.dims))
        ends = variable.transpose(*dims)
        if name not in ds.coords:
            ends = ends.isel({dim: [0, -1] for dim in times & set(dims)})
        values = read(ends)
        plain = values.astype(str) if values.dtype.kind == "O" else values
        digest.update(np.ascontiguousarray(plain).tobytes())
    return digest.hexdigest()


@contextmanager
def _told(where: str) -> Iterator[None]:
    """What libraries raise on bad files → one message that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xr.SerializationWarning)
            yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{where}: {error}; pip install it to read this file") from None
    except _FAILURES as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        if "IO backends" in said:
            raise UserError(
                f"{where} is no netCDF file and no zarr store that can be read, or it is damaged; "
                "GRIB needs pip install cfgrib, other formats must be converted first"
            ) from None
        raise UserError(
            f"{where}: cannot be read, it may be cut short or damaged: {said}"
        ) from None


def _expand(path: str | Path | Sequence[str | Path]) -> list[str]:
    if not isinstance(path, str | Path):
        return [name for one in path for name in _expand(one)]
    text = str(path)
    if "://" in text:
        return [text]
    full = str(Path(text).expanduser())
    if glob.has_magic(full) and not Path(full).exists():
        found = sorted(glob.glob(full, recursive=True))  # noqa: PTH207, absolute patterns too
        if not found:
            raise UserError(f"no file matches {text}")
        return found
    if not Path(full).exists():
        beside = sorted(p.name for p in Path(full).parent.glob("*"))[:8]
        raise UserError(f"no such file: {text}; in that folder: {', '.join(beside) or 'nothing'}")
    if Path(full).is_dir() and not _is_zarr(full):
        inside = sorted(
            str(p) for p in Path(full).iterdir() if p.suffix in (".nc", ".nc4", ".cdf")
        )
        if not inside:
            raise UserError(f"{text} is a folder without a zarr store or netCDF files in it")
        return inside
    return [full]


def _is_zarr(path: str) -> bool:
    return any((Path(path) / name).exists() for name in (".zgroup", ".zmetadata", "zarr.json"))


def _open_one(path: str) -> xr.Dataset:
    with _told(path):
        if "://" in path or _is_zarr(path):
            ds = xr.open_zarr(path, chunks=None, decode_times=False, **_consolidated(path))
            for variable in ds.variables.values():
                variable.encoding["source"] = path  # as netCDF's have it, for messages
        else:
            _refuse_short_netcdf3(path)
            ds = xr.open_dataset(path, decode_times=False)
        return _decode(ds, path)


def _refuse_short_netcdf3(path: str) -> None:
    """netCDF's own library reads zeros past the end of a netCDF-3 file; scipy's maps it whole."""
    with Path(path).open("rb") as file:
        classic = file.read(4) in (b"CDF\x01", b"CDF\x02")
    if classic:
        scipy.io.netcdf_file(path, mmap=True).close()


def _consolidated(path: str) -> dict[str, Any]:
    if "://" in path:
        return {}
    return {"consolidated": (Path(path) / ".zmetadata").exists()}


def _decode(ds: xr.Dataset, path: str) -> xr.Dataset:
    """Decode times; `Unit` for `units` (GlobCurrent) is understood, and said."""
    for name in map(str, roles(ds).names):
        if name in ds.variables and "units" not in ds[name].attrs:
            unit = str(ds[name].attrs.get("Unit", ""))
            if _SINCE.match(unit):
                say = log.debug if unit in _said else log.warning
                say("%s: %s has no `units`; its `Unit` %r is taken", path, name, unit)
                _said.add(unit)
                ds = ds.assign_coords({name: ds[name].assign_attrs(units=unit)})
    try:
        decoded = xr.decode_cf(ds, mask_and_scale=False, concat_characters=False,
                               decode_coords=False)  # fmt: skip
        for dim in decoded.dims:
            if dim in decoded.variables and is_time(decoded[dim]):
                decoded[dim].load()
    except (ValueError, OverflowError) as error:
        said = str(error).split("\n")[0]
        raise UserError(
            f"{path}: a time coordinate cannot be decoded: {said}; correct its `units` and "
            "`calendar` attributes (ncatted, or ds.time.attrs[...] = … and save)"
        ) from None
    return decoded


def _combine(parts: list[xr.Dataset], paths: list[str]) -> xr.Dataset:
    """Files with the same variables follow each other in time; others stand side by side."""
    if len(parts) == 1:
        return parts[0]
    kinds: dict[tuple[str, ...], list[xr.Dataset]] = {}
    for part in parts:
        kinds.setdefault(tuple(sorted(map(str, part.data_vars))), []).append(part.chunk())
    try:
        joined = [_concatenate(group) for group in kinds.values()]
        return xr.merge(joined, join="exact", compat="override", combine_attrs="override")
    except ValueError as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"{len(paths)} files from {paths[0]} on do not fit together: {said}; give files that "
            "have the same grid, and the same variables at other times or other variables at the "
            "same times"
        ) from None


def _concatenate(group: list[xr.Dataset]) -> xr.Dataset:
    names = roles(group[0]).names
    times = [dim for dim, ours in names.items() if ours in ("time", "init_time")]
    if len(group) == 1:
        return group[0]
    if not times:
        raise ValueError("several files have the same variables, and no time dimension")
    ds = xr.concat(
        group, dim=times[0], data_vars="minimal", coords="minimal", compat="override",
        join="exact", combine_attrs="override",
    )  # fmt: skip
    return ds.sortby(times[0])


def _groups(path: str) -> str:
    """Where the data may be instead, for the message about an empty top level."""
    import netCDF4

    try:
        with netCDF4.Dataset(path) as file:
            names = list(file.groups)
    except OSError:
        return ""
    return f"; it has groups {', '.join(names)}: save the one that holds the data as its own file"
