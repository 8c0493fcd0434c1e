"""States of a data set, by number or block by block."""

from collections.abc import Iterator
from dataclasses import dataclass

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

    @property
    def times(self) -> Times:
        """Times of the data set (n,)."""
        return np.asarray(self.ds["time"].values)

    def read(self, indices: Ints) -> Array:
        """States (len(indices), channel, *space), in the order asked for."""
        order, inverse = np.unique(indices, return_inverse=True)
        runs = np.split(order, np.flatnonzero(np.diff(order) > 8) + 1)
        parts = [self._run(int(run[0]), int(run[-1]) + 1)[run - run[0]] for run in runs]
        return np.concatenate(parts)[inverse]

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
