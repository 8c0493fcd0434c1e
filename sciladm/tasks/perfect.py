"""The perfect or exact ensemble of a simulated world, as an ordinary forecast store.

That of the atmosphere starts from the world's own state, which no gridded field holds whole, and
differs only by the forcing; that of a world with known answers is drawn from its law, given the
gridded state. Either is the truth's own distribution, as good as any forecast can be.
"""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciladm.conventions import UserError, parse_duration
from sciladm.data.blocks import ForecastStore
from sciladm.data.catalog import world_of
from sciladm.data.dataset import DataSet, check_layout, settled
from sciladm.data.fields import Fields
from sciladm.data.plan import Block, ForecastPlan
from sciladm.data.windows import resolve_init
from sciladm.recipe import Recipe
from sciladm.simulate.atmosphere import BLOCK
from sciladm.simulate.ensemble import Ensemble
from sciladm.tasks.voice import Silent, Voice

Array = NDArray[np.float32]


def perfect(
    recipe: Recipe,
    data: DataSet,
    out: Path,
    leads: NDArray[np.timedelta64],
    *,
    init: str | None = None,
    members: int | None = None,
    seed: int | None = None,
    run: str = "",
    overwrite: bool = False,
    voice: Voice | None = None,
    processes: int | None = None,
) -> None:
    """Write the ensemble of ``leads`` (lead,) to ``out``, or what is still missing of it.

    ``init``, ``members``, ``seed``: absent, the recipe's. Its bits depend on no process count.
    """
    if data.kind != "simulated" or data.path is None or recipe.data.card is None:
        raise UserError(
            f"the perfect ensemble needs a simulated world; this data set comes from "
            f"{data.source}. Give --source simulated, where its card has such a source"
        )
    voice = voice or Silent()
    seed = recipe.seed if seed is None else seed
    count = members or recipe.evaluation.members
    times = data.frames.times
    # The same initial times as a forecast of this recipe has.
    window = settled(recipe, times).window
    back = parse_duration(window.step) * (window.past - 1)
    wanted = init or recipe.evaluation.init
    chosen = resolve_init(wanted, times, data.splits, leads.max(), back)
    world = world_of(recipe.data.card, data.source)
    ensemble = Ensemble(world, data.path, count, tuple(leads), seed)
    plan = _plan(recipe, data, times[chosen], leads, count, world.ensemble, seed, run)
    with ForecastStore.create_or_resume(out, plan, overwrite) as store:
        pending: dict[int, list[Block]] = {}
        for block in store.pending():
            pending.setdefault(block.init, []).append(block)
        inits = [plan.init_times[i] for i in pending]
        with voice.progress(f"{world.ensemble} ensemble") as report:
            drawn = ensemble.draw_all(inits, processes or os.cpu_count() or 1)
            for done, (blocks, members_) in enumerate(zip(pending.values(), drawn, strict=True)):
                arrays = _by_variable(data.fields, world.channels, members_)
                for block in blocks:
                    rows = slice(block.members.start, block.members.stop)
                    store.write(block, {name: a[rows] for name, a in arrays.items()})
                report((done + 1) / len(pending))
        store.finalise()


def _plan(
    recipe: Recipe,
    data: DataSet,
    inits: NDArray[np.datetime64],
    leads: NDArray[np.timedelta64],
    members: int,
    name: str,
    seed: int,
    run: str,
) -> ForecastPlan:
    check_layout(recipe, data)
    attributes: dict[str, Any] = {
        "forecast": name,
        "run": run,
        "recipe": recipe.text(),
        "source": data.source,
        "source_kind": data.kind,
        "data_fingerprint": data.fingerprint,
        "seed": seed,
        "sciladm_version": version("sciladm"),
        "numpy_version": version("numpy"),
    }
    fields = data.fields
    blank = np.zeros((len(fields.channels), *fields.grid.shape), np.float32)
    state = fields.to_dataset(blank, (), {})
    return ForecastPlan(
        state, inits, leads, members, BLOCK, attributes, {}, recipe.output.layout,
        recipe.output.format,
    )  # fmt: skip


def _by_variable(
    fields: Fields, channels: tuple[tuple[str, int | None], ...], drawn: Array
) -> dict[str, Array]:
    """A world's ``channels`` (member, lead, channel, *space) as the variables of a store, each
    found by its name and level."""
    order = [channels.index((c.variable, c.level)) for c in fields.channels]
    values = np.stack(
        [c.forward(drawn[:, :, i]) for c, i in zip(fields.channels, order, strict=True)], axis=2
    )
    ds = fields.to_dataset(values, ("member", "lead_time"), {})
    return {str(name): np.asarray(variable.values) for name, variable in ds.data_vars.items()}
