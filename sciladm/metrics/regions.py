"""Where a score is taken: named masks over the grid (True = counts)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sciladm.grid import Grid

RIM = 8
"""Cells next to a bounded edge that the region `inner` leaves out."""


def regions(grid: Grid, land: NDArray[np.floating] | None = None) -> dict[str, NDArray[np.bool_]]:
    """Named masks (*grid.shape); empty ones are left out. `global`, every cell, comes first.

    On the whole sphere: `tropics` (|latitude| < 20°), `nh` (≥ 20°), `sh` (≤ −20°); on a grid
    with bounded axes: `inner`, at least 8 cells away from the rim, where 4 or more remain along
    each such axis. With `land`, the land–sea mask as a fraction (*grid.shape), also `land`
    (≥ 0.5) and `sea`.
    """
    named = {"global": np.ones(grid.shape, bool)}
    if "pole" in grid.boundaries:
        axis = grid.names.index("latitude")
        row = [-1 if i == axis else 1 for i in range(len(grid.axes))]
        latitude = np.broadcast_to(grid.axes[axis].values.reshape(row), grid.shape)
        named |= {
            "tropics": np.abs(latitude) < 20.0,
            "nh": latitude >= 20.0,
            "sh": latitude <= -20.0,
        }
    else:
        named |= _inner(grid)
    if land is not None:
        named |= {"land": np.asarray(land) >= 0.5, "sea": np.asarray(land) < 0.5}
    return {name: mask for name, mask in named.items() if mask.any()}


def _inner(grid: Grid) -> dict[str, NDArray[np.bool_]]:
    bounded = [b == "bounded" for b in grid.boundaries]
    if any(edge and n < 2 * RIM + 4 for edge, n in zip(bounded, grid.shape, strict=True)):
        return {}
    mask = np.zeros(grid.shape, bool)
    mask[tuple(slice(RIM, -RIM) if edge else slice(None) for edge in bounded)] = True
    return {"inner": mask} if any(bounded) else {}


SEASONS = ("all", "djf", "mam", "jja", "son")


def in_season(times: NDArray[np.datetime64], season: str) -> NDArray[np.bool_]:
    """Which times lie in a season (months of the northern calendar), or `all`."""
    month = times.astype("datetime64[M]").astype(np.int64) % 12
    return (
        np.ones(len(times), bool)
        if season == "all"
        else ((month + 1) % 12 // 3 == SEASONS.index(season) - 1)
    )
