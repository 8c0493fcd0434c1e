"""Filled stores, and what was hidden from them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.calendar import find
from sciladm.conventions import UserError, rename_in
from sciladm.data.blocks import unfinished
from sciladm.data.dataset import DataSet
from sciladm.data.fields import Fields
from sciladm.data.frames import Frames
from sciladm.data.labels import get
from sciladm.data.store import open_store
from sciladm.data.times import Times
from sciladm.model import Model
from sciladm.tasks.infill import given_mark
from sciladm.tasks.run import FACTS

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Filled:
    """One store: ``ds`` (time, member, …) under our names, ``name`` in scores."""

    name: str
    path: Path
    ds: xr.Dataset

    @classmethod
    def open(cls, path: Path, name: str, fields: Fields) -> "Filled":
        """A store of `infill` with its members."""
        if left := unfinished(path):
            raise UserError(f"{path} is not finished, {left} blocks are still to be written; run "
                            "the command that writes it again")  # fmt: skip
        ds = open_store(path)
        ds = rename_in(ds, {dim: ours for dim, ours in fields.dims.items() if dim in ds.dims})
        if "member" not in ds.dims:
            raise UserError(
                f"{path} holds no members but {ds.attrs.get('infill_method', 'what was')} told of "
                "them; fill with --output members to score it"
            )
        if "time" not in ds.dims and "time" in ds.variables:
            ds = ds.set_coords("time").expand_dims("time")
        if "time" not in ds.dims:
            raise UserError(f"{path} has no times, so nothing says what was filled")
        if ds["time"].dtype.kind != "M":
            raise UserError(f"{path}: time is of calendar {ds['time'].dt.calendar}; scores are "
                            "taken on the standard calendar alone")  # fmt: skip
        return cls(name, path, ds.sortby("time"))

    @property
    def times(self) -> Times:
        """Of its states (time,)."""
        return np.asarray(self.ds["time"].values).astype("datetime64[ns]")

    def read(self, number: int, fields: Fields, members: int) -> Array:
        """The first ``members`` of a state (member, channel, *space)."""
        one = self.ds[list(fields.groups)].isel(time=number, member=slice(members), drop=True)
        return fields.to_array(one.rename(member="time"), gaps=True)

    def observed(self, fields: Fields) -> Mask:
        """Where cells were observed (time, channel, *space)."""
        out = np.empty((len(self.times), len(fields.channels), *fields.grid.shape), bool)
        for name, numbers in fields.groups.items():
            told = get(self.ds, f"{name}_observed")
            out[:, numbers] = fields.layers(self.ds, told, name) > 0.5
        return out


@dataclass(frozen=True, eq=False)
class Hidden:
    """What is scored: states of the truth at ``times`` (time, channel, *space), and where all
    stores had to fill what it knows, ``asked``. ``given``: what the first store was given, NaN
    where nothing, with the ``error`` it was told of; None where that cannot be known."""

    model: Model
    data: DataSet
    times: Times
    truth: Array
    asked: Mask
    given: Array | None
    error: float | dict[str, float]
    members: int
    seed: int


def are_fills(stores: Sequence[Path]) -> bool:
    """Whether these are stores of `infill`; UserError for a mixture."""
    kinds = {"infill_method" in open_store(path).attrs for path in stores}
    if len(kinds) > 1:
        raise UserError("some of the stores are filled gaps and some are forecasts; score them "
                        "apart")  # fmt: skip
    return kinds == {True}


def run_of(store: Path, given: Path | None) -> Path:
    """The run that filled a store, by its weights: the folder given, or one in runs/ here or
    beside the store."""
    mark = open_store(store).attrs.get("infill_run", "")
    known = (Path("runs"), store.absolute().parent)
    places = [given] if given else [facts.parent for place in known
                                    for facts in sorted(place.glob(f"*/{FACTS}"))]  # fmt: skip
    for place in places:
        facts = place / FACTS
        if not facts.is_file():
            raise UserError(f"--run {given}: no run is there (it lacks {FACTS})")
        if json.loads(facts.read_text(encoding="utf-8")).get("model_hash") == mark:
            return place
    if given:
        raise UserError(f"{store} was filled by another run than {given} (its weights are {mark})")
    raise UserError(f"the run that filled {store} (weights {mark}) was not found in runs/ nor "
                    "beside it; give --run DIR")  # fmt: skip


def hidden_from(
    fills: Sequence[Filled], model: Model, data: DataSet, truth: Path | None, notes: list[str]
) -> Hidden:
    """Where ``truth`` (absent: ``data``) has values that no store was given; ``notes`` get what a
    reader should know of it."""
    frames = Frames.of(open_store(truth), model.fields) if truth else data.frames
    times = fills[0].times
    for one in fills[1:]:
        times = np.intersect1d(times, one.times)
    at = find(frames.times, times, model.step)
    times, at = times[at >= 0], at[at >= 0]
    if not len(times):
        raise UserError(
            f"the truth ({frames.times[0]} … {frames.times[-1]}) has no time in common with "
            f"{', '.join(str(one.path) for one in fills)}; give the right one with --truth PATH"
        )
    states = model.fields.to_array(frames.ds.isel(time=at), gaps=True)
    known = np.isfinite(states) & model.normaliser.valid
    seen = [one.observed(model.fields)[np.searchsorted(one.times, times)] for one in fills]
    asked = known & ~np.logical_or.reduce(seen)
    if not asked.any():
        raise UserError(
            "the truth has no value where one was filled in: score against data that are whole, "
            "or fill with --withhold and score against what was filled"
        )
    others = [one.name for one in fills if one.ds.attrs.get("infill_run") != _mark(model)]
    if others:
        notes.append(f"{', '.join(others)} are of other runs; baselines know what the run of "
                     f"{fills[0].name} does.")  # fmt: skip
    notes.append(
        f"{100 * asked.sum() / known.sum():.1f} % of what the truth knows was hidden, and is "
        "scored."
    )
    error = json.loads(fills[0].ds.attrs.get("infill_obs_error", "0.0"))
    given = _given(fills[0], times, states, seen[0], error, model)
    members = min(int(one.ds.sizes["member"]) for one in fills)
    return Hidden(
        model, data, times, states, asked, given, error, members, model.recipe.evaluation.seed
    )


def _given(
    first: Filled, times: Times, truth: Array, seen: Mask, error: Any, model: Model
) -> Array | None:
    """What a store was given, NaN where nothing: its own values where observations are exact, and
    else the truth's, if these are what it was given."""
    if first.ds.attrs.get("infill_besides") or error == "per cell":
        return None
    if error == 0 or (isinstance(error, dict) and not any(error.values())):
        rows = np.searchsorted(first.times, times)
        own = np.stack([first.read(int(row), model.fields, 1)[0] for row in rows])
        return np.where(seen, own, np.float32(np.nan))
    if given_mark(truth, seen) != first.ds.attrs.get("infill_given"):
        return None
    return np.where(seen, truth, np.float32(np.nan))


def _mark(model: Model) -> str:
    return str(model.facts["model_hash"])
