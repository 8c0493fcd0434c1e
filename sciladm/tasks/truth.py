"""What forecasts are held against: the truth at their valid times, and what scales the errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciladm.calendar import find, later
from sciladm.conventions import UserError, format_duration
from sciladm.data.dataset import DataSet, check_headline, open_dataset
from sciladm.data.frames import Frames
from sciladm.data.normalise import Normaliser
from sciladm.data.store import open_store
from sciladm.model import STATISTICS, Model
from sciladm.recipe import Recipe
from sciladm.tasks.stores import Forecasts
from sciladm.tasks.voice import Voice

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Case:
    """What is scored: initial times × leads, the truth of them, and what scales the errors."""

    recipe: Recipe
    data: DataSet
    truth: Frames
    normaliser: Normaliser
    inits: NDArray[np.datetime64]
    leads: NDArray[np.timedelta64]
    members: int

    def find(self, times: NDArray[np.datetime64]) -> NDArray[np.int64]:
        """Numbers of the truth's states at ``times``, −1 where there is none."""
        return find(self.truth.times, times, self.leads)

    def state(self, time: np.datetime64) -> Array:
        """The field (channel, *space) at a time, of the truth or of the data it belongs to."""
        for frames in (self.truth, self.data.frames):
            if (at := find(frames.times, np.array([time]), self.leads))[0] >= 0:
                return np.asarray(frames.read(at)[0])
        raise UserError(f"the data have no state at {time}")


def open_case(
    forecasts: Sequence[Forecasts],
    run: Path | None,
    recipe: Recipe,
    truth: Path | None,
    voice: Voice,
    notes: list[str],
) -> Case:
    """The data behind the forecasts, and what of them is scored."""
    facts: Mapping[str, Any] = {"source": forecasts[0].fact("source") or None}
    known = None
    if run is not None and (run / STATISTICS).is_file():
        known = Model.start(run, recipe, torch.device("cpu"))
        facts = known.facts
    with voice.progress("data") as report:
        data = open_dataset(recipe, facts["source"], report, known.fields if known else None)
    check_headline(recipe, data)
    if data.frames.times.dtype.kind != "M":
        raise UserError("scores are taken on the standard calendar alone; the data's is another")
    frames = data.frames
    if truth is not None:
        frames = Frames.of(open_store(truth), data.fields)
    else:
        _same_data(forecasts, data, recipe.name)
    if known:
        normaliser = known.normaliser
    else:
        train = data.indices("train")
        moving = [channel.missing == "moving" for channel in data.fields.channels]
        normaliser = Normaliser.fit(data.frames.times[train], data.frames.blocks(train),
                                    data.fields.names, data.fields.grid.area, moving)  # fmt: skip
    return _in_common(Case(recipe, data, frames, normaliser, forecasts[0].inits,
                           forecasts[0].leads, 0), forecasts, notes)  # fmt: skip


def _same_data(forecasts: Sequence[Forecasts], data: DataSet, name: str) -> None:
    """UserError for a store that was made from other data than these."""
    for one in forecasts:
        mark = one.fact("data_fingerprint")
        if mark and mark != data.fingerprint:
            raise UserError(
                f"{one.path} was made from other data (source {one.fact('source')}, fingerprint "
                f"{mark[:12]}…) than those found for {name} (source {data.source}, "
                f"{data.fingerprint[:12]}…); give its own truth with --truth PATH, or --run DIR"
            )


def _in_common(case: Case, forecasts: Sequence[Forecasts], notes: list[str]) -> Case:
    """The initial times, leads and number of members that all the stores have and the truth can
    judge."""
    inits, leads = np.unique(case.inits), np.unique(case.leads)
    for one in forecasts:
        inits, leads = np.intersect1d(inits, one.inits), np.intersect1d(leads, one.leads)
    leads = leads[leads > np.timedelta64(0)]
    paths = ", ".join(str(one.path) for one in forecasts)
    if not inits.size or not leads.size:
        raise UserError(f"{paths} have no initial time and lead in common: nothing to compare")
    known = (case.find(later(inits[:, None], leads)) >= 0).all(axis=1) & (case.find(inits) >= 0)
    if not known.any():
        raise UserError(
            f"the truth ({case.truth.times[0]} … {case.truth.times[-1]}) holds none of the "
            f"{len(inits)} initial times of {paths} with all leads up to "
            f"{format_duration(leads[-1])}; give the right one with --truth PATH"
        )
    most = max(len(one.inits) for one in forecasts)
    if known.sum() < most:
        notes.append(f"{known.sum()} of {most} initial times are in all stores and in the truth; "
                     "only these are scored.")  # fmt: skip
    sizes = {one.members for one in forecasts}
    members = min(sizes)
    if len(sizes) > 1:
        notes.append(f"The stores have {', '.join(map(str, sorted(sizes)))} members; the first "
                     f"{members} of each are scored.")  # fmt: skip
    inits = inits[known]
    needed = case.find(np.union1d(inits, later(inits[:, None], leads).ravel()))
    return replace(case, inits=inits, leads=leads, members=members, truth=case.truth.hold(needed))
