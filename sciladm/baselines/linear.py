"""Linear interpolation between what was observed: what fills gaps without knowing anything."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.spatial import QhullError

from sciladm.conventions import UserError
from sciladm.grid import Boundary

Array = NDArray[np.floating]
MOST = {1: 1_000_000, 2: 200_000, 3: 30_000}
"""Points that are triangulated at most, by the number of axes: some seconds of work."""


def interpolated(
    values: Array, observed: NDArray[np.bool_], boundaries: Sequence[Boundary]
) -> Array:
    """A field (*space) that is ``values`` where ``observed``, linear in between (on the Delaunay
    triangulation of the cells, around periodic axes too), the nearest value beyond the outermost
    of them, and 0 where nothing was observed."""
    if not observed.any():
        return np.zeros_like(values)
    at, told = np.argwhere(observed).astype(float), values[observed]
    turns = [(-n, 0, n) if end == "periodic" else (0,)
             for n, end in zip(values.shape, boundaries, strict=True)]  # fmt: skip
    shifts = list(product(*turns))
    if len(shifts) * len(at) > MOST[values.ndim]:
        raise UserError(f"{len(shifts) * len(at)} points are too many to be triangulated")
    points = np.concatenate([at + shift for shift in shifts])
    numbers = np.tile(told, len(shifts))
    wanted = np.argwhere(~observed)
    nearest = NearestNDInterpolator(points, numbers)(wanted)
    try:
        found = LinearNDInterpolator(points, numbers)(wanted)
    except QhullError:  # too few points, or all in a line: there is nothing in between
        found = np.full(len(wanted), np.nan)
    out = values.copy()
    out[~observed] = np.where(np.isfinite(found), found, nearest)
    return out
