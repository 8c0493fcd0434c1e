"""What fills gaps without a denoiser, given what a store was given."""

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.baselines.climatology import Climatology
from sciladm.baselines.filling import MODES, OrthogonalFunctions
from sciladm.baselines.linear import interpolated
from sciladm.baselines.series import Series
from sciladm.conventions import UserError
from sciladm.data.dataset import DataSet
from sciladm.model import Model
from sciladm.tasks.errors import errors
from sciladm.tasks.fills import Array, Hidden
from sciladm.tasks.gaps import Gaps
from sciladm.tasks.infill import Wish, infill
from sciladm.tasks.voice import Voice

Rival = Callable[[int], Array]
"""Number of a time → members (member, channel, *space), physical units."""
AT_ONCE = np.zeros(1, "timedelta64[ns]")
LARGEST = 4096
"""Numbers of a state of which orthogonal functions are taken."""
STATES, HELD = 1200, 24
"""Training states they are taken of, and validation states that say how many."""


def fill_rivals(hidden: Hidden, voice: Voice, notes: list[str]) -> Iterator[tuple[str, Rival]]:
    """The baselines that can be had; of the others ``notes`` get a sentence each."""
    makers = {"climatology": _climatology}
    if hidden.given is None:
        notes.append(
            "What the fill was given cannot be told (points or means, errors that differ from "
            "cell to cell, or a truth other than what was filled): climatology alone stands "
            "beside it."
        )
    else:
        makers |= {"optimal_interpolation": _optimal, "eof": _functions, "linear": _linear}
        notes.append(
            "EOF filling and linear interpolation know what was observed at the same time alone; "
            "optimal interpolation knows the run's window."
        )
    with voice.progress("baselines") as report:
        for done, (name, make) in enumerate(makers.items(), start=1):
            try:
                yield name, make(hidden)
            except UserError as error:
                notes.append(f"The baseline {name} is left out: {error}")
            report(done / len(makers), name)


def _climatology(hidden: Hidden) -> Rival:
    """States of other years, of the same season and hour."""
    frames, train = hidden.data.frames, hidden.data.indices("train")
    series = Series(frames.times[train], lambda rows: frames.read(train[rows]))
    fitted = Climatology.fit(series, hidden.members, hidden.seed)
    return lambda number: fitted.forecast(hidden.times[number], AT_ONCE)[:, 0]


def _question(hidden: Hidden) -> xr.Dataset:
    assert hidden.given is not None, "asked before"
    return hidden.model.fields.to_dataset(hidden.given, ("time",), {"time": hidden.times})


def _optimal(hidden: Hidden) -> Rival:
    """By the covariance of the run's latents, without its network."""
    model, wish = hidden.model, Wish(hidden.members, hidden.error, "oi", seed=hidden.seed)
    filled = infill(model, _question(hidden), wish)[list(model.fields.groups)]
    return lambda number: model.fields.to_array(
        filled.isel(time=number, drop=True).rename(member="time"), gaps=True
    )


def _functions(hidden: Hidden) -> Rival:
    """By empirical orthogonal functions of single states."""
    model, data, valid = hidden.model, hidden.data, hidden.model.normaliser.valid
    if not min(MODES) < (size := int(valid.sum())) <= LARGEST:
        raise UserError(f"a state has {size} numbers; functions are taken of {min(MODES) + 1} to "
                        f"{LARGEST}")  # fmt: skip
    gaps = Gaps.of(model, _question(hidden))
    scale = model.normaliser.std.reshape(-1, *[1] * (valid.ndim - 1))
    error = (errors(gaps, hidden.error) / scale)[:, valid].astype(float)
    told = _normalised(gaps.values, hidden)[:, valid].astype(float)
    seen = np.isfinite(told)
    held = _anomalies(model, data, "validation", HELD)
    cases = [(x, seen[n % len(seen)]) for n, x in enumerate(held)]
    train = _anomalies(model, data, "train", STATES)
    fitted = OrthogonalFunctions.fit(train, cases, float(error.mean()))

    def rival(number: int) -> Array:
        normal = np.random.default_rng([hidden.seed, number]).standard_normal
        values = np.nan_to_num(told[number])
        drawn = np.zeros((hidden.members, *valid.shape), np.float32)
        drawn[:, valid] = fitted.draw(values, seen[number], error[number], normal, hidden.members)
        return model.normaliser.denormalise(drawn, np.repeat(hidden.times[number], len(drawn)))

    return rival


def _linear(hidden: Hidden) -> Rival:
    """Between the cells observed at the same time, as anomalies."""
    model, ends = hidden.model, hidden.model.fields.grid.boundaries
    assert hidden.given is not None, "asked before"
    told = _normalised(hidden.given, hidden)

    def rival(number: int) -> Array:
        filled = [interpolated(np.nan_to_num(x), np.isfinite(x), ends) for x in told[number]]
        return model.normaliser.denormalise(np.stack(filled)[None], hidden.times[[number]])

    return rival


def _normalised(values: Array, hidden: Hidden) -> Array:
    """Anomalies (time, channel, *space), NaN where nothing was observed or no data can be."""
    found = hidden.model.normaliser.normalise(values, hidden.times)
    return np.where(hidden.model.normaliser.valid, found, np.float32(np.nan))


def _anomalies(model: Model, data: DataSet, split: str, count: int) -> NDArray[np.float64]:
    """Of states spread over a split (state, number), where data can be."""
    numbers = data.indices(split)
    chosen = numbers[np.unique(np.linspace(0, len(numbers) - 1, count).astype(int))]
    times = data.frames.times[chosen]
    states = model.normaliser.normalise(data.frames.read(chosen), times)
    return np.nan_to_num(states)[:, model.normaliser.valid].astype(float)
