"""States of a data set, by number or block by block."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError, rename_in
from sciladm.data.fields import Array, Fields
from sciladm.data.times import Times

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Frames:
    """The states of a data set by number: ``times`` (n,), `read`, and `blocks` in order."""

    ds: xr.Dataset
    fields: Fields
    held: tuple[Ints, Array] | None = None

    @classmethod
    def of(cls, ds: xr.Dataset, fields: Fields) -> "Frames":
        """The states of a data set as people have it: names become ours, times are sorted, and
        a single state may have its time as a mere label."""
        ds = rename_in(ds, {dim: ours for dim, ours in fields.dims.items() if dim in ds.dims})
        if "time" not in ds.dims and "time" in ds.variables and not ds["time"].ndim:
            ds = ds.set_coords("time").expand_dims("time")
        if "time" not in ds.dims or "time" not in ds.variables:
            there = ", ".join(map(str, ds.dims))
            raise UserError(
                f"no dimension of the data is time, with dates as its coordinate (there are: "
                f"{there}); name it with --set data.dims.NAME=time, or in Python give the "
                "Dataset a `time`: ds.expand_dims(time=[date])"
            )
        return cls(ds.sortby("time"), fields)

    @property
    def times(self) -> Times:
        """Times of the data set (n,)."""
        return np.asarray(self.ds["time"].values)

    def read(self, indices: Ints) -> Array:
        """States (len(indices), channel, *space), in the order asked for."""
        if self.held is not None:
            kept, values = self.held
            place = np.searchsorted(kept, indices)
            if np.array_equal(kept[np.minimum(place, len(kept) - 1)], indices):
                return np.asarray(values[place])
        order, inverse = np.unique(indices, return_inverse=True)
        runs = np.split(order, np.flatnonzero(np.diff(order) > 8) + 1)
        if len(runs) == 1 and np.array_equal(indices, np.arange(order[0], order[0] + len(order))):
            return self._run(int(order[0]), int(order[-1]) + 1)
        parts = [self._run(int(run[0]), int(run[-1]) + 1)[run - run[0]] for run in runs]
        return np.concatenate(parts)[inverse]

    def hold(self, indices: Ints, limit: int = 2 << 30) -> "Frames":
        """The same with the states ``indices`` in memory, if they take no more bytes than that."""
        if self._bytes(len(indices)) > limit:
            return self
        kept = np.unique(indices)
        values = np.concatenate([block for _, block in self.blocks(kept)])
        return replace(self, held=(kept, values))

    def _run(self, start: int, stop: int) -> Array:
        return self.fields.to_array(self.ds.isel(time=slice(start, stop)))

    def blocks(self, indices: Ints) -> "Stream":
        """(times, values) over ``indices`` in order, as often as wanted, about 16 MiB at a time:
        whole chunks of the store, where these take no more than a GiB."""
        size = min(max((1 << 24) // self._bytes(1), 1), 512)
        stored = [self.ds[name].encoding.get("chunks") for name in self.ds.data_vars
                  if self.ds[name].dims[:1] == ("time",)]  # fmt: skip
        chunk = max((chunks[0] for chunks in stored if chunks), default=1)
        whole = -(-size // chunk) * chunk
        return Stream(self, indices, whole if self._bytes(whole) <= 1 << 30 else size)

    def _bytes(self, states: int) -> int:
        return 4 * states * len(self.fields.channels) * math.prod(self.fields.grid.shape)


@dataclass(frozen=True, eq=False)
class Stream:
    """Blocks of states, the next one read while the last is looked at."""

    frames: Frames
    indices: Ints
    size: int

    def __iter__(self) -> Iterator[tuple[Times, Array]]:
        if not len(self.indices):
            return
        parts = np.split(self.indices, np.flatnonzero(np.diff(self.indices // self.size)) + 1)
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.frames.read, parts[0])
            for part, following in zip_longest(parts, parts[1:]):
                values = coming.result()
                if following is not None:
                    coming = ahead.submit(self.frames.read, following)
                yield self.frames.times[part], values
