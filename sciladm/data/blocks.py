"""The ensemble-forecast store: zarr written block by block, resumable to the same bytes.

A block is one initial time × one micro-batch of members × all lead times, and its chunks belong
to it alone, so that several processes write one store without a race. A block counts as finished
when its record exists: one chunk file of the array ``.sciladm/done``, which is written only after
the block's own files are durable. The store is whole from its creation: unwritten cells read NaN.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr

from sciladm.conventions import UserError
from sciladm.data.durable import (
    Locked,
    hold,
    publish,
    remove_partial,
    sync,
    write_durably,
    writing,
)
from sciladm.data.plan import RECORDS, Block, ForecastPlan, write_template

log = logging.getLogger(__name__)
MACHINE = ("device", "threads", "versions")
"""Attributes that say where a store is written; it may be gone on with elsewhere."""


class ForecastStore(Locked):
    """A forecast store that is open for writing; a context manager that holds its lock."""

    def __init__(self, path: Path, plan: ForecastPlan, lock: int | None = None) -> None:
        self.path, self.plan, self._lock = path, plan, lock
        self._group = zarr.open_group(path, mode="r+", use_consolidated=False)

    @classmethod
    def create_or_resume(
        cls, path: str | Path, plan: ForecastPlan, overwrite: bool = False
    ) -> Self:
        """Open the store of this plan, creating it if need be. One process (rank 0) calls this.

        UserError if something else is at ``path``, naming what differs; with ``overwrite`` a
        forecast store of ours is replaced, anything else still refused.
        """
        path = Path(path)
        plan.check(path)
        with writing(path):
            if path.exists() or path.is_symlink():
                found = _read_identity(path)
                if not overwrite:
                    refuse_other(path, found, plan.identity())
                    store = cls(path, plan, hold(path))
                    remove_partial(path)
                    return store
                cls(path, plan, hold(path)).close()  # refuses while another program writes
            _create(path, plan)
            return cls(path, plan, hold(path))

    @classmethod
    def attach(cls, path: str | Path, plan: ForecastPlan) -> Self:
        """Open a store that rank 0 has created, in another worker process."""
        path = Path(path)
        refuse_other(path, _read_identity(path), plan.identity())
        return cls(path, plan)

    def pending(self, rank: int = 0, world: int = 1) -> list[Block]:
        """Blocks still to be written among those that ``rank`` of ``world`` processes owns."""
        done = {entry.name for entry in (self.path / RECORDS / "done").iterdir()}
        owned = self.plan.blocks()[rank::world]
        return [block for block in owned if self._record(block).name not in done]

    def write(self, block: Block, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one block, float32 (member, lead_time, *dims) per variable; then record it.

        The record is made after every file of the block is durable. UserError when the disk
        refuses; what was recorded before stays, and the same command resumes.
        """
        for name, variable in self.plan.state.data_vars.items():
            expected = (len(block.members), len(self.plan.leads), *variable.shape)
            if arrays[str(name)].shape != expected:
                got = arrays[str(name)].shape
                raise ValueError(f"block of {name} has shape {got}, expected {expected}")
        ds = self.plan.arrange({name: array[None] for name, array in arrays.items()}, block)
        place = (slice(block.init, block.init + 1), slice(block.members[0], block.members[-1] + 1))
        files = self._chunks(block)
        with writing(self.path):
            # A crash may have left damaged chunks, which zarr would read to fill in the padding.
            for file in files:
                file.unlink(missing_ok=True)
            for name, variable in ds.data_vars.items():
                array = self._group[str(name)]
                assert isinstance(array, zarr.Array)
                array[place] = np.asarray(variable.values, np.float32)
            sync(*(file for file in files if file.exists()))  # all NaN: there is no chunk
            sync(*{file.parent for file in files})
            write_durably(self._record(block), b"\x01")

    def finalise(self) -> None:
        """Check that every block is recorded and leave nothing but the store's own files."""
        if left := self.pending():
            raise ValueError(f"{self.path}: {len(left)} blocks are not written, {left[0]} first")
        remove_partial(self.path)

    def _chunks(self, block: Block) -> list[Path]:
        """Every chunk file that a block owns."""
        return [
            self.path / str(name) / self._key(block.init, block.index, lead, *(0,) * v.ndim)
            for name, v in self.plan.state.data_vars.items()
            for lead in range(len(self.plan.leads))
        ]

    def _record(self, block: Block) -> Path:
        return self.path / RECORDS / "done" / self._key(block.init, block.index)

    def _key(self, *place: int) -> str:
        """Name of a chunk file; all chunks of an array lie in one folder, in both formats."""
        start = ("c",) if self.plan.format == 3 else ()
        return ".".join((*start, *map(str, place)))


def unfinished(path: Path) -> int:
    """How many blocks a store of ours still lacks; 0 for stores of others."""
    records = path / RECORDS
    if not (records / "done").is_dir():
        return 0
    array = zarr.open_group(records, mode="r", use_consolidated=False)["done"]
    return int(np.sum(np.asarray(array[...]) == 0))  # type: ignore[index]


def _create(path: Path, plan: ForecastPlan) -> None:
    """Make the empty store beside ``path`` and move it there whole."""
    new = path.with_name(f".{path.name}.creating")
    shutil.rmtree(new, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_template(new, plan)
    publish(new, path)


def _read_identity(path: Path) -> dict[str, Any]:
    """The plan of the store at ``path``; UserError if that is no forecast store of ours."""
    try:
        group = zarr.open_group(path / RECORDS, mode="r", use_consolidated=False)
        plan: dict[str, Any] = dict(group.attrs)["plan"]  # type: ignore[assignment]
        return plan
    except (OSError, KeyError, ValueError):
        raise UserError(
            f"{path} exists and is not a forecast store that this program made; "
            "it is left alone: give another --out"
        ) from None


def refuse_other(path: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    """UserError naming what differs between the store's plan and this one's; where the machine
    alone does, a warning, for that may change a bit of a member and no more."""
    if there == now:
        return
    (begun, there), (here, now) = _apart(there), _apart(now)
    if differences := list(_differences(there, now)):
        more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise UserError(
            f"{path} was made with another configuration: {'; '.join(differences[:5])}{more}. "
            "Give the same options to resume it, another --out, or --overwrite to replace it"
        )
    moved = "; ".join(_differences(begun, here))
    log.warning("%s was begun elsewhere (%s): members written now may differ a little from those "
                "that would have been written there", path, moved)  # fmt: skip


def _apart(plan: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a plan says of the machine, and the rest of it."""
    told = plan["attributes"]
    own = {name: value for name, value in told.items() if name in MACHINE}
    rest = {name: value for name, value in told.items() if name not in MACHINE}
    return own | {"versions": json.loads(own.get("versions", "{}"))}, plan | {"attributes": rest}


def _differences(there: Any, now: Any, key: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*there, *now]):
            inner = f"{key}.{name}" if key else str(name)
            yield from _differences(there.get(name), now.get(name), inner)
    elif there != now:
        if isinstance(there, list) and isinstance(now, list):
            if len(there) == len(now):
                first = next(
                    i for i, pair in enumerate(zip(there, now, strict=True)) if pair[0] != pair[1]
                )
                yield from _differences(there[first], now[first], f"{key}[{first}]")
            else:
                yield f"{key}: {len(there)} values there, {len(now)} now"
        else:
            yield f"{key}: {str(there)[:60]} there, {str(now)[:60]} now"
