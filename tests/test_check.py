"""The check of synthetic fields: honest samples pass, each planted fault fails its own check."""

import numpy as np
import pytest
import scipy.fft
import xarray as xr

import sciladm
from sciladm.conventions import UserError
from sciladm.grid import Grid
from sciladm.metrics.copying import nearest, nearest_shifted
from sciladm.metrics.faithfulness import mmd2, recall
from sciladm.tasks.check import Judge, copying, kernels, marginals, months, spectrum
from sciladm.tasks.states import read_trio

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


def changed(field_of, samples: xr.Dataset | None = None) -> xr.Dataset:
    """Samples whose variables are ``field_of(name, values)``."""
    ds = sampled() if samples is None else samples
    return ds.assign({name: (ds[name].dims, field_of(name, ds[name].values)) for name in ds})


def copied(train: xr.Dataset, number: int, shift: tuple[int, int]) -> xr.Dataset:
    """Samples of which the first ``number`` are training fields, moved and with a little noise,
    at the training fields' own times."""
    ds, rng = sampled(), np.random.default_rng(0)
    rows = rng.choice(train.sizes["time"], number, replace=False)
    times = ds["time"].values.copy()
    times[:number] = train["time"].values[rows]

    def one(name, values):
        climate = train[name].values.mean(axis=0)
        season = train[name].values[rows] - anomaly(train, name)[rows]
        moved = np.roll(anomaly(train, name)[rows], shift, axis=(1, 2))
        noise = 0.1 * (train[name].values - climate).std() * rng.standard_normal(moved.shape)
        return np.concatenate([season + moved + noise, values[number:]])

    return changed(one, ds).assign_coords(time=("sample", times))


def anomaly(ds: xr.Dataset, name: str) -> np.ndarray:
    """About the mean of the same half month of all years."""
    values = ds[name].values.reshape(-1, 24, *SHAPE)
    return (values - values.mean(axis=0)).reshape(ds[name].shape)


def damped(name: str, values: np.ndarray) -> np.ndarray:
    """A tenth less power beyond a quarter of the cosine waves that the grid carries."""
    waves = scipy.fft.dctn(values, axes=(1, 2), norm="ortho")
    i, j = np.meshgrid(*(np.arange(n) / n for n in SHAPE), indexing="ij")
    waves[:, np.hypot(i, j) > 0.25] *= np.sqrt(0.9)
    return scipy.fft.idctn(waves, axes=(1, 2), norm="ortho")


def judge(synthetic: xr.Dataset, real: tuple[xr.Dataset, xr.Dataset]) -> Judge:
    return Judge(read_trio(synthetic, *real), np.random.default_rng(0), 2.0)
