"""What fills gaps without a denoiser, given what a store was given."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sciladm.baselines.climatology import Climatology
from sciladm.baselines.filling import OrthogonalFunctions
from sciladm.baselines.linear import interpolated
from sciladm.baselines.series import Series
from sciladm.conventions import UserError
from sciladm.data.dataset import DataSet
from sciladm.model import Model
from sciladm.tasks.fills import Array, Filled, Hidden
from sciladm.tasks.infill import Wish, infill
from sciladm.tasks.voice import Voice

Rival = Callable[[int], Array]
"""Number of a time → members (member, channel, *space), physical units."""
AT_ONCE = np.zeros(1, "timedelta64[ns]")
LARGEST = 4096
"""Numbers of a state of which orthogonal functions are taken."""
STATES, HELD = 1200, 24
"""Training states they are taken of, and validation states that say how many."""


def fill_rivals(
    hidden: Hidden, first: Filled, voice: Voice, notes: list[str]
) -> Iterator[tuple[str, Rival]]:
    """The baselines that can be had; of the others ``notes`` get a sentence each."""
    makers = {
        "climatology": _climatology, "optimal_interpolation": _optimal, "eof": _functions,
        "linear": _linear,
    }  # fmt: skip
    if besides := first.ds.attrs.get("infill_besides"):
        notes.append(f"The fill knew {besides} besides cells, which baselines do not: climatology "
                     "alone stands beside it.")  # fmt: skip
        makers = {"climatology": _climatology}
    with voice.progress("baselines") as report:
        for done, (name, make) in enumerate(makers.items(), start=1):
            try:
                rival = make(hidden)
                rival(0)
                yield name, rival
            except UserError as error:
                notes.append(f"The baseline {name} is left out: {error}")
            report(done / len(makers), name)


def _climatology(hidden: Hidden) -> Rival:
    """States of other years, of the same season and hour."""
    frames, train = hidden.data.frames, hidden.data.indices("train")
    series = Series(frames.times[train], lambda rows: frames.read(train[rows]))
    fitted = Climatology.fit(series, hidden.members, hidden.seed)
    return lambda number: fitted.forecast(hidden.times[number], AT_ONCE)[:, 0]


def _optimal(hidden: Hidden) -> Rival:
    """By the covariance of the run's latents, without its network."""
    model = hidden.model
    question = np.where(hidden.observed, hidden.truth, np.float32(np.nan))
    ds = model.fields.to_dataset(question, ("time",), {"time": hidden.times})
    wish = Wish(hidden.members, hidden.error, "oi", seed=hidden.seed)
    filled = infill(model, ds, wish)[list(model.fields.groups)]
    return lambda number: model.fields.to_array(
        filled.isel(time=number, drop=True).rename(member="time"), gaps=True
    )


def _functions(hidden: Hidden) -> Rival:
    """By empirical orthogonal functions of single states."""
    model, data, valid = hidden.model, hidden.data, hidden.model.normaliser.valid
    if (size := int(valid.sum())) > LARGEST:
        raise UserError(
            f"a state has {size} numbers, and functions are taken of {LARGEST} at most"
        )
    seen = hidden.observed[:, valid]
    held = _anomalies(model, data, "validation", HELD)
    cases = [(x, seen[n % len(seen)]) for n, x in enumerate(held)]
    error = _error(hidden)
    fitted = OrthogonalFunctions.fit(_anomalies(model, data, "train", STATES), cases, error)
    now = model.normaliser.normalise(hidden.truth, hidden.times)[:, valid].astype(float)

    def rival(number: int) -> Array:
        told = np.where(seen[number], now[number], 0.0)
        mean, std = fitted.fill(told, seen[number], error)
        normal = np.random.default_rng([hidden.seed, number]).standard_normal
        drawn = np.zeros((hidden.members, *valid.shape), np.float32)
        drawn[:, valid] = mean + std * normal((hidden.members, size))
        return model.normaliser.denormalise(drawn, np.repeat(hidden.times[number], len(drawn)))

    return rival


def _linear(hidden: Hidden) -> Rival:
    """Between the cells observed at the same time, as anomalies."""
    model, ends = hidden.model, hidden.model.fields.grid.boundaries
    anomalies = np.nan_to_num(model.normaliser.normalise(hidden.truth, hidden.times))

    def rival(number: int) -> Array:
        pairs = zip(anomalies[number], hidden.observed[number], strict=True)
        filled = np.stack([interpolated(x, seen, ends) for x, seen in pairs])
        return model.normaliser.denormalise(filled[None], hidden.times[[number]])

    return rival


def _anomalies(model: Model, data: DataSet, split: str, count: int) -> NDArray[np.float64]:
    """Of states spread over a split (state, number), where data can be."""
    numbers = data.indices(split)
    chosen = numbers[np.unique(np.linspace(0, len(numbers) - 1, count).astype(int))]
    times = data.frames.times[chosen]
    states = model.normaliser.normalise(data.frames.read(chosen), times)
    return np.nan_to_num(states)[:, model.normaliser.valid].astype(float)


def _error(hidden: Hidden) -> float:
    """Standard error of the observations in units of anomalies, the same for all channels."""
    told, model = hidden.error, hidden.model
    each = [told if isinstance(told, float) else told.get(channel.variable, 0.0)
            for channel in model.fields.channels]  # fmt: skip
    return float(np.mean(np.array(each) / model.normaliser.std))
