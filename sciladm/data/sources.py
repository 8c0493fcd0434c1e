"""The kinds of source that a card may name: how each is opened, and what that would cost."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from sciladm.conventions import UserError, rename_in
from sciladm.data import remote
from sciladm.data.cards import Card, Local, Rule, Simulated, Source, XarrayTutorial, ZarrHttps
from sciladm.data.durable import hold, writing
from sciladm.data.store import fingerprint, open_store
from sciladm.data.units import Request
from sciladm.data.web import Patience, UnreachableError
from sciladm.simulate import WORLDS, Records, World

Told = tuple[str, bool]
"""What a source would cost, and whether it is here already."""


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
    path: Path | None = None


def cache_folder() -> Path:
    """``$SCILADM_CACHE``, else the user's cache folder."""
    if told := os.environ.get("SCILADM_CACHE"):
        return Path(told)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "sciladm"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/sciladm"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sciladm"


def _places(source: Local, path: Path) -> list[Path]:
    """Paths of a local source, all of them there."""
    given = [source.path] if isinstance(source.path, str) else source.path
    for text in given:
        if "${SCILADM_DATA}" in text and not os.environ.get("SCILADM_DATA"):
            raise AbsentError("the variable SCILADM_DATA is not set to the folder of local data")
    places = [path.parent / os.path.expandvars(text) for text in given]
    for place in places:
        if not any(place.parent.glob(place.name)):
            raise AbsentError(f"{place} is absent")
    return places


def open_local(source: Local, card: Card, path: Path, wanted: Wanted, *_: Any) -> Opened:
    """Files here; AbsentError if one of them is not."""
    return _opened(open_store(_places(source, path)), source, card, wanted, source.splits)


def tell_local(source: Local, path: Path, *_: Any) -> Told:
    """Where they are."""
    return f"read from {', '.join(map(str, _places(source, path)))}", True


def open_tutorial(
    source: XarrayTutorial, card: Card, path: Path, wanted: Wanted, *_: Any
) -> Opened:
    """The file, through xarray's own cache; AbsentError if its host is out of reach."""
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


def tell_tutorial(source: XarrayTutorial, *_: Any) -> Told:
    """What xarray would do."""
    here = any((cache_folder() / "xarray-tutorial").glob(f"*{source.dataset}*"))
    done = "downloaded already" if here else "to be downloaded by pooch"
    return f"xarray's tutorial file {source.dataset}, {done}", here


def _request(source: ZarrHttps, wanted: Wanted) -> tuple[Request, Path]:
    splits = wanted.splits or source.splits
    request = Request(source.url, wanted.variables, wanted.static, splits)
    return request, cache_folder() / source.name / request.key()


def open_zarr_https(
    source: ZarrHttps,
    card: Card,
    path: Path,
    wanted: Wanted,
    progress: remote.Progress | None,
    patience: Patience | None,
) -> Opened:
    """The part wanted, copied if it is not yet; AbsentError if the host is out of reach."""
    request, folder = _request(source, wanted)
    missing = {name: variable.missing for name, variable in card.variables.items()}
    try:
        store = remote.fetch(request, folder, missing, progress, patience)
    except UnreachableError as error:
        raise AbsentError(f"its host is out of reach: {error}") from None
    mark = remote.fingerprint(folder)
    return _opened(open_store(store), source, card, wanted, source.splits, mark, store)


def tell_zarr_https(
    source: ZarrHttps, path: Path, wanted: Wanted, patience: Patience | None
) -> Told:
    """How much would be copied, from the metadata alone."""
    request, folder = _request(source, wanted)
    if remote.is_complete(folder):
        return f"copied already to {folder}", True
    try:
        layout = remote.prospect(request, patience)
    except UnreachableError as error:
        raise AbsentError(f"its host is out of reach: {error}") from None
    return (
        f"to be copied from {source.url} to {folder}: {layout.kept / 1e9:.2f} GB kept, up to "
        f"{layout.moved / 1e9:.2f} GB moved in {len(layout.units)} pieces (both less when "
        "compressed), once; resumable"
    ), False


@dataclass(frozen=True)
class _Record:
    """A simulated record: its world, its plan, where it lies, the hash of all that decides it."""

    world: World
    plan: Records
    store: Path
    key: str


def world_of(source: Simulated) -> World:
    """The world that a source is a record of."""
    if source.world not in WORLDS:
        raise UserError(f"no simulated world {source.world}; there are: {', '.join(WORLDS)}")
    kind = WORLDS[source.world]
    world: Any = kind.tiny() if source.size == "tiny" else kind()
    try:
        made: World = replace(world, **source.parameters) if source.parameters else world
    except TypeError as error:
        raise UserError(f"parameters of the world {source.world}: {error}") from None
    return made


def _record(source: Simulated) -> _Record:
    world = world_of(source)
    try:
        plan = world.plan(**source.plan.model_dump(exclude_unset=True))
    except TypeError as error:
        raise UserError(f"the plan of the world {source.world}: {error}") from None
    tree = {"world": source.world, "parameters": world.parameters(), "plan": asdict(plan)}
    key = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
    store = cache_folder() / f"simulated-{source.world}" / key[:16] / "record.zarr"
    return _Record(world, plan, store, key)


def open_simulated(
    source: Simulated,
    card: Card,
    path: Path,
    wanted: Wanted,
    progress: remote.Progress | None,
    *_: Any,
) -> Opened:
    """The record, simulated if it is not yet."""
    record = _record(source)
    store = record.store
    if not store.exists():
        with writing(store.parent):
            store.parent.mkdir(parents=True, exist_ok=True)
        lock = hold(store.parent)
        try:
            with writing(store):
                record.world.run(store, record.plan, progress)
        finally:
            if lock is not None:
                os.close(lock)
    splits = {
        name: [[str(a.astype("M8[s]")), str(b.astype("M8[s]"))] for a, b in ranges]
        for name, ranges in record.plan.splits.items()
    }
    return _opened(open_store(store), source, card, wanted, splits, record.key, store)


def tell_simulated(source: Simulated, *_: Any) -> Told:
    """How much would be simulated."""
    record = _record(source)
    if record.store.exists():
        return f"simulated already, in {record.store}", True
    return f"{len(record.plan.times)} states to be simulated into {record.store}, once", False


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
