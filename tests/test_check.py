"""The check of synthetic fields: honest samples pass, each planted fault fails its own check."""

import numpy as np
import pytest
import xarray as xr

import sciladm
from sciladm.conventions import UserError
from sciladm.grid import Grid
from sciladm.metrics.copying import nearest, nearest_shifted
from sciladm.metrics.faithfulness import mmd2, recall

SHAPE = (16, 24)


def world(first: int, years: int, seed: int, per_year: int = 24) -> xr.Dataset:
    """Gaussian fields of spectrum (1 + k²)^-2 on a regional grid, with a season, two variables."""
    rng = np.random.default_rng(seed)
    days = 365.25 / per_year * np.arange(years * per_year)
    times = np.datetime64(f"{first}-01-05", "ns") + (days * 86400e9).astype("m8[ns]")
    wide = tuple(2 * n for n in SHAPE)
    k2 = sum(
        k**2 for k in np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in wide), indexing="ij")
    )
    noise = rng.standard_normal((2, len(times), *wide))
    fields = np.fft.ifft2(np.fft.fft2(noise) / (2 + k2) ** 0.9).real[..., : SHAPE[0], : SHAPE[1]]
    fields /= fields.std()
    season = np.cos(2 * np.pi * days / 365.25)[:, None, None] * np.linspace(1, 3, SHAPE[0])[:, None]
    a, b = fields[0], 0.6 * fields[0] + 0.8 * fields[1]
    dims = ("time", "latitude", "longitude")
    return xr.Dataset(
        {"a": (dims, 280 + a + season), "b": (dims, 5 * b)},
        {
            "time": times,
            "latitude": np.linspace(30, 45, SHAPE[0]),
            "longitude": np.arange(SHAPE[1]) * 1.0,
        },
    )


@pytest.fixture(scope="module")
def real():
    """Twenty years to train on and ten held out."""
    return world(1980, 20, 1), world(2000, 10, 2)


def sampled(seed: int = 3) -> xr.Dataset:
    """600 honest samples."""
    return as_samples(world(1980, 25, seed))


def as_samples(ds: xr.Dataset) -> xr.Dataset:
    """Times as a coordinate of ``sample``."""
    times = ds["time"].values
    return ds.drop_vars("time").rename(time="sample").assign_coords(time=("sample", times))
