"""From a card to a data set: its sources in order, until one is to be had."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sciladm.conventions import UserError
from sciladm.data import sources
from sciladm.data.cards import Card, Source, load_card
from sciladm.data.remote import Progress
from sciladm.data.sources import AbsentError, Told
from sciladm.data.sources import Opened as Opened
from sciladm.data.sources import Wanted as Wanted
from sciladm.data.sources import cache_folder as cache_folder
from sciladm.data.web import Patience
from sciladm.simulate import World

T = TypeVar("T")
log = logging.getLogger(__name__)

_KINDS: dict[str, tuple[Callable[..., Opened], Callable[..., Told]]] = {
    "local": (sources.open_local, sources.tell_local),
    "xarray-tutorial": (sources.open_tutorial, sources.tell_tutorial),
    "zarr-https": (sources.open_zarr_https, sources.tell_zarr_https),
    "simulated": (sources.open_simulated, sources.tell_simulated),
}
"""Kind of source: how it is opened, how it is told."""


def open_card(
    name_or_path: str | Path,
    source: str | None = None,
    wanted: Wanted | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Opened:
    """Open a data set by its card: its sources in order, or ``source`` alone.

    Only a host that is out of reach or a local file that is absent moves on to the next source.
    Without ``wanted`` a remote source brings all the card's variables.
    """

    def attempt(one: Source, card: Card, path: Path, wanted: Wanted) -> Opened:
        return _KINDS[one.kind][0](one, card, path, wanted, progress, patience)

    return _first(name_or_path, source, wanted, attempt)


def prospect(
    name_or_path: str | Path,
    source: str | None = None,
    wanted: Wanted | None = None,
    patience: Patience | None = None,
) -> tuple[str, str, bool]:
    """The source that `open_card` would take now, what that would cost, and whether it is here
    already; nothing is changed."""

    def attempt(one: Source, card: Card, path: Path, wanted: Wanted) -> tuple[str, str, bool]:
        return one.name, *_KINDS[one.kind][1](one, path, wanted, patience)

    return _first(name_or_path, source, wanted, attempt)


def _first(
    name_or_path: str | Path,
    source: str | None,
    wanted: Wanted | None,
    attempt: Callable[[Source, Card, Path, Wanted], T],
) -> T:
    """What ``attempt`` gives for the first source that is not absent."""
    card, path = load_card(name_or_path)
    wanted = wanted or Wanted(dict.fromkeys(card.variables))
    named = {one.name: one for one in card.sources}
    if source is not None and source not in named:
        raise UserError(f"card {path.stem} has no source {source}; there are: {', '.join(named)}")
    absent = []
    for one in [named[source]] if source else card.sources:
        try:
            return attempt(one, card, path, wanted)
        except AbsentError as error:
            log.info("source %s of %s: %s", one.name, path.stem, error)
            absent.append(f"{one.name}: {error}")
    raise UserError(f"no source of card {path.stem} is to be had: " + "; ".join(absent))


def world_of(name_or_path: str | Path, source: str) -> World:
    """The simulated world behind a source of a card."""
    card, path = load_card(name_or_path)
    for one in card.sources:
        if one.name == source and one.kind == "simulated":
            return sources.world_of(one)
    raise UserError(f"source {source} of card {path.stem} is not simulated")
