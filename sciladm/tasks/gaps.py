"""States with holes: their Dataset, and the numbers that it asks about."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.calendar import find, later
from sciladm.conventions import UserError, roles
from sciladm.data.answers import PACKED
from sciladm.data.frames import Frames
from sciladm.data.labels import level_numbers, places
from sciladm.data.plan import unknown
from sciladm.data.times import Times
from sciladm.model import Model

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Gaps:
    """States with holes: their Dataset, as it was given and with our names."""

    model: Model
    given: xr.Dataset
    frames: Frames

    @classmethod
    def of(cls, model: Model, ds: xr.Dataset) -> "Gaps":
        """UserError where the states are not those of the run."""
        if "member" in ds.dims:
            raise UserError("the data have a dimension `member` already; take one at a time")
        frames = Frames.of(ds, model.fields)
        if len(doubles := frames.times[1:][frames.times[1:] == frames.times[:-1]]):
            raise UserError(f"{doubles[0]} comes twice in the data; leave one of them out")
        return cls(model, ds, frames)

    @cached_property
    def values(self) -> Array:
        """As numbers (time, channel, *space), NaN where there is none; read when asked for."""
        return self.model.fields.to_array(self.frames.ds, gaps=True)

    @cached_property
    def observed(self) -> Mask:
        """Where there is a value, of the cells that may have one."""
        return np.isfinite(self.values) & self.model.normaliser.valid

    def series(self) -> Iterator[NDArray[np.int64]]:
        """Numbers of times that are to be filled together."""
        return series(self.frames.times, self.model)

    def answer(self, values: Array, kept: Mask) -> dict[str, xr.DataArray]:
        """(member, time, channel, *space) in physical units → variables as they were given, over
        `member`. Where ``kept`` (time, channel, *space) with the very bits of the question."""
        out = {}
        for name, numbers in self.model.fields.groups.items():
            rows = [self.model.fields.channels[n].inverse(values[:, :, n]) for n in numbers]
            given = self.frames.ds[name]
            same = [kept[:, n] for n in numbers]
            out[name] = self._placed(name, given.astype(drawn_as(given)), rows, same)
            out[name].encoding = packing(given, out[name].values)
        return out

    def seen(self) -> dict[str, xr.DataArray]:
        """Where each variable was observed, of the cells that may hold data."""
        out = {}
        for name, numbers in self.model.fields.groups.items():
            nowhere = xr.zeros_like(self.frames.ds[name], dtype=bool)
            rows = [self.observed[None, :, n] for n in numbers]
            never = [np.zeros(rows[0].shape[1:], bool)] * len(rows)
            where = self._placed(name, nowhere, rows, never).isel(member=0, drop=True)
            where.attrs, where.encoding = {"long_name": f"whether {name} was observed"}, {}
            out[f"{name}_observed"] = where
        return out

    def _placed(
        self, name: str, given: xr.DataArray, rows: list[Any], same: list[Mask]
    ) -> xr.DataArray:
        """``rows`` of each level (member, time, *space) where they belong in a variable as it
        was given, over `member`; what is the ``same`` (time, *space), and cells that the run does
        not know, as they were."""
        fields = self.model.fields
        levels = [c.level for c in fields.channels if c.variable == name and c.level is not None]
        order = ["time", *(["level"] if levels else []), *fields.grid.names]
        array = given.transpose(*order, ...)
        members = np.arange(len(rows[0]))
        whole = np.repeat(array.values[None], len(members), axis=0)
        view = whole.reshape(len(members), *(array.sizes[dim] for dim in order))
        cells = [places(axis, self.frames.ds, name) for axis in fields.grid.axes]
        at = np.ix_(*([level_numbers(array, levels)] if levels else []), *cells)
        new, keep = (np.stack(rows, 2), np.stack(same, 1)) if levels else (rows[0], same[0])
        view[:, :, *at] = np.where(keep, view[:, :, *at], new)
        coords = {**array.coords, "member": members}
        placed = xr.DataArray(whole, coords, ("member", *array.dims), name, given.attrs)
        return placed.transpose("member", *given.dims)

    @cached_property
    def _names(self) -> dict[str, str]:
        """Dimensions as they were given, and our names for them."""
        told = self.model.fields.dims
        return roles(self.given, {k: v for k, v in told.items() if k in self.given.dims}).names

    @property
    def time(self) -> str | None:
        """What the dimension of time was called, if there was one."""
        return next((theirs for theirs, ours in self._names.items() if ours == "time"), None)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Which of the states as they were given each of the sorted ones is."""
        time = self.time
        return np.arange(1) if time is None else np.argsort(self.given[time].values, kind="stable")

    def part(self, numbers: NDArray[np.int64]) -> "Gaps":
        """Some of the states by themselves."""
        names = list(self.model.fields.groups)
        return Gaps.of(self.model, self.frames.ds[names].isel(time=numbers))

    def template(self, new: Mapping[str, xr.DataArray]) -> xr.Dataset:
        """`returned`, with all that is not ``new`` in memory."""
        whole = self.returned(new)
        return whole.drop_vars(list(new)).compute().assign({name: whole[name] for name in new})

    def returned(self, new: Mapping[str, xr.DataArray]) -> xr.Dataset:
        """The Dataset that was given with ``new`` variables, under its own names and order."""
        named = self.renamed(self.frames.ds.drop_vars(list(self.model.fields.groups)).assign(new))
        time = self.time
        if time is None:
            return named.assign_coords(self.given.coords)
        return named.isel({time: np.argsort(self.order)}).assign_coords(self.given.coords)

    def renamed(self, ds: xr.Dataset) -> xr.Dataset:
        """``ds`` with the dimensions of what was given, under their own names."""
        there = {*ds.variables, *ds.dims}
        ds = ds.rename({ours: theirs for theirs, ours in self._names.items()
                        if ours != theirs and ours in there})  # fmt: skip
        return ds.isel(time=0) if self.time is None and "time" in ds.dims else ds


def series(times: Times, model: Model) -> Iterator[NDArray[np.int64]]:
    """Numbers of sorted times that belong together: a step of the run apart, without a time
    lacking. Where a run draws single frames without a past each is one by itself."""
    window, step = model.recipe.window, model.step
    if window.past == 0 and window.future == 1:
        yield from np.arange(len(times))[:, None]
        return
    after = find(times, later(times, step), step)
    for first in np.setdiff1d(np.arange(len(times)), after):
        one = [first]
        while after[one[-1]] >= 0:
            one.append(after[one[-1]])
        yield np.array(one)


def drawn_as(given: xr.DataArray) -> np.dtype[Any]:
    """The kind of number that the answer to a variable has."""
    return given.dtype if given.dtype.kind == "f" else np.dtype(np.float32)


def yet_unknown(given: xr.DataArray, ahead: Mapping[str, Any], kind: Any) -> xr.DataArray:
    """A variable as it was given, over some more dimensions, of which nothing is known yet."""
    shape = (*(len(values) for values in ahead.values()), *given.shape)
    coords: dict[Any, Any] = {**given.coords, **ahead}
    dims: tuple[Any, ...] = (*ahead, *given.dims)
    return xr.DataArray(unknown(shape, kind), coords, dims, given.name, given.attrs)


def packing(given: xr.DataArray, drawn: Array | None) -> dict[str, Any]:
    """How a variable was packed, as far as ``drawn`` values fit into that: what is out of the
    range of the integers would come back as something else. None: they are not known yet."""
    packed = {key: given.encoding[key] for key in PACKED if key in given.encoding}
    kind = np.dtype(packed.get("dtype", given.dtype))
    if kind.kind not in "iu":
        return packed
    if drawn is None:
        return {}
    ends = np.iinfo(kind)
    span = np.array([ends.min + 1, ends.max - 1]) * packed.get("scale_factor", 1.0)
    low, high = np.sort(span) + packed.get("add_offset", 0.0)
    inside = not np.isfinite(drawn).any() or low <= np.nanmin(drawn) <= np.nanmax(drawn) <= high
    return packed if inside else {}
