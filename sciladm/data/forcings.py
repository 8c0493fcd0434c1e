"""What is known of any time before it comes: the sun, the season, the hour."""

import numpy as np
from numpy.typing import NDArray

from sciladm.data.times import Times, parts
from sciladm.grid import Grid


def forcings(times: Times, grid: Grid) -> NDArray[np.float32]:
    """Forcings at ``times`` (n,) on ``grid``: (n, k, *grid.shape), all within [−1, 1].

    Sphere, k = 5: cosine of the solar zenith angle (0 at night), then sin and cos of the year's
    first two harmonics. Plane, k = 6: those four, then sin and cos of the day (UTC).
    """
    _, _, in_year, in_day = parts(times)
    γ = 2 * np.pi * in_year
    rows = [np.sin(γ), np.cos(γ), np.sin(2 * γ), np.cos(2 * γ)]
    if grid.geometry == "plane":
        rows += [np.sin(2 * np.pi * in_day), np.cos(2 * np.pi * in_day)]
    space = (1,) * len(grid.shape)
    flat = np.stack(rows, axis=1).reshape(len(times), len(rows), *space)
    spread = np.broadcast_to(flat, (*flat.shape[:2], *grid.shape))
    if grid.geometry == "sphere":
        sun = cos_zenith(γ.reshape(-1, *space), in_day.reshape(-1, *space), grid)
        spread = np.concatenate([sun[:, None], spread], axis=1)
    return np.ascontiguousarray(spread, dtype=np.float32)


def cos_zenith(
    γ: NDArray[np.float64], in_day: NDArray[np.float64], grid: Grid
) -> NDArray[np.float64]:
    """max(0, cos θ₀), cos θ₀ = sin φ sin δ + cos φ cos δ cos h, δ from Spencer (1971).

    γ: angle of the year; in_day: fraction of the day (UTC); both broadcast against the grid. The
    equation of time (≤ 16 min) is left out.
    """
    shape = {a.name: tuple(-1 if a.name == b.name else 1 for b in grid.axes) for a in grid.axes}
    angle = {a.name: np.deg2rad(a.values).reshape(shape[a.name]) for a in grid.axes}
    φ, λ = angle["latitude"], angle["longitude"]
    δ = (
        0.006918 - 0.399912 * np.cos(γ) + 0.070257 * np.sin(γ) - 0.006758 * np.cos(2 * γ)
        + 0.000907 * np.sin(2 * γ) - 0.002697 * np.cos(3 * γ) + 0.00148 * np.sin(3 * γ)
    )  # fmt: skip
    h = 2 * np.pi * in_day - np.pi + λ
    cosine: NDArray[np.float64] = np.sin(φ) * np.sin(δ) + np.cos(φ) * np.cos(δ) * np.cos(h)
    return np.maximum(0.0, cosine)
