"""A forecast from the states of a Dataset, as a Dataset."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.calendar import find
from sciladm.conventions import UserError, parse_duration
from sciladm.data.frames import Frames
from sciladm.data.plan import ForecastPlan
from sciladm.model import Model
from sciladm.tasks.forecast import from_states, whole_windows


def in_memory(
    model: Model, ds: xr.Dataset, lead: str, members: int, init: Any, seed: int, workers: int
) -> xr.Dataset:
    """What `TrainedModel.forecast` says."""
    leads, frames = _leads(model, lead), Frames.of(ds, model.fields)
    times = frames.times
    wanted = times[-1:] if init is None else np.atleast_1d(np.asarray(init, times.dtype))
    number = find(times, wanted, model.step)
    if (number < 0).any():
        raise UserError(
            f"init: {wanted[number < 0][0]} is not among the {len(times)} times of the data, "
            f"{times[0]} … {times[-1]}; give one of these"
        )
    draws = from_states(model, frames, number, leads, seed)
    state = model.fields.to_dataset(frames.read(number[:1])[0], (), {})
    plan = ForecastPlan(state, times[number], leads, members, model.recipe.micro_batch)
    parts: list[list[NDArray[np.float32]]] = [[] for _ in wanted]
    for block, states in draws.draw(plan.blocks(), workers):
        parts[block.init].append(states)
    values = np.stack([np.concatenate(one) for one in parts])
    named = model.fields.to_dataset(values, ("init_time", "member", "lead_time"), {})
    return plan.arrange({str(name): named[name].values for name in named.data_vars})


def _leads(model: Model, lead: str) -> NDArray[np.timedelta64]:
    """Every frame up to ``lead``."""
    step, last = model.step, parse_duration(lead)
    if last % step or last < step:
        raise UserError(f"lead {lead} is not a multiple of the run's step of {step}")
    return whole_windows(model.recipe, np.arange(1, last // step + 1) * step)
