"""Training on data that are never whole: gaps are filled by draws from what was learnt so far,
and what is learnt is fitted to them anew, round by round.

That is stochastic expectation–maximisation (Celeux & Diebolt 1985; for diffusion priors Rozet et
al. 2024, arXiv:2405.13712) of a climatology and a Gaussian about it. The last draws are what
statistics, latents and networks are made of (docs/decisions/0011-incomplete.md).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciladm.autoencoder.observed import LEAST
from sciladm.baselines.filling import gaussian_crps
from sciladm.calendar import later
from sciladm.data.dataset import DataSet
from sciladm.data.normalise import Normaliser
from sciladm.data.times import Times, ticks
from sciladm.diffusion.noise import Key
from sciladm.diffusion.stationary import Dense, Law, Stationary
from sciladm.model import Model
from sciladm.recipe import Recipe
from sciladm.tasks.fit_denoiser import parts
from sciladm.tasks.gaps import series
from sciladm.tasks.given import Plan
from sciladm.tasks.run import COMPLETED, THREADS
from sciladm.training.checkpoint import write_tensors

Array = NDArray[np.float32]
Report = Callable[..., None]
ROUNDS = 4
"""After the first guess."""
LARGEST = 4096
"""Numbers of a window up to which it has a covariance of its own: more are alike everywhere."""
SHARES = (1.0, 0.5, 0.3, 0.1, 0.03)
"""Of the covariance that is alike everywhere, among which validation chooses."""
HELD = 60
"""Windows of validation that choose."""


def gappy(data: DataSet) -> list[str]:
    """Channels that are not whole."""
    return [channel.name for channel in data.fields.channels if channel.missing == "moving"]


def complete(recipe: Recipe, data: DataSet, path: Path, report: Report) -> None:
    """Fill what is missing in training and validation, once; → `COMPLETED`."""
    gaps = _Gappy.of(recipe, data, path)
    states, law = gaps.raw, None
    for number in range(ROUNDS + 1):
        model = gaps.described(states, first=number == 0)
        law = gaps.law(model, states if number else None)
        states = gaps.filled(model, law, number, lambda done, n=number: report(
            (n + done) / (ROUNDS + 1), f"round {n}"))  # fmt: skip
    tensors = {"numbers": torch.from_numpy(gaps.seen), "states": torch.from_numpy(states)}
    write_tensors(path / COMPLETED, tensors, {"rounds": ROUNDS})


@dataclass(frozen=True, eq=False)
class _Gappy:
    """States ``raw`` (n, channel, *space) of training and validation, physical units, NaN where
    nothing is known; ``seen`` (n,), their numbers in the data."""

    recipe: Recipe
    data: DataSet
    path: Path
    seen: NDArray[np.int64]
    raw: Array

    @classmethod
    def of(cls, recipe: Recipe, data: DataSet, path: Path) -> "_Gappy":
        seen = np.sort(np.concatenate([data.indices("train"), data.indices("validation")]))
        return cls(recipe, data, path, seen, data.frames.read(seen))

    @cached_property
    def times(self) -> Times:
        return self.data.frames.times[self.seen]

    def split(self, name: str) -> NDArray[np.int64]:
        """Which states belong to a split."""
        return np.flatnonzero(np.isin(self.seen, self.data.indices(name)))

    def described(self, states: Array, first: bool) -> Model:
        """Climatology and scale of ``states``, which after the ``first`` time are whole."""
        at, fields = self.split("train"), self.data.fields
        moving = [first and channel.missing == "moving" for channel in fields.channels]
        told = [(self.times[at], states[at])]
        found = Normaliser.fit(self.times[at], told, fields.names, fields.grid.area, moving)
        return Model(self.path, self.recipe, fields, found)

    def law(self, model: Model, states: Array | None) -> Law:
        """Of anomalies of a window (channel, frame, *space), without ``states`` a first guess."""
        known = self._anomalies(model, self.raw if states is None else states)
        drawn = _Again(partial(self._windows, model, known, "train"))
        guess = Stationary.fit(drawn, ("bounded", *self.data.fields.grid.boundaries))
        if guess.size.numel() > LARGEST:
            return guess
        matrix = guess.matrix()
        if states is None:
            return Dense.of(matrix, guess.size.shape)
        rows = torch.cat([x.nan_to_num().flatten(1) for x in drawn]).double()
        sample = rows.T @ rows / len(rows)
        told = self._windows(model, self._anomalies(model, self.raw), "validation")
        held = torch.cat([x.flatten(1) for x in told])
        made = [Dense.of(sample + share * (matrix - sample), guess.size.shape)
                for share in SHARES]  # fmt: skip
        return min(made, key=partial(_crps, held=held[:: -(-len(held) // HELD)]))

    def filled(self, model: Model, law: Law, number: int, report: Report) -> Array:
        """Draw ``number`` of all states, physical units, NaN where data cannot be."""
        anomalies, error = self._anomalies(model, self.raw), self._error(model)
        out = np.full_like(self.raw, np.nan)
        jobs = [at[some] for at in map(self.split, ("train", "validation"))
                for some in series(self.times[at], model)]  # fmt: skip
        fill = lambda at: _completed(law, model, anomalies[at], error[at], self.times[at], number)
        with ThreadPoolExecutor(
            parts(model.device), initializer=torch.set_num_threads, initargs=(THREADS,)
        ) as threads:
            for done, (at, found) in enumerate(
                zip(jobs, threads.map(fill, jobs), strict=True), start=1
            ):
                out[at] = model.normaliser.denormalise(found, self.times[at])
                report(done / len(jobs))
        exact = np.isfinite(self.raw) & (error == 0)
        return np.where(model.normaliser.valid, np.where(exact, self.raw, out), np.float32(np.nan))

    def _anomalies(self, model: Model, states: Array) -> Array:
        """NaN where nothing is known of what there can be."""
        found = model.normaliser.normalise(states, self.times)
        return np.where(model.normaliser.valid, found, np.float32(np.nan))

    def _error(self, model: Model) -> Array:
        """Standard errors of ``raw``, in those of anomalies; 0 where nothing is known."""
        out = np.zeros_like(self.raw)
        for n, channel in enumerate(self.data.fields.channels):
            if channel.error is not None:
                value = self.raw[:, n]
                moved = channel.forward(channel.inverse(value) + np.float32(channel.error))
                out[:, n] = np.nan_to_num((moved - value) / np.float32(model.normaliser.std[n]))
        return out

    def _windows(self, model: Model, states: Array, split: str) -> Iterator[Tensor]:
        """All windows of a split, in batches (n, channel, frame, *space)."""
        at, length = self.split(split), model.recipe.window.future
        for some in series(self.times[at], model):
            count = len(some) - length + 1
            for start in range(0, count, 64):
                first = np.arange(start, min(start + 64, count))[:, None]
                rows = states[at[some[first + np.arange(length)]]]
                yield torch.from_numpy(rows).transpose(1, 2)


@dataclass(frozen=True)
class _Again:
    """Batches that can be gone through more than once."""

    make: Callable[[], Iterator[Tensor]]

    def __iter__(self) -> Iterator[Tensor]:
        return self.make()


def _completed(
    law: Law, model: Model, values: Array, error: Array, times: Times, number: int
) -> Array:
    """A series (time, channel, *space) of anomalies, NaN where nothing is known, whole: window
    goes after window, as in `Given`, and each knows what the one before has drawn."""
    plan = Plan.of(0, model.recipe.window.future)
    beyond = plan.starts(len(values))[-1] + plan.length - len(values)
    pad = [(0, beyond), *[(0, 0)] * (values.ndim - 1)]
    out, error = np.pad(values, pad, constant_values=np.nan), np.pad(error, pad)
    for start in plan.starts(len(values)):
        stop = start + plan.length
        (tick,) = ticks(later(times[:1], start * model.step))
        key = Key(model.recipe.seed, int(tick), 0, 0).philox("completion", number)
        random = np.random.Generator(np.random.Philox(key=key))
        drawn = _drawn(law, out[start:stop], error[start:stop], random)
        kept = stop - (plan.ahead if stop < len(out) else 0)
        out[start:kept], error[start:kept] = drawn[: kept - start], 0
    return out[: len(values)]


def _drawn(law: Law, told: Array, std: Array, random: np.random.Generator) -> Array:
    """A window (frame, channel, *space): a draw of the law, moved by what it misses of what was
    observed with errors of its own (conditional simulation; Journel & Huijbregts 1978)."""
    free = law.draw(random)
    values, error = (
        torch.from_numpy(np.moveaxis(a, 0, 1).reshape(-1).astype(np.float64)) for a in (told, std)
    )
    x = free.flatten()
    at = torch.nonzero(values.isfinite())[:, 0]
    if len(at):
        sure = error[at].clamp(min=LEAST)
        off = sure * torch.from_numpy(random.standard_normal(len(at)))
        x = x + law.gained(at, values[at] - x[at] - off, sure)
        exact = at[error[at] == 0]
        x[exact] = values[exact]
    return np.moveaxis(x.view(free.shape).numpy(), 0, 1).astype(np.float32)


def _crps(law: Dense, held: Tensor) -> float:
    """Of windows (n, number), each without what another day's gaps would hide of it, there."""
    total, count = 0.0, 0
    for n in range(len(held)):
        row, other = held[n].double(), held[(n + len(held) // 2) % len(held)]
        hidden = row.isfinite() & ~other.isfinite()
        at = torch.nonzero(row.isfinite() & ~hidden)[:, 0]
        if not hidden.any() or not len(at):
            continue
        mean, std = law.known(at, row[at], torch.full((len(at),), LEAST, dtype=torch.float64))
        scores = gaussian_crps(*(x[hidden].numpy() for x in (mean, std, row)))
        total, count = total + scores.sum(), count + len(scores)
    return total / max(count, 1)
