"""An answer as a zarr store: whole, or not at all."""

import shutil
import warnings
from pathlib import Path

import xarray as xr

from sciladm.conventions import UserError
from sciladm.data.durable import publish

PACKED = ("dtype", "scale_factor", "add_offset", "_FillValue", "missing_value")
"""What of an encoding still holds where a dimension has come in."""


def refuse_occupied(out: Path, overwrite: bool, mark: str, kind: str) -> None:
    """UserError where ``out`` is there, unless it may be replaced: a ``kind`` of store, which the
    attribute ``mark`` tells."""
    if out.exists() and not (overwrite and _marked(out, mark)):
        remedy = "give another --out" if overwrite else "--overwrite replaces it, if it is one"
        what = f"exists and is no {kind} store" if overwrite else "exists"
        raise UserError(f"{out} {what}; {remedy}")


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
