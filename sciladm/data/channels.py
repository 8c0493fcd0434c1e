"""A channel: one variable at one level, its units and its transform."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import VARIABLES, UserError
from sciladm.data.cards import Missing, Variable
from sciladm.data.labels import level_numbers

Array = NDArray[np.float32]
NETCDF_FILL = np.float32(9.96921e36)
"""What netCDF writes where nothing was written, declared or not; missing, then."""


@dataclass(frozen=True)
class Channel:
    """One variable at one level: a channel of a tensor."""

    variable: str
    level: int | None = None
    units: str = ""
    standard_name: str | None = None
    transform: str = "none"
    missing: Missing = "none"
    error: float | None = None
    mask: str | None = None

    @property
    def name(self) -> str:
        """``geopotential_500``, ``2m_temperature``."""
        return self.variable if self.level is None else f"{self.variable}_{self.level}"

    def forward(self, values: Array) -> Array:
        """Physical units → what the networks see, before normalising: ln(1 + x/scale)."""
        if self.transform == "none":
            return values
        scale = float(self.transform.removeprefix("log1p:"))
        if (values <= -scale).any():
            raise UserError(
                f"{self.name}: transform {self.transform} takes values above {-scale:g} "
                f"{self.units}, got {np.nanmin(values):g}"
            )
        out: Array = np.log1p(values / np.float32(scale))
        return out

    def inverse(self, values: Array) -> Array:
        """The inverse of `forward`."""
        if self.transform == "none":
            return values
        out: Array = np.expm1(values) * np.float32(self.transform.removeprefix("log1p:"))
        return out


def channels_of(
    array: xr.DataArray, levels: Sequence[int] | None, meta: Variable
) -> list[Channel]:
    """The channels of one variable at ``levels`` (None: all that it has), with what is known."""
    name = str(array.name)
    standard_name, units = VARIABLES.get(name, (None, ""))
    surface = Channel(
        name,
        None,
        meta.units or str(array.attrs.get("units", units)),
        meta.standard_name or array.attrs.get("standard_name", standard_name),
        meta.transform,
        meta.missing,
        meta.error,
        meta.mask,
    )
    if "level" not in array.dims:
        if levels:
            raise UserError(f"{name} has no levels, but {list(levels)} were asked for; write null")
        return [surface]
    there = array["level"].values
    if there.dtype.kind != "i":
        raise UserError(
            f"{name}: levels {there[:4]} … are not whole numbers; round them in the file, or take "
            "the dimension as an axis of the grid with `dims: {its name: z}`"
        )
    chosen = [int(level) for level in (there if levels is None else levels)]
    level_numbers(array, chosen)
    return [replace(surface, level=level) for level in chosen]
