"""Copies of training states, as a Dataset or as a store."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.answers import AnswerPlan
from sciladm.data.dataset import DataSet, open_dataset
from sciladm.data.times import Times
from sciladm.model import Model
from sciladm.tasks.copies import Copies, Window
from sciladm.tasks.gaps import Array, Gaps, drawn_as, yet_unknown
from sciladm.tasks.run import origin
from sciladm.tasks.strength import Strength
from sciladm.tasks.voice import Voice
from sciladm.tasks.write_blocks import Drawn, digest, identity, refuse_foreign, write_blocks

log = logging.getLogger(__name__)


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


@dataclass(frozen=True, eq=False)
class Parents:
    """States to be copied, checked before anything is drawn; which of them, as they were given,
    are ``made``: those in a window that is whole."""

    gaps: Gaps
    copies: Copies
    asked: Asked
    made: NDArray[np.bool_]

    @classmethod
    def of(cls, model: Model, ds: xr.Dataset, asked: Asked) -> "Parents":
        """UserError for states that no copies are made of."""
        if ds.attrs.get("synthetic"):
            raise UserError("these states are synthetic themselves; copies are made of real ones")
        gaps, data = Gaps.of(model, ds), training(model)
        times, made = gaps.frames.times, np.zeros(len(gaps.frames.times), bool)
        refuse_strangers(model, data, times, gaps.values)
        strength = Strength.of(model, data, asked.strength)
        copies = Copies(model, times, gaps.values, strength, asked.seed)
        for window in copies.windows:
            made[window.kept] = True
        if not made.any():
            raise UserError(left_out(model, times, made))
        if not made.all():
            log.warning("%s; copies of the other %d", left_out(model, times, made), made.sum())
        return cls(gaps, copies, asked, made[np.argsort(gaps.order)])

    def block(self, window: Window, members: range) -> Drawn:
        """Copies in a window, and where they belong."""
        gaps, numbers = self.gaps, window.kept
        states = self.copies.block(window, members)[:, window.new]
        new = xr.Dataset(gaps.part(numbers).answer(states, self.same(numbers)))
        times = (np.cumsum(self.made) - 1)[gaps.order[numbers]]
        place = {"member": members, gaps.time or "time": times.tolist()}
        return place, gaps.renamed(new.drop_vars("time")), 0.0

    def same(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where copies of some states have their very bits (time, channel, *space)."""
        same = ~self.gaps.model.normaliser.valid | (self.asked.strength == 0)
        return np.broadcast_to(same, (len(numbers), *same.shape))

    def told(self, answer: xr.Dataset) -> xr.Dataset:
        """Of all states those that there are copies of, and the origin of these."""
        time, asked = self.gaps.time, self.asked
        about = {
            "parent_time": time or "time",
            "parent_split": "train",
            "augment_members": asked.members,
            "augment_strength": asked.strength,
            "augment_seed": asked.seed,
        }
        there = answer if self.made.all() else answer.isel({time: self.made})
        return there.assign_attrs(origin(self.gaps.model) | about)


def augment(model: Model, ds: xr.Dataset, asked: Asked) -> xr.Dataset:
    """What `TrainedModel.augment` says."""
    parents = Parents.of(model, ds, asked)
    gaps, copies = parents.gaps, parents.copies
    values = np.repeat(gaps.values[None], asked.members, axis=0)
    for (window, members), states in copies.draw(copies.windows, asked.members, asked.workers):
        values[members.start : members.stop, window.kept] = states[:, window.new]
    same = parents.same(np.arange(len(gaps.values)))
    return parents.told(gaps.returned(gaps.answer(values, same)))


def write_augment(
    model: Model, ds: xr.Dataset, asked: Asked, out: Path, overwrite: bool, voice: Voice
) -> None:
    """Copies of ``ds`` in a zarr store ``out``, which the same command goes on with."""
    refuse_foreign("augment", out, overwrite)
    parents = Parents.of(model, ds, asked)
    gaps, ahead = parents.gaps, {"member": np.arange(asked.members)}
    new = {}
    for name in model.fields.groups:
        given = gaps.frames.ds[name]
        new[name] = yet_unknown(given, ahead, drawn_as(given))
    template = parents.told(gaps.template(new))
    own = identity(
        model, template, given=digest([gaps.values]),
        asked={"members": asked.members, "strength": asked.strength, "seed": asked.seed},
    )  # fmt: skip
    blocks = parents.copies.blocks(parents.copies.windows, asked.members)
    chunks = {"member": model.recipe.micro_batch, gaps.time or "time": 1}
    plan = AnswerPlan(template, chunks, len(blocks), own)
    draw = lambda number: parents.block(*blocks[number])
    write_blocks("augment", plan, draw, asked.workers, out, overwrite, voice)


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
