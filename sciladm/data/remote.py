"""The part of a public store that a run needs, kept here: downloaded once, checked, resumable.

A *unit* is one variable over one time chunk of the server's. Its values are written first, then
its record; a run that was killed goes on with the units that have none. The copy has small time
chunks, (time, level, latitude, longitude), and is complete only after it has been read back.
"""

import asyncio
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.cards import Missing
from sciladm.data.durable import hold, remove_partial, sync, write_durably, writing
from sciladm.data.units import Layout, Request, Unit, lay_out, plan
from sciladm.data.web import Patience, Server

Progress = Callable[[float], None]
T = TypeVar("T")


def is_complete(path: Path) -> bool:
    """Whether the copy at ``path`` is all there and was checked."""
    return (path / "complete.json").exists()


def fingerprint(path: Path) -> str:
    """sha256 over the request and every value of a complete copy."""
    return str(json.loads((path / "complete.json").read_text())["fingerprint"])


def fetch(
    request: Request,
    path: Path,
    missing: Mapping[str, Missing],
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Bring the part of the store that is wanted to ``path``; the zarr store in it.

    UnreachableError if the host cannot be reached; UserError for every other failure, and for a
    variable that has lost values though ``missing`` says that it has none.
    """
    store = path / "data.zarr"
    if is_complete(path):
        return store
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        (path / "done").mkdir(exist_ok=True)
    lock = hold(path)
    try:
        remove_partial(path)
        work = _fetch(request, path, missing, progress or (lambda _: None), patience or Patience())
        run(work)
    finally:
        if lock is not None:
            os.close(lock)
    return store


def prospect(request: Request, patience: Patience | None = None) -> Layout:
    """What `fetch` would bring; only metadata and coordinates are read."""

    async def ask() -> Layout:
        async with Server(request.url, patience or Patience()) as server:
            return await plan(server, request)

    return run(ask())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, also where a loop is running already (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _fetch(
    request: Request,
    path: Path,
    missing: Mapping[str, Missing],
    progress: Progress,
    patience: Patience,
) -> None:
    async with Server(request.url, patience) as server:
        layout = await plan(server, request)
        await lay_out(server, layout, path)
        units = layout.units
        group = zarr.open_group(path / "data.zarr", mode="r+", use_consolidated=False)
        pending = [unit for unit in units if not _record(path, unit).exists()]
        done, gate = len(units) - len(pending), asyncio.Semaphore(patience.at_once)

        async def bring(unit: Unit) -> None:
            nonlocal done
            async with gate:
                values, lost = await _values(server, unit)
                _refuse_gaps(values, lost, unit, missing, server.url)
                await asyncio.to_thread(_write, group, path, unit, values)
                done += 1
                progress(done / len(units))

        await asyncio.gather(*(bring(unit) for unit in pending))
    _check(group, path, units, request)


async def _values(server: Server, unit: Unit) -> tuple[NDArray[Any], int]:
    """Values of a unit in the copy's order of dimensions, and how many chunks were lost."""
    wanted = {"time": unit.times}
    if unit.levels is not None:
        wanted["level"] = unit.levels
    values, lost = await server.region(unit.array, wanted)
    return values.transpose([unit.array.dims.index(dim) for dim in unit.order]), lost


def _refuse_gaps(
    values: NDArray[Any], lost: int, unit: Unit, missing: Mapping[str, Missing], url: str
) -> None:
    name, gaps = unit.array.name, int(np.isnan(values).sum())
    if gaps and missing.get(name, "none") == "none":
        because = (
            f"{lost} of its chunks are absent on the server" if lost else "they are stored so"
        )
        raise UserError(
            f"{url}: {name} lacks {gaps} of {values.size} values in time chunk {unit.chunk} "
            f"({because}), though the card says `missing: none`; choose other years, or "
            "correct the card"
        )


def _record(path: Path, unit: Unit) -> Path:
    return path / "done" / f"{unit.array.name}.{unit.chunk}"


def _write(group: zarr.Group, path: Path, unit: Unit, values: NDArray[Any]) -> None:
    """Write a unit's values, make them durable, then its record."""
    with writing(path):
        array: Any = group[unit.array.name]
        array[unit.rows, ...] = values
        folder = path / "data.zarr" / unit.array.name
        first, thin = unit.start // unit.thin, unit.thin
        files = [
            folder / ".".join(map(str, (k, *(0,) * (values.ndim - 1))))
            for k in range(first, first - (-len(values) // thin))
        ]
        sync(*(file for file in files if file.exists()), folder)
        told = {"crc32": _checksum(values), "missing": int(np.isnan(values).sum())}
        write_durably(_record(path, unit), json.dumps(told).encode())


def _checksum(values: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(values).tobytes())


def _check(group: zarr.Group, path: Path, units: list[Unit], request: Request) -> None:
    """Read everything back; only then is the copy complete."""
    digest = hashlib.sha256(request.key().encode())
    for unit in units:
        told = json.loads(_record(path, unit).read_text())
        array: Any = group[unit.array.name]
        there = _checksum(array[unit.rows, ...])
        if there != told["crc32"]:
            _record(path, unit).unlink()
            raise UserError(
                f"{path}: {unit.array.name}, chunk {unit.chunk}, reads back differently from what "
                "was written; run again to bring it once more, and mistrust this disk"
            )
        digest.update(str(there).encode())
    with writing(path):
        text = json.dumps({"fingerprint": digest.hexdigest()})
        write_durably(path / "complete.json", text.encode())
