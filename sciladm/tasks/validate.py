"""Free-running forecasts on the validation split, scored beside climatology, with pictures."""

import numpy as np
import pandas as pd

from sciladm.baselines.climatology import Climatology
from sciladm.baselines.series import Series
from sciladm.calendar import later
from sciladm.conventions import UserError, parse_duration
from sciladm.data.dataset import DataSet
from sciladm.data.durable import write_durably
from sciladm.data.plan import ForecastPlan
from sciladm.data.windows import resolve_init, stride, window_starts
from sciladm.metrics.regions import regions
from sciladm.metrics.scorer import Scorer
from sciladm.metrics.tables import score_table
from sciladm.model import Model
from sciladm.recipe import Recipe
from sciladm.report.maps import MapPanel, draw_samples
from sciladm.tasks.forecast import Forecast, from_states
from sciladm.tasks.run import whole
from sciladm.tasks.voice import Voice

FRAMES = 5
"""Windows that a validation forecast runs freely, if it can."""


def validate(model: Model, data: DataSet, workers: int, voice: Voice) -> pd.DataFrame:
    """Scores of `model` and `climatology` on validation; also `validation.csv` and `samples/`."""
    recipe = model.recipe
    step = parse_duration(recipe.window.step)
    back = step * (recipe.window.past - 1)
    times = data.frames.times
    usable = len(data.indices("validation")) // stride(times, recipe.window.step)
    leads = step * np.arange(1, recipe.window.future * _freely(recipe, data) + 1)
    count = max(1, min(recipe.evaluation.validation_inits, usable // len(leads)))
    init = resolve_init(f"validation:0:{count}", times, data.splits, leads[-1], back)
    members = recipe.micro_batch
    forecast = from_states(model, data.frames, init, leads, recipe.evaluation.seed)
    headline = recipe.evaluation.headline or data.fields.names
    hours = (leads / np.timedelta64(1, "h")).tolist()
    grid = data.fields.grid
    scorer = Scorer(
        data.fields.names, regions(grid), grid.area, model.normaliser.std, hours, headline
    )
    climatology = _climatology(model, whole(data, model.path), forecast, members, voice)
    blocks = ForecastPlan(
        data.fields.to_dataset(data.frames.read(init[:1])[0], (), {}), times[init], leads, members,
        recipe.micro_batch,
    ).blocks()  # fmt: skip
    with voice.progress("validation") as report:
        for number, (block, states) in enumerate(forecast.draw(blocks, workers)):
            start = times[init[block.init]]
            truth = data.frames.read(init[block.init] + _steps(data, leads))
            drawn = {"model": states}
            if climatology is not None:
                drawn["climatology"] = climatology.forecast(start, leads)
            for name, members_of in drawn.items():
                for lead in range(len(leads)):
                    scorer.add(name, start, lead, members_of[:, lead], truth[lead])
            if number == 0:
                _picture(model, forecast, states, truth)
            report((number + 1) / len(blocks))
    scores = score_table(scorer, resamples=0, seasons=False)
    write_durably(model.path / "validation.csv", scores.to_csv(index=False).encode())
    return scores


def _freely(recipe: Recipe, data: DataSet) -> int:
    """Windows that a forecast may run: `FRAMES`, or what validation's longest stretch holds."""
    own, ranges = recipe.window, data.splits["validation"]
    for count in range(FRAMES, 0, -1):
        window = own.model_copy(update={"future": count * own.future})
        if len(window_starts(data.frames.times, window, ranges)):
            return count
    raise UserError(
        f"no stretch of validation holds {own.past} + {own.future} frames a step of {own.step} "
        "apart; lengthen it with data.splits"
    )


def _climatology(
    model: Model, data: DataSet, forecast: Forecast, members: int, voice: Voice
) -> Climatology | None:
    """None, and why, where training has too little of the season."""
    train = data.indices("train")
    series = Series(data.frames.times[train], lambda n: data.frames.read(train[n]))
    try:
        fitted = Climatology.fit(series, members, model.recipe.evaluation.seed)
        for start in forecast.init_times:
            fitted.forecast(start, forecast.leads)
    except UserError as error:
        voice.say(f"the scores have no climatology beside them: {error}")
        return None
    return fitted


def _steps(data: DataSet, leads: np.ndarray) -> np.ndarray:
    return np.array([stride(data.frames.times, lead) for lead in leads])


def _picture(model: Model, forecast: Forecast, states: np.ndarray, truth: np.ndarray) -> None:
    """Truth, mean and three members of the first headline variables at the last lead."""
    fields, time = model.fields, later(forecast.init_times[0], forecast.leads[-1:])
    centre = model.normaliser.centre(time)[0]
    names = (model.recipe.evaluation.headline or fields.names)[:3]
    panels = []
    for name in names:
        c = fields.names.index(name)
        shown = [("truth", truth[-1, c]), ("mean", states[:, -1, c].mean(0))]
        shown += [(f"member {m}", states[m, -1, c]) for m in range(min(3, len(states)))]
        y, x = (axis.values for axis in fields.grid.axes[-2:])
        flat = [(label, (x - centre[c]).reshape(-1, *x.shape[-2:])[0]) for label, x in shown]
        panels.append(MapPanel(f"{name}, anomaly", fields.channels[c].units, y, x, flat))
    folder = model.path / "samples"
    folder.mkdir(exist_ok=True)
    hours = int(forecast.leads[-1] / np.timedelta64(1, "h"))
    draw_samples(folder / "validation.png", f"{forecast.init_times[0]!s:.13} + {hours} h", panels)
