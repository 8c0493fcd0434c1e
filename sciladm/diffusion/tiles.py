"""A field larger than what a denoiser was trained on, by tiles of that size.

At every noise level each tile is denoised as if it were alone, and only what lies a halo away from
its cut edges is kept: neighbours see each other through the overlap, step after step. Averages of
overlapping tiles lose variance, and tiles that are joined at the end have seams (docs/log.md).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise, product
from types import EllipsisType

from torch import Tensor

from sciladm.diffusion.sampler.base import Denoise

Span = tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """Slices along each axis: the ``whole`` tile and what is ``kept`` of it, in the larger field,
    and the latter in the tile itself, ``inner``."""

    number: int
    whole: tuple[slice, ...]
    kept: tuple[slice, ...]
    inner: tuple[slice, ...]


def tiles(shape: Sequence[int], size: Sequence[int], halo: Sequence[int]) -> list[Tile]:
    """Tiles of ``size`` that cover ``shape``, evenly apart, at least ``halo`` cells around what is
    kept of each; none at the edges of the field. ``size`` > 2 ``halo`` where ``shape`` is larger.
    """
    axes = [_along(*one) for one in zip(shape, size, halo, strict=True)]
    out = []
    for number, spans in enumerate(product(*axes)):
        whole = tuple(slice(a, b) for (a, b), _ in spans)
        kept = tuple(slice(a, b) for _, (a, b) in spans)
        inner = tuple(slice(a - w, b - w) for (w, _), (a, b) in spans)
        out.append(Tile(number, whole, kept, inner))
    return out


def across(part: tuple[slice, ...]) -> tuple[slice | EllipsisType, ...]:
    """The last axes of a tensor (…, *space)."""
    return (..., *part)


def _along(n: int, size: int, halo: int) -> list[tuple[Span, Span]]:
    """Of one axis: whole and kept."""
    if n < size or (n > size and size <= 2 * halo):
        raise ValueError(f"{n} cells by tiles of {size} with a halo of {halo}")
    more = -(-(n - size) // (size - 2 * halo)) if n > size else 0
    starts = [i * (n - size) // max(more, 1) for i in range(more + 1)]
    borders = [0, *((a + size + b) // 2 for a, b in pairwise(starts)), n]
    return [((a, a + size), kept) for a, kept in zip(starts, pairwise(borders), strict=True)]


class Tiled:
    """D(x, σ) → E[x₀ | x] of the larger field (batch, channel, *space), from that of each tile;
    ``each`` is a tile's, of its part of x. Tiles do not wait for each other: with an ``executor``
    they go side by side, and nothing depends on their order."""

    def __init__(
        self,
        tiles: Sequence[Tile],
        each: Callable[[Tile], Denoise],
        executor: Executor | None = None,
    ) -> None:
        self.tiles, self.each = tiles, each
        self.map = executor.map if executor else map

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x (batch, channel, *space) → likewise."""
        out = x.new_empty(x.shape)
        parts = self.map(lambda tile: self._kept(tile, x, sigma), self.tiles)
        for tile, part in zip(self.tiles, parts, strict=True):
            out[across(tile.kept)] = part
        return out

    def _kept(self, tile: Tile, x: Tensor, sigma: float) -> Tensor:
        return self.each(tile)(x[across(tile.whole)], sigma)[across(tile.inner)].to(x)
