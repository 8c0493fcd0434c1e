"""What the training split says of each cell and channel: its climatology, its spread, its mask.

Sums are streamed in float64, block by block, over the training split alone; missing values are
left out of every one of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.data.climatology import LeastSquares, basis, design, slot_of
from sciladm.data.times import Times, parts

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Blocks = Iterable[tuple[Times, Array]]
"""(times (n,), values (n, channel, *space)) in the order of time; gone through twice."""


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Climatology and scale of every channel, from the training split.

    ``coefficients`` (slot, basis, channel, *space): the climatology's, per hour of the day
    (``slots``, ticks after midnight) or for all hours together. ``std`` (channel,): area- and
    season-mean standard deviation of training anomalies about it, physical (transformed) units.
    ``valid`` (channel, *space): cells with at least one training value.
    """

    slots: NDArray[np.int64]
    coefficients: Array
    std: Floats
    valid: NDArray[np.bool_]

    @classmethod
    def fit(
        cls,
        times: Times,
        blocks: Blocks,
        names: Sequence[str],
        area: Floats,
        moving: Sequence[bool] | None = None,
    ) -> "Normaliser":
        """Fit on training ``times`` and their ``blocks``.

        ``moving`` (channel,): whose gaps come and go. Two annual
        harmonics per hour of the day where training has all months and 18 of them, else a mean per
        hour; hours with too few samples are taken together. UserError for a channel that is
        constant or has no values.
        """
        if iter(blocks) is blocks:
            raise TypeError(
                "blocks are gone through twice: give a list or an object, no generator"
            )
        flags = np.array([False] * len(names) if moving is None else moving)
        slots, size = design(times)
        sums = None
        for block_times, values in blocks:
            sums = sums or LeastSquares(slots, size, values, names, flags)
            sums.add(block_times, values)
        assert sums is not None, "times without blocks"
        coefficients, valid = sums.solve()
        unscaled = cls(slots, coefficients, np.ones(len(names)), valid)
        return replace(unscaled, std=_spread(blocks, unscaled, names, area))

    def centre(self, times: Times) -> Array:
        """The climatology at ``times``: (n, channel, *space)."""
        φ = basis(times, self.coefficients.shape[1]).astype(np.float32)
        slot = slot_of(times, self.slots)
        out = np.empty((len(times), *self.coefficients.shape[2:]), np.float32)
        term = np.empty(out.shape[1:], np.float32)
        # Time by time and term by term: a matrix product's bits would depend on how many times are
        # asked for, and one state at a time stays in the cache.
        for row, number, harmonics in zip(out, slot, φ, strict=True):
            mean, *waves = self.coefficients[number]
            row[:] = mean
            for wave, value in zip(waves, harmonics[1:], strict=True):
                row += np.multiply(wave, value, out=term)
        return out

    def normalise(self, values: Array, times: Times) -> Array:
        """Physical values (n, channel, *space) → anomalies in standard deviations; NaN stays."""
        return (values - self.centre(times)) / self._scale(values.ndim)

    def whole_anomalies(self, values: Array, times: Times, names: Sequence[str]) -> Array:
        """The same, 0 where a cell never holds data; UserError where one that does has none."""
        found = np.where(self.valid, self.normalise(values, times), np.float32(0))
        if not np.isfinite(found).all():
            frame, channel, *_ = np.argwhere(~np.isfinite(found))[0]
            raise UserError(
                f"{names[channel]} at {times[frame]}: no value in "
                f"{np.sum(~np.isfinite(found[frame, channel]))} cells that have one in the "
                "training data; fill them, or leave that time out"
            )
        return found

    def denormalise(self, values: Array, times: Times) -> Array:
        """The inverse of `normalise`."""
        return values * self._scale(values.ndim) + self.centre(times)

    def _scale(self, ndim: int) -> Array:
        return self.std.astype(np.float32).reshape(1, -1, *(1,) * (ndim - 2))

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays to store; `from_state` gives an equal normaliser."""
        return {
            "slots": self.slots,
            "coefficients": self.coefficients,
            "std": self.std,
            "valid": self.valid,
        }

    @classmethod
    def from_state(cls, state: dict[str, NDArray[Any]]) -> "Normaliser":
        """The inverse of `state`."""
        return cls(**state)


def _spread(blocks: Blocks, unscaled: Normaliser, names: Sequence[str], area: Floats) -> Floats:
    """Area- and season-mean standard deviation of anomalies (channel,)."""
    squares, counts = np.zeros((2, 4, *unscaled.valid.shape))
    for times, values in blocks:
        anomaly = values - unscaled.centre(times)
        season = parts(times)[1] % 12 // 3
        for s in np.unique(season):
            _add_squares(anomaly[season == s], squares[s], counts[s])
    deviation = np.sqrt(squares / np.maximum(counts, 1))
    weight = (counts > 0) * area
    axes = tuple(range(2, weight.ndim))
    seasons = (deviation * weight).sum(axis=axes) / np.maximum(weight.sum(axis=axes), 1e-300)
    held = weight.sum(axis=axes) > 0
    std = (seasons * held).sum(axis=0) / np.maximum(held.sum(axis=0), 1)
    for name, value, ok in zip(names, std, held.any(axis=0), strict=True):
        if not ok:
            raise UserError(f"{name}: not one value in the training split")
        if not value > 0:
            raise UserError(
                f"{name}: constant over the training split; leave it out of `variables`"
            )
    return np.asarray(std)


def _add_squares(values: Array, squares: Floats, counts: Floats) -> None:
    """Add the squares (n, …) of what is there to sums in float64, and how many there are."""
    there = np.isfinite(values)
    if not there.all():
        values = np.where(there, values, np.float32(0))
    squares += np.add.reduce(values * values, axis=0, dtype=np.float64)
    counts += there.sum(axis=0)
