"""Means over the cells of a coarser grid."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from scipy import sparse

from sciladm.calendar import find
from sciladm.conventions import UserError, rename_in
from sciladm.data.fields import Fields
from sciladm.data.frames import Frames
from sciladm.data.times import Times
from sciladm.grid import Axis, Grid
from sciladm.observe.rows import Floats, Mask, Rows, frames_of, untransformed

Error = float | Mapping[str, float]
COVERED = 0.95
"""Share of a coarse cell that cells with data must make up."""


@dataclass(frozen=True, eq=False)
class AreaMean:
    """Means over the cells of a coarser grid, NaN where there is none: what a coarse model, or a
    broad footprint, says. ``error``: standard, one number, or by name of the variable; less than a
    hundredth of what the cells of a mean would make if they were independent is taken for that.
    Coarse cells end midway between their centres.
    """

    ds: xr.Dataset
    error: Error = 0.0

    @property
    def times(self) -> Times:
        """Times at which there are means; UserError where these are not told."""
        named = rename_in(self.ds)
        if "time" not in named.variables:
            raise UserError("the means have no `time`: ds.expand_dims(time=[date]) gives them one")
        return np.sort(np.atleast_1d(np.asarray(named["time"].values)))

    def at(self, times: Times, step: np.timedelta64) -> "AreaMean":
        """See `Operator`."""
        named = rename_in(self.ds)
        if "time" not in named.dims:
            return self
        inside = find(times, np.asarray(named["time"].values), step) >= 0
        return replace(self, ds=named.isel(time=np.flatnonzero(inside)))

    def rows(self, fields: Fields, valid: Mask, times: Times, step: np.timedelta64) -> list[Rows]:
        """See `Operator`."""
        there = [str(name) for name in rename_in(self.ds).data_vars]
        names = [name for name in fields.groups if name in there]
        if not names:
            raise UserError(
                f"area means: none of {', '.join(fields.groups)} among {', '.join(there)}"
            )
        known = [fields.channels[n] for name in names for n in fields.groups[name]]
        levels = {name: [c.level for c in known if c.variable == name] for name in names}
        coarse = Fields.from_dataset(
            rename_in(self.ds),
            {name: [n for n in own if n is not None] or None for name, own in levels.items()},
        )
        if coarse.grid.names != fields.grid.names:
            raise UserError(
                f"area means: over {', '.join(coarse.grid.names)}; the run's fields are over "
                f"{', '.join(fields.grid.names)}"
            )
        if thin := [axis.name for axis in coarse.grid.axes if len(axis) == 1]:
            raise UserError(
                f"area means: one cell along {thin[0]}, and how wide it is cannot be told; "
                "sciladm.Weighted takes a mean over any cells"
            )
        untransformed(fields, names, "area means")
        numbers = [n for name in names for n in fields.groups[name]]
        over = _overlap(coarse.grid, fields.grid)
        weights, share = zip(*(_means(over, valid[n].ravel()) for n in numbers), strict=True)
        whole = sparse.vstack(
            [_at(w, n, len(fields.channels)) for w, n in zip(weights, numbers, strict=True)],
            format="csr",
        )
        std = _std(self.error, names)
        error = np.repeat([std[fields.channels[n].variable] for n in numbers], over.shape[0])
        frames = Frames.of(self.ds, coarse)
        values = coarse.to_array(frames.ds, gaps=True).reshape(len(frames.times), len(error))
        found = frames_of(frames.times, times, step, "area means")
        return [
            self._of_frame(whole, np.concatenate(share), error, values[found == number])
            for number in range(len(times))
        ]

    def _of_frame(self, weights: Any, share: Floats, error: Floats, values: Any) -> Rows:
        """The rows of a frame that has ``values`` (0 or 1, row)."""
        if not len(values):
            return Rows(weights[:0], np.zeros(0), np.zeros(0))
        at = np.flatnonzero(np.isfinite(values[0]))
        if len(beyond := at[share[at] < COVERED]):
            raise UserError(
                f"area means: {len(beyond)} cells with a value lie in part where the run's grid "
                "has no data; put NaN where not all cells of a mean hold data"
            )
        return Rows(weights[at], values[0, at].astype(np.float64), error[at])


def _std(told: Error, names: list[str]) -> dict[str, float]:
    found = dict(told) if isinstance(told, Mapping) else dict.fromkeys(names, float(told))
    if unknown := [name for name in found if name not in names]:
        raise UserError(f"error: no variable {unknown[0]}; there are {', '.join(names)}")
    if wrong := [name for name, std in found.items() if not 0 <= std < np.inf]:
        raise UserError(f"error of {wrong[0]} is {found[wrong[0]]}; it is a standard deviation")
    return dict.fromkeys(names, 0.0) | found


def _overlap(coarse: Grid, fine: Grid) -> Any:
    """Share of each coarse cell that lies in each fine one (coarse cells, fine cells), sparse."""
    whole = sparse.csr_matrix(np.ones((1, 1)))
    for one, other in zip(coarse.axes, fine.axes, strict=True):
        edges = [_edges(axis, fine.geometry) for axis in (one, other)]
        turns = (-360.0, 0.0, 360.0) if one.name == "longitude" else (0.0,)
        share = sum(_shared(edges[0] + turn, edges[1]) for turn in turns)
        size = np.abs(np.diff(edges[0]))
        whole = sparse.kron(whole, sparse.csr_matrix(share / size[:, None]), format="csr")
    return whole


def _edges(axis: Axis, geometry: str) -> Floats:
    """Bounds of cells, in which equal lengths are equal shares."""
    if geometry == "sphere" and axis.name == "latitude":
        return np.asarray(np.sin(np.deg2rad(np.clip(axis.bounds, -90.0, 90.0))))
    return axis.bounds


def _shared(one: Floats, other: Floats) -> Floats:
    """Length that each interval between neighbours of ``one`` shares with each of ``other``."""
    low, high = (np.minimum(one[1:], one[:-1]), np.maximum(one[1:], one[:-1]))
    down, up = (np.minimum(other[1:], other[:-1]), np.maximum(other[1:], other[:-1]))
    both = np.minimum(high[:, None], up) - np.maximum(low[:, None], down)
    return np.asarray(np.maximum(both, 0.0))


def _means(over: Any, valid: Mask) -> tuple[Any, Floats]:
    """Weights of means over cells that hold data, and what share of each coarse cell these are."""
    held = over @ sparse.diags(valid.astype(np.float64))
    share = np.asarray(held.sum(axis=1)).ravel()
    return sparse.diags(1 / np.maximum(share, 1e-12)) @ held, share


def _at(weights: Any, number: int, channels: int) -> Any:
    """Weights of one channel (row, cells) among those of all (row, channel · cells)."""
    only = sparse.csr_matrix(([1.0], ([0], [number])), (1, channels))
    return sparse.kron(only, weights, format="csr")
