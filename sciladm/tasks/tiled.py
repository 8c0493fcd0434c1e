"""A frame larger than the run's grid, drawn given what was observed of it.

Latents of the whole frame are noised by what they may depart from their mean: a Gaussian of the
run's covariance, itself drawn by tiles, so that whitened by any tile it is the white noise that
the network knows. Then each tile is denoised at every noise level given what was observed in it,
and halos are cropped as latents, which neighbours share; whitened numbers they do not share.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from sciladm.autoencoder.observed import Observed
from sciladm.diffusion.denoiser import Context
from sciladm.diffusion.noise import Key, unit_normal
from sciladm.diffusion.posterior import Curvature, Observations, Posterior
from sciladm.diffusion.sampler import Multistep
from sciladm.diffusion.sampler.base import Denoise
from sciladm.diffusion.tiles import Tile, Tiled, across
from sciladm.tasks.given import SMALLEST, Array, Given
from sciladm.tasks.run import THREADS
from sciladm.tasks.seen import Seen
from sciladm.tasks.wide import Wide

GAUSSIAN = 24
"""Evaluations for the noise: of a covariance, which costs little."""
ROOM = 1 << 29
"""Bytes for what makes the equations of all tiles easy; beyond it they are solved without."""


class GivenByTiles(Given):
    """One frame of a `Wide` run."""

    def each(self, firsts: Iterable[int]) -> Iterator[Array]:
        """As `Given`: (member, 1, channel, *space)."""
        model = cast(Wide, self.model)
        for first in firsts:
            keys = self._keys(self.times[0], range(first, first + model.recipe.micro_batch))
            with ThreadPoolExecutor(
                model.workers, initializer=torch.set_num_threads, initargs=(THREADS,)
            ) as threads:
                draw = Draw(self, model, keys, threads.submit(self._context, len(keys)).result())
                fields = draw.fields(draw.latents(draw.noise(threads), threads), threads)
            self.left.append(max(draw.left.values(), default=0.0))
            yield fields[:, None].cpu().numpy()

    @torch.no_grad()
    def _context(self, members: int) -> Context:
        """The same of every tile."""
        model = cast(Wide, self.model)
        forcings = model.forcings(self.times).expand(members, -1, *model.run.grid.shape)
        return model.denoiser.context(forcings[:, :0], forcings, model.latent_statics)


@dataclass(frozen=True, eq=False)
class Draw:
    """A micro-batch of members of a frame."""

    given: Given
    model: Wide
    keys: Sequence[Key]
    context: Context
    duals: dict[int, Tensor] = field(default_factory=dict)
    """Of each tile: what solved its equations at the noise level before."""
    known: dict[int, tuple[Seen, Curvature | None]] = field(default_factory=dict)
    left: dict[int, float] = field(default_factory=dict)
    """Of each tile, the share of its equations that was left unsolved."""

    @cached_property
    def _precise(self) -> Context:
        return self.context.double()

    @cached_property
    def _told(self) -> list[Tensor]:
        """Values, errors and what was observed (channel, *space), whole patches of each."""
        patch = self.model.recipe.autoencoder.patch
        sizes = self.model.fields.grid.shape
        beyond = [x for n in reversed(sizes) for x in (0, -n % patch)]
        own = self.given
        return [pad(x[0], beyond) for x in (own.values, own.error, own.observed)]

    @torch.no_grad()
    def noise(self, threads: Executor) -> Tensor:
        """As latents depart from their mean, as far as their covariance tells (member, k, *cells).

        Coloured tile by tile at one go, smooth fields would have seams.
        """
        base, departure = self.given.precise.denoiser.base, self.given.precise.denoiser.departure
        sizes = torch.cat([departure.amplitude.flatten(), departure.rest])
        sampler = Multistep(GAUSSIAN, 30 * float(sizes.max()), 0.3 * float(sizes.min()))
        smooth: Denoise = lambda x, sigma: departure.smooth(x.double(), sigma)
        nowhere = departure.placed(torch.zeros_like(self._precise.mean))
        spread: Denoise = lambda u, _sigma: base.joined(
            self._precise.scale * (departure.placed(u.double()) - nowhere)
        )
        u = sampler.sample(self._tiled(lambda _tile: smooth, threads), self._white())
        return self._tiled(lambda _tile: spread, threads)(u, 0.0)

    def latents(self, noise: Tensor, threads: Executor) -> Tensor:
        """Noise → latents (member, k, *cells), given what was observed."""
        top = self.model.sigma_max
        sampler = Multistep(self.given.evaluations, top, SMALLEST, corrector=False)
        return sampler.sample(self._tiled(self._denoise, threads), noise)

    @torch.no_grad()
    def fields(self, latents: Tensor, threads: Executor) -> Tensor:
        """As decoded, with what decoding leaves (member, channel, *space)."""
        _, channels, *sizes = self.given.values.shape
        patch = self.model.recipe.autoencoder.patch
        whole = [n * patch for n in self.model.grid.shape]
        out = torch.empty(len(latents), channels, *whole, device=latents.device)
        each = lambda tile: self._field(latents[across(tile.whole)], tile, whole)
        for tile, part in zip(self.model.tiles, threads.map(each, self.model.tiles), strict=True):
            out[across(self._cells(tile.kept))] = part[across(self._cells(tile.inner))]
        return out[across(tuple(slice(n) for n in sizes))]

    def _tiled(self, each: Callable[[Tile], Denoise], threads: Executor) -> Tiled:
        return Tiled(self.model.tiles, each, threads)

    def _white(self) -> Tensor:
        """White noise (member, k, *cells), some rows at a time."""
        shape, channels = self.model.grid.shape, self.context.mean.shape[1]
        bands = np.array_split(np.arange(shape[0]), -(-shape[0] // 64))
        rows = [
            unit_normal(
                self.keys, "denoiser", 0, channels, shape,
                (slice(int(band[0]), int(band[-1]) + 1), *(slice(n) for n in shape[1:])),
            )
            for band in bands
        ]  # fmt: skip
        return torch.cat(rows, dim=2).to(self.model.device)

    def _denoise(self, tile: Tile) -> Denoise:
        """Of a tile: noisy latents → those that are expected given what was observed in it."""
        exact = self.given.precise.denoiser

        def denoised(z: Tensor, sigma: float) -> Tensor:
            with torch.no_grad():
                x = exact.white(z.double(), self._precise)
            r = self._expected(tile, x, sigma)
            with torch.no_grad():
                return exact.clean(r, self._precise)

        return denoised

    def _expected(self, tile: Tile, x: Tensor, sigma: float) -> Tensor:
        """r of a tile, given x = r + σ n and what was observed in it."""
        method, exact = self.given.method, self.given.precise.denoiser
        gaussian: Denoise = lambda x, sigma: x / (1 + sigma**2)
        network: Denoise = lambda x, sigma: self.model.denoiser(
            x.float(), sigma, self.context
        ).double()
        denoise = network if method == "guided" else gaussian
        if not self._observed(tile):
            with torch.no_grad():
                return denoise(x, sigma)
        (seen, curvature), context = self._known(tile), self._precise
        rows = seen.rows
        told = lambda r: seen.told(exact.clean(r, context))[:, rows]
        prior = lambda sigma: lambda x: x * (sigma**2 / (1 + sigma**2))
        guided = Posterior(
            denoise, Observations(told, seen.wanted[:, rows]), prior,
            1.0 if method == "guided" else 0.0, *self.given.bounds, curvature,
        )  # fmt: skip
        if (before := self.duals.get(tile.number)) is not None:
            guided.dual = before.to(x)
        r = guided(x, sigma)
        assert guided.dual is not None
        self.duals[tile.number] = guided.dual.float()
        self.left[tile.number] = guided.left[-1]
        return r

    def _known(self, tile: Tile) -> tuple[Seen, Curvature | None]:
        """What was observed of a tile, and what makes its equations easy: made once, if there is
        room for all tiles'; else the first anew each time, and not the second."""
        if not self._room:
            return self._seen(tile), None
        if tile.number not in self.known:
            exact, one, seen = self.given.precise.denoiser, self._precise, self._seen(tile)
            usual = replace(one, mean=one.mean[:1], scale=one.scale.mean(0, keepdim=True))
            told = lambda r: seen.told(exact.clean(r, usual))[:, seen.rows]
            curvature = Curvature.of(told, one.mean[:1], int(seen.rows.sum()))
            self.known[tile.number] = seen, curvature
        return self.known[tile.number]

    @cached_property
    def _room(self) -> bool:
        """Whether there is."""
        counts = [int(self._told[2][:, *self._cells(t.whole)].sum()) for t in self.model.tiles]
        modes, covariance = self.context.mean[0].numel(), self.model.residual.covariance()
        each = [n * min(n, modes) + 2 * covariance.numel() for n in counts]
        return 8 * sum(each) <= ROOM

    @torch.no_grad()
    def _field(self, latents: Tensor, tile: Tile, whole: Sequence[int]) -> Tensor:
        """Of a tile (member, channel, *space)."""
        residual, shape = self.model.residual, self.model.grid.shape
        precise, statics = self.given.precise.autoencoder, self.model.run.statics.double()
        decoded = precise.decode(latents.double(), statics)
        normal = unit_normal(self.keys, "residual", 0, residual.numbers, shape, tile.whole)
        lost = residual.draw(normal.to(latents)).double()
        if self._observed(tile):
            place = self._cells(tile.whole)
            error = unit_normal(self.keys, "error", 0, decoded.shape[1], whole, place)
            (frame,) = self._seen(tile).frames
            lost = cast(Observed, frame).residual(decoded, lost, error.to(decoded))
        return (decoded + lost).float()

    def _observed(self, tile: Tile) -> bool:
        """Whether anything of it was."""
        return bool(self._told[2][:, *self._cells(tile.whole)].any())

    def _seen(self, tile: Tile) -> Seen:
        values, error, observed = (x[:, *self._cells(tile.whole)] for x in self._told)
        precise = self.given.precise.autoencoder
        told = Observed.of(values.double(), error, observed, self.model.residual)
        return Seen(precise, self.model.run.statics.double(), [told])

    def _cells(self, latent: Sequence[slice]) -> tuple[slice, ...]:
        """Slices of latent cells as slices of the fields."""
        patch = self.model.recipe.autoencoder.patch
        return tuple(slice(part.start * patch, part.stop * patch) for part in latent)
