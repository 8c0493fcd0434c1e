"""Autoencoder for fields without holes, on the sphere or any part of a plane: a linear path in
closed form, plus what a small network adds to it."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sciladm.autoencoder.patches import Patches
from sciladm.grid import Grid
from sciladm.nn.layers import Block, Conv, Norm
from sciladm.nn.linear import LocalLinear, borne_out
from sciladm.nn.shrink import TINY, grown, total

OWN = 50
"""Samples' worth by which what a cell alone adds in decoding is drawn to nothing."""
LARGEST = 1 << 26
"""Numbers of such a map (256 MiB) beyond which cells have none."""
LEAST = 0.1
"""Of a cell's standard deviation, as a share of its row's."""


class PatchAutoencoder(nn.Module):
    """Blocks of p × p cells → `latents` numbers each, one basis for all positions.

    u = Eᵀ y / s + f(y, place)        z = v / √(1 + v²/b²),  v = (u − μ) / σ
    y = L (u in the patch and its neighbours) + l u + g(u, place)

    with y a patch of x / w, w (channel, *space) the standard deviation of each cell as a share of
    its row's, E and s its leading principal components and their root mean squares (area
    weighted), L the least squares map of each latitude (`LocalLinear`): smooth fields lie in
    their neighbours too, and L finds several times more there than Eᵀ gives back. l is the least
    squares map of what L leaves, each cell's own: the air near the sea is not that near land. w,
    E, s, L and l are in closed form and fixed; f and g are networks at latent resolution that
    start at zero, μ and σ the statistics of u over the training data. But for w and l, along a
    periodic axis it moves with the data by whole patches.
    """

    area: Tensor
    place: Tensor
    cell_area: Tensor
    rows: Tensor
    usual: Tensor
    basis: Tensor
    scale: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        grid: Grid,
        channels: int,
        statics: int,
        latents: int = 48,
        patch: int = 4,
        width: int = 96,
        blocks: int = 2,
        bound: float = 8.0,
    ) -> None:
        super().__init__()
        self.patches = patches = Patches(grid.shape, grid.boundaries, patch)
        size, features = patches.size(channels), grid.features()
        if not 1 <= latents <= size:
            raise ValueError(f"latents must lie in 1 … {size} (channels · patchᵈ); got {latents}")
        self.bound = bound
        area = np.bincount(patches.owner().flatten().numpy(), grid.area.flatten())
        self.register_buffer("area", torch.from_numpy(grid.area.astype(np.float32)))
        self.register_buffer("place", torch.from_numpy(features))
        self.register_buffer("cell_area", torch.from_numpy(area).float().reshape(patches.cells))
        rows = torch.from_numpy(grid.coarsen(patch).rows())
        self.linear = LocalLinear(latents, size, rows, patches.boundaries)
        self.alone: LocalLinear | None = None
        if rows.numel() * size * latents <= LARGEST:
            self.alone = LocalLinear(latents, size, rows, patches.boundaries, local=OWN, reach=0)
        self.register_buffer("rows", torch.from_numpy(grid.rows()), persistent=False)
        self.register_buffer("usual", torch.ones(channels, *grid.shape))
        self.register_buffer("basis", torch.eye(size, latents))
        self.register_buffer("scale", torch.ones(latents))
        self.register_buffer("centre", torch.zeros(latents))
        self.register_buffer("spread", torch.ones(latents))
        around = patches.size(statics + len(features))
        self.encoder = _network(size + around, latents, width, blocks, patches)
        self.decoder = _network(latents + around, size, width, blocks, patches)

    def encode(self, x: Tensor, statics: Tensor) -> Tensor:
        """(batch, channel, *space) → (batch, latents, *cells), |z| < bound."""
        u = self._encode_raw(x, statics)
        v = (u - _along(self.centre, u)) / _along(self.spread, u)
        return v * (1 + (v / self.bound) ** 2).rsqrt()

    def decode(self, z: Tensor, statics: Tensor) -> Tensor:
        """(batch, latents, *cells) → (batch, channel, *space)."""
        z = z.clamp(-0.995 * self.bound, 0.995 * self.bound)
        v = z * (1 - (z / self.bound) ** 2).rsqrt()
        return self._decode_raw(v * _along(self.spread, z) + _along(self.centre, z), statics)

    def loss(
        self, x: Tensor, statics: Tensor, noise: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """Area-weighted mean square of what is lost, in normalised units, with `noise` (batch,
        latents, *cells) of a few per cent added to the whitened latents, so that the decoder
        bears the errors of a generated latent and no latent channel carries next to nothing.
        `valid` (True = counts) broadcasts against x."""
        u = self._encode_raw(x, statics)
        area = self.cell_area / len(u)
        across = [0, *range(2, u.ndim)]
        mean = (u * area).sum(across)
        spread = ((u - _along(mean, u)).square() * area).sum(across).sqrt()
        error = self._decode_raw(u + noise * _along(spread, u), statics) - x
        weight = self.area.expand_as(x)
        if valid is not None:
            weight = weight * valid
            error = error.where(valid, 0.0)
        return (error.square() * weight).sum() / weight.sum()

    @torch.no_grad()
    def fit_linear(self, samples: Sequence[Tensor], noise: float = 0.03) -> None:
        """E, s and L from `samples`, batches (n, channel, *space); sums in float64, signs so that
        the largest entry of each component is positive. L bears errors of the latents with a
        standard deviation of `noise`."""
        size, latents = self.basis.shape
        self._measure(samples)
        samples = [x / self.usual for x in samples]
        second = torch.zeros(size, size, dtype=torch.float64)
        first = torch.zeros(size, dtype=torch.float64)
        area, count = self.cell_area.flatten().double().cpu(), 0
        for x in samples:
            y = self.patches.split(x).flatten(2).double().cpu()
            second += torch.einsum("bic,bjc->ij", y * area, y)
            first += (y * area).sum((0, 2))
            count += len(x)
        values, vectors = torch.linalg.eigh(second / count)
        basis = vectors.flip(1)[:, :latents]
        largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
        basis = basis * largest.sign()
        scale = values.flip(0)[:latents].clamp(min=1e-12).sqrt()
        centre = basis.T @ (first / count) / scale
        self.basis.copy_(basis)
        self.scale.copy_(scale)
        self.centre.copy_(centre)
        self.spread.copy_((1 - centre**2).clamp(min=1e-12).sqrt())
        pairs = [(self._project(y), y) for y in map(self.patches.split, samples)]
        self.linear.fit(((u, None, y) for u, y in pairs), ridge=noise**2)
        if self.alone is not None:
            self.alone.fit(((u, None, y - self.linear(u)) for u, y in pairs), ridge=noise**2)

    def _measure(self, samples: Sequence[Tensor]) -> None:
        """w: standard deviations of each cell, as far as samples tell it from its row."""
        squares = torch.stack([x.double().cpu().square().sum(0) for x in samples]).sum(0)
        square, rows = squares.flatten(1).T, self.rows.flatten().cpu()
        there = square > 0
        before = total(square, rows) / total(there.double(), rows).clamp(min=1)
        ratio = grown(
            square.where(there, TINY), before.where(there, TINY), rows, sum(map(len, samples))
        ).sqrt()
        self.usual.copy_(ratio.clamp(min=LEAST).where(there, 1).T.view_as(self.usual))

    @torch.no_grad()
    def keep(self, samples: Sequence[Tensor]) -> None:
        """Of l as much as other samples bear out."""
        alone = self.alone
        if alone is None:
            return
        each = (self.patches.split(x / self.usual) for x in samples)
        told = ((self._project(y), y) for y in each)
        share = borne_out(((alone(u), y - self.linear(u)) for u, y in told), self.cell_area)
        alone.weight.mul_(share)

    @torch.no_grad()
    def whiten(self, samples: Iterable[Tensor], statics: Tensor) -> None:
        """Set μ and σ to the area-weighted statistics of u over `samples`; after training."""
        first = torch.zeros(len(self.centre), dtype=torch.float64, device=self.centre.device)
        second, count = torch.zeros_like(first), 0
        for x in samples:
            u = self._encode_raw(x, statics).flatten(2).double()
            weighted = u * self.cell_area.flatten()
            first += weighted.sum((0, 2))
            second += (weighted * u).sum((0, 2))
            count += len(x)
        mean = first / count
        self.centre.copy_(mean)
        self.spread.copy_((second / count - mean**2).clamp(min=1e-12).sqrt())

    def importance(self) -> Tensor:
        """Share of the variance of x / w that each latent channel carries (latents,); the sum is
        1."""
        carried = (self.scale * self.spread).square()
        return carried / carried.sum()

    def decoded(self) -> Tensor:
        """M (channel, latents, latents): zᵀ M z is the mean square over a patch of x / w that
        latents z have in each channel along the principal components."""
        cells = self.patches.size(1)
        decoded = self.basis * self.scale * self.spread
        decoded = decoded.view(-1, cells, decoded.shape[1])
        return torch.einsum("cri,crj->cij", decoded, decoded) / cells

    def along_linear(self, z: Tensor) -> Tensor:
        """(batch, latents, *cells) → (batch, channel, *space): `decode` by the linear path alone
        and without bounds, so that differences are what small differences decode to."""
        return self.usual * self.patches.join(self._linearly(z * _along(self.spread, z)))

    def _linearly(self, u: Tensor) -> Tensor:
        y: Tensor = self.linear(u)
        return y if self.alone is None else y + self.alone(u)

    def _encode_raw(self, x: Tensor, statics: Tensor) -> Tensor:
        y = self.patches.split(x / self.usual)
        u = self._project(y)
        if self.encoder is not None:
            u = u + self.encoder(torch.cat([y, self._around(statics, y)], dim=1))
        return u

    def _project(self, y: Tensor) -> Tensor:
        return torch.einsum("bi...,ij->bj...", y, self.basis / self.scale)

    def _decode_raw(self, u: Tensor, statics: Tensor) -> Tensor:
        y = self._linearly(u)
        if self.decoder is not None:
            y = y + self.decoder(torch.cat([u, self._around(statics, u)], dim=1))
        fields: Tensor = self.usual * self.patches.join(y)
        return fields

    def _around(self, statics: Tensor, like: Tensor) -> Tensor:
        place = self.patches.split(torch.cat([statics, self.place])[None])
        return place.expand(len(like), *place.shape[1:])


def _network(
    channels_in: int, channels_out: int, width: int, blocks: int, patches: Patches
) -> nn.Sequential | None:
    """None where `blocks` is 0: the linear path alone."""
    if not blocks:
        return None
    ends = patches.boundaries
    return nn.Sequential(
        Conv(channels_in, width, ends),
        *(Block(width, width, ends) for _ in range(blocks)),
        Norm(width),
        nn.SiLU(),
        Conv(width, channels_out, ends, zero=True),
    )


def _along(vector: Tensor, like: Tensor) -> Tensor:
    """(channel,) → (channel, 1, …), to broadcast against (batch, channel, *space)."""
    return vector.view(-1, *[1] * (like.ndim - 2))
