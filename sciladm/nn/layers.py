"""Building blocks on tensors (batch, channel, *space), one to three space axes, each with its own
end: a convolution carries the field on as `sciladm.grid.pad` says and never pads with zeros."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciladm.grid import Boundary, pad

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
LEAST, SPREAD = 1e-6, 4.0
"""Of a mean square, and what its ln is divided by."""
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Conv(nn.Module):
    """Convolution with an odd kernel that keeps the size; weights ~ N(0, 1/fan-in) or zero."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        boundaries: Sequence[Boundary],
        kernel: int = 3,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.boundaries = tuple(boundaries)
        self.width = kernel // 2
        size = (channels_out, channels_in, *[kernel] * len(self.boundaries))
        std = 0.0 if zero else 1 / math.sqrt(channels_in * kernel ** len(self.boundaries))
        self.weight = nn.Parameter(torch.randn(size) * std)
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels_in, *space) → (batch, channels_out, *space)."""
        x = pad(x, self.width, self.boundaries)
        return CONVOLUTIONS[len(self.boundaries)](x, self.weight, self.bias)


class Halve(nn.Module):
    """Blocks of 2 × 2 cells become one; every axis must be even."""

    def __init__(self, channels_in: int, channels_out: int, axes: int) -> None:
        super().__init__()
        self.axes = axes
        std = 1 / math.sqrt(channels_in * 2**axes)
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, *[2] * axes) * std)
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels_in, *space) → (batch, channels_out, *space / 2)."""
        return CONVOLUTIONS[self.axes](x, self.weight, self.bias, stride=2)


class Double(nn.Module):
    """One cell becomes 2 × 2 cells."""

    def __init__(self, channels_in: int, channels_out: int, axes: int) -> None:
        super().__init__()
        self.axes = axes
        std = 1 / math.sqrt(channels_in)
        self.weight = nn.Parameter(torch.randn(channels_in, channels_out, *[2] * axes) * std)
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels_in, *space) → (batch, channels_out, *2 · space)."""
        return TRANSPOSED[self.axes](x, self.weight, self.bias, stride=2)


class Norm(nn.Module):
    """Group normalisation without a learned scale: what follows it modulates or mixes anyway."""

    def __init__(self, channels: int, group: int = 16) -> None:
        super().__init__()
        self.groups = max(1, channels // group)
        while channels % self.groups:
            self.groups -= 1

    def forward(self, x: Tensor) -> Tensor:
        """Zero mean and unit variance over each group of channels and all cells of a sample."""
        return F.group_norm(x, self.groups)


class Fourier(nn.Module):
    """A number, and ``more`` beside it → the embedding that modulates every block: fixed sines,
    then two layers."""

    frequencies: Tensor

    def __init__(self, width: int, sines: int = 32, more: int = 0) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * torch.pi * torch.logspace(-2, 1, sines))
        self.mix = nn.Sequential(
            nn.Linear(2 * sines + more, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        """(batch,), (batch, more) → (batch, width)."""
        angle = x[:, None] * self.frequencies
        mixed: Tensor = self.mix(torch.cat([angle.sin(), angle.cos(), *more], dim=1))
        return mixed


class Gains(nn.Module):
    """A linear map of each cell's channels, the same in every cell, that an embedding decides;
    zero at the start. What is normalised in every block cannot say: as it is, but half of it."""

    def __init__(self, embedding: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.shape = channels_out, channels_in
        self.weight = nn.Linear(embedding, channels_out * channels_in)
        nn.init.zeros_(self.weight.weight)
        nn.init.zeros_(self.weight.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(batch, channels_in, *space), (batch, embedding) → (batch, channels_out, *space)."""
        weight: Tensor = self.weight(embedding).view(len(x), *self.shape)
        return (weight @ x.flatten(2)).view(len(x), -1, *x.shape[2:])


def size(x: Tensor) -> Tensor:
    """How large each channel of a sample is: ln of its mean square over cells (batch, channel)."""
    return (x.flatten(2).square().mean(2) + LEAST).log() / SPREAD


class Block(nn.Module):
    """x + conv(silu(film(norm(conv(silu(norm(x))))))); the last convolution starts at zero.

    `embedding` is the width of the vector that scales and shifts (FiLM, arXiv:1709.07871);
    0 leaves it out.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        boundaries: Sequence[Boundary],
        embedding: int = 0,
    ) -> None:
        super().__init__()
        self.norm_in, self.norm_mid = Norm(channels_in), Norm(channels_out)
        self.conv_in = Conv(channels_in, channels_out, boundaries)
        self.conv_out = Conv(channels_out, channels_out, boundaries, zero=True)
        self.film = nn.Linear(embedding, 2 * channels_out) if embedding else None
        self.skip = (
            Conv(channels_in, channels_out, boundaries, kernel=1)
            if channels_in != channels_out
            else nn.Identity()
        )

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """(batch, channels_in, *space), (batch, embedding) → (batch, channels_out, *space)."""
        y = self.norm_mid(self.conv_in(F.silu(self.norm_in(x))))
        if self.film is not None and embedding is not None:
            scale, shift = self.film(embedding)[(..., *[None] * (x.ndim - 2))].chunk(2, dim=1)
            y = torch.addcmul(shift, y, 1 + scale)
        out: Tensor = self.skip(x) + self.conv_out(F.silu(y))
        return out


class Attention(nn.Module):
    """Every cell looks at every other one; added to x, zero at the start."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, *space) → the same."""
        batch, channels, *space = x.shape
        cells = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(cells).view(batch, -1, 3, self.heads, channels // self.heads).unbind(2)
        seen = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        )
        mixed: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return x + mixed.transpose(1, 2).reshape(batch, channels, *space)
