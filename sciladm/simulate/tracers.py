"""A record of random fields on disk: an ordinary labelled zarr store, its own restart states."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from sciladm.conventions import UserError
from sciladm.simulate.domains import Labels
from sciladm.simulate.plan import EPOCH, Records

NAMES = ("tracer", "second_tracer")
UNITS = "g kg**-1"


def write_tracers(
    path: Path,
    plan: Records,
    values: NDArray[np.float32],
    labels: Labels,
    about: Mapping[str, Any],
) -> None:
    """Write ``values`` (time, channel, *space) at the plan's times to a new store at ``path``.

    Atomic: written beside ``path`` and renamed when complete.
    """
    if path.exists():
        raise UserError(f"{path} exists already: remove it or choose another name")
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    dims = ("time", *labels)
    told = {"long_name": "Mixing ratio of a tracer", "units": UNITS}
    data = {name: (dims, values[:, i], told) for i, name in enumerate(NAMES[: values.shape[1]])}
    axes = {name: (name, cells, attributes) for name, (cells, attributes) in labels.items()}
    coords = {"time": ("time", plan.times, {"standard_name": "time", "long_name": "Time"}), **axes}
    ds = xr.Dataset(data, coords, {
        "title": "Simulated random fields whose law is known; no observation of anything",
        "source": "simulated", "Conventions": "CF-1.11",
        **{name: fact if isinstance(fact, int) else json.dumps(fact, sort_keys=True)
           for name, fact in about.items()},
        "seed": plan.seed, "plan": json.dumps(asdict(plan), sort_keys=True),
        "splits": json.dumps(plan.splits, default=str),
    })  # fmt: skip
    codec = BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=4)
    chunks = (plan.chunk, *values.shape[2:])
    encoding: dict[str, Any] = {
        name: {"chunks": chunks, "compressors": (codec,), "_FillValue": np.float32(np.nan)}
        for name in data
    }
    encoding["time"] = {"units": "hours since 2201-01-01", "calendar": "standard",
                        "dtype": "int64", "chunks": (len(plan.times),)}  # fmt: skip
    ds.to_zarr(partial, mode="w", encoding=encoding, zarr_format=3, consolidated=False)
    with warnings.catch_warnings():  # without it xarray warns at every opening
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        zarr.consolidate_metadata(partial)
    partial.rename(path)


def read_state(
    path: Path, time: np.datetime64, channels: Sequence[tuple[str, int | None]]
) -> NDArray[np.float32]:
    """The state (channel, *space) at a time of a written record."""
    if not path.is_dir():
        raise UserError(f"no simulated record at {path}: write it first with run(path, plan)")
    root: Any = zarr.open_group(path, mode="r")
    row = np.flatnonzero(root["time"][:] == hour_of(time))
    if len(row) != 1 or np.asarray(time).astype("datetime64[h]") != time:
        raise UserError(f"no state at {time}: the record is daily, at 00 h, within its plan")
    return np.stack([root[name][int(row[0])] for name, _ in channels])


def hour_of(time: np.datetime64) -> int:
    """Hours since 2201-01-01."""
    return int((np.asarray(time).astype("datetime64[h]") - EPOCH).astype(np.int64))
