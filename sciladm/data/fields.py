"""The border between labels and tensors: Datasets in, arrays (time, channel, *space) out; back.

Labels rule: whatever the order of dimensions, the direction of latitude, the range of longitude or
the packing, `Fields.to_array` gives the same numbers or says why it cannot. NaN stops here: beyond
a `Question` there are values, and a mask of those that were observed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from sciladm.conventions import SPACE, UserError, rename_in
from sciladm.data.cards import Variable
from sciladm.data.channels import NETCDF_FILL, channels_of
from sciladm.data.channels import Channel as Channel
from sciladm.data.forcings import forcings
from sciladm.data.labels import (
    aligned,
    as_slice,
    axis_values,
    get,
    level_numbers,
    modulo,
    plain,
    sizes,
)
from sciladm.data.times import Times, ticks
from sciladm.grid import Grid

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    """What is known of a window, without NaN: tensors (frame, channel, *space).

    ``values`` are 0 where not ``observed``; ``valid`` (channel, *space) tells which cells can hold
    data at all; ``error_std`` is in the units of ``values``; ``forcings`` (frame, k, *space);
    ``keys`` (frame,) int64 name the frames' valid times for the draws of noise.
    """

    values: Tensor
    observed: Tensor
    valid: Tensor
    error_std: Tensor
    forcings: Tensor
    keys: Tensor


@dataclass(frozen=True, eq=False)
class Fields:
    """Which variables, levels and cells make a tensor, and the labels that give them back."""

    channels: tuple[Channel, ...]
    grid: Grid
    static_names: tuple[str, ...]
    statics: Array
    attributes: dict[str, dict[str, Any]]
    coordinates: dict[str, dict[str, Any]]
    dims: dict[str, str]

    @classmethod
    def from_dataset(
        cls,
        ds: xr.Dataset,
        variables: Mapping[str, Sequence[int] | None],
        static: Sequence[str] = (),
        meta: Mapping[str, Variable] | None = None,
        dims: Mapping[str, str] | None = None,
    ) -> "Fields":
        """Take ``variables`` (name: levels; None: all there are) and ``static`` fields of ``ds``.

        ``meta`` says what a card knows of them; ``dims`` (theirs → ours) wins over any guess.
        """
        if not variables:
            raise UserError("no variables were named; a recipe's data.variables names them")
        ds = rename_in(ds, dict(dims or {}))
        first = get(ds, next(iter(variables)))
        names = [name for name in SPACE if name in first.dims]
        if len(names) < 2:
            raise UserError(
                f"{first.name}: dimensions {sizes(first)} hold no grid of two or more axes; "
                "unstructured data must be put on one first (cdo remapbil, xesmf), and dimensions "
                "with odd names told apart with `dims: {theirs: ours}`"
            )
        values = {name: axis_values(ds, name) for name in names}
        grid = Grid.from_coords(values, modulo(ds, names))
        channels: list[Channel] = []
        for name, levels in variables.items():
            channels += channels_of(get(ds, name), levels, (meta or {}).get(name, Variable()))
        coordinates = {}
        for label, other in ds.coords.items():
            if label in (*names, "level"):
                coordinates[str(label)] = _coordinate(other)
            elif other.dims and set(other.dims) <= set(names) and other.dtype.kind in "fiu":
                whole = {"dims": list(other.dims), "data": other.values.tolist()}
                coordinates[str(label)] = _coordinate(other) | whole
        for channel in channels:
            if channel.mask is not None and get(ds, channel.mask).sizes.get("time", 1) != 1:
                raise UserError(
                    f"{channel.mask}, the mask of {channel.variable}, depends on time; gaps that "
                    "move are NaN in the variable itself, with `missing: moving`"
                )
        attributes = {name: plain(ds[name].attrs) for name in variables}
        fields = cls(tuple(channels), grid, (), np.zeros((0, *grid.shape), np.float32),
                     attributes, coordinates, dict(dims or {}))  # fmt: skip
        statics = [fields._static(ds, name) for name in static]
        return replace(
            fields,
            static_names=tuple(static),
            statics=np.stack(statics) if statics else fields.statics,
        )

    @property
    def names(self) -> list[str]:
        """Names of the channels, in order."""
        return [channel.name for channel in self.channels]

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """Variable → numbers of its channels: a variable is read once for all its levels."""
        groups: dict[str, list[int]] = {}
        for number, channel in enumerate(self.channels):
            groups.setdefault(channel.variable, []).append(number)
        return groups

    def to_array(self, ds: xr.Dataset, *, gaps: bool = False) -> Array:
        """Read ``ds`` into (time, channel, *space): physical units, transformed, NaN = missing.

        Aligned to the grid by label. NaN in a channel whose ``missing`` is "none" is an error
        unless ``gaps`` says that the data are a question.
        """
        ds = rename_in(ds, {dim: ours for dim, ours in self.dims.items() if dim in ds.dims})
        shape = (ds.sizes.get("time", 1), len(self.channels), *self.grid.shape)
        out = np.empty(shape, dtype=np.float32)
        for name, numbers in self.groups.items():
            rows = self.layers(ds, get(ds, name), name)
            mask = self.channels[numbers[0]].mask
            if mask is not None and mask in ds:  # of other data, the run knows where it is valid
                rows = np.where(self._still(ds, mask) > 0.5, rows, np.float32(np.nan))
            out[:, as_slice(numbers)] = rows
        for number, channel in enumerate(self.channels):
            part = out[:, number]
            part[part >= NETCDF_FILL] = np.nan
            if channel.missing == "none" and not gaps:
                _refuse_missing(part, channel.name, ds)
            out[:, number] = channel.forward(part)
        return out

    def layers(self, ds: xr.Dataset, array: xr.DataArray, name: str) -> Array:
        """An array of ``ds``, under our names, that goes with variable ``name``, be it its values,
        their errors or a mask: (time, its channels, *space), by label, as they stand."""
        levels = self._levels(self.groups[name])
        if levels:
            array = array.isel(level=as_slice(level_numbers(array, levels)))
        return aligned(ds, array, self.grid, bool(levels))

    def _still(self, ds: xr.Dataset, name: str) -> Array:
        """A variable without time (*space), by label, as it stands."""
        array = get(ds, name)
        squeezed = array.isel({d: 0 for d in array.dims if d not in self.grid.names})
        alone = ds.drop_dims("time", errors="ignore")
        values: Array = aligned(alone, squeezed, self.grid, False)[0, 0]
        return values

    def _levels(self, numbers: list[int]) -> list[int]:
        levels = [self.channels[number].level for number in numbers]
        return [level for level in levels if level is not None]

    def _static(self, ds: xr.Dataset, name: str) -> Array:
        """One static field, standardised to area mean 0 and standard deviation 1."""
        if get(ds, name).sizes.get("time", 1) != 1:
            raise UserError(f"static {name} depends on time; list it under variables instead")
        values = self._still(ds, name)
        if not np.isfinite(values).all():
            raise UserError(
                f"static {name} has {np.sum(~np.isfinite(values))} cells without value"
            )
        mean = np.sum(values * self.grid.area)
        deviation = np.sqrt(np.sum((values - mean) ** 2 * self.grid.area))
        if deviation == 0:
            raise UserError(f"static {name} is {mean:g} everywhere and says nothing; leave it out")
        standardised: Array = ((values - mean) / deviation).astype(np.float32)
        return standardised

    def to_dataset(
        self, values: Array, dims: tuple[str, ...], coords: Mapping[str, Any]
    ) -> xr.Dataset:
        """The inverse of `to_array`: ``values`` (*dims, channel, *space) under their labels.

        ``coords`` are those of ``dims``, as xarray takes them. Variables on different levels share
        one ``level``, NaN where a variable has none.
        """
        space = self.grid.names
        rows = np.moveaxis(values, len(dims), 0)
        union = list(dict.fromkeys(self._levels(list(range(len(self.channels))))))
        out: dict[str, Any] = {}
        for name, numbers in self.groups.items():
            parts = [self.channels[number].inverse(rows[number]) for number in numbers]
            attributes = self._attributes(numbers[0])
            if not (levels := self._levels(numbers)):
                out[name] = ((*dims, *space), parts[0], attributes)
                continue
            by_level = dict(zip(levels, parts, strict=True))
            absent = np.full_like(parts[0], np.nan)
            stacked = np.stack([by_level.get(level, absent) for level in union], axis=len(dims))
            out[name] = ((*dims, "level", *space), stacked, attributes)
        return xr.Dataset(out, {**coords, **self._labels(union)})

    def _labels(self, levels: list[int]) -> dict[str, Any]:
        """Coordinates of space and level as they came in, two-dimensional ones too."""
        own = {axis.name: axis.values for axis in self.grid.axes} | {"level": np.array(levels)}
        labels: dict[str, Any] = {}
        for name, kept in self.coordinates.items():
            dims, values = kept.get("dims", (name,)), kept.get("data", own.get(name))
            array = np.asarray(values, dtype=kept["dtype"])
            if array.size:
                labels[name] = (tuple(dims), array, kept["attrs"])
        return labels

    def _attributes(self, number: int) -> dict[str, Any]:
        channel = self.channels[number]
        known = {"units": channel.units, "standard_name": channel.standard_name}
        return {k: v for k, v in known.items() if v} | self.attributes[channel.variable]

    def forcings(self, times: Times, grid: Grid | None = None) -> Array:
        """Forcings at ``times`` on ``grid`` (default: the fields' own): (n, k, *grid.shape)."""
        return forcings(times, grid or self.grid)

    def question(
        self,
        values: Array,
        times: Times,
        valid: NDArray[np.bool_],
        error_std: Array | None = None,
    ) -> Question:
        """Values (frame, channel, *space), NaN where unknown, as a `Question`.

        ``valid`` (channel, *space): cells that may hold data; others are not looked at.
        """
        observed = np.isfinite(values) & valid
        error = (
            np.zeros_like(values)
            if error_std is None
            else np.broadcast_to(error_std, values.shape)
        )
        return Question(
            values=torch.from_numpy(np.where(observed, values, np.float32(0))),
            observed=torch.from_numpy(observed),
            valid=torch.from_numpy(np.array(valid)),
            error_std=torch.from_numpy(np.where(observed, error, np.float32(0))),
            forcings=torch.from_numpy(self.forcings(times)),
            keys=torch.from_numpy(ticks(times)),
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything but the static fields' values, ready for JSON."""
        return {
            "channels": [asdict(channel) for channel in self.channels],
            "grid": self.grid.as_dict(),
            "static_names": list(self.static_names),
            "attributes": self.attributes,
            "coordinates": self.coordinates,
            "dims": self.dims,
        }

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], statics: Array) -> "Fields":
        """The inverse of `as_dict`, with ``statics`` (k, *space)."""
        return cls(
            tuple(Channel(**channel) for channel in tree["channels"]),
            Grid.from_dict(tree["grid"]),
            tuple(tree["static_names"]),
            statics,
            tree["attributes"],
            tree["coordinates"],
            tree["dims"],
        )


def _coordinate(coordinate: xr.DataArray) -> dict[str, Any]:
    native = coordinate.dtype.newbyteorder("=").name
    return {"dtype": native, "attrs": plain(coordinate.attrs)}


def _refuse_missing(part: Array, name: str, ds: xr.Dataset) -> None:
    bad = ~np.isfinite(part)
    if not bad.any():
        return
    frame = int(bad.reshape(len(bad), -1).any(axis=1).argmax())
    timed = "time" in ds.coords and ds["time"].ndim == 1
    when = f" (first at {ds['time'].values[frame]!s:.19})" if timed else ""
    raise UserError(
        f"{name}: {bad.sum()} of {bad.size} values are missing or not finite{when}, though the "
        "variable is said to have none missing; if it is land, always the same cells, say "
        "`missing: static` of the variable (in the card, or in data.missing of a recipe for own "
        "data); else the file has lost data: mend it"
    )
