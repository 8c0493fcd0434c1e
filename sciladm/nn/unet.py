"""The convolutional backbone: residual blocks at one or more resolutions, any grid size."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sciladm.grid import Boundary, pad
from sciladm.nn.layers import Attention, Block, Conv, Double, Fourier, Gains, Halve, Norm, size


class UNet(nn.Module):
    """`widths[i]` channels at resolution 2⁻ⁱ, `blocks` residual blocks on the way down and up.

    Odd axes are carried on by one cell before halving and cropped after doubling, so any size
    works with the same weights. The last layer starts at zero: an untrained network says 0.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        boundaries: Sequence[Boundary],
        widths: Sequence[int] = (64, 96),
        blocks: int = 2,
        embedding: int = 128,
        attention: bool = True,
        gains: bool = False,
    ) -> None:
        super().__init__()
        self.boundaries = tuple(boundaries)
        axes, wide = len(self.boundaries), list(widths)
        self.embed = Fourier(embedding, more=channels_in if gains else 0)
        self.gains = Gains(embedding, channels_in, channels_out) if gains else None
        self.enter = Conv(channels_in, wide[0], boundaries)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in pairwise(wide):
            self.down.append(self._level(fine, fine, blocks, embedding))
            self.shrink.append(Halve(fine, coarse, axes))
            self.grow.append(Double(coarse, fine, axes))
            self.up.append(self._level(2 * fine, fine, blocks, embedding))
        self.bottom_in = self._level(wide[-1], wide[-1], blocks, embedding)
        self.attention = Attention(wide[-1]) if attention else nn.Identity()
        self.bottom_out = self._level(wide[-1], wide[-1], blocks, embedding)
        self.leave = nn.Sequential(
            Norm(wide[0]), nn.SiLU(), Conv(wide[0], channels_out, boundaries, zero=True)
        )

    def _level(self, first: int, width: int, blocks: int, embedding: int) -> nn.ModuleList:
        sizes = [first] + [width] * blocks
        return nn.ModuleList(Block(a, b, self.boundaries, embedding) for a, b in pairwise(sizes))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """(batch, channels_in, *space), c_noise (batch,) → (batch, channels_out, *space)."""
        seen, more = x, [] if self.gains is None else [size(x)]
        embedding = self.embed(noise, *more)
        x = self.enter(x)
        skips: list[Tensor] = []
        for level, shrink in zip(self.down, self.shrink, strict=True):
            x = _run(level, x, embedding)
            skips.append(x)
            x = shrink(_even(x, self.boundaries))
        x = _run(self.bottom_in, x, embedding)
        x = self.attention(x)
        x = _run(self.bottom_out, x, embedding)
        for level, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            skip = skips.pop()
            x = _crop(grow(x), skip.shape[2:])
            x = _run(level, torch.cat([x, skip], dim=1), embedding)
        out: Tensor = self.leave(x)
        return out if self.gains is None else out + self.gains(seen, embedding)


def _run(level: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    for block in level.children():
        x = block(x, embedding)
    return x


def _even(x: Tensor, boundaries: Sequence[Boundary]) -> Tensor:
    """One more cell at the end of each odd axis."""
    space = x.shape[2:]
    if all(n % 2 == 0 for n in space):
        return x
    beyond = pad(x, 1, boundaries)
    for dim, n in enumerate(space, start=2):
        beyond = beyond.narrow(dim, 1, n + n % 2)
    return beyond


def _crop(x: Tensor, space: Sequence[int]) -> Tensor:
    for dim, n in enumerate(space, start=2):
        x = x.narrow(dim, 0, n)
    return x
