"""Copies of states that differ from them by a told amount: noised, and drawn again.

Departures r are white, so noise leaves the same share of every pattern. What the autoencoder lost
of a state is mixed with what it usually loses by the same share, or small scales would all be new
however little noise there is.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from sciladm.data.times import Times, ticks
from sciladm.diffusion.noise import Key, unit_normal
from sciladm.diffusion.sampler import Near
from sciladm.model import Model
from sciladm.tasks.gaps import series
from sciladm.tasks.run import side_by_side
from sciladm.tasks.strength import Strength

Array = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Numbers of the states of a window (past + future,), and which of its frames are ``new``
    (future,): not covered by the window before. ``kept`` are the numbers of these."""

    numbers: Ints
    new: NDArray[np.bool_]

    @property
    def kept(self) -> Ints:
        """See above."""
        return self.numbers[-len(self.new) :][self.new]


def cover(times: Times, model: Model) -> Iterator[Window]:
    """Windows side by side over each series; the last of one reaches back where it has to."""
    past, future = model.recipe.window.past, model.recipe.window.future
    for numbers in series(times, model):
        frames = len(numbers) - past
        for done in range(0, frames if frames >= future else 0, future):
            start = min(done, frames - future)
            new = np.arange(start, start + future) >= done
            yield Window(numbers[start : start + past + future], new)


@dataclass(frozen=True, eq=False)
class Copies:
    """Copies of states: ``values`` (time, channel, *space) at sorted ``times``, in the units of
    the channels, where data can be without NaN."""

    model: Model
    times: Times
    values: Array
    strength: Strength
    seed: int

    @cached_property
    def windows(self) -> list[Window]:
        """What is drawn together; of originals each is by itself."""
        if self.strength.asked == 0:
            return [Window(np.array([n]), np.array([True])) for n in range(len(self.times))]
        return list(cover(self.times, self.model))

    def blocks(self, windows: list[Window], members: int) -> list[tuple[Window, range]]:
        """The micro-batches of members of one window after another."""
        model, size = self.model, self.model.recipe.micro_batch
        _ = model.sampler, model.latent_statics  # made once, before several threads want them
        parts = [range(m, min(m + size, members)) for m in range(0, members, size)]
        return [(window, part) for window in windows for part in parts]

    @torch.inference_mode()
    def block(self, window: Window, members: range) -> Array:
        """Copies of a window, one micro-batch at most: (member, future, channel, *space)."""
        model, denoiser, past = self.model, self.model.denoiser, self.model.recipe.window.past
        size = model.recipe.micro_batch
        if self.strength.asked == 0:
            future = window.numbers[-len(window.new) :]
            return np.repeat(self.values[None, future], len(members), axis=0)
        times = self.times[window.numbers]
        x = model.anomalies(self.values[window.numbers], times)
        z = model.autoencoder.encode(x, model.statics)
        lost = (x - model.autoencoder.decode(z, model.statics))[past:]
        known, own = (part.flatten(0, 1).expand(size, -1, *model.grid.shape)
                      for part in (z[:past], z[past:]))  # fmt: skip
        forcings = model.forcings(times[past:]).expand(size, -1, *model.grid.shape)
        context = denoiser.context(known, forcings, model.latent_statics)
        keys = self._keys(times[past], members[0])
        sampler, kept = self.strength.sampler, self.strength.kept
        near = Near(sampler, denoiser.white(own, context)) if sampler else None
        drawn = model.draw(context, keys, near)
        out = []
        for n, time in enumerate(times[past:]):
            fields = model.autoencoder.decode(drawn[:, n], model.statics)
            shape = model.residual.numbers, model.grid.shape
            other = model.residual.draw(unit_normal(keys, "residual", n, *shape).to(lost))
            fields += kept * lost[n] + math.sqrt(1 - kept**2) * other
            same = np.repeat(time, size)
            states = model.normaliser.denormalise(fields.cpu().numpy(), same)
            out.append(np.where(model.normaliser.valid, states, np.float32(np.nan)))
        return np.stack(out, axis=1)[: len(members)]

    def draw(
        self, windows: list[Window], members: int, workers: int
    ) -> Iterator[tuple[tuple[Window, range], Array]]:
        """All `blocks` of some windows with the copies in each, ``workers`` of them side by side,
        one thread each."""
        asked = self.blocks(windows, members)
        return side_by_side(lambda one: self.block(*one), asked, workers)

    def _keys(self, time: np.datetime64, first: int) -> list[Key]:
        (valid,) = ticks(np.array([time]))
        members = range(first, first + self.model.recipe.micro_batch)
        return [Key(self.seed, int(valid), 0, m) for m in members]
