"""Weighted sums of cells."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import sparse

from sciladm.conventions import UserError, rename_in
from sciladm.data.fields import Fields
from sciladm.data.times import Times
from sciladm.observe.rows import Mask, Rows, frames_of, untransformed


@dataclass(frozen=True, eq=False)
class Weighted:
    """Weighted sums of cells: a transport, a mean over a basin, what an instrument sees.

    ``weights``: variables of the run over ``observation`` and space (and level), absent ones and
    NaN count 0; ``values`` over time and ``observation``, NaN where there is none; ``error``:
    standard, one number or over ``observation``.
    """

    weights: xr.Dataset
    values: xr.DataArray
    error: Any

    @property
    def times(self) -> Times:
        """Times at which something was observed."""
        return np.sort(np.asarray(self.values["time"].values))

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
        named = rename_in(self.weights)
        names = [name for name in fields.groups if name in named]
        untransformed(fields, names, "weighted sums")
        asked = named.rename(observation="time").drop_vars("time", errors="ignore")
        absent = {name: 0 * asked[names[0]] for name in fields.groups if name not in names}
        matrix = np.nan_to_num(fields.to_array(asked.assign(absent), gaps=True))
        if (matrix[:, ~valid] != 0).any():
            raise UserError("weighted sums: weights where the run's grid never holds data")
        weights = sparse.csr_matrix(matrix.reshape(len(matrix), -1).astype(np.float64))
        values = self.values.transpose("time", "observation")
        std = np.broadcast_to(np.asarray(self.error, np.float64), values.shape[1:])
        if not (std > 0).all():
            raise UserError(f"weighted sums: the smallest error is {std.min():g}; above 0, please")
        found = frames_of(values["time"].values, times, step, "weighted sums")
        out = []
        for number in range(len(times)):
            told = values.values[found == number].sum(axis=0, initial=0.0)
            at = np.flatnonzero(np.isfinite(told)) if (found == number).any() else np.zeros(0, int)
            out.append(Rows(weights[at], told[at], std[at]))
        return out
