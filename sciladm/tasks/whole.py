"""An answer as a zarr store: whole, or not at all."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from sciladm.conventions import UserError
from sciladm.data.durable import publish
from sciladm.tasks.voice import Voice

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
