"""Write a record, one process per group of realisations; read its restart states."""

from __future__ import annotations

import os
import shutil
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import zarr

from sciladm.conventions import UserError
from sciladm.simulate.channels import CHANNELS, VARIABLES
from sciladm.simulate.layout import lay_out, restart_offsets
from sciladm.simulate.plan import Plan
from sciladm.simulate.processes import beside
from sciladm.simulate.sphere import Complex, Real
from sciladm.simulate.weather import BEGIN, TRUTH, Noise, Weather, hours_since_epoch

Maker = Callable[[int, int], Weather]


def write_record(
    maker: Maker,
    path: Path,
    plan: Plan,
    about: dict[str, Any],
    progress: Callable[[float], None] | None,
    processes: int,
) -> None:
    """Write `plan` to `path`: laid out first, then one process per group fills the chunks it owns,
    then renamed.
    """
    if path.exists():
        raise UserError(f"{path} exists already: remove it or choose another name")
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    lay_out(maker(plan.latitudes, plan.longitudes), partial, plan, about)
    chunks = sum(one.times.size for one in plan.realisations) // plan.chunk
    for done, _ in enumerate(_in_processes(maker, partial, plan, processes), start=1):
        if progress is not None:
            progress(done / chunks)
    with warnings.catch_warnings():  # without it xarray warns at every opening
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        zarr.consolidate_metadata(partial)
    if hasattr(os, "sync"):  # Windows has none
        os.sync()
    partial.rename(path)


def _in_processes(maker: Maker, path: Path, plan: Plan, processes: int) -> Iterator[None]:
    """Yield once per chunk written, from this process or from `processes` spawned ones."""
    if processes <= 1 or len(plan.groups) == 1:
        for group in plan.groups:
            yield from _fill(maker, path, plan, group)
        return
    context = beside(getattr(maker, "__self__", maker))
    reports: Any = context.Queue()
    waiting = list(plan.groups)
    running: list[Any] = []
    finished = 0
    try:
        while finished < len(plan.groups):
            while waiting and len(running) - finished < processes:
                worker = context.Process(
                    target=_work, args=(maker, path, plan, waiting.pop(0), reports), daemon=True
                )
                worker.start()
                running.append(worker)
            try:
                kind, text = reports.get(timeout=5.0)
            except Empty:
                if any(w.exitcode not in (None, 0) for w in running):
                    raise RuntimeError(
                        "a simulating process was killed; run again with fewer processes"
                    ) from None
                continue
            if kind == "error":
                raise RuntimeError(f"a simulating process failed:\n{text}")
            if kind == "end":
                finished += 1
            else:
                yield
    finally:
        for worker in running:
            worker.terminate() if finished < len(plan.groups) else worker.join()


def _work(maker: Maker, path: Path, plan: Plan, group: list[int], reports: Any) -> None:
    try:
        for _ in _fill(maker, path, plan, group):
            reports.put(("chunk", ""))
        reports.put(("end", ""))
    except Exception:
        reports.put(("error", traceback.format_exc()))


def _fill(maker: Maker, path: Path, plan: Plan, group: list[int]) -> Iterator[None]:
    """Simulate realisations of one group together and write their chunks; yields once per chunk
    and realisation.
    """
    weather = maker(plan.latitudes, plan.longitudes)
    records = [plan.realisations[i] for i in group]
    offsets = [plan.offsets[i] for i in group]
    who = tuple(one.identity for one in records)
    noise = Noise(TRUTH, plan.seed, who)
    hours = hours_since_epoch([one.times[0] for one in records]) - 24 * plan.spin_up_days
    state = weather.begin(hours, Noise(BEGIN, plan.seed, who))
    for _ in range(4 * plan.spin_up_days):
        state = weather.advance(state, noise)
    store: Any = zarr.open_group(path, mode="r+")
    restarts = restart_offsets(plan)
    for first in range(0, records[0].times.size, plan.chunk):
        frames, states = [], []
        for _ in range(plan.chunk):
            frames.append(weather.write(state))
            states.append(state)
            state = weather.advance(state, noise)
        block = np.stack(frames, axis=1)  # (realisation, time, channel, latitude, longitude)
        for row, (i, offset) in enumerate(zip(group, offsets, strict=True)):
            _write_chunk(store, block[row], offset + first)
            if i in restarts:
                at = slice(restarts[i] + first, restarts[i] + first + plan.chunk)
                psi = np.stack([s.psi[..., row] for s in states])
                store["restart/streamfunction"][at] = np.stack([psi.real, psi.imag], axis=-1)
                store["restart/slab"][at] = np.stack([s.slab[..., row] for s in states])
            yield


def _write_chunk(store: Any, block: Real, start: int) -> None:
    """(time, channel, latitude, longitude) into every variable."""
    at = slice(start, start + block.shape[0])
    for name in VARIABLES:
        rows = [i for i, (variable, _) in enumerate(CHANNELS) if variable == name]
        store[name][at] = block[:, rows] if len(rows) > 1 else block[:, rows[0]]


class Restart:
    """Exact states of a written record."""

    def __init__(self, path: Path) -> None:
        if not Path(path).is_dir():
            raise UserError(
                f"no simulated record at {path}: write it first with Atmosphere().run(path, plan)"
            )
        root: Any = zarr.open_group(path, mode="r")
        if "restart" not in root:
            raise UserError(
                f"{path} has no restart states: it is not a simulated atmosphere, "
                "or its plan kept none"
            )
        self.shape = (int(root["latitude"].shape[0]), int(root["longitude"].shape[0]))
        self._group = root["restart"]
        self._row = {int(hour): i for i, hour in enumerate(self._group["time"][:].tolist())}

    def state(self, init_time: np.datetime64) -> tuple[Complex, Real]:
        """ψ (level, m, n) and slab (latitude, longitude) at a six-hourly time."""
        hour = int(hours_since_epoch([init_time])[0])
        if hour not in self._row:
            raise UserError(
                f"no restart state at {init_time}: six-hourly times of the restart splits have one"
            )
        psi = self._group["streamfunction"][self._row[hour]]
        return psi[..., 0] + 1j * psi[..., 1], self._group["slab"][self._row[hour]]
