"""Frames of a series, drawn given what was observed of them.

A series falls into draws of the run's window. What was observed in the frames of a draw guides it
(`diffusion.posterior`); a run without past frames draws a window by itself, and the frames that
two windows share tell the second one what the first has drawn.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciladm.autoencoder.observed import Observed
from sciladm.calendar import later
from sciladm.data.times import Times, ticks
from sciladm.diffusion.denoiser import Context
from sciladm.diffusion.known import Informed, Law
from sciladm.diffusion.nearest import nearest
from sciladm.diffusion.noise import Key, unit_normal
from sciladm.diffusion.posterior import Curvature, Observations, Posterior, Product, norm
from sciladm.diffusion.sampler import Multistep
from sciladm.model import Model
from sciladm.tasks.besides import Besides
from sciladm.tasks.seen import Frame, Precise, Seen, apart

Array = NDArray[np.float32]
Method = Literal["amortised", "guided", "oi"]
"""By a denoiser that was trained with masks, by any denoiser, or by optimal interpolation: what
its fitted covariance alone knows."""
ENOUGH = {"amortised": 0.05, "guided": 0.05, "oi": 0.01}
"""Share of its equations that a method may leave unsolved."""
MOST = {"guided": 25, "oi": 300}
"""Products in which it has to be done, per noise level; four times as many where less is asked
to be left."""
BENDS = 12
"""How often, at most, a bending decoder is followed."""
NEAR = 0.1
"""Standard errors, of all observations together, to which a bending decoder is followed."""
SMALLEST = 0.02
"""Last σ of a guided draw, in standard deviations."""


@dataclass(frozen=True)
class Plan:
    """Which frames the draws of a series have: windows of `length`, `fixed` of which are taken
    from the draw before and `ahead` drawn again in the next, so that every frame that is kept
    knows what was observed after it."""

    length: int
    fixed: int
    ahead: int

    @classmethod
    def of(cls, past: int, future: int) -> "Plan":
        """For a window; known frames in the past need none of the drawn ones fixed."""
        fixed = 0 if past or future == 1 else max(1, future // 3)
        return cls(future, fixed, (future - fixed) // 2)

    def starts(self, frames: int) -> list[int]:
        """First frames of the windows that cover so many; the last may reach beyond."""
        step = self.length - self.fixed - self.ahead
        count = max(0, -(-(frames - self.length) // step)) + 1
        return [step * n for n in range(count)]


class Made(TypedDict, total=False):
    """What draws of a window have in common, as far as it is made."""

    law: tuple[Tensor, Law]
    curvature: Curvature | None


@dataclass(eq=False)
class _Batch:
    """Members as far as they are drawn: frames and latents, each (member, channel, *space)."""

    members: range
    frames: list[Tensor]
    latents: list[Tensor]


@dataclass(frozen=True, eq=False)
class Given:
    """Frames at ``times``, a step apart: ``values`` (time, channel, *space) in anomalies, 0 where
    not ``observed``; ``error``, standard errors in the same units; ``besides``, what else was
    observed of each, in the same units, too; ``past`` (member, past, channel, *space): known
    frames that differ from member to member, in place of the first of ``values``."""

    model: Model
    precise: Precise
    times: Times
    values: Tensor
    observed: Tensor
    error: Tensor
    method: Method
    evaluations: int
    seed: int
    besides: Sequence[Besides] = ()
    past: Tensor | None = None
    tol: float | None = None
    """Share that may be left; absent: `ENOUGH`."""
    left: list[float] = field(default_factory=list)
    """Of each draw, the largest share of its equations that was left unsolved."""

    def members(self, first: int) -> Array:
        """A micro-batch of members from number ``first`` on (member, time, channel, *space),
        anomalies."""
        return next(self.each([first]))

    def each(self, firsts: Iterable[int]) -> Iterator[Array]:
        """As `members`, of several micro-batches. They go through the windows together, so that
        what makes a window's equations easy is made once if their pasts are the same."""
        window, size = self.model.recipe.window, self.model.recipe.micro_batch
        plan, known = Plan.of(window.past, window.future), window.past
        batches = [self._begin(range(first, first + size)) for first in firsts]
        for start in plan.starts(len(self.times) - known):
            here = np.arange(known + start, known + start + plan.length)
            nothing_lacks = here[-1] < len(self.times) and self._whole[here].all()
            made: Made = {}
            for batch in batches:
                if nothing_lacks:
                    self._take(batch, here)
                else:
                    self._go_on(batch, here, plan.fixed if start else 0, {} if known else made)
        for batch in batches:
            yield torch.stack(batch.frames[: len(self.times)], dim=1).cpu().numpy()

    @property
    def bounds(self) -> tuple[float, int]:
        """The share of equations that may be left, and products at most."""
        enough, most = ENOUGH[self.method], MOST[self.method]
        tol = enough if self.tol is None else self.tol
        return tol, most if tol >= enough else 4 * most

    @cached_property
    def _whole(self) -> Tensor:
        """Which frames are known."""
        whole = (self.observed | ~self.model.valid) & (self.error == 0)
        return whole.flatten(1).all(1)

    def _follows_draws(self, here: NDArray[np.int64]) -> bool:
        """Whether what members go on from differs."""
        known = self.model.recipe.window.past
        drawn = not self._whole[here[0] - known : here[0]].all()
        return drawn or (here[0] == known and self.past is not None and len(self.past) > 1)

    def _begin(self, members: range) -> _Batch:
        """The known frames that draws begin from."""
        if self.past is not None:
            frames = list(self.past[[m % len(self.past) for m in members]].unbind(1))
        else:
            known = self.values[: self.model.recipe.window.past]
            frames = [x.expand(len(members), *x.shape) for x in known]
        return _Batch(members, frames, [self._encoded(x) for x in frames])

    def _take(self, batch: _Batch, here: NDArray[np.int64]) -> None:
        """Frames as they were observed."""
        frames = [x.expand(len(batch.members), *x.shape) for x in self.values[here]]
        batch.frames[here[0] :] = frames
        batch.latents[here[0] :] = [self._encoded(x) for x in frames]

    def _go_on(self, batch: _Batch, here: NDArray[np.int64], fixed: int, made: Made) -> None:
        """The next window, ``fixed`` frames of which stay as they are."""
        at, known = here[0], self.model.recipe.window.past
        held, kept = batch.frames[at : at + fixed], batch.latents[at : at + fixed]
        past = torch.stack(batch.latents[at - known : at], dim=1) if known else None
        z, x = self._draw(here, past, kept, batch.members, made)
        batch.frames[at:], batch.latents[at:] = held + x[fixed:], kept + z[fixed:]

    def _encoded(self, fields: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model.autoencoder.encode(fields, self.model.statics)

    def _draw(
        self,
        here: NDArray[np.int64],
        past: Tensor | None,
        kept: list[Tensor],
        members: range,
        made: Made,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Latents and fields of the frames of one window; ``made``: what there is already of what
        its draws have in common."""
        model, denoiser = self.model, self.model.denoiser
        times = self._times(here)
        seen = self._seen(here, kept)
        keys = self._keys(times[0], members)
        forcings = model.forcings(times).expand(len(keys), -1, *model.grid.shape)
        known = forcings[:, :0] if past is None else past.flatten(1, 2)
        with torch.no_grad():
            context = denoiser.context(known, forcings, model.latent_statics)
        noise = unit_normal(keys, "denoiser", 0, context.mean.shape[1], model.grid.shape)
        noise = noise.to(model.device).double()
        precise, later = context.double(), self._follows_draws(here)
        usual = replace(precise, mean=precise.mean[:1], scale=precise.scale.mean(0, keepdim=True))
        rows, clean = seen.rows, self.precise.clean
        told = lambda r: seen.told(clean(r, usual, later))[:, rows]
        asked = Observations(
            lambda r: seen.told(clean(r, precise, later))[:, rows], seen.wanted[:, rows]
        )
        if self.method == "amortised":
            if "law" not in made:
                pulled = seen.pulled(self.precise.response(later))
                said = self.precise.coloured(usual.scale) @ pulled
                made["law"] = said, Law.of(said, noise.shape[1:])
            r, left = self._amortised(noise, asked, *made["law"], context)
        else:
            if "curvature" not in made:
                made["curvature"] = Curvature.of(told, noise[:1], int(rows.sum()))
            curvature = made["curvature"]
            if self.method == "oi":
                r, left = self._interpolated(noise, asked, curvature, keys)
            else:
                r, left = self._guided(noise, asked, curvature, context)
        self.left.append(left)
        with torch.no_grad():
            z = clean(r, precise, later)
            fields = [
                self._completed(
                    x, seen.frames[n], self._keys(times[n], members), fixed=n < len(kept)
                )
                for n, x in enumerate(seen.decoded(z))
            ]
        return list(apart(z.float(), len(here)).unbind(1)), fields

    @torch.no_grad()
    def _amortised(
        self, noise: Tensor, asked: Observations, said: Tensor, law: Law, context: Context
    ) -> tuple[Tensor, float]:
        """By a denoiser that was trained to see what was observed. The decoder is taken for
        straight (``said``) around what observations tell of its latents; how far it bends from
        there to the draws is what is left."""
        denoiser = self.model.denoiser
        assert isinstance(denoiser, Informed)
        bent: Product = lambda r: asked.told(r) - r.flatten(1) @ said
        wanted, offset = asked.wanted, bent(torch.zeros_like(noise))
        for _ in range(BENDS):
            known = law.given((wanted - offset) @ said.T)
            offset, before = bent(known.mean), offset
            if norm(offset - before).max() < NEAR:
                break
        told = known.float()
        denoise = lambda x, sigma: denoiser(x, sigma, context, told)
        sampler = Multistep(self.evaluations, self.model.sigma_max, SMALLEST, corrector=False)
        r = sampler.sample(denoise, noise.float()).double()
        off = norm(bent(r) - offset) / norm(wanted - offset).clamp(min=1e-30)
        return r, float(off.max())

    def _guided(
        self, noise: Tensor, asked: Observations, curvature: Curvature | None, context: Context
    ) -> tuple[Tensor, float]:
        """By the denoiser, in which observations are taken up at every noise level."""
        top = self.model.sigma_max
        sampler = Multistep(self.evaluations, top, SMALLEST, corrector=False)
        denoise = lambda x, sigma: self.model.denoiser(x.float(), sigma, context).double()
        prior = lambda sigma: lambda x: x * (sigma**2 / (1 + sigma**2))
        guided = Posterior(denoise, asked, prior, 1.0, *self.bounds, curvature)
        return sampler.sample(guided, noise), guided.left[-1]

    def _interpolated(
        self, noise: Tensor, asked: Observations, curvature: Curvature | None, keys: Sequence[Key]
    ) -> tuple[Tensor, float]:
        """By the covariance alone."""
        error = unit_normal(keys, "observation error", 0, asked.wanted.shape[1], (1,))
        wanted = asked.wanted - error.flatten(1).to(noise)
        return nearest(noise, replace(asked, wanted=wanted), curvature, *self.bounds)

    def _completed(
        self,
        decoded: Tensor,
        seen: Frame,
        keys: Sequence[Key],
        *,
        fixed: bool,
    ) -> Tensor:
        """A frame with what decoding left of it, as far as the observations leave that free."""
        model = self.model
        if fixed:
            return decoded.float()
        normal = unit_normal(keys, "residual", 0, model.residual.numbers, model.grid.shape)
        error = unit_normal(keys, "error", 0, decoded.shape[1], decoded.shape[2:])
        told = decoded, model.residual.draw(normal.to(model.device)).double(), error.to(decoded)
        if isinstance(seen, Observed):
            return (decoded + seen.residual(*told)).float()
        rows = unit_normal(keys, "row error", 0, len(seen.values), (1,)).flatten(1)
        return (decoded + seen.residual(*told, rows.to(decoded))).float()

    def _seen(self, here: NDArray[np.int64], kept: list[Tensor]) -> Seen:
        """What is told of the frames of a window: as decoded of those that are ``kept``."""
        frames: list[Frame] = []
        for n, number in enumerate(here):
            if n < len(kept):
                with torch.no_grad():
                    told = self.model.autoencoder.decode(kept[n], self.model.statics)
                none = torch.zeros_like(self.error[0])
                frames.append(self._observed(told, none, self.model.valid))
            elif number < len(self.times):
                cells = self._observed(
                    self.values[number], self.error[number], self.observed[number]
                )
                frames.append(self.besides[number].beside(cells) if self.besides else cells)
            else:
                none = torch.zeros_like(self.values[0])
                frames.append(self._observed(none, none, none.bool()))
        return Seen(self.precise.autoencoder, self.model.statics.double(), frames)

    def _observed(self, values: Tensor, error: Tensor, observed: Tensor) -> Observed:
        return Observed.of(values.double(), error, observed, self.model.residual)

    def _times(self, here: NDArray[np.int64]) -> Times:
        return later(self.times[0], np.asarray(here) * self.model.step)

    def _keys(self, time: np.datetime64, members: range) -> list[Key]:
        (valid,) = ticks(np.array([time]))
        return [Key(self.seed, int(valid), 0, m) for m in members]
