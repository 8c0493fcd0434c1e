"""The folder of a run: whose it is, and whether it may be gone on with."""

import json
import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from sciladm import recipe as recipes
from sciladm.conventions import UserError
from sciladm.data.dataset import OWN, DataSet, open_dataset
from sciladm.data.durable import write_durably
from sciladm.model import Model
from sciladm.recipe import Recipe
from sciladm.tasks.voice import Voice
from sciladm.training.checkpoint import read_json, read_tensors

Asked = TypeVar("Asked")
Drawn = TypeVar("Drawn")
log = logging.getLogger(__name__)
RECIPE = "recipe.yaml"
FACTS = "facts.json"
COMPLETED = "completed.safetensors"
THREADS = 1
"""That work at one network, for a sum's last bit depends on them; several work side by side."""


def side_by_side(
    draw: Callable[[Asked], Drawn], asked: Iterable[Asked], workers: int
) -> Iterator[tuple[Asked, Drawn]]:
    """What is asked with what is drawn for it, in order, ``workers`` of them at a time, one thread
    each; no more than that wait."""
    waiting: deque[tuple[Asked, Future[Drawn]]] = deque()
    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(THREADS,)
    ) as threads:
        for one in asked:
            if len(waiting) == workers:
                first, drawn = waiting.popleft()
                yield first, drawn.result()
            waiting.append((one, threads.submit(draw, one)))
        while waiting:
            first, drawn = waiting.popleft()
            yield first, drawn.result()


def run_path(recipe: Recipe, data: DataSet) -> Path:
    """Where a run lies unless it is told otherwise."""
    return Path("runs") / f"{recipe.name}-{data.source}"


def versions() -> dict[str, str]:
    """Of what computes the bits of a run and of its draws."""
    return {name: version(name) for name in ("sciladm", "torch", "numpy")}


def machine(device: torch.device) -> dict[str, Any]:
    """What else they depend on: the kind of device, the threads of one network, the versions."""
    return {"device": device.type, "threads": THREADS, "versions": versions()}


def open_run(
    path: Path,
    device: torch.device,
    changes: dict[str, Any],
    data: list[str] | None,
    voice: Voice,
) -> tuple[Model, DataSet]:
    """A trained run and the data it was trained on, or other ``data`` of the same kind."""
    model = Model.load(path, device, changes)
    recipe, source = model.recipe, model.facts["source"]
    trained, now = model.facts["versions"]["torch"], versions()["torch"]
    if trained != now:
        log.warning("%s was trained with torch %s; %s may differ in a bit", path, trained, now)
    if data:
        other = {"data.path": data, "data.card": None, "data.splits": None}
        recipe, source = recipes.parse(recipe.tree(), other, "--data"), OWN
    with voice.progress("data") as report:
        opened = open_dataset(recipe, source, report, model.fields)
    return model, opened if data else whole(opened, path)


def whole(data: DataSet, path: Path) -> DataSet:
    """The data of the run at ``path`` as it was trained on them: where gaps move, states of
    training and validation as they were completed."""
    if not (path / COMPLETED).is_file():
        return data
    held, _ = read_tensors(path / COMPLETED)
    numbers, states = held["numbers"].numpy(), held["states"].numpy()
    return replace(data, frames=replace(data.frames, held=(numbers, states)))


def claim(
    path: Path, recipe: Recipe, data: DataSet, device: torch.device, overwrite: bool
) -> None:
    """Make the folder of this recipe on these data, or find it and go on.

    UserError if something else is there: another recipe, another source, no run at all. With
    ``overwrite`` a run is replaced; a folder that is none is never touched.
    """
    if path.exists() and (path.is_file() or _holds(path)):
        if not (path / RECIPE).is_file():
            raise UserError(f"{path} is there and is not a run; give another --run-dir")
        if overwrite:
            _remove(path)
        else:
            _moved(path, _same(path, recipe, data), machine(device))
    path.mkdir(parents=True, exist_ok=True)
    write_durably(path / RECIPE, recipe.text().encode())


def _holds(path: Path) -> bool:
    """Whether anything is in a folder but what a kill in its first moment left."""
    return any(entry.name != f"{RECIPE}.partial" for entry in path.iterdir())


def _remove(path: Path) -> None:
    """Delete a run: a kill on the way leaves a whole one or none, never one that is not known."""
    old = path.with_name(f".{path.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    path.replace(old)
    shutil.rmtree(old)


def _same(path: Path, recipe: Recipe, data: DataSet) -> dict[str, Any]:
    """What the run knows of itself."""
    there = recipes.load(path / RECIPE)
    remedy = "train into another folder with --run-dir, or replace it with --overwrite"
    if there.fingerprint() != recipe.fingerprint():
        old, new = (r.model_dump(by_alias=True, mode="json") for r in (there, recipe))
        raise UserError(
            f"{path} holds a run of another recipe ({_difference(old, new)}): {remedy}"
        )
    facts = read_json(path / FACTS) if (path / FACTS).is_file() else None
    if facts and facts["data_fingerprint"] != data.fingerprint:
        raise UserError(
            f"{path} was trained on other data ({facts['title']}, source {facts['source']}; "
            f"now {data.title}, source {data.source}): {remedy}"
        )
    return facts or {}


def _moved(path: Path, facts: dict[str, Any], now: dict[str, Any]) -> None:
    """Warn where a run is gone on with elsewhere than it was begun."""
    if told := ", ".join(f"{k} {facts[k]} then, {now[k]} now" for k in now
                         if k in facts and facts[k] != now[k]):  # fmt: skip
        log.warning("%s was begun elsewhere (%s): its bits may differ a little from those of a "
                    "run made in one place", path, told)  # fmt: skip


def _difference(old: object, new: object, key: str = "") -> str:
    """The first key in which two recipes differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            if old.get(name) != new.get(name):
                return _difference(old.get(name), new.get(name), f"{key}.{name}".strip("."))
    return f"{key} is {old!r} there, {new!r} now"


def origin(model: Model) -> dict[str, Any]:
    """What states that a run has drawn say of it; nothing that depends on clock, host or path."""
    facts = model.facts
    return {
        "synthetic": 1,
        "model_hash": str(facts["model_hash"]),
        "model_data": facts["title"],
        "model_source": facts["source"],
        "model_source_kind": facts["source_kind"],
        "versions": json.dumps(versions(), sort_keys=True),
    }
