"""The data set of a recipe: from a card or from files of one's own, as numbered states."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciladm.conventions import UserError, format_duration
from sciladm.data.catalog import open_card, prospect
from sciladm.data.fields import Fields
from sciladm.data.frames import Frames
from sciladm.data.guess import guess
from sciladm.data.remote import Progress
from sciladm.data.sources import Wanted
from sciladm.data.splits import Splits
from sciladm.data.store import fingerprint, open_store
from sciladm.data.times import Times, calendar_of, spaced
from sciladm.data.windows import stride, window_starts
from sciladm.recipe import Recipe

OWN = "own"
"""The source of data that were given by their path."""
FEWEST = 30
"""Training windows that a linear forecast needs; a trained run's data that have fewer states than
that are not split, and are there to start from alone."""
FEWEST_STILL = 5
"""Training windows without which there is no climate to draw from."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """States by number, their splits, and where they come from.

    ``kind`` is that of the source (`simulated` among them), ``path`` its store where it has one,
    ``why`` what was guessed, in lines.
    """

    frames: Frames
    splits: Splits
    source: str
    kind: str
    title: str
    fingerprint: str
    path: Path | None = None
    why: tuple[str, ...] = ()

    @property
    def fields(self) -> Fields:
        """The border between its labels and tensors."""
        return self.frames.fields

    def indices(self, split: str) -> NDArray[np.int64]:
        """Numbers of the states of a split."""
        return self.splits.indices(split, self.frames.times)


def foretell(recipe: Recipe, source: str | None = None) -> tuple[str | None, str, bool]:
    """The source that `open_dataset` would take, what that costs, and whether it is here already;
    nothing is changed."""
    if recipe.data.card is None:
        return source, f"data: {recipe.data.path}", True
    name, cost, here = prospect(recipe.data.card, source, _wanted(recipe))
    return name, f"data: source {name} of card {recipe.data.card}: {cost}", here


def _wanted(recipe: Recipe) -> Wanted | None:
    data = recipe.data
    return Wanted(data.variables, data.static, data.splits) if data.variables else None


def open_dataset(
    recipe: Recipe,
    source: str | None = None,
    progress: Progress | None = None,
    fields: Fields | None = None,
) -> DataSet:
    """Open what the recipe names: `source` alone, else the card's sources in order.

    `fields` are those of a trained run: then the data must fit them, and a few states, or one,
    are enough; so few have no splits.
    """
    data = recipe.data
    if data.card is None:
        return _own(recipe, source, fields)
    opened = open_card(data.card, source, _wanted(recipe), progress)
    variables: Any = data.variables or dict.fromkeys(opened.card.variables)
    if fields is None:
        fields = Fields.from_dataset(
            opened.dataset, variables, data.static, opened.card.variables, data.dims
        )
    frames = Frames(opened.dataset, fields)
    splits = Splits.resolve(data.splits or opened.splits, frames.times)
    stride(frames.times, settled(recipe, frames.times).window.step)
    return DataSet(frames, splits, opened.source, opened.kind, opened.card.title,
                   opened.fingerprint, opened.path)  # fmt: skip


def settled(recipe: Recipe, times: Times) -> Recipe:
    """The recipe with what its data alone can tell: a step of `auto` is the data's own."""
    if recipe.window.step != "auto":
        return recipe
    _, own = spaced(times)
    if own == np.timedelta64(0):
        raise UserError("the data have a single time: nothing can be forecast from them")
    window = recipe.window.model_copy(update={"step": format_duration(own)})
    return recipe.model_copy(update={"window": window})


def check_headline(recipe: Recipe, data: DataSet) -> None:
    """UserError for a headline variable that the data do not have."""
    names = data.fields.names
    if odd := [name for name in recipe.evaluation.headline if name not in names]:
        raise UserError(
            f"evaluation.headline: {', '.join(odd)} is not among the channels, which are: "
            f"{', '.join(names)}"
        )


def check_layout(recipe: Recipe, data: DataSet) -> None:
    """UserError for simulated data in WeatherBench2's layout, unless that is asked for twice."""
    own = recipe.output
    asked = own.layout == "weatherbench2" and data.kind == "simulated"
    if asked and not own.simulated_as_weatherbench2:
        raise UserError(
            "these data are simulated, and a store in WeatherBench2's layout is easily taken for "
            "ERA5; if it is meant, say so: --set output.simulated_as_weatherbench2=true"
        )


def check_trainable(recipe: Recipe, data: DataSet) -> None:
    """UserError for data that this recipe cannot be trained on, before anything is computed."""
    check_headline(recipe, data)
    channels, auto, times = data.fields.channels, recipe.autoencoder, data.frames.times
    if times.dtype.kind != "M":
        raise UserError(
            f"the data's times ({times[0]} …, calendar {calendar_of(times)}) are not on the "
            "standard calendar between 1678 and 2262, which forecasts are written and scored on; "
            "ds.convert_calendar('standard') converts a calendar, years can be shifted"
        )
    gappy = [channel.name for channel in channels if channel.missing == "moving"]
    if gappy and recipe.window.past:
        raise UserError(
            f"{', '.join(gappy)}: values are missing in other cells from time to time, and a "
            "forecast starts from whole fields, which such data never have; window.past: 0 trains "
            "a run that fills them. Or leave the variable out with data.variables, or say "
            "data.missing.NAME=static if it is land after all"
        )
    shape = data.fields.grid.shape
    if auto.patch > max(shape):
        raise UserError(
            f"autoencoder.patch is {auto.patch} cells a side, but the whole grid has "
            f"{' × '.join(map(str, shape))}; 4 is a good start"
        )
    size = len(channels) * auto.patch ** len(shape)
    if auto.channels > size:
        raise UserError(
            f"autoencoder.channels is {auto.channels}, but a patch of {auto.patch} cells a side "
            f"of {len(channels)} channels has {size} numbers; set it to {size} at most, about "
            f"{max(1, size // 3)} for a compression of 3"
        )
    least = FEWEST if recipe.window.past else FEWEST_STILL
    for split, fewest in (("train", least), ("validation", 1)):
        inside = data.indices(split)
        count = len(window_starts(times, recipe.window, data.splits[split]))
        if count < fewest:
            raise UserError(
                f"{split} has {len(inside)} of the data's {len(times)} times, {count} windows of "
                f"{recipe.window.past} + {recipe.window.future} frames a step of "
                f"{recipe.window.step} apart, and {fewest} are needed at least; give more data, "
                "a shorter window.step, or other data.splits"
            )


def _own(recipe: Recipe, source: str | None, fields: Fields | None) -> DataSet:
    data = recipe.data
    if source not in (None, OWN):
        raise UserError(f"--source {source}: data given by a path have one source, `{OWN}`")
    assert data.path is not None, "a recipe has a card or a path"
    raw = open_store(data.path)
    why: tuple[str, ...] = ()
    trained = fields is not None
    if fields is None:
        guessed = guess(raw, data.dims, data.missing)
        why = guessed.why
        fields = Fields.from_dataset(
            raw,
            data.variables or guessed.variables,
            data.static or guessed.static,
            guessed.meta,
            data.dims,
        )
    frames = Frames.of(raw, fields)
    spaced(frames.times)  # says what is wrong with times that are no dates, or come twice
    few = trained and len(frames.times) < FEWEST
    rule = data.splits or ({} if few else Splits.shares(frames.times))
    splits = Splits.resolve(rule, frames.times)
    if not (trained and len(frames.times) == 1):
        stride(frames.times, settled(recipe, frames.times).window.step)
    return DataSet(frames, splits, OWN, OWN, str(raw.attrs.get("title", "own data")),
                   fingerprint(raw), why=why)  # fmt: skip
