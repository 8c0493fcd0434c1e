"""A covariance of few windows as assimilation has it: correlations fade with distance."""

import numpy as np
from scipy.sparse.linalg import eigsh
from scipy.spatial.distance import cdist

REACHES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125)
"""Half of how far correlations reach, over the longest side of the grid."""


def faded(windows: np.ndarray, sea: np.ndarray, reach: float) -> np.ndarray:
    """Of windows (n, day · sea cell), cells that are ``sea`` (*shape): their leading pattern as it
    is, what else two cells have in common by Gaspari & Cohn's correlation of their distance."""
    at = np.argwhere(sea)
    days = windows.shape[1] // len(at)
    apart = np.tile(cdist(at, at) / max(sea.shape), (days, days))
    covariance = windows.T @ windows / len(windows)
    size = np.sqrt(covariance.diagonal())
    correlation = covariance / size / size[:, None]
    value, pattern = eigsh(correlation, k=1, v0=np.ones(len(correlation)))
    shared = value * pattern @ pattern.T
    return (shared + (correlation - shared) * taper(apart / reach)) * size * size[:, None]


def taper(distance: np.ndarray) -> np.ndarray:
    """A correlation that is 0 from 2 on, of distances in units of half its reach: Gaspari & Cohn
    (1999), eq 4.10."""
    r = np.maximum(distance, 1e-9)
    near = 1 + r**2 * (-5 / 3 + r * (5 / 8 + r * (1 / 2 - r / 4)))
    far = 4 - 2 / (3 * r) + r * (-5 + r * (5 / 3 + r * (5 / 8 + r * (-1 / 2 + r / 12))))
    return np.where(r <= 1, near, np.where(r < 2, far, 0.0))
