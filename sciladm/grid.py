"""What the cells of a grid are: how each axis ends, how large the cells are, where they lie.

Every array elsewhere is a plain tensor (…, *space); this module alone knows what happens beyond
the last cell (`pad`), how much a cell counts in a mean (`Grid.area`) and where it is on the
globe or the plane (`Grid.features`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sciladm.conventions import UserError

Boundary = Literal["periodic", "pole", "bounded"]
Geometry = Literal["sphere", "plane"]


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis: `values` are cell centres (n,), strictly monotonic; `boundary` is how it ends."""

    name: str
    values: NDArray[np.float64]
    boundary: Boundary

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        steps = np.diff(values)
        if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
            raise UserError(
                f"Axis {self.name!r} must be a list of finite numbers; got shape {values.shape}."
            )
        if steps.size and not ((steps > 0).all() or (steps < 0).all()):
            raise UserError(
                f"Axis {self.name!r} must rise or fall all the way; it runs "
                f"{values[0]:g}, {values[1]:g} … {values[-1]:g} and turns or repeats in between. "
                f"Sort it first: ds.sortby({self.name!r})."
            )
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Axis)
            and (self.name, self.boundary) == (other.name, other.boundary)
            and np.array_equal(self.values, other.values)
        )

    def __len__(self) -> int:
        return int(self.values.size)

    @property
    def spacing(self) -> float:
        """Signed mean distance between neighbouring cells; 1 where there is one cell only."""
        n = len(self)
        return float((self.values[-1] - self.values[0]) / (n - 1)) if n > 1 else 1.0

    @property
    def bounds(self) -> NDArray[np.float64]:
        """Cell edges (n + 1,): midpoints between centres, half a cell beyond the outer ones."""
        v = self.values
        if len(self) == 1:
            return np.array([v[0] - 0.5, v[0] + 0.5])
        if self.boundary == "periodic":
            period = 360.0 if self.name == "longitude" else abs(self.spacing) * len(self)
            gap = np.copysign(period, self.spacing) - (v[-1] - v[0])
            first, last = v[0] - gap / 2, v[-1] + gap / 2
        else:
            first, last = v[0] - (v[1] - v[0]) / 2, v[-1] + (v[-1] - v[-2]) / 2
        if self.boundary == "pole":
            first, last = np.copysign(90.0, v[0]), np.copysign(90.0, v[-1])
        return np.concatenate([[first], (v[1:] + v[:-1]) / 2, [last]])

    def coarsen(self, patch: int) -> Axis:
        """Means of `patch` neighbouring centres, the axis carried on past its end if need be."""
        missing = -len(self) % patch
        step = self.values[-1] - self.values[-2] if len(self) > 1 else 1.0
        beyond = self.values[-1] + step * np.arange(1, missing + 1)
        values = np.concatenate([self.values, beyond]).reshape(-1, patch).mean(axis=1)
        return Axis(self.name, values, self.boundary)


@dataclass(frozen=True)
class Grid:
    """Axes in tensor order. On a `sphere` latitude and longitude are degrees, whatever part
    of the globe they cover; on a `plane` all lengths count alike."""

    axes: tuple[Axis, ...]
    geometry: Geometry

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        if "pole" in self.boundaries and "periodic" not in self.boundaries:
            raise UserError(
                "A latitude that ends at the poles needs a longitude that closes the circle; "
                f"got {dict(zip(self.names, self.boundaries, strict=True))}."
            )

    @classmethod
    def from_coords(
        cls, coords: Mapping[str, ArrayLike], modulo: Mapping[str, float] | None = None
    ) -> Grid:
        """Decide how each axis ends from its values, and where others than longitude begin again.

        longitude: periodic if it closes 360° (within a tenth of a cell); latitude: pole if
        longitude is periodic and both ends come within one cell of ±90°; any other: periodic if
        its cells make up its ``modulo``; else bounded.
        """
        arrays = {name: np.asarray(values, dtype=np.float64) for name, values in coords.items()}
        around = "longitude" in arrays and _closes_circle(arrays["longitude"])
        ends: dict[str, Boundary] = {"longitude": "periodic"} if around else {}
        if around and "latitude" in arrays and _reaches_poles(arrays["latitude"]):
            ends["latitude"] = "pole"
        for name, period in (modulo or {}).items():
            axis = Axis(name, arrays[name], "bounded")
            if abs(abs(axis.spacing) * len(axis) - period) < 0.1 * abs(axis.spacing):
                ends.setdefault(name, "periodic")
        axes = tuple(Axis(name, v, ends.get(name, "bounded")) for name, v in arrays.items())
        return cls(axes, "sphere" if {"latitude", "longitude"} <= set(arrays) else "plane")

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of cells along each axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        """Axis names, in tensor order."""
        return tuple(axis.name for axis in self.axes)

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """How each axis ends, in tensor order; what `pad` takes."""
        return tuple(axis.boundary for axis in self.axes)

    @cached_property
    def area(self) -> NDArray[np.float64]:
        """Share of the whole domain in each cell, exact from the cell bounds; sums to 1.

        On the sphere a cell has (λ₂ − λ₁)(sin φ₂ − sin φ₁), its bounds clipped to ±90°.
        """
        area: NDArray[np.float64] = np.ones(())
        for axis in self.axes:
            edges = axis.bounds
            if self.geometry == "sphere" and axis.name == "latitude":
                edges = np.sin(np.deg2rad(np.clip(edges, -90.0, 90.0)))
            area = area[..., None] * np.abs(np.diff(edges))
        area /= area.sum()
        area.setflags(write=False)
        return area

    def features(self) -> NDArray[np.float32]:
        """Where each cell is, (k, *shape): on the sphere its unit vector (sin φ, cos φ cos λ,
        cos φ sin λ); then, per bounded axis, its coordinate scaled to [−1, 1]."""
        mesh = dict(
            zip(
                self.names, np.meshgrid(*(a.values for a in self.axes), indexing="ij"), strict=True
            )
        )
        rows: list[NDArray[np.float64]] = []
        if self.geometry == "sphere":
            φ, λ = np.deg2rad(mesh["latitude"]), np.deg2rad(mesh["longitude"])
            rows += [np.sin(φ), np.cos(φ) * np.cos(λ), np.cos(φ) * np.sin(λ)]
        for axis in self.axes:
            if axis.boundary == "bounded":
                low, high = axis.values.min(), axis.values.max()
                middle, half = (low + high) / 2, max((high - low) / 2, 1e-12)
                rows.append((mesh[axis.name] - middle) / half)
        return np.array(rows, dtype=np.float32).reshape(len(rows), *self.shape)

    def rows(self) -> NDArray[np.int64]:
        """Which cells share their statistics, (*shape): those of one latitude where longitude
        closes the circle, all of them elsewhere. Groups count from 0."""
        group = np.zeros(self.shape, dtype=np.int64)
        if self.geometry == "sphere" and "periodic" in self.boundaries:
            axis = self.names.index("latitude")
            n = self.shape[axis]
            group += np.arange(n).reshape([-1 if i == axis else 1 for i in range(group.ndim)])
        return group

    def coarsen(self, patch: int) -> Grid:
        """The grid of `patch` × `patch` blocks. An axis that `patch` does not divide is first
        carried on past its end; its boundary stays what it was."""
        return Grid(tuple(axis.coarsen(patch) for axis in self.axes), self.geometry)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words, ready for JSON; `from_dict` gives an equal grid."""
        axes = [
            {"name": a.name, "values": a.values.tolist(), "boundary": a.boundary}
            for a in self.axes
        ]
        return {"geometry": self.geometry, "axes": axes}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Grid:
        """The inverse of `as_dict`."""
        axes = tuple(
            Axis(str(a["name"]), np.asarray(a["values"]), cast(Boundary, a["boundary"]))
            for a in state["axes"]
        )
        return cls(axes, cast(Geometry, state["geometry"]))


def _closes_circle(longitude: NDArray[np.float64]) -> bool:
    n = longitude.size
    if n < 2:
        return False
    span = abs(float(longitude[-1] - longitude[0]))
    step = span / (n - 1)
    if abs(span - 360.0) < 0.1 * step:
        raise UserError(
            f"Longitude runs from {longitude[0]:g} to {longitude[-1]:g}: its first and last "
            "columns are the same place. Drop one: ds.isel(longitude=slice(None, -1))."
        )
    return abs(span + step - 360.0) < 0.1 * step


def _reaches_poles(latitude: NDArray[np.float64]) -> bool:
    if latitude.size < 2:
        return False
    step = np.abs(np.diff(latitude)).max()
    return bool(90.0 - latitude.max() < step and 90.0 + latitude.min() < step)


def pad(x: Tensor, width: int, boundaries: Sequence[Boundary]) -> Tensor:
    """Carry a field on by `width` cells beyond both ends of its last `len(boundaries)` axes.

    periodic: what comes round from the other end. pole: over the pole, so the rows come
    mirrored, half the circle further along the periodic axis (⌊n/2⌋ cells where n is odd).
    bounded: the outermost cell again.
    """
    if width == 0:
        return x
    first = x.ndim - len(boundaries)
    dims = [first + i for i in range(len(boundaries))]
    # Poles first: their rows are turned along the whole, not yet padded, circle.
    for dim in (d for d in dims if boundaries[d - first] == "pole"):
        circle = max(d for d in dims if boundaries[d - first] == "periodic")
        x = _pad_pole(x, width, dim, circle)
    for dim in dims:
        if boundaries[dim - first] == "periodic":
            x = _pad_periodic(x, width, dim)
        elif boundaries[dim - first] == "bounded":
            shape = [*x.shape[:dim], width, *x.shape[dim + 1 :]]
            ends = x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)
            x = torch.cat([ends[0].expand(shape), x, ends[1].expand(shape)], dim)
    return x


def _pad_periodic(x: Tensor, width: int, dim: int) -> Tensor:
    n = x.shape[dim]
    while width > n:  # several times round
        x, width = torch.cat([x, x, x], dim), width - n
        n = x.shape[dim]
    return torch.cat([x.narrow(dim, n - width, width), x, x.narrow(dim, 0, width)], dim)


def _pad_pole(x: Tensor, width: int, dim: int, circle: int) -> Tensor:
    n = x.shape[dim]
    if width > n:
        raise ValueError(f"cannot look {width} cells beyond the pole of an axis of {n} cells")
    half = x.shape[circle] // 2
    start = x.narrow(dim, 0, width).flip(dim).roll(half, circle)
    end = x.narrow(dim, n - width, width).flip(dim).roll(half, circle)
    return torch.cat([start, x, end], dim)
