"""A part of a remote store to be copied: what is in it, the units it comes in, its layout."""

import difflib
import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array
import numcodecs  # type: ignore[import-untyped]
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.durable import write_durably, writing
from sciladm.data.splits import Splits
from sciladm.data.web import RemoteArray, Server

_RANK = {"time": 0, "level": 1, "latitude": 2, "longitude": 3}
_THIN = 20
"""Times per chunk of the copy, at most: what a random window has to read."""


@dataclass(frozen=True)
class Request:
    """What is wanted of a store: variables with their levels (None: no level), statics, splits."""

    url: str
    variables: Mapping[str, Sequence[int] | None]
    static: Sequence[str]
    splits: Mapping[str, Any]

    def key(self) -> str:
        """Names the copy: a hash of all that decides it."""
        tree = [self.url, dict(self.variables), list(self.static), dict(self.splits)]
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Unit:
    """One variable over one of the server's time chunks, ``start``: its first time in the copy."""

    array: RemoteArray
    chunk: int
    start: int
    levels: NDArray[np.int64] | None

    @property
    def times(self) -> NDArray[np.int64]:
        """Numbers of its times on the server."""
        length = self.array.chunks[self.array.dims.index("time")]
        whole = self.array.shape[self.array.dims.index("time")]
        return np.arange(self.chunk * length, min((self.chunk + 1) * length, whole))

    @property
    def order(self) -> tuple[str, ...]:
        """Its dimensions in the copy."""
        return tuple(sorted(self.array.dims, key=lambda dim: _RANK.get(dim, 1)))

    @property
    def thin(self) -> int:
        """Times per chunk of the copy: divides the server's, so that a chunk has one owner."""
        length = self.array.chunks[self.array.dims.index("time")]
        return max(d for d in range(1, _THIN + 1) if length % d == 0)

    @property
    def rows(self) -> slice:
        """Its times in the copy."""
        return slice(self.start, self.start + len(self.times))


@dataclass(frozen=True, eq=False)
class Layout:
    """All of a copy but its values: units, coordinates, static fields still to be read."""

    units: list[Unit]
    labels: xr.Dataset
    statics: dict[str, RemoteArray]

    @property
    def kept(self) -> int:
        """Bytes of the copy, before compression."""
        return sum(
            len(unit.times)
            * math.prod(
                self.labels.sizes[d] for d in unit.array.dims if d not in ("time", "level")
            )
            * (1 if unit.levels is None else len(unit.levels))
            * unit.array.dtype.itemsize
            for unit in self.units
        )

    @property
    def moved(self) -> int:
        """Bytes of the server's chunks that are read for it, before compression."""
        return sum(
            len(unit.times)
            * math.prod(self.labels.sizes[d] for d in unit.array.dims if d != "time")
            * unit.array.dtype.itemsize
            for unit in self.units
        )

    def digest(self) -> str:
        """Changes when the server's store is laid out anew."""
        told = [repr(unit.array) + str(unit.chunk) for unit in self.units]
        return hashlib.sha256(repr([told, list(self.statics.values())]).encode()).hexdigest()


async def plan(server: Server, request: Request) -> Layout:
    """What is to be copied, from the server's metadata and coordinates."""
    metadata = await server.metadata()
    arrays = {name: _find(metadata, name, server.url) for name in request.variables}
    statics = {name: _find(metadata, name, server.url) for name in request.static}
    dims = {dim for array in (*arrays.values(), *statics.values()) for dim in array.dims}
    coords = {
        dim: await server.variable(_find(metadata, dim, server.url))
        for dim in sorted(dims)
        if f"{dim}/.zarray" in metadata
    }
    labels = xr.decode_cf(xr.Dataset(coords=coords))
    lengths = {name: a.chunks[a.dims.index("time")] for name, a in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise UserError(f"{server.url}: time chunks differ between variables: {lengths}")
    chunks, length = _time_chunks(arrays, labels, request), next(iter(lengths.values()))
    levels = _level_numbers(arrays, request, labels)
    units = [
        Unit(array, chunk, i * length, levels if "level" in array.dims else None)
        for array in arrays.values()
        for i, chunk in enumerate(chunks)
    ]
    return Layout(units, labels, statics)


async def lay_out(server: Server, layout: Layout, path: Path) -> None:
    """Make the empty copy if it is not there; UserError if the server's store has changed."""
    mark, store = path / "layout.json", path / "data.zarr"
    if mark.exists() and json.loads(mark.read_text())["digest"] != layout.digest():
        raise UserError(f"{server.url} has changed since {path} was begun: remove that folder")
    if not mark.exists():
        shutil.rmtree(store, ignore_errors=True)
        fixed = {name: await server.variable(array) for name, array in layout.statics.items()}
        with writing(path):
            _empty(layout.labels, fixed, layout.units, store)
            write_durably(mark, json.dumps({"digest": layout.digest()}).encode())


def _find(metadata: dict[str, Any], name: str, url: str) -> RemoteArray:
    if f"{name}/.zarray" not in metadata:
        known = sorted(key.split("/")[0] for key in metadata if key.endswith("/.zarray"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"{url}: no variable {name}; {hint}there are: {', '.join(known)}")
    array = RemoteArray.parse(name, metadata)
    if {"scale_factor", "add_offset"} & set(array.attributes):
        raise UserError(f"{url}: {name} is packed; this reader takes plain numbers only")
    return array


def _time_chunks(
    arrays: dict[str, RemoteArray], labels: xr.Dataset, request: Request
) -> list[int]:
    """Numbers of the server's time chunks that the splits touch."""
    times = np.asarray(labels["time"].values)
    splits = Splits.resolve(request.splits, times)
    inside = np.concatenate([splits.indices(name, times) for name in splits.ranges])
    first = next(iter(arrays.values()))
    return [int(k) for k in np.unique(inside // first.chunks[first.dims.index("time")])]


def _level_numbers(
    arrays: dict[str, RemoteArray], request: Request, labels: xr.Dataset
) -> NDArray[np.int64]:
    """Where the levels that any variable wants stand; all that have levels are kept on these."""
    numbers: set[int] = set()
    for name, array in arrays.items():
        if "level" in array.dims:
            there = labels["level"].values.tolist()
            levels = request.variables[name] or there
            if absent := [level for level in levels if level not in there]:
                raise UserError(f"{request.url}: {name} has no level {absent}; there are {there}")
            numbers |= {there.index(level) for level in levels}
    return np.array(sorted(numbers), dtype=np.int64)


def _empty(
    labels: xr.Dataset, fixed: dict[str, xr.Variable], units: list[Unit], store: Path
) -> None:
    """Lay out the copy: labels and statics written, everything else still NaN."""
    last = {unit.array.name: unit for unit in units}
    chunks = {unit.chunk: unit for unit in units}
    times = np.concatenate([labels["time"].values[unit.times] for unit in chunks.values()])
    levels = sorted(
        {int(n) for unit in units for n in (() if unit.levels is None else unit.levels)}
    )
    ds = labels.isel(level=levels) if levels else labels
    ds = (
        ds.drop_vars("time")
        .assign_coords(time=("time", times, labels["time"].attrs))
        .assign(fixed)
    )
    encoding: dict[str, Any] = {"time": {"units": "seconds since 1970-01-01", "dtype": "int64"}}
    compressor = numcodecs.Blosc("zstd", clevel=3, shuffle=numcodecs.Blosc.SHUFFLE)
    for name, unit in last.items():
        dims = unit.order
        shape = tuple(ds.sizes[dim] for dim in dims)
        chunk = (unit.thin, *shape[1:])
        lazy = dask.array.zeros(shape, chunks=shape, dtype=unit.array.dtype.newbyteorder("="))
        ds[name] = (dims, lazy, unit.array.attributes)
        encoding[name] = {"chunks": chunk, "compressors": (compressor,), "_FillValue": np.nan}
    ds.to_zarr(store, mode="w", compute=False, encoding=encoding, zarr_format=2, consolidated=True)
