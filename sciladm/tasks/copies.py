"""Copies of states that differ from them by a told amount: noised, and drawn again.

Departures r are white, so noise leaves the same share of every pattern. What the autoencoder lost
of a state is mixed with what it usually loses by the same share, or small scales would all be new
however little noise there is.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sciladm.data.times import Times, ticks
from sciladm.diffusion.noise import Key, unit_normal
from sciladm.diffusion.sampler import Near
from sciladm.model import Model
from sciladm.tasks.gaps import series
from sciladm.tasks.run import THREADS
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

    @torch.inference_mode()
    def block(self, window: Window, first: int) -> Array:
        """A micro-batch of copies of a window, from member number ``first`` on:
        (member, future, channel, *space)."""
        model, denoiser, past = self.model, self.model.denoiser, self.model.recipe.window.past
        size = model.recipe.micro_batch
        if self.strength.asked == 0:
            return np.repeat(self.values[window.numbers[past:]][None], size, axis=0)
        times = self.times[window.numbers]
        x = model.anomalies(self.values[window.numbers], times)
        z = model.autoencoder.encode(x, model.statics)
        lost = (x - model.autoencoder.decode(z, model.statics))[past:]
        known, own = (part.flatten(0, 1).expand(size, -1, *model.grid.shape)
                      for part in (z[:past], z[past:]))  # fmt: skip
        forcings = model.forcings(times[past:]).expand(size, -1, *model.grid.shape)
        context = denoiser.context(known, forcings, model.latent_statics)
        keys = self._keys(times[past], first)
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
        return np.stack(out, axis=1)

    def draw(
        self, windows: list[Window], members: int, workers: int
    ) -> Iterator[tuple[Window, slice, Array]]:
        """All members of some windows: the window, which members, and their frames (member,
        future, channel, *space); ``workers`` micro-batches side by side, one thread each."""
        model = self.model
        _ = model.sampler, model.latent_statics, model.residual, model.denoiser
        starts = range(0, members, model.recipe.micro_batch)
        asked = [(window, first) for window in windows for first in starts]
        with ThreadPoolExecutor(
            workers, initializer=torch.set_num_threads, initargs=(THREADS,)
        ) as threads:
            drawn = threads.map(lambda one: self.block(*one), asked)
            for (window, first), states in zip(asked, drawn, strict=True):
                yield window, slice(first, members), states[: members - first]

    def _keys(self, time: np.datetime64, first: int) -> list[Key]:
        (valid,) = ticks(np.array([time]))
        members = range(first, first + self.model.recipe.micro_batch)
        return [Key(self.seed, int(valid), 0, m) for m in members]
