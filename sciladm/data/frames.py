"""States of a data set, by number or block by block."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.data.fields import Array, Fields
from sciladm.data.times import Times

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Frames:
    """The states of a data set by number: ``times`` (n,), `read`, and `blocks` in order."""

    ds: xr.Dataset
    fields: Fields
    held: tuple[Ints, Array] | None = None

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
        parts = [self._run(int(run[0]), int(run[-1]) + 1)[run - run[0]] for run in runs]
        return np.concatenate(parts)[inverse]

    def hold(self, indices: Ints, limit: int = 2 << 30) -> "Frames":
        """The same with the states ``indices`` in memory, if they take no more bytes than that."""
        size = 4 * len(indices) * len(self.fields.channels) * math.prod(self.fields.grid.shape)
        if size > limit:
            return self
        kept = np.unique(indices)
        values = np.concatenate([block for _, block in self.blocks(kept, 256)])
        return replace(self, held=(kept, values))

    def _run(self, start: int, stop: int) -> Array:
        return self.fields.to_array(self.ds.isel(time=slice(start, stop)))

    def blocks(self, indices: Ints, size: int = 64) -> "Stream":
        """(times, values) over ``indices`` in order, ``size`` at a time, as often as wanted."""
        return Stream(self, indices, size)


@dataclass(frozen=True, eq=False)
class Stream:
    """Blocks of states, read when they are asked for."""

    frames: Frames
    indices: Ints
    size: int

    def __iter__(self) -> Iterator[tuple[Times, Array]]:
        for at in range(0, len(self.indices), self.size):
            part = self.indices[at : at + self.size]
            yield self.frames.times[part], self.frames.read(part)
