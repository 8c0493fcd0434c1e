"""Axes along which several quadratic forms are as diagonal as one rotation can make them."""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
SWEEPS = 100
"""Over all pairs of axes, at most; about ten do."""
STILL = 1e-7
"""Turns [rad] too small to matter."""


def joint_axes(forms: Matrix) -> Matrix:
    """Symmetric (form, n, n) → orthogonal U (n, n), columns the axes, which makes the squares off
    the diagonals of all Uᵀ F U least, one plane after the other (Cardoso & Souloumiac 1996,
    doi:10.1137/S0895479893259546, eq. 9). Exact where they share their axes; at once for a single
    form, whose eigenvectors they are. The largest entry of each column is positive."""
    turned = np.array(forms, dtype=np.float64)
    n = turned.shape[-1]
    axes = np.eye(n)
    for _ in range(SWEEPS):
        widest = 0.0
        for p in range(n - 1):
            for q in range(p + 1, n):
                apart = turned[:, p, p] - turned[:, q, q]
                across = 2 * turned[:, p, q]
                on = apart @ apart - across @ across
                off = 2 * apart @ across
                angle = float(0.5 * np.arctan2(off, on + np.hypot(on, off)))
                if abs(angle) < STILL:
                    continue
                widest = max(widest, abs(angle))
                c, s = np.cos(angle), np.sin(angle)
                plane = np.array([[c, -s], [s, c]])
                turned[:, :, [p, q]] = turned[:, :, [p, q]] @ plane
                turned[:, [p, q]] = plane.T @ turned[:, [p, q]]
                axes[:, [p, q]] = axes[:, [p, q]] @ plane
        if not widest:
            break
    largest = np.abs(axes).argmax(0)
    return np.asarray(axes * np.sign(axes[largest, np.arange(n)]))
