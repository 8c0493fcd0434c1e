"""Are samples copies of training fields? Distances to the nearest of these, and their tail.

The tail tells, not the middle: 2 % of copies move neither the median nor a rank test.
"""

from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from sciladm.grid import Boundary

Floats = NDArray[np.floating]
Waves = NDArray[np.complexfloating]

TAIL = 0.005
"""Quantile of held-out fields' distances below which a field is too near to a training field."""
BAR = 0.01
_BYTES = 1 << 24
_NOISE = 0.03
"""Power per wave of noise that holds this share of a field's squares."""


def nearest(fields: Floats, train: Floats, apart: NDArray[np.bool_] | None = None) -> Floats:
    """Root mean square distance of each field (n, k) to its nearest of ``train`` (m, k), where
    columns carry the root of their weight and ``apart`` (n, m) says which pairs count: (n,)."""
    squares = np.einsum("mk,mk->m", train, train)
    out = np.empty(len(fields))
    size = max(1, _BYTES // (8 * len(train)))
    for start in range(0, len(fields), size):
        rows = slice(start, start + size)
        block = fields[rows]
        distance = squares - 2 * block @ train.T + np.einsum("nk,nk->n", block, block)[:, None]
        if apart is not None:
            distance = np.where(apart[rows], distance, np.inf)
        out[rows] = np.sqrt(np.maximum(distance.min(axis=1), 0))
    return out


def nearest_shifted(
    fields: Floats,
    train: Floats,
    boundaries: Sequence[Boundary],
    apart: NDArray[np.bool_] | None = None,
) -> Floats:
    """1 − the largest correlation of each field (n, channel, *space) with any of ``train`` (m, …)
    under any shift: periodic axes wrap, along others what leaves the grid is lost: (n,).

    Scales count alike down to those that hold less than a little noise would: large ones look
    alike under some shift anyway.
    """
    space = fields.shape[2:]
    ends = zip(space, boundaries, strict=True)
    shape = tuple(
        n if end == "periodic" else scipy.fft.next_fast_len(2 * n - 1, real=True)
        for n, end in ends
    )
    axes = tuple(range(2, 2 + len(space)))
    twice = np.full(shape[-1] // 2 + 1, 2.0)
    twice[0] = 1.0
    twice[-1] -= shape[-1] % 2 == 0

    def waves(block: Floats) -> Waves:
        norm = np.sqrt((block.astype(np.float64) ** 2).sum(axis=(1, *axes), keepdims=True))
        unit = (block / np.maximum(norm, 1e-12)).astype(np.float32)
        return np.asarray(scipy.fft.rfftn(unit, shape, axes=axes))

    def level(raw: Waves) -> Waves:
        even = raw / np.sqrt(power + _NOISE)
        square = (np.abs(even) ** 2 * twice).sum(axis=(1, *axes), keepdims=True)
        norm = np.sqrt(square / np.prod(shape))
        return np.asarray((even / np.maximum(norm, 1e-12)).astype(np.complex64))

    known = waves(train)
    power = (np.abs(known) ** 2).mean(axis=0)
    known = np.conj(level(known))
    out = np.empty(len(fields))
    size = max(1, _BYTES // (16 * int(np.prod(shape))))
    for i in range(len(fields)):
        wave, best = level(waves(fields[i : i + 1]))[0], -np.inf
        there = np.arange(len(train)) if apart is None else np.flatnonzero(apart[i])
        for start in range(0, len(there), size):
            product = (known[there[start : start + size]] * wave).sum(axis=1)
            last = tuple(range(1, product.ndim))
            best = max(best, float(scipy.fft.irfftn(product, shape, axes=last).max()))
        out[i] = 1 - best
    return out


def tail(distances: Floats, held_out: Floats) -> float:
    """Share of ``distances`` below the 0.5 % quantile of the held-out fields' own."""
    return float((distances < np.quantile(held_out, TAIL)).mean())


def tail_bound(n: int, m: int, rng: np.random.Generator) -> float:
    """The bar, or the 99 % quantile of the tail of ``n`` fields that are no nearer than the ``m``
    held out: distances of one law, whatever it is, so uniform ones will do."""
    tails = [tail(rng.random(n), rng.random(m)) for _ in range(2000)]
    return max(BAR, float(np.quantile(tails, 0.99)))
