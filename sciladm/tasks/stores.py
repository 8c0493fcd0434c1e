"""Forecast stores to be scored, from here or from elsewhere, opened lazily."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import ValidationError

from sciladm import recipe as recipes
from sciladm import schema
from sciladm.conventions import UserError, rename_in
from sciladm.data.blocks import unfinished
from sciladm.data.fields import Fields
from sciladm.data.store import open_store
from sciladm.metrics.tables import ORACLES
from sciladm.recipe import Recipe

log = logging.getLogger(__name__)
Array = NDArray[np.float32]
SLAB = 256 << 20
"""Bytes of one initial time that are read together."""


@dataclass(frozen=True, eq=False)
class Forecasts:
    """One store: ``ds`` (init_time, member, lead_time, …) under our names, ``name`` in scores."""

    name: str
    path: Path
    ds: xr.Dataset

    @classmethod
    def open(cls, path: Path) -> "Forecasts":
        """Any forecast store that xarray reads, in our layout or WeatherBench2's."""
        if left := unfinished(path):
            raise UserError(f"{path} is not finished, {left} blocks are still to be written; run "
                            "the command that writes it again")  # fmt: skip
        ds = rename_in(open_store(path))
        lacks = [dim for dim in ("init_time", "lead_time") if dim not in ds.coords]
        if lacks:
            there = ", ".join(f"{dim} {size}" for dim, size in ds.sizes.items())
            raise UserError(f"{path} is no forecast store: {' and '.join(lacks)} wanted, {there} "
                            "there; `python -m sciladm.forecast` writes one")  # fmt: skip
        for dim in ("init_time", "lead_time"):
            if dim not in ds.dims:
                ds = ds.expand_dims(dim)
        if ds["init_time"].dtype.kind != "M":
            raise UserError(f"{path}: init_time is of calendar {ds['init_time'].dt.calendar}; "
                            "scores are taken on the standard calendar alone")  # fmt: skip
        if ds["lead_time"].dtype.kind != "m":
            raise UserError(f"{path}: lead_time must be durations, with units such as hours")
        if "member" not in ds.dims:
            ds = ds.expand_dims("member")
        return cls(str(ds.attrs.get("forecast", path.stem)), path, ds)

    @property
    def inits(self) -> NDArray[np.datetime64]:
        """Initial times (init_time,)."""
        return np.asarray(self.ds["init_time"].values).astype("datetime64[ns]")

    @property
    def leads(self) -> NDArray[np.timedelta64]:
        """Lead times (lead_time,)."""
        return np.asarray(self.ds["lead_time"].values).astype("timedelta64[ns]")

    @property
    def members(self) -> int:
        """Ensemble size."""
        return int(self.ds.sizes["member"])

    def fact(self, name: str) -> str:
        """An attribute, empty where the store does not say."""
        return str(self.ds.attrs.get(name, ""))

    def recipe(self) -> Recipe | None:
        """The recipe of its model, if the store says."""
        if not self.fact("recipe"):
            return None
        where = f"{self.path}, attribute recipe"
        return told_recipe(schema.read_yaml(self.fact("recipe"), where), where)

    def read(
        self, init: np.datetime64, leads: NDArray[np.timedelta64], members: int, fields: Fields
    ) -> Iterator[Array]:
        """Per lead the first ``members`` at one initial time (member, channel, *space)."""
        row = int(np.flatnonzero(self.inits == init)[0])
        own = self.leads
        columns = [int(np.flatnonzero(own == lead)[0]) for lead in leads]
        one = self.ds[[name for name in fields.attributes if name in self.ds]]
        one = one.isel(init_time=row, member=slice(members))
        one = one.drop_vars({"init_time", "valid_time", "member", "time"} & set(one.coords))
        size = sum(v.dtype.itemsize * v.size for v in one.data_vars.values()) // len(own)
        together = max(1, SLAB // max(1, size))
        for first in range(0, len(columns), together):
            slab = one.isel(lead_time=columns[first : first + together]).load()
            for column in range(slab.sizes["lead_time"]):
                ds = slab.isel(lead_time=column, drop=True).rename(member="time")
                yield fields.to_array(ds, gaps=True)

    def fingerprint(self) -> str:
        """Hash of labels, attributes and the first field: which forecast was scored."""
        first = self.ds.isel(init_time=0, member=0, lead_time=0)
        digest = hashlib.sha256(json.dumps(self.ds.attrs, sort_keys=True, default=str).encode())
        for part in (self.inits, self.leads, self.ds["member"].values):
            digest.update(np.ascontiguousarray(part).tobytes())
        for name in sorted(map(str, first.data_vars)):
            digest.update(np.ascontiguousarray(first[name].values).tobytes())
        return digest.hexdigest()[:16]


def told_recipe(tree: Any, where: str) -> Recipe:
    """A recipe as a store tells it, which may be of another version: keys that this one does not
    know said how members were drawn, which is done, and are left out with a word."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        tree, gone = schema.known_part(tree, error)
    for key in gone:
        log.warning("%s: key `%s` is of another version; left out", where, key)
    return recipes.parse(tree, {}, where)


def open_forecasts(paths: Sequence[Path]) -> list[Forecasts]:
    """The stores, each under a name of its own: what it calls itself, its file where two agree."""
    opened = [Forecasts.open(path) for path in paths]
    names = [one.name for one in opened]
    for oracle in ORACLES:
        if names.count(oracle) > 1:
            raise UserError(f"two of the stores are {oracle} ensembles; score beside one of them")
    unique = [replace(o, name=o.path.stem) if names.count(o.name) > 1 else o for o in opened]
    stems = [one.name for one in unique]
    for stem in stems:
        if stems.count(stem) > 1:
            raise UserError(f"two stores are called {stem}; rename one of the files")
    return unique


def find_run(forecasts: Sequence[Forecasts], given: Path | None) -> Path | None:
    """The run behind the forecasts: the folder given, else one of the name that a store says, in
    runs/ here or beside the store; None where there is none."""
    if given is not None:
        if not (given / "recipe.yaml").is_file():
            raise UserError(f"--run {given}: no run is there (it lacks recipe.yaml)")
        return given
    for one in forecasts:
        name = one.fact("run")
        places = [Path("runs"), one.path.parent, one.path.parent / "runs"]
        for place in [*(p / name for p in places), one.path.parent] if name else []:
            if place.resolve().name == name and _fits(place, one):
                return place
    return None


def _fits(place: Path, forecasts: Forecasts) -> bool:
    """Whether a folder is the run that made these forecasts: same recipe."""
    own = forecasts.recipe()
    if own is None or not (place / "recipe.yaml").is_file():
        return False
    return recipes.load(place / "recipe.yaml").fingerprint() == own.fingerprint()


def recipe_of(
    forecasts: Sequence[Forecasts], run: Path | None, changes: Mapping[str, Any]
) -> Recipe:
    """The recipe that says which data and how to score, with ``changes`` to how."""
    found = [recipes.load(run / "recipe.yaml")] if run is not None else []
    found += [recipe for one in forecasts if (recipe := one.recipe()) is not None]
    if not found:
        raise UserError(
            f"{forecasts[0].path} does not say its recipe, and so not its data; give --run DIR, a "
            "run on the same data, or score it beside a store of ours"
        )
    return recipes.after_training(found[0], dict(changes))
