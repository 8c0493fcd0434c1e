"""What a model is held against: the baselines, and its own autoencoder."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sciladm.baselines.climatology import Climatology
from sciladm.baselines.harmonics import HarmonicMean
from sciladm.baselines.linear_inverse import LinearInverseModel
from sciladm.baselines.persistence import damped_persistence, persistence
from sciladm.baselines.series import Baseline, Leads, Series, State
from sciladm.conventions import UserError
from sciladm.data.dataset import DataSet
from sciladm.data.times import Times
from sciladm.diffusion.noise import Key
from sciladm.model import WEIGHTS, Model
from sciladm.tasks.regression import dressed_regression
from sciladm.tasks.voice import Voice

Array = NDArray[np.float32]
HELD = max(2 << 30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
"""Bytes of training fields that are kept in memory; more are read as they are needed."""


@dataclass(frozen=True, eq=False)
class Ground:
    """All that the baselines are fitted on; ``state`` gives the initial field of any forecast."""

    data: DataSet
    state: State
    std: NDArray[np.floating]
    leads: Leads
    members: int
    seed: int

    def series(self, split: str, limit: int) -> Series:
        """The states of a split."""
        numbers = self.data.indices(split)
        frames = self.data.frames.hold(numbers, limit)
        times = frames.times[numbers].astype("datetime64[ns]")
        return Series(times, lambda rows: frames.read(numbers[rows]))


def trained(run: Path | None, device: torch.device) -> Model | None:
    """The run's networks, if it has them."""
    whole = run is not None and all((run / name).is_file() for name in WEIGHTS)
    return Model.load(run, device) if run is not None and whole else None


def fit_rivals(
    names: Sequence[str], ground: Ground, model: Model | None, voice: Voice, notes: list[str]
) -> list[Baseline]:
    """The baselines that can be fitted; of the others ``notes`` get a sentence each."""
    if not names:
        return []
    train, validation = (ground.series(split, HELD) for split in ("train", "validation"))
    fitted: list[Baseline] = []
    with voice.progress("baselines") as report:
        mean = HarmonicMean.fit(train)
        makers = _makers(ground, train, validation, mean, model, voice)
        for done, name in enumerate(names):
            try:
                if name == "dressed_regression" and model is None:
                    raise UserError("the run with its networks was not found")
                fitted.append(makers[name]())
            except UserError as error:
                notes.append(f"The baseline {name} is left out: {error}")
            report((done + 1) / len(names), name)
    return fitted


def _makers(
    ground: Ground,
    train: Series,
    validation: Series,
    mean: HarmonicMean,
    model: Model | None,
    voice: Voice,
) -> dict[str, Callable[[], Baseline]]:
    leads, members, seed = ground.leads, ground.members, ground.seed
    area = ground.data.fields.grid.area

    def state(time: np.datetime64) -> Array:
        """From validation, which is in memory, where errors are collected there."""
        at = validation.find(np.array([time]))
        return validation.read(at)[0] if at[0] >= 0 else ground.state(time)

    def regression() -> Baseline:
        assert model is not None, "asked before"
        return dressed_regression(
            model, ground.data, state, validation, leads, members, seed, voice, mean
        )

    return {
        "climatology": lambda: Climatology.fit(train, members, seed),
        "persistence": lambda: persistence(validation, state, leads, members, seed),
        "damped_persistence": lambda: damped_persistence(
            train, validation, mean, state, leads, members, seed
        ),
        "linear_inverse_model": lambda: LinearInverseModel.fit(
            train, validation, mean, state, area, ground.std, leads, members, seed=seed
        ),
        "dressed_regression": regression,
    }


def through_autoencoder(
    model: Model, truth: Array, times: Times, members: int, seed: int
) -> Iterator[Array]:
    """Per time {decode(encode(truth)) + simulated residual} (member, channel, *space) of
    truth (time, channel, *space)."""
    latents = model.encode(truth, times)
    for n, time in enumerate(times):
        keys = [Key(seed, int(time.astype(np.int64)), 0, member) for member in range(members)]
        same = latents[n : n + 1].expand(members, *latents.shape[1:])
        yield model.decode(same, np.repeat(times[n : n + 1], members), keys)
