"""An answer as a zarr store, block by block, which the same command goes on with."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.answers import AnswerPlan, AnswerStore, identity_of
from sciladm.model import Model
from sciladm.tasks.run import machine, side_by_side, versions
from sciladm.tasks.voice import Voice

Drawn = tuple[Mapping[str, Sequence[int]], xr.Dataset, float]
"""Where a block belongs, along which dimensions; the block; what it tells."""
End = Callable[[NDArray[np.float64]], dict[str, Any]]
MARKS = {
    "infill": ("infill_method", "filled"),
    "augment": ("augment_strength", "augmented"),
    "generate": ("generate_seed", "generated"),
}
"""Task → an attribute that its stores alone have, and what they are called."""


def write_blocks(
    task: str,
    plan: AnswerPlan,
    draw: Callable[[int], Drawn],
    workers: int,
    out: Path,
    overwrite: bool,
    voice: Voice,
    end: End = lambda told: {},
) -> None:
    """All blocks of an answer that are not in the store ``out`` yet, ``workers`` at a time, one
    thread each; at the ``end`` attributes from what the blocks told. UserError where another store
    is there, unless it may be replaced."""
    with (
        AnswerStore.create_or_resume(out, plan, overwrite) as store,
        voice.progress(task) as report,
    ):
        left = store.pending()
        for done, (number, drawn) in enumerate(side_by_side(draw, left, workers), start=1):
            store.write(number, *drawn)
            report(done / len(left))
        store.finalise(**end(store.told()))


def identity(model: Model, template: xr.Dataset, **asked: Any) -> dict[str, Any]:
    """What decides the bytes of an answer: what was ``asked``, of which run, and all of the
    ``template`` that is not drawn; in whatever order a file lists it."""
    variables = {
        str(name): template.variables[name] for name in sorted(template.variables, key=str)
    }
    known = [variable.values for variable in variables.values() if variable.chunks is None]
    return {
        "attributes": machine(model.device) | {"versions": json.dumps(versions(), sort_keys=True)},
        "run": str(model.facts["model_hash"]),
        "sampler": model.recipe.sampler.model_dump(mode="json"),
        **asked,
        "layout": {name: [str(v.dtype), *map(str, v.dims)] for name, v in variables.items()},
        "labels": digest(known),
    }


def digest(arrays: Iterable[NDArray[Any]]) -> str:
    """Hash of kinds, shapes and values."""
    found = hashlib.sha256()
    for array in arrays:
        plain = array.astype(str) if array.dtype.kind == "O" else array
        found.update(json.dumps([str(plain.dtype), *plain.shape]).encode())
        found.update(np.ascontiguousarray(plain).tobytes())
    return found.hexdigest()[:16]


def refuse_foreign(task: str, out: Path, overwrite: bool) -> None:
    """UserError where ``out`` is there and no store of that task that may be gone on with, or be
    replaced."""
    mark, kind = MARKS[task]
    if not out.exists():
        return
    if not overwrite:
        identity_of(out)
    elif not _marked(out, mark):
        raise UserError(f"{out} exists and is no {kind} store; give another --out")


def _marked(path: Path, mark: str) -> bool:
    try:
        return mark in xr.open_zarr(path).attrs
    except (OSError, ValueError):
        return False
