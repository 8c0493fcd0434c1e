"""A store of answers (filled gaps, copies, draws): zarr written block by block, resumable.

Each block owns chunk files of its own. It counts as finished when its record exists, a chunk of
the array ``.sciladm/done``, written only after the block's files, and a number that the block
tells, are durable. The store is whole from its creation: unwritten cells read NaN.
"""

import itertools
import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.blocks import refuse_other
from sciladm.data.durable import (
    Locked,
    hold,
    publish,
    remove_partial,
    sync,
    write_durably,
    writing,
)
from sciladm.data.plan import FILES, RECORDS

PACKED = ("dtype", "scale_factor", "add_offset", "_FillValue", "missing_value")
"""What of an encoding says how numbers are packed."""
KEPT = ("units", "calendar", *PACKED)
"""What of it still holds for variables that are no answer."""


@dataclass(frozen=True, eq=False)
class AnswerPlan:
    """``template``: the answer, dask arrays where it is to be written; ``chunks``, of which
    dimensions a chunk holds how many, all of the others; ``identity``, plain JSON: what decides
    the values, ``attributes`` the machine's part of it."""

    template: xr.Dataset
    chunks: Mapping[str, int]
    blocks: int
    identity: dict[str, Any]


class AnswerStore(Locked):
    """A store that is open for writing; a context manager that holds its lock."""

    def __init__(self, path: Path, plan: AnswerPlan, lock: int | None) -> None:
        self.path, self.plan, self._lock = path, plan, lock
        self._group = zarr.open_group(path, mode="r+", use_consolidated=False)

    @classmethod
    def create_or_resume(cls, path: Path, plan: AnswerPlan, overwrite: bool) -> Self:
        """Open the store of this plan, creating it if need be; UserError where another is there,
        unless it may be replaced."""
        with writing(path):
            if path.exists() and not overwrite:
                refuse_other(path, identity_of(path), plan.identity)
                store = cls(path, plan, hold(path))
                remove_partial(path)
                return store
            if path.exists():
                cls(path, plan, hold(path)).close()  # refuses while another program writes
            _create(path, plan)
            return cls(path, plan, hold(path))

    def pending(self) -> list[int]:
        """Blocks still to be written."""
        return [int(n) for n in np.flatnonzero(self._record("done") == 0)]

    def told(self) -> NDArray[np.float64]:
        """What each finished block told (block,)."""
        return self._record("told")

    def write(
        self, block: int, place: Mapping[str, Sequence[int]], parts: xr.Dataset, told: float
    ) -> None:
        """Write a block, which has the numbers ``place`` along some dimensions; then record it."""
        with writing(self.path):
            files = []
            for name, part in parts.data_vars.items():
                dims, array = self.plan.template[name].dims, self._group[str(name)]
                assert isinstance(array, zarr.Array)
                at = [np.asarray(place.get(str(dim), range(size)))
                      for dim, size in zip(dims, array.shape, strict=True)]  # fmt: skip
                chunks = [sorted(set((own // size).tolist()))
                          for own, size in zip(at, array.chunks, strict=True)]  # fmt: skip
                own = [self.path / str(name) / ".".join(("c", *map(str, key)))
                       for key in itertools.product(*chunks)]  # fmt: skip
                for file in own:  # a crash may have left damaged ones
                    file.unlink(missing_ok=True)
                values = np.asarray(part.transpose(*dims).values, array.dtype)
                array.oindex[tuple(at)] = values
                files += own
            sync(*(file for file in files if file.exists()))  # all NaN: there is no chunk
            sync(*{file.parent for file in files})
            for record, number in (("told", told), ("done", 1.0)):
                file = self.path / RECORDS / record / f"c.{block}"
                write_durably(file, np.array(number, "<f8").tobytes())

    def finalise(self, **attributes: Any) -> None:
        """Add ``attributes`` that are known at the end."""
        file = self.path / "zarr.json"
        tree = json.loads(file.read_text(encoding="utf-8"))
        tree["attributes"] |= attributes
        with writing(self.path):
            write_durably(file, json.dumps(tree, indent=2).encode())
            remove_partial(self.path)

    def _record(self, name: str) -> NDArray[np.float64]:
        array = zarr.open_group(self.path / RECORDS, mode="r", use_consolidated=False)[name]
        return np.asarray(array[...])  # type: ignore[index]


def _create(path: Path, plan: AnswerPlan) -> None:
    """Make the empty store beside ``path`` and move it there whole."""
    new = path.with_name(f".{path.name}.creating")
    shutil.rmtree(new, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds, encoding = plan.template.copy(), {}
    for name, variable in ds.variables.items():
        kept = {key: variable.encoding[key] for key in KEPT if key in variable.encoding}
        if variable.chunks is not None:
            sizes = zip(variable.dims, variable.shape, strict=True)
            chunks = tuple(min(plan.chunks.get(str(dim), size), size) for dim, size in sizes)
            kept = {"chunks": chunks, "_FillValue": np.array(np.nan, variable.dtype)[()],
                    "chunk_key_encoding": FILES}  # fmt: skip
        variable.encoding, encoding[name] = {}, kept
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        ds.to_zarr(
            new, mode="w-", compute=False, encoding=encoding, zarr_format=3, consolidated=True,
            safe_chunks=False,  # lazy chunks need not be those of the store: none is written
        )  # fmt: skip
    records = zarr.create_group(new / RECORDS, zarr_format=3)
    records.attrs["plan"] = plan.identity
    for name in ("done", "told"):
        records.create_array(
            name, shape=(plan.blocks,), chunks=(1,), dtype="float64", fill_value=0,
            compressors=None, chunk_key_encoding=FILES,
        )  # fmt: skip
    publish(new, path)


def identity_of(path: Path) -> dict[str, Any]:
    """The plan of the store at ``path``; UserError if there is none."""
    try:
        group = zarr.open_group(path / RECORDS, mode="r", use_consolidated=False)
        plan: dict[str, Any] = dict(group.attrs)["plan"]  # type: ignore[assignment]
        return plan
    except (OSError, KeyError, ValueError):
        raise UserError(
            f"{path} exists and was not begun by this command; --overwrite replaces it, if it is "
            "one of its stores; else give another --out"
        ) from None
