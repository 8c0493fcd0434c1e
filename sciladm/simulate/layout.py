"""A record on disk: an ordinary labelled zarr store and a group of restart states."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from sciladm.simulate.channels import VARIABLES
from sciladm.simulate.plan import Plan
from sciladm.simulate.quasigeostrophic import LEVELS
from sciladm.simulate.weather import Weather

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


def labelled(name: str) -> dict[str, str]:
    """CF attributes of a variable or coordinate."""
    long_name, units, standard_name = ATTRIBUTES[name]
    return {"long_name": long_name, "units": units, "standard_name": standard_name}


def restart_offsets(plan: Plan) -> dict[int, int]:
    """Realisation index → first row in the restart group, for the splits that have restart
    states.
    """
    rows, offset = {}, 0
    for i, one in enumerate(plan.realisations):
        if one.split in plan.restart_splits:
            rows[i] = offset
            offset += one.times.size
    return rows


def lay_out(weather: Weather, path: Path, plan: Plan, about: dict[str, Any]) -> None:
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
    codec = BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=4)
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
        "splits": json.dumps(plan.splits, default=str),
    })  # fmt: skip
    ds.to_zarr(path, mode="w", compute=False, encoding=encoding, zarr_format=3, consolidated=False)
    kept = [one.times for i, one in enumerate(plan.realisations) if i in restart_offsets(plan)]
    if kept:
        _lay_out_restart(weather, path, np.concatenate(kept), chunk)


def _lay_out_restart(
    weather: Weather, path: Path, times: NDArray[np.datetime64], chunk: int
) -> None:
    """The group `restart`: streamfunction (time, level, m, n, part) and slab (time, latitude,
    longitude), model precision.
    """
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
    about = {"description": "exact model states; real and imaginary parts on `part`"}
    xr.Dataset(data, coords, about).to_zarr(
        path,
        group="restart",
        mode="a",
        compute=False,
        encoding=encoding,
        zarr_format=3,
        consolidated=False,
    )
