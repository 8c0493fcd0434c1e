"""Observations that combine cells, beside observed cells, as an autoencoder sees them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciladm.autoencoder.observed import LEAST, Observed

TOGETHER = 64
"""Observations whose covariance with the others is made at once."""


@dataclass(frozen=True, eq=False)
class Combined:
    """Observed ``cells``, and y = A (decode(z) + residual) + error besides.

    What the cells tell of the residual is taken out of y first; what is left has the covariance
    S = A C' Aᵀ + diag(std²), C' the residual's once the cells are known, so that the two kinds of
    observations are independent: with both, draws are as exact as with cells alone.

    places, shares (row, most): which flat numbers of (channel, *space) a row of A has, and how
    large they are, 0 where there are fewer; values, std (row,); root: L⁻¹, L Lᵀ = S.
    """

    cells: Observed
    places: Tensor
    shares: Tensor
    values: Tensor
    std: Tensor
    root: Tensor

    @classmethod
    def of(cls, cells: Observed, weights: Any, values: Any, std: Any) -> "Combined":
        """From CSR ``weights`` (row, channel · cells), ``values`` and ``std`` (row,), in the units
        in which fields are encoded. An error below a hundredth of what a row would be of
        independent cells is taken for that: less, and rounding decides."""
        like = cells.values
        places, shares = dense(weights)
        std = np.maximum(std, LEAST * np.sqrt((shares**2).sum(1)))
        shared, told, error = (torch.tensor(x).to(like) for x in (shares, values, std))
        one = cls(cells, torch.from_numpy(places).to(like.device), shared, told, error, error)
        both = torch.diag_embed(error.square())
        for rows in torch.split(torch.arange(len(values)), TOGETHER):
            unit = torch.eye(len(values)).to(like)[rows]
            both[rows] += one._sums(cells.left(one._spread(unit, like.shape[1:])))
        inverse = torch.linalg.solve_triangular(
            torch.linalg.cholesky(both), torch.eye(len(values)).to(like), upper=False
        )
        return cls(cells, one.places, shared, told, error, inverse)

    def told(self, fields: Tensor) -> Tensor:
        """What fields (batch, channel, *space) say of the observations, in standard errors that
        are independent (batch, number)."""
        rows = self._sums(fields - self.cells.explained(fields)) @ self.root.T
        return torch.cat([self.cells.told(fields), rows], dim=1)

    def wanted(self) -> Tensor:
        """What they should say (1 or member, number)."""
        rows = (self.values - self._sums(self.cells.explained(self.cells.values))) @ self.root.T
        return torch.cat([self.cells.wanted(), rows], dim=1)

    @property
    def says(self) -> Tensor:
        """Which numbers of `told` say anything (number,)."""
        return torch.cat([self.cells.says, torch.ones_like(self.values, dtype=torch.bool)])

    def residual(self, decoded: Tensor, drawn: Tensor, normal: Tensor, error: Tensor) -> Tensor:
        """What decoding left, given the observations, as `Observed.residual` of the cells; then
        r + C' Aᵀ S⁻¹ (y − A (decoded + r) − e), e of the normal numbers ``error`` (batch, row)."""
        r = self.cells.residual(decoded, drawn, normal)
        missing = self.values - self._sums(decoded + r) - self.std * error
        dual = missing @ self.root.T @ self.root
        return r + self.cells.left(self._spread(dual, r.shape[1:]))

    def _sums(self, fields: Tensor) -> Tensor:
        """A fields (batch, row)."""
        return (fields.flatten(1)[:, self.places] * self.shares).sum(2)

    def _spread(self, dual: Tensor, shape: Any) -> Tensor:
        """Aᵀ dual (batch, channel, *space)."""
        out = dual.new_zeros(len(dual), int(np.prod(shape)))
        out.index_add_(1, self.places.flatten(), (dual[:, :, None] * self.shares).flatten(1))
        return out.view(len(dual), *shape)


def dense(weights: Any) -> tuple[Any, Any]:
    """Rows of a CSR matrix as their places and shares, both (row, most)."""
    rows = len(weights.indptr) - 1
    most = int(np.diff(weights.indptr).max(initial=1))
    places, shares = np.zeros((rows, most), np.int64), np.zeros((rows, most))
    for row, (start, stop) in enumerate(zip(weights.indptr, weights.indptr[1:], strict=False)):
        places[row, : stop - start] = weights.indices[start:stop]
        shares[row, : stop - start] = weights.data[start:stop]
    return places, shares
