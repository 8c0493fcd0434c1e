"""The data set of a recipe: from a card or from files of one's own, as numbered states."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciladm.conventions import UserError, rename_in
from sciladm.data.catalog import open_card
from sciladm.data.fields import Fields
from sciladm.data.frames import Frames
from sciladm.data.guess import guess
from sciladm.data.remote import Progress
from sciladm.data.sources import Wanted
from sciladm.data.splits import Splits
from sciladm.data.store import fingerprint, open_store
from sciladm.data.windows import stride
from sciladm.recipe import Recipe

OWN = "own"
"""The source of data that were given by their path."""
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
"""How one's own data are split where a recipe does not say."""


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


def open_dataset(
    recipe: Recipe,
    source: str | None = None,
    progress: Progress | None = None,
    fields: Fields | None = None,
) -> DataSet:
    """Open what the recipe names: `source` alone, else the card's sources in order.

    `fields` are those of a trained run: then the data must fit them.
    """
    data = recipe.data
    if data.card is None:
        return _own(recipe, source, fields)
    wanted = Wanted(data.variables or {}, data.static, data.splits) if data.variables else None
    opened = open_card(data.card, source, wanted, progress)
    variables: Any = data.variables or dict.fromkeys(opened.card.variables)
    if fields is None:
        fields = Fields.from_dataset(
            opened.dataset, variables, data.static, opened.card.variables, data.dims
        )
    frames = Frames(opened.dataset, fields)
    splits = Splits.resolve(data.splits or opened.splits, frames.times)
    stride(frames.times, recipe.window.step)
    return DataSet(frames, splits, opened.source, opened.kind, opened.card.title,
                   opened.fingerprint, opened.path)  # fmt: skip


def _own(recipe: Recipe, source: str | None, fields: Fields | None) -> DataSet:
    data = recipe.data
    if source not in (None, OWN):
        raise UserError(f"--source {source}: data given by a path have one source, `{OWN}`")
    assert data.path is not None, "a recipe has a card or a path"
    raw = open_store(data.path)
    why: tuple[str, ...] = ()
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
    ds = rename_in(raw, {name: ours for name, ours in data.dims.items() if name in raw.dims})
    if "time" not in ds.dims:
        raise UserError(
            f"{data.path}: no dimension is time; name it with --set data.dims.NAME=time"
        )
    frames = Frames(ds.sortby("time"), fields)
    splits = Splits.resolve(data.splits or _shares(frames.times), frames.times)
    stride(frames.times, recipe.window.step)
    return DataSet(frames, splits, OWN, OWN, str(ds.attrs.get("title", "own data")),
                   fingerprint(raw), why=why)  # fmt: skip


def _shares(times: Any) -> dict[str, Any]:
    """Train, validation and test one after another in time."""
    edges = np.round(np.cumsum([0.0, *SHARES.values()]) * len(times)).astype(int)
    return {
        name: [[str(times[a])[:19], str(times[b - 1])[:19]]]
        for name, a, b in zip(SHARES, edges[:-1], edges[1:], strict=True)
    }
