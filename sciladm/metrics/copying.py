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
    valid: NDArray[np.bool_],
    boundaries: Sequence[Boundary],
    apart: NDArray[np.bool_] | None = None,
) -> Floats:
    """1 − the largest correlation of each field (n, channel, *space) with any of ``train`` (m, …)
    under any shift: periodic axes wrap, along others what leaves the grid is lost: (n,).

    Each correlation is over the cells ``valid`` (channel, *space) in both, at least half of them,
    with means taken there: Padfield (2012), eqs 5-9. Edges would be the likeness of fields else.
    """
    ends = zip(fields.shape[2:], boundaries, strict=True)
    shape = tuple(
        n if end == "periodic" else scipy.fft.next_fast_len(2 * n - 1, real=True)
        for n, end in ends
    )
    shifts = Shifts(shape, valid)
    if apart is None:
        apart = np.ones((len(fields), len(train)), bool)
    best = np.full(len(fields), -1.0)
    size = max(1, _BYTES // (8 * len(valid) * int(np.prod(shape))))
    for start in range(0, len(train), size):
        known = shifts.prepare(train[start : start + size], back=True)
        for i in range(len(fields)):
            there = np.flatnonzero(apart[i, start : start + size])
            if there.size:
                wave, mean, spread = shifts.prepare(fields[i : i + 1])
                product = shifts.back((known[0][there] * wave).sum(axis=1))
                product -= (known[1][there] * mean / shifts.count).sum(axis=1)
                product *= shifts.enough / np.sqrt(known[2][there] * spread)
                best[i] = max(best[i], float(product.max()))
    return 1 - best


class Shifts:
    """Sums over the cells that two fields share, for all shifts at once: (…, *shape)."""

    def __init__(self, shape: tuple[int, ...], valid: NDArray[np.bool_]) -> None:
        self.shape, self.valid = shape, valid.astype(np.float32)
        self.axes = tuple(range(-len(shape), 0))
        self.mask = self.waves(self.valid)
        count = self.back(self.mask * np.conj(self.mask))
        self.count = np.maximum(count, 0.5)
        self.enough = count.sum(axis=0) >= valid.sum() / 2

    def waves(self, fields: Floats) -> Waves:
        """(…, *space) to waves of the padded grid."""
        return np.asarray(scipy.fft.rfftn(fields, self.shape, axes=self.axes))

    def back(self, waves: Waves) -> Floats:
        """The inverse, (…, *shape)."""
        return np.asarray(scipy.fft.irfftn(waves, self.shape, axes=self.axes))

    def prepare(self, fields: Floats, back: bool = False) -> tuple[Waves, Floats, Floats]:
        """Waves of fields (n, channel, *space), their sums over shared cells (n, channel, *shape)
        and squares about the means there (n, *shape); ``back``: for those that are moved."""
        norm = np.sqrt((fields**2).sum(axis=tuple(range(1, fields.ndim)), keepdims=True))
        unit = (fields * self.valid / np.maximum(norm, 1e-12)).astype(np.float32)
        one, squares, mask = self.waves(unit), self.waves(unit**2), np.conj(self.mask)
        if back:
            one, squares, mask = np.conj(one), np.conj(squares), self.mask
        sums = self.back(one * mask)
        spread = (self.back(squares * mask) - sums**2 / self.count).sum(axis=1)
        return one, sums, np.maximum(spread, 1e-3)


def tail(distances: Floats, held_out: Floats) -> float:
    """Share of ``distances`` below the 0.5 % quantile of the held-out fields' own."""
    return float((distances < np.quantile(held_out, TAIL)).mean())


def tail_bound(n: int, m: int, rng: np.random.Generator) -> float:
    """The bar, or the 99 % quantile of the tail of ``n`` fields that are no nearer than the ``m``
    held out: distances of one law, whatever it is, so uniform ones will do."""
    tails = [tail(rng.random(n), rng.random(m)) for _ in range(2000)]
    return max(BAR, float(np.quantile(tails, 0.99)))
