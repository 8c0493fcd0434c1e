"""Filled gaps as a store: one series and micro-batch of members after another, resumable."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.answers import AnswerPlan
from sciladm.model import Model
from sciladm.observe import Derived
from sciladm.tasks.gaps import yet_unknown
from sciladm.tasks.given import Given
from sciladm.tasks.infill import Asked, Wish, given_mark, notes, on_its_grid, reduced, solved
from sciladm.tasks.lazy import attributes_of, variables_of
from sciladm.tasks.voice import Voice
from sciladm.tasks.write_blocks import Drawn, digest, identity, refuse_foreign, write_blocks


@dataclass(frozen=True, eq=False)
class Part:
    """Members of a series, by the numbers of its times; drawn, where anything is asked of them."""

    numbers: NDArray[np.int64]
    given: Given | None
    members: range


def write_infill(
    model: Model, ds: xr.Dataset, wish: Wish, out: Path, overwrite: bool, voice: Voice
) -> None:
    """Fill ``ds`` in a zarr store ``out``, which the same command goes on with."""
    refuse_foreign("infill", out, overwrite)
    if any(isinstance(one, Derived) for one in wish.operator):
        raise UserError(
            "functions of fields cannot be told from each other when a store is gone on with: "
            "fill in Python, where model.infill knows them, and write what comes back"
        )
    model, wish = on_its_grid(model, ds, wish)
    asked = Asked.of(model, ds, wish)
    gaps, size = asked.gaps, model.recipe.micro_batch
    each = size if wish.output == "members" else wish.members
    told = {int(numbers[0]): given for numbers, given in asked.questions}
    parts = [
        Part(numbers, told.get(int(numbers[0])), range(m, min(m + each, wish.members)))
        for numbers in gaps.series()
        for m in range(0, wish.members, each)
    ]
    template, time = _template(asked, wish), gaps.time or "time"
    own = identity(
        model, template, output=wish.output, given=_digest(asked),
        asked={k: v for k, v in notes(model, wish).items() if k != "infill_versions"},
    )  # fmt: skip
    plan = AnswerPlan(template, {"member": size, time: 1}, len(parts), own)

    def draw(number: int) -> Drawn:
        part = parts[number]
        filled, left = _filled(asked, wish, part)
        place = {"member": part.members, time: gaps.order[part.numbers].tolist()}
        return place, filled, left

    write_blocks("infill", plan, draw, wish.workers, out, overwrite, voice,
                 lambda left: solved(wish, asked.far, float(left.max(initial=0.0))))  # fmt: skip


def _filled(asked: Asked, wish: Wish, part: Part) -> tuple[xr.Dataset, float]:
    """A part of the answer under the names of the question, and what was left unsolved of it."""
    gaps, model, numbers = asked.gaps, asked.gaps.model, part.numbers
    values = np.repeat(gaps.values[None, numbers], len(part.members), axis=0)
    left: list[float] = []
    if part.given is not None:
        given = replace(part.given, left=left)
        for first in range(0, len(part.members), model.recipe.micro_batch):
            drawn = given.members(part.members[first])
            for member, states in enumerate(drawn[: len(part.members) - first], start=first):
                values[member] = model.normaliser.denormalise(states, gaps.frames.times[numbers])
    kept = asked.kept[numbers] | ~model.normaliser.valid
    answer = gaps.part(numbers).answer(values, kept)
    filled = xr.Dataset(reduced(answer, wish.output)).drop_vars("time")
    return gaps.renamed(filled), max(left, default=0.0)


def _template(asked: Asked, wish: Wish) -> xr.Dataset:
    """The answer, of which nothing is known."""
    gaps = asked.gaps
    new: dict[str, xr.DataArray] = {}
    for given in gaps.model.fields.groups:
        for name, ahead, kind in variables_of(given, gaps, wish):
            if kind.kind == "f":
                new[name] = yet_unknown(gaps.frames.ds[given], ahead, kind)
                new[name].attrs = attributes_of(name, given, gaps)
    about = notes(gaps.model, wish) | {"infill_given": given_mark(gaps.values, gaps.observed)}
    return gaps.template(new | gaps.seen()).assign_attrs(about)


def _digest(asked: Asked) -> str:
    """Hash of all that was observed, when, and with which errors."""
    gaps = asked.gaps
    arrays: list[Any] = [gaps.frames.times, gaps.observed, asked.error, gaps.values[gaps.observed]]
    for one in asked.told:
        if one.rows is not None:
            csr = one.rows.weights
            arrays += [csr.data, csr.indices, csr.indptr, one.rows.values, one.rows.std]
    return digest(arrays)
