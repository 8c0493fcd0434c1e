"""Weighted sums of cells."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import sparse

from sciladm.calendar import find
from sciladm.conventions import UserError, rename_in
from sciladm.data.fields import Fields
from sciladm.data.times import Times
from sciladm.observe.rows import Mask, Rows, frames_of, untransformed


@dataclass(frozen=True, eq=False)
class Weighted:
    """Weighted sums of cells: a transport, a mean over a basin, what an instrument sees.

    ``weights``: variables of the run over ``observation`` and space (and level), absent ones and
    NaN count 0; ``values`` over time and ``observation``, NaN where there is none; ``error``:
    standard, one number or over ``observation``. Observations are matched by label where all have
    labels, else by order.
    """

    weights: xr.Dataset
    values: xr.DataArray
    error: Any

    @property
    def times(self) -> Times:
        """Times at which something was observed."""
        return np.sort(np.asarray(self.values["time"].values))

    def at(self, times: Times, step: np.timedelta64) -> "Weighted":
        """See `Operator`."""
        inside = find(times, np.asarray(self.values["time"].values), step) >= 0
        return replace(self, values=self.values.isel(time=np.flatnonzero(inside)))

    def rows(self, fields: Fields, valid: Mask, times: Times, step: np.timedelta64) -> list[Rows]:
        """See `Operator`."""
        if "observation" not in self.weights.dims or set(self.values.dims) != {
            "time", "observation",
        }:  # fmt: skip
            raise UserError(
                "weighted sums: weights over `observation` and space, values over `time` and "
                f"`observation`; got {', '.join(map(str, self.weights.dims))} and "
                f"{', '.join(map(str, self.values.dims))}"
            )
        matrix = self._matrix(fields)
        if (matrix[:, ~valid] != 0).any():
            raise UserError("weighted sums: weights where the run's grid never holds data")
        weights = sparse.csr_matrix(matrix.reshape(len(matrix), -1).astype(np.float64))
        values = self._alike(self.values).transpose("time", "observation")
        error = self.error
        if isinstance(error, xr.DataArray):
            error = self._alike(error)
        std = np.broadcast_to(np.asarray(error, np.float64), values.shape[1:])
        if not (std > 0).all():
            raise UserError(f"weighted sums: the smallest error is {std.min():g}; above 0, please")
        found = frames_of(values["time"].values, times, step, "weighted sums")
        out = []
        for number in range(len(times)):
            told = values.values[found == number].reshape(-1)
            at = np.flatnonzero(np.isfinite(told))
            out.append(Rows(weights[at], told[at].astype(np.float64), std[at]))
        return out

    def _matrix(self, fields: Fields) -> NDArray[np.float32]:
        """(observation, channel, *space)."""
        named = rename_in(self.weights)
        names = [name for name in fields.groups if name in named]
        if not names:
            there = ", ".join(map(str, named.data_vars))
            raise UserError(f"weighted sums: none of {', '.join(fields.groups)} among {there}")
        untransformed(fields, names, "weighted sums")
        asked = named.rename(observation="time").drop_vars("time", errors="ignore")
        shape = (asked.sizes["time"], len(fields.channels), *fields.grid.shape)
        out = np.zeros(shape, np.float32)
        for name in names:
            layers = fields.layers(asked, asked[name], name)
            out[:, fields.groups[name]] = np.nan_to_num(layers)
        return out

    def _alike(self, told: xr.DataArray) -> xr.DataArray:
        """In the order of the observations of the weights, by label where both have some."""
        if "observation" not in told.dims:
            return told
        labels = self.weights.coords.get("observation")
        if labels is not None and "observation" in told.coords:
            try:
                return told.sel(observation=labels)
            except KeyError as error:
                raise UserError(
                    f"weighted sums: the weights' observation {error} is not told of"
                ) from None
        if told.sizes["observation"] != self.weights.sizes["observation"]:
            raise UserError(
                f"weighted sums: {told.sizes['observation']} observations, and weights of "
                f"{self.weights.sizes['observation']}"
            )
        return told
