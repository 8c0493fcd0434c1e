r"""Gaps in real fields: a run beside optimal interpolation and EOFs.

    python -m sciladm.train recipes/sst.yaml --run-dir RUN
    python benchmarks/gaps.py RUN --cases 12 --members 16
    python benchmarks/gaps.py RUN --gaps real --days 4
    python -m sciladm.train recipes/air-temperature.yaml --run-dir AIR --set window.past=0 \
        --set autoencoder.patch=2 --set autoencoder.channels=4 --set autoencoder.bound=60 \
        --set denoiser.local=0 --set denoiser.masks=24
    python benchmarks/gaps.py AIR --gaps stations --error 0.5 --days 4
    python benchmarks/gaps.py AIR --gaps blocks --days 4

Test series of 20 days, at most one in 30 days, lose cells. `clouds`: about 60 % to simulated
clouds, and a square for ten days; `real`: to those of the last four scenes of the Alboran Sea,
in any part of it that is all sea; `stations`: all but one cell in twenty, the same every time,
which have an error [unit of the variable]; `blocks`: a quarter of the field. Fair CRPS in that
unit and spread–skill in the hidden cells, by how long a gap lasts and how far the nearest
observation of that time is; model − baseline paired, 95 % over series. Climatology,
interpolation and EOFs give normal distributions, whose CRPS is exact; all know the same
climatology, and the last two the covariance of windows as long as the run's, and the error.
Optimal interpolation has the covariance of training, drawn to its diagonal or fading with
distance about its leading pattern, whichever fills validation's gaps best.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from fading import REACHES, faded
from scipy.ndimage import distance_transform_edt, gaussian_filter

import sciladm
from sciladm.baselines.filling import (
    OptimalInterpolation,
    OrthogonalFunctions,
    filled_crps,
    gaussian_crps,
)
from sciladm.metrics.ensemble import fair_crps
from sciladm.tasks.run import open_run
from sciladm.tasks.voice import Silent

EVERY, COVER = 30, 0.6
LONG = [(1, 1, "1 day"), (2, 3, "2–3"), (4, 7, "4–7"), (8, 99, "8 and more")]
KINDS = ("model", "oi", "eof")
FAR = [(0, 1.5, "1 cell"), (1.5, 4.5, "2–4"), (4.5, 999, "> 4")]


def clouds(rng: np.random.Generator, days: int, shape: tuple[int, int]) -> np.ndarray:
    """Where it is cloudy (day, *shape): blobs of a few cells that drift and live some days."""
    drift, field, out = rng.integers(-2, 3, 2), np.zeros((64, 64)), []
    for _ in range(days + 10):
        fresh = gaussian_filter(rng.standard_normal(field.shape), 4, mode="wrap")
        field = 0.75 * np.roll(field, drift, (0, 1)) + fresh / fresh.std() * 0.66
        out.append(field[: shape[0], : shape[1]])
    part = np.stack(out[10:])
    return part > np.quantile(part, 1 - COVER)


def real_clouds(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Where nothing was seen of a part of the sea (scene, *shape)."""
    path = Path(os.environ["SCILADM_DATA"]) / "alboran_sst_clouds" / "alboranSST_small.nc"
    with xr.open_dataset(path) as ds:
        sea, seen = ds["mask"].values > 0.5, np.isfinite(ds["SST"].values[-4:])
    whole = np.lib.stride_tricks.sliding_window_view(sea, shape).all(axis=(2, 3))
    row, column = np.argwhere(whole)[rng.integers(whole.sum())]
    return ~seen[:, row : row + shape[0], column : column + shape[1]]


def hiding(kind: str, rng: np.random.Generator, days: int, valid: np.ndarray) -> np.ndarray:
    """Where there is no observation (day, *shape), of the cells that hold data."""
    rows, columns = valid.shape
    if kind == "stations":
        hidden = np.broadcast_to(rng.random(valid.shape) >= 0.05, (days, rows, columns)).copy()
    elif kind == "blocks":
        hidden = np.zeros((days, rows, columns), bool)
        row, column = rng.integers(0, rows - rows // 2 + 1), rng.integers(0, columns // 2 + 1)
        hidden[:, row : row + rows // 2, column : column + columns // 2] = True
    elif kind == "real":
        hidden = real_clouds(rng, valid.shape)[:days]
    else:
        hidden = clouds(rng, days, valid.shape)
        row, column = rng.integers(0, 20, 2)
        if days >= 20:
            hidden[5:15, row : row + 12, column : column + 12] = True
    return hidden & valid


def lasting(hidden: np.ndarray) -> np.ndarray:
    """Days that the gap around each (day, cell) lasts; 0 where there is none."""
    ahead, back = np.zeros(hidden.shape, int), np.zeros(hidden.shape, int)
    for day in range(len(hidden)):
        before = ahead[day - 1] if day else 0
        ahead[day] = np.where(hidden[day], before + 1, 0)
    for day in range(len(hidden))[::-1]:
        after = back[day + 1] if day + 1 < len(hidden) else 0
        back[day] = np.where(hidden[day], after + 1, 0)
    return np.where(hidden, ahead + back - 1, 0)


def series(numbers: np.ndarray, times: np.ndarray, length: int) -> np.ndarray:
    """Where a series of so many frames may start: wholly in the split of these ``numbers``, at
    least `EVERY` days apart."""
    whole = np.flatnonzero(numbers[length - 1 :] - numbers[: len(numbers) - length + 1] < length)
    kept: list[int] = []
    for start in numbers[whole]:
        if not kept or times[start] - times[kept[-1]] >= np.timedelta64(EVERY, "D"):
            kept.append(start)
    return np.array(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument(
        "--gaps", choices=("clouds", "real", "stations", "blocks"), default="clouds"
    )
    parser.add_argument("--error", type=float, default=0.0)
    parser.add_argument("--days", type=int, default=20, help="times of a series, a step apart")
    parser.add_argument("--method", default="auto", help="of the model; auto: the run's best")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    opened, data = open_run(asked.run, torch.device("cpu"), {}, None, Silent())
    model, frames = sciladm.load(asked.run), data.frames
    (name,) = (channel.variable for channel in opened.fields.channels)
    sea, width = opened.normaliser.valid[0], opened.recipe.window.future
    unit = float(opened.normaliser.std[0])
    error = asked.error / unit
    a_step = max(1, int(opened.step / np.median(np.diff(frames.times[:9]))))

    def anomalies(numbers: np.ndarray) -> np.ndarray:
        """(day, cell), sea alone."""
        found = opened.normaliser.normalise(frames.read(numbers), frames.times[numbers])
        return found[:, 0][:, sea].astype(np.float64)

    rng = np.random.default_rng([asked.seed, 1])
    train = anomalies(data.indices("train"))
    last = (width - 1) * a_step
    windows = np.concatenate(
        [train[n * a_step : len(train) - last + n * a_step] for n in range(width)], axis=1
    )
    held = anomalies(data.indices("validation"))
    known = []
    for start in np.linspace(0, len(held) - last - 1, 8).astype(int):
        hidden = hiding(asked.gaps, rng, width, sea)[:, sea]
        window = held[start : start + last + 1 : a_step].ravel()
        known.append((window + error * rng.standard_normal(window.shape) * ~hidden.ravel(),
                      ~hidden.ravel()))  # fmt: skip
    plain = OptimalInterpolation.fit(windows, known, error)
    made = [plain, *(OptimalInterpolation(faded(windows, sea, reach), reach) for reach in REACHES)]
    best = min(made, key=lambda one: filled_crps(one.fill, known, error))
    rivals = {"oi": best, "eof": OrthogonalFunctions.fit(windows, known, error)}
    print(
        f"chosen on validation: {'share' if best is plain else 'reach'} {best.share}, "
        f"{rivals['eof'].functions.shape[1]} functions",
        flush=True,
    )
    climate = float(np.sqrt((train**2).mean()))
    starts = series(data.indices("test"), frames.times, asked.days * a_step)
    starts = starts[np.linspace(0, len(starts) - 1, min(asked.cases, len(starts))).astype(int)]
    table = {}
    for case, start in enumerate(starts):
        rng = np.random.default_rng([asked.seed, int(start)])
        hidden = hiding(asked.gaps, rng, asked.days, sea)
        numbers = start + a_step * np.arange(asked.days)
        ds = frames.ds[[name]].isel(time=numbers).load()
        noise = error * rng.standard_normal(hidden.shape)
        space = [axis.name for axis in opened.fields.grid.axes]
        where = xr.DataArray(hidden, dims=("time", *space))
        told = ds.transpose("time", *space).where(~where) + unit * noise
        filled = model.infill(
            told, asked.members, asked.error, method=asked.method, seed=asked.seed, workers=1
        )
        members = filled[name].transpose("member", "time", *space).values.astype(np.float64)
        truth = frames.read(numbers)[:, 0].astype(np.float64)
        deviation = members.var(0, ddof=1) * (1 + 1 / len(members))
        said = {"model": [fair_crps(members, truth), deviation, (members.mean(0) - truth) ** 2]}
        own = anomalies(numbers)
        for kind, rival in rivals.items():
            found = centred(rival, own, own + noise[:, sea], ~hidden[:, sea], width, error)
            units = (unit, unit**2, unit**2)
            said[kind] = [u * spread(x, sea) for u, x in zip(units, found, strict=True)]
        climatology = unit * spread(gaussian_crps(0 * own, climate + 0 * own, own), sea)
        for label, inside in groups(hidden, sea).items():
            if inside.any():
                sums = [x[inside].sum() for kind in KINDS for x in said[kind]]
                row = [inside.sum(), climatology[inside].sum(), *sums]
                table.setdefault(label, {})[case] = np.array(row)
        print(f"{case + 1} of {len(starts)}", flush=True)
    show(table)


def centred(  # type: ignore[no-untyped-def]
    rival, own: np.ndarray, told: np.ndarray, observed: np.ndarray, width: int, error: float
) -> np.ndarray:
    """CRPS, variance and squared error of each day (3, day, cell) from what is ``told`` of a
    window around it, as far as series allow."""
    out = np.zeros((3, *own.shape))
    cells = own.shape[1]
    for day in range(len(own)):
        first = int(np.clip(day - width // 2, 0, len(own) - width))
        window = slice(first, first + width)
        mean, std = rival.fill(told[window].ravel(), observed[window].ravel(), error)
        here = slice((day - first) * cells, (day - first + 1) * cells)
        mean, std = mean[here], std[here]
        out[:, day] = gaussian_crps(mean, std, own[day]), std**2, (mean - own[day]) ** 2
    return out


def spread(values: np.ndarray, sea: np.ndarray) -> np.ndarray:
    """(day, sea cell) → (day, *shape)."""
    out = np.full((len(values), *sea.shape), np.nan)
    out[:, sea] = values
    return out


def groups(hidden: np.ndarray, sea: np.ndarray) -> dict[str, np.ndarray]:
    """Hidden cells by how long and how far; land is no observation, and where nothing was observed
    all is far."""
    long = lasting(hidden)
    blank = hidden | ~sea
    far = np.stack(
        [np.full(day.shape, 99.0) if day.all() else distance_transform_edt(day) for day in blank]
    )
    out = {"all": hidden, "3 and more, > 2 cells": hidden & (long >= 3) & (far > 2)}
    for low, high, days in LONG:
        for near, beyond, cells in FAR:
            inside = (long >= low) & (long <= high) & (far >= near) & (far < beyond)
            out[f"{days}, {cells}"] = inside & hidden
    return out


def show(table: dict[str, dict[int, np.ndarray]]) -> None:
    """One line a class."""
    title = f"{'gap, distance':22} {'cells':>7} {'model':>7} {'oi':>7} {'eof':>7} {'climate':>8} "
    title += f"{'model − oi':>26} {'model − eof':>26} {'spread–skill':>13} {'oi':>6} {'eof':>6}"
    print(title)
    for label, rows in table.items():
        found = np.array(list(rows.values()))
        rng = np.random.default_rng(0)
        draws = rng.integers(len(found), size=(2000, len(found)))
        count, climate, *sums = found.sum(0)
        crps, spread_, error = np.reshape(sums, (3, 3)).T
        model, oi, eof = crps / count
        line = (
            f"{label:22} {int(count):7d} {model:7.4f} {oi:7.4f} {eof:7.4f} {climate / count:8.4f}"
        )
        for column in (5, 8):
            apart = found[:, 2] - found[:, column]
            many = apart[draws].sum(1) / found[draws, 0].sum(1)
            low, high = np.quantile(many, (0.025, 0.975))
            line += f" {apart.sum() / count:8.4f} [{low:.4f}, {high:.4f}]"
        ratios = np.sqrt(spread_ / error)
        print(f"{line} {ratios[0]:13.3f} {ratios[1]:6.3f} {ratios[2]:6.3f}", flush=True)


if __name__ == "__main__":
    main()
