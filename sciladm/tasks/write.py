"""An ensemble forecast as a store: planned, drawn block by block, resumable."""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciladm.conventions import format_duration, parse_duration
from sciladm.data.blocks import ForecastStore
from sciladm.data.dataset import DataSet, check_layout
from sciladm.data.plan import Block, ForecastPlan
from sciladm.data.times import calendar_of, date_text, ticks
from sciladm.data.windows import resolve_init
from sciladm.model import Model
from sciladm.tasks.forecast import Forecast, from_states, whole_windows
from sciladm.tasks.readings import note_reading
from sciladm.tasks.run import machine, versions
from sciladm.tasks.voice import Voice

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is to be forecast, and where to."""

    out: Path
    init: str
    leads: NDArray[np.timedelta64]
    members: int
    seed: int
    workers: int
    overwrite: bool = False


def default_init(data: DataSet, wanted: str) -> str:
    """The recipe's initial times, unless the data are a few states: then the last of these."""
    times = data.frames.times
    if data.splits.ranges:
        return wanted
    return date_text(int(ticks(times)[-1]), calendar_of(times))


def write_forecast(model: Model, data: DataSet, request: Request, voice: Voice) -> None:
    """Draw and write all blocks that are not there yet.

    Under torchrun every process takes its share of the blocks of one store.
    """
    recipe, frames = model.recipe, data.frames
    check_layout(recipe, data)
    leads = whole_windows(recipe, request.leads)
    back = parse_duration(recipe.window.step) * (recipe.window.past - 1)
    init = resolve_init(request.init, frames.times, data.splits, leads[-1], back)
    forecast = from_states(model, data.frames, init, leads, request.seed)
    state = data.fields.to_dataset(frames.read(init[:1])[0], (), {})
    plan = ForecastPlan(
        state, frames.times[init], leads, request.members, recipe.micro_batch,
        attributes=attributes(model, data, request.seed), layout=recipe.output.layout,
        zarr_format=recipe.output.format, config=recipe.sampler.model_dump(mode="json"),
    )  # fmt: skip
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    meet = _rendezvous(world)
    if rank:
        meet()
        store = ForecastStore.attach(request.out, plan)
    else:
        store = ForecastStore.create_or_resume(request.out, plan, request.overwrite)
        meet()
    fresh = bool(store.pending())
    with store, voice.progress("forecast") as report:
        _fill(store, forecast, store.pending(rank, world), request.workers, report)
        meet()
        if rank == 0:
            store.finalise()
            if fresh:
                _note_reading(model, data, request, init, leads)


def _fill(
    store: ForecastStore,
    forecast: Forecast,
    blocks: list[Block],
    workers: int,
    report: Callable[..., None],
) -> None:
    fields = forecast.model.fields
    for number, (block, states) in enumerate(forecast.draw(blocks, workers)):
        named = fields.to_dataset(states, ("member", "lead_time"), {})
        store.write(block, {str(name): named[name].values for name in named.data_vars})
        report((number + 1) / len(blocks))


def _note_reading(
    model: Model, data: DataSet, request: Request, init: NDArray[np.int64],
    leads: NDArray[np.timedelta64],
) -> None:  # fmt: skip
    """The run says that members were drawn from states of its test split."""
    times, notes = data.frames.times[init], list[str]()
    line = {
        "store": request.out.name,
        "first_init": str(times[0]),
        "last_init": str(times[-1]),
        "inits": len(init),
        "last_lead": format_duration(leads[-1]),
        "members": request.members,
        "seed": request.seed,
    }
    note_reading("forecast", data, times, line, model.path, notes)
    for note in notes:
        log.warning(note)


def attributes(model: Model, data: DataSet, seed: int) -> dict[str, str | int | float]:
    """What a store says of its origin; nothing that depends on clock, host or path."""
    facts = model.facts
    return {
        "Conventions": "CF-1.11",
        "forecast": "model",
        "run": model.path.resolve().name,
        "recipe": model.recipe.text(),
        "source": data.source,
        "source_kind": data.kind,
        "title": data.title,
        "data_fingerprint": data.fingerprint,
        "model_hash": facts["model_hash"],
        "synthetic": 1,
        "seed": seed,
        "micro_batch": model.recipe.micro_batch,
        **machine(model.device),
        "versions": json.dumps(versions(), sort_keys=True),
    }


def _rendezvous(world: int) -> Callable[[], object]:
    """Waits for all processes that torchrun started; nothing where there is one."""
    if world == 1:
        return lambda: None
    import torch.distributed

    torch.distributed.init_process_group("gloo")
    return torch.distributed.barrier
