"""From known states to an ensemble of what follows: blocks of members, in order, anywhere.

A block is one initial time × one micro-batch of members × all lead times. The network always sees
a whole micro-batch, member m in slot m mod B, and runs on one thread, so that a member's bits do
not depend on how many members, blocks or cores there are.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciladm.calendar import find, later
from sciladm.conventions import UserError, format_duration, parse_duration
from sciladm.data.frames import Frames
from sciladm.data.plan import Block
from sciladm.data.times import Times, calendar_of, ticks
from sciladm.diffusion.noise import Key
from sciladm.model import Model
from sciladm.recipe import Recipe
from sciladm.tasks.run import side_by_side

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Forecast:
    """An ensemble to be drawn: ``known(init)`` gives the latents (past, k, *cells) of the states
    up to initial time number ``init``."""

    model: Model
    known: Callable[[int], Tensor]
    init_times: Times
    leads: NDArray[np.timedelta64]
    seed: int

    def states(self, block: Block) -> Array:
        """Draw one block: (member, lead_time, channel, *space) in physical units."""
        model, size = self.model, self.model.recipe.micro_batch
        start = self.init_times[block.init]
        past = self.known(block.init).expand(size, -1, -1, *model.grid.shape)
        members = range(block.members.start, block.members.start + size)
        future, out = model.recipe.window.future, []
        for first in range(0, len(self.leads), future):
            times = later(start, self.leads[first : first + future])
            keys = [self._key(times[0], start, m) for m in members]
            frames = model.sample(past, times, keys, later=first > 0)
            for number, time in enumerate(times):
                own = [self._key(time, start, m) for m in members]
                states = model.decode(frames[:, number], np.repeat(time, size), own, ahead=True)
                out.append(states[: len(block.members)])
            past = torch.cat([past, frames], dim=1)[:, future:]
        return np.stack(out, axis=1)

    def _key(self, valid: np.datetime64, init: np.datetime64, member: int) -> Key:
        valid_time, init_time = (int(ticks(np.array([t]))[0]) for t in (valid, init))
        return Key(self.seed, valid_time, init_time, member)

    def draw(self, blocks: Iterable[Block], workers: int) -> Iterator[tuple[Block, Array]]:
        """The blocks in order, ``workers`` of them at a time, one thread each."""
        model = self.model
        _ = model.sampler, model.latent_statics, model.residual, model.denoiser, model.rolled
        return side_by_side(self.states, blocks, workers)


def from_states(
    model: Model,
    frames: Frames,
    init: NDArray[np.int64],
    leads: NDArray[np.timedelta64],
    seed: int,
) -> Forecast:
    """Forecasts from the states ``init`` (numbers) of a data set; states are read when needed.

    UserError, before anything is drawn, where one of them has a gap.
    """
    times = frames.times
    window = model.recipe.window
    if times.dtype.kind != "M":
        raise UserError(
            f"the data's times ({times[0]} …, calendar {calendar_of(times)}) are not on the "
            "standard calendar, which forecasts are written on; ds.convert_calendar('standard') "
            "converts them"
        )
    back = model.step * np.arange(window.past - 1, -1, -1)
    wanted = later(times[init][:, None], -back)
    needed = find(times, wanted, model.step)
    if (needed < 0).any():
        row, column = np.argwhere(needed < 0)[0]
        raise UserError(
            f"a forecast from {times[init[row]]} starts from {window.past} states {window.step} "
            f"apart, and the data have none at {wanted[row, column]}; give data that have it, or "
            "take an initial time without a gap before it"
        )
    _refuse_gaps(model, frames, np.unique(needed))

    def known(number: int) -> Tensor:
        # One state at a time: a convolution's bits depend on the size of the batch.
        none = torch.empty(0, model.recipe.autoencoder.channels, *model.grid.shape)
        return torch.cat(
            [none.to(model.device)]
            + [model.encode(frames.read(one), times[one]) for one in needed[number][:, None]]
        )

    return Forecast(model, known, times[init], leads, seed)


def _refuse_gaps(model: Model, frames: Frames, numbers: NDArray[np.int64]) -> None:
    fields = model.fields
    for number in numbers:  # one at a time: they need not fit in memory together
        values = fields.to_array(frames.ds.isel(time=[number]), gaps=True)[0]
        gaps = (~np.isfinite(values) & model.normaliser.valid).reshape(len(values), -1).sum(axis=1)
        if gaps.any():
            told = ", ".join(f"{fields.names[c]} in {gaps[c]} cells" for c in np.flatnonzero(gaps))
            raise UserError(
                f"the state of {frames.times[number]} has no value where the model knows the "
                f"field: {told}. A forecast starts from whole states: take another --init, or "
                "fill the gaps first"
            )


def whole_windows(recipe: Recipe, leads: NDArray[np.timedelta64]) -> NDArray[np.timedelta64]:
    """``leads``, refused where they end within a window of several frames."""
    future = recipe.window.future
    if len(leads) % future:
        step = parse_duration(recipe.window.step)
        nearest = max(1, round(len(leads) / future)) * future * step
        raise UserError(
            f"this run draws {future} frames of {recipe.window.step} at once, and the lead has "
            f"{len(leads)}; try {format_duration(nearest)}"
        )
    return leads
