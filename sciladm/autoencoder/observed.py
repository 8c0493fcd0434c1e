"""Observed cells as an autoencoder sees them: what decoding leaves belongs to their error, and is
drawn again so that it fits them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sciladm.autoencoder.patches import Patches
from sciladm.autoencoder.residual import ResidualCovariance

LEAST = 0.01
"""Smallest standard error, in that of a field: less, and rounding decides."""


@dataclass(frozen=True, eq=False)
class Observed:
    """Values y of some cells with standard errors; y = decode(z) + residual + error.

    weights: W (cell, number, number) for each latent cell with Wᵀ W = Mᵀ (M C Mᵀ + R)⁻¹ M, where
    M picks what was observed of a patch, C is the residual's covariance and R the errors'. Rows of
    what was not observed are 0. With the residual in it, the error of one cell belongs to its
    neighbours', too: left out, members come out a tenth too narrow (docs/log.md). values:
    (1 or member, channel, *space).
    """

    patches: Patches
    covariance: Tensor
    weights: Tensor
    values: Tensor
    std: Tensor

    @classmethod
    def of(
        cls, values: Tensor, std: Tensor, observed: Tensor, residual: ResidualCovariance
    ) -> "Observed":
        """values, std and observed (True = is one), all (channel, *space), in the units in which
        fields are encoded; values may differ from member to member (member, channel, *space)."""
        patches = residual.patches
        values = values.where(observed, 0.0).view(-1, *observed.shape)
        std = std.clamp(min=LEAST).where(observed, 0.0)
        covariance = residual.covariance()
        errors, seen = (_rows(patches, x.to(values)) for x in (std, observed))
        seen = seen * _once(patches, seen)
        both = covariance.double() * seen[:, :, None] * seen[:, None, :]
        both += torch.diag_embed(errors.double().square() * seen + (1 - seen))
        inverse = torch.linalg.solve_triangular(
            torch.linalg.cholesky(both), torch.eye(both.shape[1]).to(both).expand_as(both),
            upper=False,
        )  # fmt: skip
        weights = (inverse * seen[:, :, None] * seen[:, None, :]).to(values)
        return cls(patches, covariance.to(values), weights, values, std)

    def told(self, fields: Tensor) -> Tensor:
        """What fields (batch, channel, *space) say of the observations, in standard errors that
        are independent (batch, number)."""
        return torch.einsum("nij,bnj->bni", self.weights, self._split(fields)).flatten(1)

    def wanted(self) -> Tensor:
        """What they should say (1 or member, number)."""
        return self.told(self.values)

    def residual(self, decoded: Tensor, drawn: Tensor, normal: Tensor) -> Tensor:
        """What decoding left, given the observations: r + C Wᵀ W (y − decoded − r − e) for a
        ``drawn`` residual r and an error e of ``normal`` numbers, all (batch, channel, *space)."""
        return drawn + self.explained(self.values - decoded - drawn - self.std * normal)

    def explained(self, missing: Tensor) -> Tensor:
        """C Wᵀ W missing (batch, channel, *space)."""
        dual = torch.einsum("nij,bnj->bni", self.weights, self._split(missing))
        dual = torch.einsum("nij,bni->bnj", self.weights, dual)
        return self._lost(dual)

    def left(self, fields: Tensor) -> Tensor:
        """(C − C Wᵀ W C) fields: the residual's covariance once these cells are known."""
        likely = self._lost(self._split(fields) * _once(self.patches, self.weights[:, :, 0]))
        return likely - self.explained(likely)

    @property
    def says(self) -> Tensor:
        """Which numbers of `told` say anything (number,)."""
        return self.weights.diagonal(dim1=1, dim2=2).flatten() != 0

    def _lost(self, cells: Tensor) -> Tensor:
        """C times numbers (batch, cell, number), as fields."""
        fields = torch.einsum("nij,bnj->bni", self.covariance, cells).transpose(1, 2)
        return self.patches.join(fields.reshape(*fields.shape[:2], *self.patches.cells))

    def _split(self, fields: Tensor) -> Tensor:
        return self.patches.split(fields).flatten(2).transpose(1, 2)


def _rows(patches: Patches, x: Tensor) -> Tensor:
    """(channel, *space) → (cell, number)."""
    return patches.split(x[None])[0].flatten(1).T


def _once(patches: Patches, like: Tensor) -> Tensor:
    """Where a number is a cell's own (cell, number): 1, and 0 where an axis is carried on."""
    numbers = torch.arange(like.numel()).view(1, like.shape[1], *patches.cells)
    own = torch.zeros(like.numel()).to(like)
    own[patches.join(numbers).flatten()] = 1
    return own.view(like.shape[1], -1).T
