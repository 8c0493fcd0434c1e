"""From a card to a data set: its sources in order, what each needs, where it is kept."""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from sciladm.conventions import UserError, rename_in
from sciladm.data import remote
from sciladm.data.cards import (
    Card,
    Local,
    Rule,
    Simulated,
    Source,
    XarrayTutorial,
    ZarrHttps,
    load_card,
)
from sciladm.data.durable import hold
from sciladm.data.store import fingerprint, open_store
from sciladm.data.units import Request
from sciladm.data.web import Patience, UnreachableError
from sciladm.simulate import WORLDS, Plan

log = logging.getLogger(__name__)


class AbsentError(Exception):
    """A source that is not here: its host out of reach or its files absent; the next may do."""


@dataclass(frozen=True)
class Wanted:
    """The part of a data set that a recipe uses: what a remote source brings, and no more.

    ``variables`` name: levels, None where there is none; ``splits``: the recipe's, if it has any.
    """

    variables: Mapping[str, Sequence[int] | None]
    static: Sequence[str] = ()
    splits: Rule | None = None


@dataclass(frozen=True, eq=False)
class Opened:
    """A data set by its card: a lazy ``dataset`` with our names, ``splits`` for `Splits.resolve`.

    ``fingerprint`` is a sha256 of what identifies the values; ``kind`` that of the source.
    """

    dataset: xr.Dataset
    source: str
    kind: str
    splits: Rule
    card: Card
    fingerprint: str
    path: Path | None = field(default=None)


def cache_folder() -> Path:
    """``$SCILADM_CACHE``, else the user's cache folder."""
    if told := os.environ.get("SCILADM_CACHE"):
        return Path(told)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "sciladm"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/sciladm"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sciladm"


def open_card(
    name_or_path: str | Path,
    source: str | None = None,
    wanted: Wanted | None = None,
    progress: remote.Progress | None = None,
    patience: Patience | None = None,
) -> Opened:
    """Open a data set by its card: its sources in order, or ``source`` alone.

    Only a host that is out of reach or a local file that is absent moves on to the next source.
    Without ``wanted`` a remote source brings all the card's variables.
    """
    card, path = load_card(name_or_path)
    wanted = wanted or Wanted(dict.fromkeys(card.variables))
    named = {one.name: one for one in card.sources}
    if source is not None and source not in named:
        raise UserError(f"card {path.stem} has no source {source}; there are: {', '.join(named)}")
    absent = []
    for one in [named[source]] if source else card.sources:
        try:
            opened: Opened = _OPEN[one.kind](one, card, path, wanted, progress, patience)
            return opened
        except AbsentError as error:
            log.info("source %s of %s: %s", one.name, path.stem, error)
            absent.append(f"{one.name}: {error}")
    raise UserError(f"no source of card {path.stem} is to be had: " + "; ".join(absent))


def _local(source: Local, card: Card, path: Path, wanted: Wanted, *_: Any) -> Opened:
    given = [source.path] if isinstance(source.path, str) else source.path
    for text in given:
        if "${SCILADM_DATA}" in text and not os.environ.get("SCILADM_DATA"):
            raise AbsentError("the variable SCILADM_DATA is not set to the folder of local data")
    places = [path.parent / os.path.expandvars(text) for text in given]
    for place in places:
        if not any(place.parent.glob(place.name)):
            raise AbsentError(f"{place} is absent")
    return _opened(open_store(places), source, card, wanted, source.splits)


def _tutorial(source: XarrayTutorial, card: Card, path: Path, wanted: Wanted, *_: Any) -> Opened:
    try:
        import pooch  # type: ignore[import-untyped]  # noqa: F401
        import requests
    except ImportError:
        raise UserError(
            f"{source.name}: xarray's tutorial files are downloaded by pooch: pip install pooch; "
            "or set SCILADM_DATA to a folder that holds the data"
        ) from None
    try:
        ds = xr.tutorial.open_dataset(source.dataset, cache_dir=cache_folder() / "xarray-tutorial")
    except requests.exceptions.ConnectionError as error:
        raise AbsentError(f"its host is out of reach: {error!s:.120}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{source.name}: xarray's tutorial file: {error}") from None
    return _opened(ds, source, card, wanted, source.splits)


def _zarr_https(
    source: ZarrHttps,
    card: Card,
    path: Path,
    wanted: Wanted,
    progress: remote.Progress | None,
    patience: Patience | None,
) -> Opened:
    splits = wanted.splits or source.splits
    request = Request(source.url, wanted.variables, wanted.static, splits)
    folder = cache_folder() / source.name / request.key()
    missing = {name: variable.missing for name, variable in card.variables.items()}
    try:
        store = remote.fetch(request, folder, missing, progress, patience)
    except UnreachableError as error:
        raise AbsentError(f"its host is out of reach: {error}") from None
    mark = remote.fingerprint(folder)
    return _opened(open_store(store), source, card, wanted, splits, mark, store)


def _simulated(
    source: Simulated,
    card: Card,
    path: Path,
    wanted: Wanted,
    progress: remote.Progress | None,
    *_: Any,
) -> Opened:
    if source.world not in WORLDS:
        raise UserError(f"no simulated world {source.world}; there are: {', '.join(WORLDS)}")
    kind = WORLDS[source.world]
    world = kind.tiny() if source.size == "tiny" else kind()
    plan = Plan.years(**source.plan.model_dump())
    tree = {"world": source.world, "parameters": world.parameters(), "plan": asdict(plan)}
    key = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
    folder = cache_folder() / f"simulated-{source.world}" / key[:16]
    store = folder / "record.zarr"
    if not store.exists():
        folder.mkdir(parents=True, exist_ok=True)
        lock = hold(folder)
        try:
            world.run(store, plan, progress)
        finally:
            if lock is not None:
                os.close(lock)
    splits = {
        name: [[str(a.astype("M8[s]")), str(b.astype("M8[s]"))] for a, b in ranges]
        for name, ranges in plan.splits.items()
    }
    return _opened(open_store(store), source, card, wanted, splits, key, store)


def _opened(
    ds: xr.Dataset,
    source: Source,
    card: Card,
    wanted: Wanted,
    splits: Rule,
    mark: str | None = None,
    path: Path | None = None,
) -> Opened:
    ds = rename_in(ds)
    return Opened(
        ds, source.name, source.kind, wanted.splits or splits, card, mark or fingerprint(ds), path
    )


_OPEN: dict[str, Any] = {
    "local": _local,
    "xarray-tutorial": _tutorial,
    "zarr-https": _zarr_https,
    "simulated": _simulated,
}
