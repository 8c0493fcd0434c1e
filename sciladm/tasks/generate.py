"""Draws from the climate of the training data, given nothing but the season."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from sciladm.calendar import later
from sciladm.conventions import UserError
from sciladm.data.answers import AnswerPlan
from sciladm.data.frames import Frames
from sciladm.data.plan import unknown
from sciladm.data.times import Times, ticks
from sciladm.diffusion.noise import Key
from sciladm.model import Model
from sciladm.tasks.augment import training
from sciladm.tasks.run import origin, side_by_side
from sciladm.tasks.voice import Voice
from sciladm.tasks.write_blocks import Drawn, identity, refuse_foreign, write_blocks

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Draws:
    """Samples by number, of which the ``blocks`` are asked for: ``times`` (sample, future) of
    their frames, and the ``members`` (sample,) of their noise."""

    model: Model
    blocks: list[range]
    times: Times
    members: list[int]
    seed: int

    @classmethod
    def of(cls, model: Model, n: int, like: xr.Dataset | None, seed: int) -> "Draws":
        """``n`` samples, and as many more as fill the last micro-batch. A sample is the member of
        its time that it is the next one of: copies of full strength are the same draws."""
        window, size = model.recipe.window, model.recipe.micro_batch
        if n < 1:
            raise UserError(f"n counts samples, at least 1; got {n}")
        if window.past:
            raise UserError(
                f"this run draws states given the {window.past} before them, and of those there "
                "is no draw; a run trained with window.past: 0 draws from the climate"
            )
        _ = model.sampler, model.latent_statics  # made once, before several threads want them
        blocks = [range(start, min(start + size, n)) for start in range(0, n, size)]
        first = seasons(model, len(blocks) * size, like, seed)
        met: Counter[int] = Counter()
        members = []
        for tick in ticks(first).tolist():
            members.append(met[tick])
            met[tick] += 1
        offsets = model.step * np.arange(window.future)
        return cls(model, blocks, later(first[:, None], offsets), members, seed)

    @torch.inference_mode()
    def block(self, samples: range) -> Array:
        """The samples of a micro-batch (sample, frame, channel, *space)."""
        model = self.model
        rows = slice(samples.start, samples.start + model.recipe.micro_batch)
        times = self.times[rows]
        forcings = torch.stack([model.forcings(one) for one in times])
        nothing = forcings[:, :0]
        context = model.denoiser.context(nothing, forcings, model.latent_statics)
        numbers = zip(ticks(times[:, 0]), self.members[rows], strict=True)
        keys = [Key(self.seed, int(tick), 0, member) for tick, member in numbers]
        frames = model.draw(context, keys)
        states = [model.decode(frames[:, n], times[:, n], keys, n) for n in range(times.shape[1])]
        return np.stack(states, axis=1)[: len(samples)]

    def labelled(self, values: Any, samples: range) -> xr.Dataset:
        """Some samples (sample, frame, channel, *space) under their labels, with their origin."""
        dims: tuple[str, ...] = ("sample", "frame")
        times = self.times[samples.start : samples.stop]
        if times.shape[1] == 1:
            dims, values, times = dims[:1], values[:, 0], times[:, 0]
        labels = {"sample": np.array(samples), "time": (dims, times)}
        about = {"parent_time": "none", "parent_split": "none", "generate_seed": self.seed}
        named = self.model.fields.to_dataset(values, dims, labels)
        return named.assign_attrs(origin(self.model) | about)


def seasons(model: Model, n: int, like: xr.Dataset | None, seed: int) -> Times:
    """Times of the first frames of samples 0, 1, … (n,): those of ``like``, in order and over
    again, or training times drawn by the seed."""
    if like is not None:
        there = Frames.of(like, model.fields).times
        return np.asarray(there[np.arange(n) % len(there)])
    data = training(model)
    there = data.frames.times[data.indices("train")]
    generator = np.random.Generator(np.random.Philox(key=seed))
    return np.asarray(there[(generator.random(n) * len(there)).astype(int)])


def generate(model: Model, n: int, like: xr.Dataset | None, seed: int, workers: int) -> xr.Dataset:
    """What `TrainedModel.generate` says."""
    draws = Draws.of(model, n, like, seed)
    parts = [states for _, states in side_by_side(draws.block, draws.blocks, workers)]
    return draws.labelled(np.concatenate(parts), range(n))


def write_generate(
    model: Model, n: int, like: xr.Dataset | None, seed: int, workers: int,
    out: Path, overwrite: bool, voice: Voice,
) -> None:  # fmt: skip
    """Samples in a zarr store ``out``, which the same command goes on with."""
    refuse_foreign("generate", out, overwrite)
    draws, fields = Draws.of(model, n, like, seed), model.fields
    shape = n, draws.times.shape[1], len(fields.channels), *fields.grid.shape
    template = draws.labelled(unknown(shape, np.float32), range(n))
    own = identity(model, template, asked={"n": n, "seed": seed})
    plan = AnswerPlan(template, {"sample": model.recipe.micro_batch}, len(draws.blocks), own)

    def draw(number: int) -> Drawn:
        samples = draws.blocks[number]
        return {"sample": samples}, draws.labelled(draws.block(samples), samples), 0.0

    write_blocks("generate", plan, draw, workers, out, overwrite, voice)
