"""What is asked where no cell is known: fields from their means, and a past and observations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from sciladm.calendar import find, later
from sciladm.conventions import UserError, rename_in
from sciladm.data.frames import Frames
from sciladm.data.times import Times
from sciladm.model import Model
from sciladm.observe import AreaMean, Operator
from sciladm.tasks.infill import Wish, infill


def downscale(model: Model, means: AreaMean, wish: Wish) -> xr.Dataset:
    """What `TrainedModel.downscale` says."""
    return infill(model, told_alone(model, [means]), replace(wish, operator=(means,)))


def assimilate(model: Model, background: xr.Dataset, until: Any, wish: Wish) -> xr.Dataset:
    """What `TrainedModel.assimilate` says; the operators are in the wish."""
    if not model.recipe.window.past:
        raise UserError(
            "this run draws frames given nothing before them, so there is no past for it to go on "
            "from; `infill` takes up observations, and a run with window.past of 1 or more cycles"
        )
    frames = _members(model, background)
    times, numbers = frames[0].times, np.arange(len(frames[0].times))
    past = np.stack([model.anomalies(f.read(numbers), times).cpu().numpy() for f in frames])
    if until is None:
        until = max(
            (told.times[-1] for told in wish.operator), default=later(times[-1], model.step)
        )
    after = _steps(times[-1], np.asarray(until, times.dtype), model)
    first = model.fields.to_dataset(frames[0].read(numbers), ("time",), {"time": times})
    asked = xr.concat([first, unknown(model, after)], "time")
    return infill(model, asked, wish, past=past).isel(time=slice(len(times), None))


def _members(model: Model, background: xr.Dataset) -> list[Frames]:
    """The states before, of each member; UserError where they are not those of a window."""
    named, known = rename_in(background), model.recipe.window.past
    each = [named]
    if "member" in named.dims:
        each = [named.isel(member=n, drop=True) for n in range(named.sizes["member"])]
    frames = [Frames.of(one, model.fields) for one in each]
    times = frames[0].times
    if len(times) != known or (find(times, later(times[:-1], model.step), model.step) < 0).any():
        raise UserError(
            f"background: {len(times)} states; the {known} before the first to be analysed are "
            f"wanted, {model.recipe.window.step} apart"
        )
    return frames


def _steps(last: Any, until: Any, model: Model) -> Times:
    """The times a step apart after ``last`` up to ``until``."""
    count = 1
    while later(last, model.step * count) < until:
        count += 1
    after = later(last, model.step * np.arange(1, count + 1))
    if after[-1] != until:
        raise UserError(
            f"until {until}: not a whole number of steps of {model.recipe.window.step} after the "
            f"background, which ends at {last}"
        )
    return after


def told_alone(model: Model, told: Sequence[Operator]) -> xr.Dataset:
    """States at the times of observations, of which no cell is known."""
    return unknown(model, np.unique(np.concatenate([one.times for one in told])))


def unknown(model: Model, times: Times) -> xr.Dataset:
    """What `TrainedModel.unknown` says."""
    values = np.full((len(times), *model.normaliser.valid.shape), np.nan, np.float32)
    return model.fields.to_dataset(values, ("time",), {"time": times})
