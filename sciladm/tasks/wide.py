"""A run on a grid larger than the one it was trained on, where every place is like every other."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import xarray as xr
from torch import Tensor

from sciladm.autoencoder.patch import PatchAutoencoder
from sciladm.autoencoder.residual import ResidualCovariance
from sciladm.conventions import UserError, rename_in
from sciladm.data.labels import axis_values
from sciladm.data.normalise import Normaliser
from sciladm.data.times import Times
from sciladm.diffusion.denoiser import Denoiser
from sciladm.diffusion.tiles import Tile, tiles
from sciladm.grid import Axis, Grid
from sciladm.model import Model

Tiles = Literal["auto"] | int
"""Cells around what is kept of each tile; "auto": a quarter of the run's axis."""
ALIKE = 0.25
"""How far places may differ, in standard deviations, and in the ln of these."""


@dataclass(eq=False)
class Wide(Model):
    """Labels, climatology and noise of a larger grid; networks of the ``run``, which sees it by
    ``tiles`` of its own grid, on latent cells. ``workers``: tiles that are drawn side by side."""

    run: Model = field(kw_only=True)
    tiles: list[Tile] = field(kw_only=True)
    workers: int = field(kw_only=True)

    @cached_property
    def autoencoder(self) -> PatchAutoencoder:
        """The run's."""
        return self.run.autoencoder

    @cached_property
    def residual(self) -> ResidualCovariance:
        """The run's."""
        return self.run.residual

    @cached_property
    def denoiser(self) -> Denoiser:
        """The run's."""
        return self.run.denoiser

    @cached_property
    def latent_statics(self) -> Tensor:
        """The run's: places in a tile."""
        return self.run.latent_statics

    def forcings(self, times: Times) -> Tensor:
        """The run's, of any tile."""
        return self.run.forcings(times)


def widened(model: Model, ds: xr.Dataset, halo: Tiles, workers: int) -> Model:
    """The run on the grid of ``ds``, if that is larger along one of its axes. UserError where the
    run cannot be moved there."""
    own = model.fields.grid
    named = rename_in(ds, {dim: our for dim, our in model.fields.dims.items() if dim in ds.dims})
    grid = Grid(tuple(_axis(axis, named) for axis in own.axes), own.geometry)
    cut = [len(a) > len(b) for a, b in zip(grid.axes, own.axes, strict=True)]
    if not any(cut) or isinstance(model, Wide):
        return model
    _movable(model, cut)
    around = [_halo(halo, axis, model) if c else 0 for axis, c in zip(own.axes, cut, strict=True)]
    patch = model.recipe.autoencoder.patch
    fields = replace(
        model.fields, grid=grid, statics=np.zeros((0, *grid.shape), np.float32), static_names=()
    )
    return Wide(
        model.path, model.recipe, fields, _everywhere(model.normaliser, grid.shape, cut),
        model.facts, model.device, run=model, workers=workers,
        tiles=tiles(grid.coarsen(patch).shape, model.grid.shape, around),
    )  # fmt: skip


def _axis(own: Axis, ds: xr.Dataset) -> Axis:
    """The data's axis in the run's direction, where it is longer."""
    if ds.sizes.get(own.name, 0) <= len(own):
        return own
    if own.boundary != "bounded":
        raise UserError(
            f"{own.name} of this run is {own.boundary}: nothing lies beyond it, and the data have "
            f"{ds.sizes[own.name]} cells where it has {len(own)}; tiles need an axis that ends"
        )
    values = np.sort(axis_values(ds, own.name))[:: 1 if own.spacing > 0 else -1]
    apart = np.concatenate([np.diff(own.values), np.diff(values)])
    if (np.abs(apart - own.spacing) > 1e-3 * abs(own.spacing)).any():
        raise UserError(
            f"{own.name}: cells {abs(own.spacing):g} apart expected, evenly, as in the run; the "
            f"data's are {np.abs(np.diff(values)).min():g} to {np.abs(np.diff(values)).max():g} "
            "apart; interpolate to its spacing"
        )
    return Axis(own.name, values, own.boundary)


def _movable(model: Model, cut: list[bool]) -> None:
    """UserError for a run whose fields know where they are, or that draws more than a frame."""
    window, patch = model.recipe.window, model.recipe.autoencoder.patch
    sizes = [n for n, c in zip(model.fields.grid.shape, cut, strict=True) if c]
    reasons = {
        f"draws {window.future} frames given {window.past}; train with window.past: 0 and "
        "window.future: 1": (window.past, window.future) != (0, 1),
        "lies on the globe, where places differ": model.fields.grid.geometry != "plane",
        f"has static fields ({', '.join(model.fields.static_names)}), unknown elsewhere":
            len(model.fields.statics) > 0,
        "has cells without data (land), elsewhere unknown": not model.normaliser.valid.all(),
        f"has {sizes[0]} cells along an axis, which patches of {patch} do not divide":
            any(n % patch for n in sizes),
    }  # fmt: skip
    for reason, holds in reasons.items():
        if holds:
            raise UserError(f"the data are larger than the grid of this run, which {reason}")
    if (most := _differ(model, cut)) > ALIKE:
        raise UserError(
            "the data are larger than the grid of this run, whose climate differs from place to "
            f"place by {most:.2f} standard deviations (at most {ALIKE:g}): elsewhere it is not "
            "known; train on the larger grid"
        )


def _differ(model: Model, cut: list[bool]) -> float:
    """How far places differ along cut axes: root mean square over cells of the climatology, of a
    departure's mean and of the ln of standard deviations: of fields, of departures and of
    what decoding loses; the largest of all."""
    normaliser, departure = model.normaliser, model.denoiser.departure
    along = tuple(n - len(cut) for n, c in enumerate(cut) if c)
    scale = normaliser.std.reshape(-1, *[1] * len(cut))
    each = [normaliser.coefficients / scale]
    for latent in (departure.mean / departure.std, departure.std.log()):
        each.append(latent.T.reshape(-1, *model.grid.shape).double().cpu().numpy())
    lost = model.residual.stretch.log().view(1, -1, *model.grid.shape)
    for size in (model.autoencoder.usual.log(), model.residual.patches.join(lost)[0]):
        each.append(size.double().cpu().numpy())
    return max(float(x.std(axis=along).max()) for x in each)


def _halo(told: Tiles, axis: Axis, model: Model) -> int:
    """In latent cells."""
    patch = model.recipe.autoencoder.patch
    cells = len(axis) // patch
    if told == "auto":
        return cells // 4
    if told < 0 or 2 * -(-told // patch) >= cells:
        raise UserError(
            f"tiles {told}: of the run's {len(axis)} cells along {axis.name} (in patches of "
            f"{patch}) nothing is left between two halos; at most {(cells - 1) // 2 * patch}"
        )
    return -(-told // patch)


def _everywhere(own: Normaliser, shape: tuple[int, ...], cut: list[bool]) -> Normaliser:
    """What the run knows of its places, on average along cut axes; without taking any memory."""
    along = tuple(n - len(cut) for n, c in enumerate(cut) if c)
    mean = own.coefficients.mean(axis=along, keepdims=True, dtype=np.float64)
    channels = own.valid.shape[:1]
    return replace(
        own,
        coefficients=np.broadcast_to(mean.astype(np.float32), (*mean.shape[:3], *shape)),
        valid=np.broadcast_to(np.True_, (*channels, *shape)),
    )
