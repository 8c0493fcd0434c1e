"""Blocks of p × p cells as the channels of one latent cell, and back; any grid size."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciladm.grid import Boundary, pad


@dataclass(frozen=True)
class Patches:
    """How fields of `shape` fall into blocks of `patch` cells along each axis.

    An axis that `patch` does not divide is carried on past its end as its boundary says, and
    cropped on the way back.
    """

    shape: tuple[int, ...]
    boundaries: tuple[Boundary, ...]
    patch: int

    @property
    def cells(self) -> tuple[int, ...]:
        """Latent cells along each axis."""
        return tuple(-(-n // self.patch) for n in self.shape)

    def size(self, channels: int) -> int:
        """Numbers in one patch: channels · pᵈ."""
        return int(channels * self.patch ** len(self.shape))

    def owner(self) -> Tensor:
        """Which latent cell each cell falls in: flat index, int64 (*space)."""
        index = torch.arange(math.prod(self.cells)).reshape(1, 1, *self.cells)
        return self.join(index.repeat(1, self.size(1), *[1] * len(self.cells)))[0, 0]

    def split(self, x: Tensor) -> Tensor:
        """(batch, channel, *space) → (batch, channel · pᵈ, *cells), channel slowest."""
        beyond = self.patch - 1
        if any(n % self.patch for n in self.shape):
            x = pad(x, beyond, self.boundaries)
            for dim, cells in enumerate(self.cells, start=2):
                x = x.narrow(dim, beyond, cells * self.patch)
        axes = len(self.shape)
        inner = [n for cells in self.cells for n in (cells, self.patch)]
        x = x.reshape(*x.shape[:2], *inner)
        order = [0, 1, *range(3, 3 + 2 * axes, 2), *range(2, 2 + 2 * axes, 2)]
        return x.permute(order).reshape(x.shape[0], -1, *self.cells)

    def join(self, cells: Tensor) -> Tensor:
        """The inverse of `split`."""
        axes = len(self.shape)
        x = cells.reshape(cells.shape[0], -1, *[self.patch] * axes, *self.cells)
        order = [0, 1, *(d for i in range(axes) for d in (2 + axes + i, 2 + i))]
        x = x.permute(order).reshape(*x.shape[:2], *(n * self.patch for n in self.cells))
        for dim, n in enumerate(self.shape, start=2):
            x = x.narrow(dim, 0, n)
        return x
