"""A field of 4096 × 4096 cells through tiles: peak memory, time, and whether borders show.

    python benchmarks/tiles.py FOLDER [--side 4096] [--tiles 32] [--evaluations 12] [--seen 0.05]

Trains a small run on 160 fields of 256 × 256 cells, cut out of Gaussian fields, if FOLDER has none
(two minutes); then fills one larger field, a quarter of whose sides is a block with observed
points, by the door, in a process of its own, whose peak is the kernel's (maximum resident set
size). Steps across borders of tiles are held against those across borders of other patches:
what an autoencoder loses differs from patch to patch on any grid.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import xarray as xr

import sciladm
from sciladm import recipe as recipes
from sciladm.data.dataset import open_dataset
from sciladm.tasks.fit import fit
from sciladm.tasks.wide import Wide, widened

OWN, PATCH, REACH = 256, 8, 6.0
CHANGES = {
    "name": "tiles", "window.past": 0, "window.step": "24h", "denoiser.local": 0,
    "autoencoder.patch": PATCH, "autoencoder.channels": 5, "denoiser.widths": [16],
    "denoiser.attention": False, "denoiser.steps": 80, "denoiser.batch": 8, "micro_batch": 1,
    "evaluation.validation_inits": 1,
}  # fmt: skip


def drawn(side: int, seed: int) -> np.ndarray:
    """A Gaussian field (side, side) on a torus, of variance 1, whose spectrum falls as k⁻⁴."""
    white = np.random.default_rng(seed).standard_normal((side, side)).astype(np.float32)
    k = [2 * np.pi * f(side).astype(np.float32) for f in (np.fft.fftfreq, np.fft.rfftfreq)]
    power = (k[0][:, None] ** 2 + k[1] ** 2 + REACH**-2) ** -2
    found = np.fft.irfft2(np.fft.rfft2(white) * power**0.5, white.shape)
    return (found / found.std()).astype(np.float32)


def dataset(values: np.ndarray, first: str) -> xr.Dataset:
    """Fields (time, y, x) on a plane that ends."""
    times = np.datetime64(first, "ns") + np.arange(len(values)) * np.timedelta64(1, "D")
    axes = {n: np.arange(k, dtype=float) for n, k in zip("yx", values.shape[1:], strict=True)}
    return xr.Dataset({"h": (("time", "y", "x"), values)}, {"time": times} | axes)


def trained(folder: Path) -> Path:
    """The run."""
    run, data = folder / "run", folder / "own.nc"
    if not run.exists():
        fields = [drawn(2 * OWN, n).reshape(2, OWN, 2, OWN).swapaxes(1, 2) for n in range(40)]
        dataset(np.concatenate(fields).reshape(-1, OWN, OWN), "2001-01-01").to_netcdf(data)
        recipe = Path(__file__).parents[1] / "recipes" / "own-data.yaml"
        told = recipes.load(recipe, CHANGES | {"data.path": [str(data)]})
        fit(told, open_dataset(told), run)
    return run


def peak(line: list[str]) -> tuple[float, float]:
    """Largest resident set of a command [MB], and its wall time [s]."""
    began = time.perf_counter()
    child = os.posix_spawn(sys.executable, line, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"{' '.join(line)} ended with {os.waitstatus_to_exitcode(status)}")
    size = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return size, time.perf_counter() - began


def borders(wide: Wide, filled: np.ndarray) -> None:
    """Variance beside borders of tiles, and steps across them, over what they are elsewhere."""
    for axis, name in enumerate("yx"):
        field = np.moveaxis(filled, axis, 0).astype(np.float64)
        steps = np.sqrt((np.diff(field, axis=0) ** 2).mean(1))
        variance = (field - field.mean()) ** 2
        at = sorted({PATCH * tile.kept[axis].start for tile in wide.tiles} - {0})
        usual = [n for n in range(PATCH, len(field), PATCH) if n not in at]
        each = np.array([variance[n - PATCH : n + PATCH].mean() for n in at]) / variance.mean()
        jumps = np.array([steps[n - 1] for n in at]) / np.mean([steps[n - 1] for n in usual])
        other = np.array([steps[n - 1] for n in usual]) / np.mean([steps[n - 1] for n in usual])
        print(
            f"{name}: {len(at)} borders; variance beside them {each.mean():.3f} (bar ≥ 0.97); "
            f"steps across them {jumps.mean():.3f} (bar ≤ 1.05), the largest {jumps.max():.3f} "
            f"(of other patches {other.max():.3f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--tiles", type=int, default=32)
    parser.add_argument("--evaluations", type=int, default=12)
    parser.add_argument("--seen", type=float, default=0.05)
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    run, side = trained(told.folder), told.side
    truth = drawn(side, 1000)
    seen = np.zeros(truth.shape, bool)
    block = slice(side // 4, side // 2)
    seen[block, block] = np.random.default_rng(0).random((side // 4,) * 2) < told.seen
    gappy = dataset(np.where(seen, truth, np.nan)[None], "2031-01-01")
    gappy.to_zarr(told.folder / "gappy.zarr", mode="w", consolidated=False)
    model = sciladm.load(run).model
    wide = widened(model, gappy, told.tiles, 1)
    assert isinstance(wide, Wide), f"--side {side} is no larger than {OWN}"
    door = ["-m", "sciladm.infill", str(run), str(told.folder / "gappy.zarr"), "--overwrite"]
    options = ["--members", "1", "--evaluations", str(told.evaluations), "--quiet"]
    out = told.folder / "filled.zarr"
    size, wall = peak(
        [sys.executable, *door, *options, "--tiles", str(told.tiles), "--out", str(out)]
    )
    filled = xr.open_zarr(out).h.isel(time=0, member=0).values
    print(f"{side} × {side} cells, {len(wide.tiles)} tiles: peak {size:.0f} MB (bar: < 4000), "
          f"{wall:.0f} s")  # fmt: skip
    print(f"observed cells unchanged: {np.array_equal(filled[seen], truth[seen])}; "
          f"variance {filled.var():.3f} (fields it was trained on: 1)")  # fmt: skip
    borders(wide, filled)
    inside = (filled - truth)[block, block][~seen[block, block]]
    print(f"rms error between points {np.sqrt((inside**2).mean()):.3f} (unknown: 1.4)")


if __name__ == "__main__":
    main()
