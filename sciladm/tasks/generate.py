"""Draws from the climate of the training data, given nothing but the season."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from sciladm.calendar import later
from sciladm.conventions import UserError
from sciladm.data.frames import Frames
from sciladm.data.times import Times, ticks
from sciladm.diffusion.noise import Key
from sciladm.model import Model
from sciladm.tasks.augment import training
from sciladm.tasks.run import THREADS, origin
from sciladm.tasks.voice import Voice
from sciladm.tasks.whole import write_answer

Array = NDArray[np.float32]
Report = Callable[..., None]


@dataclass(frozen=True, eq=False)
class Draws:
    """Samples by number: ``times`` (sample, future) of their frames, and the ``members`` (sample,)
    of their noise."""

    model: Model
    times: Times
    members: list[int]
    seed: int

    @classmethod
    def of(cls, model: Model, first: Times, seed: int) -> "Draws":
        """For samples whose first frames are of these times. A sample is the member of its time
        that it is the next one of: copies of full strength are the same draws."""
        met: Counter[int] = Counter()
        members = []
        for tick in ticks(first).tolist():
            members.append(met[tick])
            met[tick] += 1
        offsets = model.step * np.arange(model.recipe.window.future)
        return cls(model, later(first[:, None], offsets), members, seed)

    @torch.inference_mode()
    def block(self, start: int) -> Array:
        """A micro-batch of samples from number ``start`` on (sample, frame, channel, *space)."""
        model = self.model
        rows = slice(start, start + model.recipe.micro_batch)
        times = self.times[rows]
        forcings = torch.stack([model.forcings(one) for one in times])
        nothing = forcings[:, :0]
        context = model.denoiser.context(nothing, forcings, model.latent_statics)
        numbers = zip(ticks(times[:, 0]), self.members[rows], strict=True)
        keys = [Key(self.seed, int(tick), 0, member) for tick, member in numbers]
        frames = model.draw(context, keys)
        states = [model.decode(frames[:, n], times[:, n], keys, n) for n in range(times.shape[1])]
        return np.stack(states, axis=1)


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


def generate(
    model: Model,
    n: int,
    like: xr.Dataset | None,
    seed: int,
    workers: int,
    report: Report = lambda *_: None,
) -> xr.Dataset:
    """What `TrainedModel.generate` says."""
    window, size = model.recipe.window, model.recipe.micro_batch
    if n < 1:
        raise UserError(f"n counts samples, at least 1; got {n}")
    if window.past:
        raise UserError(
            f"this run draws states given the {window.past} before them, and of those there is no "
            "draw; a run trained with window.past: 0 draws from the climate"
        )
    starts = range(0, n, size)
    draws = Draws.of(model, seasons(model, len(starts) * size, like, seed), seed)
    _ = model.sampler, model.latent_statics, model.residual, model.denoiser
    parts = []
    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(THREADS,)
    ) as threads:
        for states in threads.map(draws.block, starts):
            parts.append(states)
            report(len(parts) / len(starts))
    values, times = np.concatenate(parts)[:n], draws.times[:n]
    dims: tuple[str, ...] = ("sample", "frame")
    if window.future == 1:
        dims, values, times = dims[:1], values[:, 0], times[:, 0]
    labels = {"sample": np.arange(n), "time": (dims, times)}
    about = {"parent_time": "none", "parent_split": "none", "generate_seed": seed}
    return model.fields.to_dataset(values, dims, labels).assign_attrs(origin(model) | about)


def write_generate(
    model: Model, n: int, like: xr.Dataset | None, seed: int, workers: int,
    out: Path, overwrite: bool, voice: Voice,
) -> None:  # fmt: skip
    """Samples in a new zarr store ``out``, whole or not at all."""
    made = lambda report: generate(model, n, like, seed, workers, report)
    write_answer("generate", made, out, overwrite, voice)
