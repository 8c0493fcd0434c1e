"""An answer as a zarr store: whole or not at all, or block by block."""

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.answers import AnswerPlan, AnswerStore, identity_of
from sciladm.data.durable import publish
from sciladm.tasks.run import side_by_side
from sciladm.tasks.voice import Voice

Drawn = tuple[Mapping[str, Sequence[int]], xr.Dataset, float]
"""Where a block belongs, along which dimensions; the block; what it tells."""
Report = Callable[..., None]
PACKED = ("dtype", "scale_factor", "add_offset", "_FillValue", "missing_value")
"""What of an encoding still holds where a dimension has come in."""
MARKS = {
    "infill": ("infill_method", "filled"),
    "augment": ("augment_strength", "augmented"),
    "generate": ("generate_seed", "generated"),
}
"""Task → an attribute that its stores alone have, and what they are called."""


def write_answer(
    task: str, answer: Callable[[Report], xr.Dataset], out: Path, overwrite: bool, voice: Voice
) -> None:
    """The ``answer`` to a task in a new zarr store ``out``, whole or not at all. UserError, before
    anything is drawn, where ``out`` is there, unless it is a store of that task and may be
    replaced."""
    mark, kind = MARKS[task]
    if out.exists() and not (overwrite and _marked(out, mark)):
        remedy = "give another --out" if overwrite else "--overwrite replaces it, if it is one"
        what = f"exists and is no {kind} store" if overwrite else "exists"
        raise UserError(f"{out} {what}; {remedy}")
    with voice.progress(task) as report:
        ds = answer(report)
    write_whole(ds, out)


def write_blocks(
    task: str, plan: AnswerPlan, draw: Callable[[int], Drawn], workers: int, out: Path,
    overwrite: bool, voice: Voice, end: Callable[[NDArray[np.float64]], dict[str, Any]],
) -> None:  # fmt: skip
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


def write_whole(ds: xr.Dataset, out: Path) -> None:
    """Write beside ``out``, then give it that name."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for variable in ds.variables.values():
        kept = {key: variable.encoding[key] for key in ("units", "calendar", *PACKED)
                if key in variable.encoding}  # fmt: skip
        variable.encoding = kept
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
            ds.to_zarr(partial, mode="w", zarr_format=3, consolidated=True)
        publish(partial, out)
    except OSError as error:
        raise UserError(
            f"cannot write {out}: {error.strerror or error}. Nothing of it is kept: make room or "
            "mend the permission, then run the same command again"
        ) from error
