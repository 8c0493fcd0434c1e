"""Observations that are no cells of the grid: rows of y = A x + error, A sparse, or a function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from sciladm.calendar import find
from sciladm.conventions import UserError
from sciladm.data.fields import Fields
from sciladm.data.times import Times

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Rows:
    """Observations of one frame: ``weights`` (row, channel · cells), CSR; ``values`` and their
    standard errors ``std`` (row,), in the unit of the variables."""

    weights: Any
    values: Floats
    std: Floats

    @classmethod
    def of(cls, parts: Sequence["Rows"]) -> "Rows":
        """All of several, in an order that does not depend on theirs: by the cells they see, then
        by what they say. Noise is told apart by a row's number."""
        weights = sparse.vstack([part.weights for part in parts], format="csr")
        values = np.concatenate([part.values for part in parts])
        std = np.concatenate([part.std for part in parts])
        weights.eliminate_zeros()
        cells = np.arange(weights.shape[1], dtype=np.float64)
        seen = abs(weights)
        centre = seen @ cells / np.maximum(seen.sum(axis=1).A1, 1e-300)
        order = np.lexsort((std, values, centre.round(6)))
        return cls(weights[order], values[order], std[order])

    def __len__(self) -> int:
        return len(self.values)

    def anomalies(self, centre: Floats, scale: Floats) -> "Rows":
        """What they say of (x − centre) / scale, both (channel, *space)."""
        weights = self.weights @ sparse.diags(np.broadcast_to(scale, centre.shape).ravel())
        return Rows(weights.tocsr(), self.values - self.weights @ centre.ravel(), self.std)


@dataclass(frozen=True, eq=False)
class Readings:
    """Observations of one frame that are functions of it: ``read``, (channel, *space) → (row,),
    float64; ``values`` and their standard errors ``std`` (row,), in the unit of the readings."""

    read: Callable[[Tensor], Tensor]
    values: Floats
    std: Floats

    @classmethod
    def of(cls, parts: Sequence["Readings"]) -> "Readings":
        """All of several, in their order."""
        values = np.concatenate([part.values for part in parts])
        std = np.concatenate([part.std for part in parts])
        return cls(lambda x: torch.cat([part.read(x) for part in parts]), values, std)

    def __len__(self) -> int:
        return len(self.values)

    def anomalies(self, centre: Floats, scale: Floats) -> "Readings":
        """What they say of (x − centre) / scale, both (channel, *space)."""
        middle, wide = torch.from_numpy(centre), torch.from_numpy(scale)
        read = lambda x: self.read(x.double() * wide.to(x.device) + middle.to(x.device))
        return Readings(read, self.values, self.std)


class Operator(Protocol):
    """What was observed, and how it comes about from fields."""

    @property
    def times(self) -> Times:
        """Times at which something was, sorted."""

    def at(self, times: Times, step: np.timedelta64) -> "Operator":
        """What was observed at these ``times``, which are those of a part of the frames."""

    def rows(
        self, fields: Fields, valid: Mask, times: Times, step: np.timedelta64
    ) -> list[Rows] | list[Readings]:
        """The rows of each of ``times``; cells that are not ``valid`` (channel, *space) never
        hold data. UserError where they do not fit."""


def untransformed(fields: Fields, names: Any, what: str) -> None:
    """UserError where one of the variables ``names`` is transformed."""
    bent = [c.variable for c in fields.channels if c.variable in names and c.transform != "none"]
    if bent:
        raise UserError(
            f"{what}: the run sees {bent[0]} transformed, in which means and points between "
            "cells are not linear; observe its cells"
        )


def frames_of(
    asked: Times, times: Times, step: np.timedelta64, what: str, once: bool = True
) -> Ints:
    """Which of ``times`` each is; UserError for one that is not among them, and for one that comes
    twice where each may come ``once``."""
    if asked.dtype.kind == "M":
        asked = asked.astype("M8[ns]")
    found = find(times, asked, step)
    if once and len(twice := np.flatnonzero(np.bincount(found[found >= 0]) > 1)):
        raise UserError(f"{what}: {times[twice[0]]} comes twice; leave one of them out")
    if (found < 0).any():
        raise UserError(
            f"{what}: {int((found < 0).sum())} are at none of the {len(times)} times to be "
            f"filled, {times[0]} … {times[-1]}; the first is of {asked[found < 0][0]}. Move them "
            "to the nearest, or leave them out"
        )
    return found
