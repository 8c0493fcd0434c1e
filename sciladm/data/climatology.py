"""A climatology per cell by least squares, block by block: season by harmonics, hour by slot."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.times import Times, parts, ticks

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DAY = 86_400_000_000
_HARMONICS = 5
_LEAN = 10.0
"""Where gaps move, harmonics are held to 0 as if by this many more samples: a cell seen only in
summer gets a mean and no season, rather than a wild one."""


def basis(times: Times, size: int) -> Floats:
    """1, sin γ, cos γ, sin 2γ, cos 2γ at the year's angle γ, the first ``size``: (n, size)."""
    _, _, in_year, _ = parts(times)
    γ = 2 * np.pi * in_year
    rows = [np.ones_like(γ), np.sin(γ), np.cos(γ), np.sin(2 * γ), np.cos(2 * γ)]
    return np.stack(rows[:size], axis=1)


def design(times: Times) -> tuple[Ints, int]:
    """What the training times carry: slots of the day (ticks after midnight), basis functions.

    Two annual harmonics where all months occur, over 18 months or more; one slot per hour of the
    day where there are several a day and samples enough for each, else one for all.
    """
    if not times.size:
        raise UserError("the training split has no times")
    t = ticks(times)
    seasons = np.unique(parts(times)[1]).size == 12 and np.ptp(t) >= 1.5 * 365 * _DAY
    size = _HARMONICS if seasons else 1
    slots, counts = np.unique(t % _DAY, return_counts=True)
    slow = t.size < 2 or np.diff(t).min() >= _DAY
    if slow or len(slots) > 24 or counts.min() < 4 * size:
        slots = np.zeros(1, dtype=np.int64)
    return slots, size


def slot_of(times: Times, slots: Ints) -> Ints:
    """Number of each time's slot: the nearest around the clock, (n,)."""
    apart = np.abs((ticks(times) % _DAY)[:, None] - slots[None, :])
    nearest: Ints = np.minimum(apart, _DAY - apart).argmin(axis=1)
    return nearest


class LeastSquares:
    """Sums of the normal equations A β = b per slot, over the values that are there.

    A (slot, p, p) is shared by the cells that are never missing; channels whose gaps move have one
    for each cell. Values are taken relative to the first block's mean, so the sums keep digits.
    """

    def __init__(
        self, slots: Ints, size: int, first: Array, names: Sequence[str], moving: NDArray[np.bool_]
    ) -> None:
        flat = first.reshape(*first.shape[:2], -1)
        there = np.isfinite(flat)
        self.names, self.slots, self.moving, self.shape = names, slots, moving, first.shape[1:]
        self.origin = np.sum(flat, axis=0, where=there, dtype=np.float64)
        self.origin /= np.maximum(there.sum(axis=0), 1)
        self.a = np.zeros((len(slots), size, size))
        self.b = np.zeros((len(slots), size, *flat.shape[1:]))
        self.a_cell = np.zeros((len(slots), size, size, int(moving.sum()), flat.shape[2]))
        self.count = np.zeros(flat.shape[1:], dtype=np.int64)
        self.total = 0

    def add(self, times: Times, values: Array) -> None:
        """Add a block: ``values`` (n, channel, *space)."""
        flat = values.reshape(*values.shape[:2], -1)
        present = np.isfinite(flat)
        whole = bool(present.all())
        φ, slot = basis(times, self.a.shape[1]), slot_of(times, self.slots)
        for s in np.unique(slot):
            rows = slot == s
            y = flat[rows] - self.origin
            if not whole:
                y[~present[rows]] = 0.0
            self.b[s] += np.tensordot(φ[rows], y, axes=(0, 0))
            self.a[s] += φ[rows].T @ φ[rows]
            if self.moving.any():
                seen = present[rows][:, self.moving].astype(np.float64)
                pairs = np.einsum("np,nq->npq", φ[rows], φ[rows])
                self.a_cell[s] += np.tensordot(pairs, seen, axes=(0, 0))
        self.count += present.sum(axis=0)
        self.total += len(flat)

    def solve(self) -> tuple[Array, NDArray[np.bool_]]:
        """β (slot, p, channel, *space) and which cells ever had a value (channel, *space)."""
        partial = (self.count > 0) & (self.count < self.total) & ~self.moving[:, None]
        if partial.any():
            channel = int(partial.any(axis=1).argmax())
            raise UserError(
                f"{self.names[channel]}: {partial[channel].sum()} cells have values at some "
                "training times and none at others; say `missing: moving`, or mend the data"
            )
        β = np.zeros_like(self.b)
        for s, (a, b) in enumerate(zip(self.a, self.b, strict=True)):
            β[s] = np.linalg.solve(a, b.reshape(len(b), -1)).reshape(b.shape)
            if self.moving.any():
                β[s][:, self.moving] = self._solve_cells(s)
        β[:, 0] += self.origin
        return β.reshape(*β.shape[:2], *self.shape).astype(np.float32), (self.count > 0).reshape(
            self.shape
        )

    def _solve_cells(self, s: int) -> Floats:
        """β (p, channel, cell) of slot ``s`` where each cell has its own A."""
        lean = np.diag([0.0, *[_LEAN] * (self.a.shape[1] - 1)])
        a = np.moveaxis(self.a_cell[s], (0, 1), (-2, -1)) + lean
        a[self.a_cell[s][0, 0] == 0] = np.eye(len(lean))
        b = np.moveaxis(self.b[s][:, self.moving], 0, -1)[..., None]
        return np.moveaxis(np.linalg.solve(a, b)[..., 0], -1, 0)
