"""Fields by wavenumber: where nothing changes along an axis, wavenumbers do not mix."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from sciladm.grid import Boundary


class Waves:
    """Fields (batch, channel, *space) ⇄ one row of numbers per wavenumber (batch, block, number):
    over channels and the cells of axes that are not periodic. Where none is, one block of all."""

    def __init__(self, shape: Sequence[int], boundaries: Sequence[Boundary]) -> None:
        self.shape = tuple(shape)
        self.periodic = [n for n, end in enumerate(boundaries) if end == "periodic"]

    def rows(self, x: Tensor) -> Tensor:
        """(batch, channel, *space) → (batch, block, number), complex where an axis is periodic."""
        waves = [2 + n for n in self.periodic]
        if waves:
            x = torch.fft.rfftn(x, dim=waves, norm="ortho").movedim(waves, list(self._ahead))
        return x.reshape(len(x), prod(x.shape[1 : 1 + len(waves)]), -1)

    def fields(self, rows: Tensor) -> Tensor:
        """The inverse of `rows`."""
        waves, sizes = [2 + n for n in self.periodic], [self.shape[n] for n in self.periodic]
        others = [n for i, n in enumerate(self.shape) if i not in self.periodic]
        if not waves:
            return rows.reshape(len(rows), -1, *others)
        channels = rows.shape[2] // prod(others)
        x = rows.reshape(len(rows), *sizes[:-1], sizes[-1] // 2 + 1, channels, *others)
        x = x.movedim(list(self._ahead), waves)
        fields: Tensor = torch.fft.irfftn(x, sizes, waves, norm="ortho")
        return fields

    def mirrored(self) -> Tensor:
        """How many wavenumbers each block stands for (block,): rfftn holds one half of the last
        axis, and the other is its mirror."""
        if not self.periodic:
            return torch.ones(1, dtype=torch.float64)
        size = self.shape[self.periodic[-1]]
        count = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64)
        count[0] = 1
        count[size // 2] = 2 - (size + 1) % 2
        return count.repeat(prod(self.shape[n] for n in self.periodic[:-1]))

    @property
    def _ahead(self) -> range:
        """Where wavenumbers stand in a spectrum: after the batch."""
        return range(1, 1 + len(self.periodic))
