"""The record on disk: an ordinary zarr store of xarray, written by one process per group of realisations, and restart states."""

from __future__ import annotations

import json
import multiprocessing as mp
import shutil
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from sciladm.conventions import UserError
from sciladm.simulate.channels import CHANNELS, VARIABLES
from sciladm.simulate.plan import Plan
from sciladm.simulate.quasigeostrophic import LEVELS
from sciladm.simulate.weather import BEGIN, TRUTH, Noise, Weather, hours_since_epoch

ATTRIBUTES = {
    "geopotential": ("Geopotential", "m**2 s**-2", "geopotential"),
    "temperature": ("Temperature", "K", "air_temperature"),
    "u_component_of_wind": ("U component of wind", "m s**-1", "eastward_wind"),
    "v_component_of_wind": ("V component of wind", "m s**-1", "northward_wind"),
    "2m_temperature": ("2 metre temperature", "K", "air_temperature"),
    "10m_u_component_of_wind": ("10 metre U wind component", "m s**-1", "eastward_wind"),
    "10m_v_component_of_wind": ("10 metre V wind component", "m s**-1", "northward_wind"),
    "mean_sea_level_pressure": ("Mean sea level pressure", "Pa", "air_pressure_at_mean_sea_level"),
    "land_sea_mask": ("Land-sea mask", "1", "land_area_fraction"),
    "geopotential_at_surface": ("Geopotential at surface", "m**2 s**-2", "surface_geopotential"),
    "latitude": ("Latitude", "degrees_north", "latitude"),
    "longitude": ("Longitude", "degrees_east", "longitude"),
    "level": ("Pressure level", "hPa", "air_pressure"),
}
Maker = Callable[[int, int], Weather]


def labelled(name: str) -> dict[str, str]:
    """CF attributes of a variable or coordinate."""
    long_name, units, standard_name = ATTRIBUTES[name]
    return {"long_name": long_name, "units": units, "standard_name": standard_name}


def write_record(
    maker: Maker,
    path: Path,
    plan: Plan,
    about: dict[str, Any],
    progress: Callable[[float], None] | None,
    processes: int,
) -> None:
    """Write `plan` to `path`: laid out first, then one process per group fills the chunks it owns, then renamed."""
    if path.exists():
        raise UserError(f"{path} exists already: remove it or choose another name")
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _lay_out(maker(plan.latitudes, plan.longitudes), partial, plan, about)
    chunks = sum(one.times.size for one in plan.realisations) // plan.chunk
    done = 0
    for _ in _in_processes(maker, partial, plan, processes):
        done += 1
        if progress is not None:
            progress(done / chunks)
    with warnings.catch_warnings():  # format 3 has no words for it yet; without it xarray warns at every opening
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        zarr.consolidate_metadata(partial)
    partial.rename(path)


def _in_processes(maker: Maker, path: Path, plan: Plan, processes: int) -> Any:
    """Yield once per chunk written, from this process or from `processes` spawned ones."""
    if processes <= 1 or len(plan.groups) == 1:
        for group in plan.groups:
            yield from _fill(maker, path, plan, group)
        return
    context = mp.get_context("spawn")
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
            except mp.queues.Empty:  # type: ignore[attr-defined]
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


def _fill(maker: Maker, path: Path, plan: Plan, group: list[int]) -> Any:
    """Simulate realisations of one group together and write their chunks; yields once per chunk and realisation."""
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
    restarts = _restart_offsets(plan)
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


def _write_chunk(store: Any, block: NDArray[np.float32], start: int) -> None:
    """(time, channel, latitude, longitude) into every variable."""
    at = slice(start, start + block.shape[0])
    for name in VARIABLES:
        rows = [i for i, (variable, _) in enumerate(CHANNELS) if variable == name]
        store[name][at] = block[:, rows] if len(rows) > 1 else block[:, rows[0]]


def _restart_offsets(plan: Plan) -> dict[int, int]:
    """Realisation index → first row in the restart group, for the splits that have restart states."""
    rows, offset = {}, 0
    for i, one in enumerate(plan.realisations):
        if one.split in plan.restart_splits:
            rows[i] = offset
            offset += one.times.size
    return rows


def _lay_out(weather: Weather, path: Path, plan: Plan, about: dict[str, Any]) -> None:
    """Write metadata, coordinates and statics; the chunks stay absent and read as NaN."""
    times, chunk, channels = plan.times, plan.chunk, weather.channels
    sizes = {
        "time": times.size,
        "level": len(LEVELS),
        "latitude": plan.latitudes,
        "longitude": plan.longitudes,
    }
    coords = {
        "time": ("time", times, {"standard_name": "time", "long_name": "Time"}),
        "level": ("level", np.array(LEVELS, np.int64), labelled("level")),
        "latitude": ("latitude", channels.latitude, labelled("latitude")),
        "longitude": ("longitude", channels.longitude, labelled("longitude")),
    }
    codec = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=4)
    hours = {
        "units": "hours since 2201-01-01",
        "calendar": "standard",
        "dtype": "int64",
        "chunks": (times.size,),
    }
    encoding: dict[str, Any] = {"time": hours}
    data: dict[str, Any] = {}
    for name in VARIABLES:
        dims = tuple(d for d in sizes if d != "level" or name in VARIABLES[:4])
        shape = tuple(sizes[d] for d in dims)
        chunks = tuple({"time": chunk, "level": 1}.get(d, sizes[d]) for d in dims)
        data[name] = (dims, da.zeros(shape, dtype=np.float32, chunks=shape), labelled(name))
        encoding[name] = {
            "chunks": chunks,
            "compressors": (codec,),
            "_FillValue": np.float32(np.nan),
        }
    for name, values in channels.statics().items():
        data[name] = (("latitude", "longitude"), values, labelled(name))
    ds = xr.Dataset(data, coords, {
        "title": "Simulated atmosphere (quasi-geostrophic, three levels); not a reanalysis",
        "source": "simulated", "Conventions": "CF-1.11", **about, "seed": plan.seed,
        "plan": json.dumps(asdict(plan), sort_keys=True),
        "splits": json.dumps({k: [[str(a), str(b)] for a, b in v] for k, v in plan.splits.items()}),
    })  # fmt: skip
    ds.to_zarr(path, mode="w", compute=False, encoding=encoding, zarr_format=3, consolidated=False)
    kept = [one.times for i, one in enumerate(plan.realisations) if i in _restart_offsets(plan)]
    if kept:
        _lay_out_restart(weather, path, np.concatenate(kept), chunk)


def _lay_out_restart(
    weather: Weather, path: Path, times: NDArray[np.datetime64], chunk: int
) -> None:
    """The group `restart`: streamfunction (time, level, m, n, part) and slab (time, latitude, longitude), model precision."""
    size = weather.model.flow.truncation + 1
    kind = weather.model.dtype
    grid = (weather.channels.latitude.size, weather.channels.longitude.size)
    shapes = {
        "streamfunction": (
            ("time", "level", "m", "n", "part"),
            (len(LEVELS), size, size, 2),
            "m**2 s**-1",
        ),
        "slab": (("time", "latitude", "longitude"), grid, "K"),
    }
    data = {
        name: (
            dims,
            da.zeros((times.size, *shape), dtype=kind, chunks=(times.size, *shape)),
            {"units": units},
        )
        for name, (dims, shape, units) in shapes.items()
    }
    coords = {"time": times, "level": np.array(LEVELS, np.int64)}
    codec = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=kind.itemsize)
    encoding: dict[str, Any] = {
        name: {"chunks": (chunk, *shape), "compressors": (codec,), "_FillValue": kind.type(np.nan)}
        for name, (_, shape, _) in shapes.items()
    }
    encoding["time"] = {
        "units": "hours since 2201-01-01",
        "calendar": "standard",
        "dtype": "int64",
        "chunks": (times.size,),
    }
    about = {
        "description": "exact model states of the splits that have them; real and imaginary parts on `part`"
    }
    xr.Dataset(data, coords, about).to_zarr(
        path,
        group="restart",
        mode="a",
        compute=False,
        encoding=encoding,
        zarr_format=3,
        consolidated=False,
    )


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
                f"{path} has no restart states: it is not a simulated atmosphere, or its plan kept none"
            )
        self.shape = (int(root["latitude"].shape[0]), int(root["longitude"].shape[0]))
        self._group = root["restart"]
        self._row = {int(hour): i for i, hour in enumerate(self._group["time"][:].tolist())}

    def state(
        self, init_time: np.datetime64
    ) -> tuple[NDArray[np.complexfloating], NDArray[np.floating]]:
        """ψ (level, m, n) and slab (latitude, longitude) at a six-hourly time."""
        hour = int(hours_since_epoch([init_time])[0])
        if hour not in self._row:
            raise UserError(
                f"no restart state at {init_time}: six-hourly times of the restart splits have one"
            )
        psi = self._group["streamfunction"][self._row[hour]]
        return psi[..., 0] + 1j * psi[..., 1], self._group["slab"][self._row[hour]]
