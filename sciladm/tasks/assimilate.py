"""What is asked where no cell is known: fields from their means, and a past and observations."""

from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from sciladm.calendar import find, later
from sciladm.conventions import UserError, rename_in
from sciladm.data.frames import Frames
from sciladm.data.times import Times
from sciladm.model import Model
from sciladm.observe import AreaMean
from sciladm.tasks.infill import Wish, infill


def downscale(model: Model, coarse: xr.Dataset, wish: Wish) -> xr.Dataset:
    """What `TrainedModel.downscale` says."""
    named = rename_in(coarse)
    if "time" not in named.variables:
        raise UserError("the means have no `time`: ds.expand_dims(time=[date]) gives them one")
    times = np.atleast_1d(np.asarray(named["time"].values))
    told = AreaMean(coarse, wish.obs_error)
    return infill(model, _blank(model, times), replace(wish, obs_error=0.0, operators=(told,)))


def assimilate(model: Model, background: xr.Dataset, until: Any, wish: Wish) -> xr.Dataset:
    """What `TrainedModel.assimilate` says; the operators are in the wish."""
    known = model.recipe.window.past
    if not known:
        raise UserError(
            "this run draws frames given nothing before them, so there is no past for it to go on "
            "from; `infill` takes up observations, and a run with window.past of 1 or more cycles"
        )
    named = rename_in(background)
    each = [named.isel(member=n) for n in range(named.sizes["member"])] if (
        "member" in named.dims
    ) else [named]  # fmt: skip
    frames = [Frames.of(one, model.fields) for one in each]
    times = frames[0].times
    if (
        len(times) != known
        or (np.diff(find(times, later(times, model.step), model.step)) < 0)[:-1].any()
    ):
        raise UserError(
            f"background: {len(times)} states; the {known} before the first to be analysed are "
            f"wanted, {model.recipe.window.step} apart"
        )
    past = np.stack(
        [model.anomalies(f.read(np.arange(known)), times).cpu().numpy() for f in frames]
    )
    last = later(times[-1], model.step) if until is None else np.asarray(until, times.dtype)
    count = 1
    while later(times[-1], model.step * count) < last:
        count += 1
    after = later(times[-1], model.step * np.arange(1, count + 1))
    if after[-1] != last:
        raise UserError(
            f"until {last}: not a whole number of steps of {model.recipe.window.step} after the "
            f"background, which ends at {times[-1]}"
        )
    first = model.fields.to_dataset(frames[0].read(np.arange(known)), ("time",), {"time": times})
    asked = xr.concat([first, _blank(model, after)], "time")
    return infill(model, asked, wish, past=past).isel(time=slice(known, None))


def _blank(model: Model, times: Times) -> xr.Dataset:
    """States on the run's grid of which nothing is known."""
    values = np.full((len(times), *model.normaliser.valid.shape), np.nan, np.float32)
    return model.fields.to_dataset(values, ("time",), {"time": times})
