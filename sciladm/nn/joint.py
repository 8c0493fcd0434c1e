"""Axes along which several quadratic forms are as diagonal as one rotation can make them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Numbers = NDArray[np.int64]
SWEEPS = 20
"""Over all pairs of axes, at most: what is left to turn by then changes next to nothing."""
STILL = 1e-4
"""Turns [rad] too small to matter."""


def joint_axes(forms: Matrix) -> Matrix:
    """Symmetric (form, n, n) → orthogonal U (n, n), columns the axes, which makes the squares off
    the diagonals of all Uᵀ F U least, plane after plane, disjoint ones at once (Cardoso &
    Souloumiac 1996, doi:10.1137/S0895479893259546). Exact where forms share their axes, and for
    a single form, whose eigenvectors they are. The largest entry of each column is positive."""
    turned = np.array(forms, dtype=np.float64)
    n = turned.shape[-1]
    axes = np.eye(n)
    for _ in range(SWEEPS):
        widest = 0.0
        for p, q in _planes(n):
            apart = turned[:, p, p] - turned[:, q, q]
            across = 2 * turned[:, p, q]
            on, off = (apart**2 - across**2).sum(0), 2 * (apart * across).sum(0)
            angle = 0.5 * np.arctan2(off, on + np.hypot(on, off))
            angle[np.abs(angle) < STILL] = 0.0
            # No first-order change, since it is the worst turn.
            angle[(on < 0) & (np.abs(off) < STILL * -on)] = np.pi / 4
            widest = max(widest, float(np.abs(angle).max(initial=0.0)))
            c, s = np.cos(angle), np.sin(angle)
            for whole in (turned, axes):
                one, two = whole[..., p].copy(), whole[..., q].copy()
                whole[..., p], whole[..., q] = c * one + s * two, c * two - s * one
            one, two = turned[:, p].copy(), turned[:, q].copy()
            turned[:, p] = c[:, None] * one + s[:, None] * two
            turned[:, q] = c[:, None] * two - s[:, None] * one
        if not widest:
            break
    largest = np.abs(axes).argmax(0)
    return np.asarray(axes * np.sign(axes[largest, np.arange(n)]))


def _planes(n: int) -> Iterator[tuple[Numbers, Numbers]]:
    """All pairs of n axes, in rounds in which every axis has one partner at most."""
    ring = np.arange(n + n % 2)
    for _ in range(len(ring) - 1):
        one, two = ring[: len(ring) // 2], ring[: len(ring) // 2 - 1 : -1]
        there = (one < n) & (two < n)
        yield one[there], two[there]
        ring[1:] = np.roll(ring[1:], 1)
