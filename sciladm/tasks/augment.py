"""Copies of training states, as a Dataset or as a store."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.dataset import DataSet, open_dataset
from sciladm.data.times import Times
from sciladm.model import Model
from sciladm.tasks.copies import Copies, cover
from sciladm.tasks.gaps import Array, Gaps
from sciladm.tasks.run import origin
from sciladm.tasks.strength import Strength
from sciladm.tasks.voice import Voice
from sciladm.tasks.whole import write_answer

log = logging.getLogger(__name__)
Report = Callable[..., None]


@dataclass(frozen=True)
class Asked:
    """Which copies are to be made."""

    members: int
    strength: float
    seed: int
    workers: int

    def __post_init__(self) -> None:
        for name, number in (("members", self.members), ("workers", self.workers)):
            if number < 1:
                raise UserError(f"{name} {number}: at least 1")


def augment(
    model: Model, ds: xr.Dataset, asked: Asked, report: Report = lambda *_: None
) -> xr.Dataset:
    """What `TrainedModel.augment` says."""
    if ds.attrs.get("synthetic"):
        raise UserError("these states are synthetic themselves; copies are made of real ones")
    gaps = Gaps.of(model, ds)
    values, made = copied(model, gaps.frames.times, gaps.values, asked, report)
    kept = np.broadcast_to(~model.normaliser.valid | (asked.strength == 0), gaps.values.shape)
    out = gaps.returned(gaps.answer(values, kept))
    if not made.all():
        log.warning("%s; copies of the other %d", left_out(model, gaps.frames.times, made),
                    made.sum())  # fmt: skip
        out = out.isel({gaps.time: made[ds[gaps.time].argsort(kind="stable").argsort().values]})
    about = {
        "parent_time": gaps.time or "time",
        "parent_split": "train",
        "augment_members": asked.members,
        "augment_strength": asked.strength,
        "augment_seed": asked.seed,
    }
    return out.assign_attrs(origin(model) | about)


def copied(
    model: Model, times: Times, values: Array, asked: Asked, report: Report = lambda *_: None
) -> tuple[Array, NDArray[np.bool_]]:
    """Copies (member, time, channel, *space) of ``values`` (time, channel, *space), in the units
    of the channels, and of which times there are any: those in a window that is whole."""
    data = training(model)
    refuse_strangers(model, data, times, values)
    out = np.repeat(values[None], asked.members, axis=0)
    if asked.strength == 0:
        return out, np.ones(len(times), bool)
    made, strength = np.zeros(len(times), bool), Strength.of(model, data, asked.strength)
    copies = Copies(model, times, values, strength, asked.seed)
    windows = list(cover(times, model))
    blocks = len(windows) * -(-asked.members // model.recipe.micro_batch)
    for done, (window, members, states) in enumerate(
        copies.draw(windows, asked.members, asked.workers), start=1
    ):
        out[members.start : members.start + len(states), window.kept] = states[:, window.new]
        made[window.kept] = True
        report(done / blocks)
    if not made.any():
        raise UserError(left_out(model, times, made))
    return out, made


def training(model: Model) -> DataSet:
    """The data that a run was trained on: they tell which times that was."""
    return open_dataset(model.recipe, model.facts.get("source"), None, model.fields)


def refuse_strangers(model: Model, data: DataSet, times: Times, values: Array) -> None:
    """UserError for states that the run was not trained on, or that have holes."""
    if not (inside := data.splits.mask("train", times)).all():
        first = times[~inside][:1]
        owner = [name for name in data.splits.ranges if data.splits.mask(name, first)[0]]
        raise UserError(
            f"{(~inside).sum()} of {len(times)} states are not of the training split, {first[0]} "
            f"({', '.join(owner) or 'no split'}) the first; copies of them would carry what is to "
            "be scored on into training: give training states alone"
        )
    holes = ~np.isfinite(values) & model.normaliser.valid
    if holes.any():
        time, channel, *_ = np.argwhere(holes)[0]
        raise UserError(
            f"{model.fields.names[channel]} at {times[time]}: no value in "
            f"{holes[time, channel].sum()} cells that have one in the training data; copies are "
            "made of whole states: model.infill fills them first"
        )


def left_out(model: Model, times: Times, made: NDArray[np.bool_]) -> str:
    """Says that there are no copies of some states, and why."""
    window = model.recipe.window
    return (
        f"{(~made).sum()} of {len(times)} states, {times[~made][0]} the first, are in no stretch "
        f"of {window.past} + {window.future} states {window.step} apart, which this run draws "
        "together"
    )


def write_augment(
    model: Model, ds: xr.Dataset, asked: Asked, out: Path, overwrite: bool, voice: Voice
) -> None:
    """Copies of ``ds`` in a new zarr store ``out``, whole or not at all."""
    made = lambda report: augment(model, ds, asked, report)
    write_answer("augment", made, out, overwrite, voice)
