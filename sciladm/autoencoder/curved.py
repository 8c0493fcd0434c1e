"""Observations that are functions of fields, beside observed cells, as an autoencoder sees
them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sciladm.autoencoder.observed import LEAST, Observed

TOGETHER = 64
"""Observations whose tangents are taken at once."""
BENDS = 3
"""How often what decoding left goes along a new tangent."""


@dataclass(frozen=True, eq=False)
class Curved:
    """Observed ``cells``, and y = f(decode(z) + residual) + error besides, f differentiable.

    Fields are moved to where the cells say that the residual is; there the observations have the
    covariance S = J C' Jᵀ + diag(std²), J the tangent of f, of each member by itself, C' the
    residual's once the cells are known. For linear f as exact as `Combined`.

    read: fields (channel, *space) → f (row,); values, std (row,).
    """

    cells: Observed
    read: Callable[[Tensor], Tensor]
    values: Tensor
    std: Tensor

    @classmethod
    def of(
        cls, cells: Observed, read: Callable[[Tensor], Tensor], values: Any, std: Any
    ) -> "Curved":
        """``values`` and ``std`` (row,). An error below a hundredth of what a row would be of
        independent cells is taken for that: less, and rounding decides."""
        told, error = (torch.tensor(x).to(cells.values) for x in (values, std))
        one = cls(cells, read, told, error)
        slope = one._tangent(torch.zeros_like(cells.values[0]))[1]
        return cls(cells, read, told, torch.maximum(error, LEAST * slope.flatten(1).norm(dim=1)))

    def told(self, fields: Tensor) -> Tensor:
        """How far what fields (batch, channel, *space) say is from the observations, those of
        cells as `Observed` has them; in standard errors that are independent (batch, number)."""
        near = fields + self.cells.explained(self.cells.values - fields)
        off = torch.stack([self.read(x) for x in near]) - self.values
        white = torch.linalg.solve_triangular(self._root(near), off[:, :, None], upper=False)
        return torch.cat([self.cells.told(fields), white[:, :, 0]], dim=1)

    def wanted(self) -> Tensor:
        """What they should say (1 or member, number)."""
        cells = self.cells.wanted()
        return torch.cat([cells, cells.new_zeros(len(cells), len(self.values))], dim=1)

    @property
    def says(self) -> Tensor:
        """Which numbers of `told` say anything (number,)."""
        return torch.cat([self.cells.says, torch.ones_like(self.values, dtype=torch.bool)])

    def residual(self, decoded: Tensor, drawn: Tensor, normal: Tensor, error: Tensor) -> Tensor:
        """What decoding left, given the observations, as `Observed.residual` of the cells; then
        moved to where |r − that|² + |y − f(decoded + r) − e|² is least, e of the normal numbers
        ``error`` (batch, row), along tangents of f."""
        first = self.cells.residual(decoded, drawn, normal)
        wanted = self.values - self.std * error
        return torch.stack([
            self._moved(*one) for one in zip(decoded, first, wanted, strict=True)
        ])  # fmt: skip

    def _moved(self, decoded: Tensor, first: Tensor, wanted: Tensor) -> Tensor:
        """Of one member."""
        r = first
        for _ in range(BENDS):
            said, slope = self._tangent(decoded + r)
            spread, root = self._spread(slope)
            missing = wanted - said + slope.flatten(1) @ (r - first).flatten()
            dual = torch.cholesky_solve(missing[:, None], root)[:, 0]
            r = first + (dual @ spread.flatten(1)).view_as(first)
        return r

    def _root(self, near: Tensor) -> Tensor:
        """L (batch, row, row), L Lᵀ = S, of each of a batch; where all are alike, made once."""
        alike = bool((near[1:] == near[:1]).all())
        some = near[:1] if alike else near
        roots = torch.stack([self._spread(self._tangent(x)[1])[1] for x in some.detach()])
        return roots.expand(len(near), -1, -1)

    def _spread(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        """J C' (row, channel, *space) and L, of the tangent J."""
        spread = torch.cat([self.cells.left(some) for some in torch.split(slope, TOGETHER)])
        here = slope.flatten(1).any(0)
        both = spread.flatten(1)[:, here] @ slope.flatten(1)[:, here].T
        return spread, torch.linalg.cholesky(both + torch.diag(self.std.square()))

    def _tangent(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """f (row,) and J (row, channel, *space)."""
        with torch.inference_mode(False), torch.enable_grad():
            at = at.detach().clone().requires_grad_()
            said = self.read(at)
            unit = torch.eye(len(said)).to(said)
            slope = [_pulled(said, at, some) for some in torch.split(unit, TOGETHER)]
        return said.detach(), torch.cat(slope)


def _pulled(said: Tensor, at: Tensor, duals: Tensor) -> Tensor:
    """Jᵀ of each of ``duals``, at once where each operation can."""
    pull = partial(torch.autograd.grad, said, at, retain_graph=True)
    try:
        return pull(duals, is_grads_batched=True)[0]
    except RuntimeError:
        return torch.stack([pull(dual)[0] for dual in duals])
