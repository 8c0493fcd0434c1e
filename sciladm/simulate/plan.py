"""Which years are simulated: realisations, their dates, their split. Says everything that a
store's bytes depend on, with Atmosphere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciladm.conventions import UserError

EPOCH = np.datetime64("2201-01-01", "h")
LAST = np.datetime64("2262-01-01", "h")  # nanoseconds since 1970 end in this year
INTERVAL = np.timedelta64(6, "h")


@dataclass(frozen=True)
class Realisation:
    """One unbroken simulated record."""

    identity: int  # names its noise; independent of every other identity
    start: str  # ISO date at 00 h
    days: int
    split: str  # "train", "validation" or "test"

    @property
    def times(self) -> NDArray[np.datetime64]:
        """datetime64[ns], six-hourly, (4 · days,)."""
        first = np.datetime64(self.start, "h")
        return (first + np.arange(4 * self.days) * INTERVAL).astype("datetime64[ns]")


@dataclass(frozen=True)
class Days(Realisation):
    """One with a state a day."""

    @property
    def times(self) -> NDArray[np.datetime64]:
        """datetime64[ns], daily at 00 h, (days,)."""
        first = np.datetime64(self.start, "D")
        return (first + np.arange(self.days)).astype("datetime64[ns]")


@dataclass(frozen=True)
class Records:
    """Realisations on one time axis, kept apart by gaps of the calendar."""

    realisations: tuple[Realisation, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        for one in self.realisations:
            if one.times[0] < EPOCH or one.times[-1] >= LAST:
                raise UserError(
                    f"realisation {one.identity} runs {one.times[0]} to {one.times[-1]}: "
                    f"keep within {EPOCH} and {LAST}"
                )
        for before, after in zip(self.realisations, self.realisations[1:], strict=False):
            if after.times[0] - before.times[-1] <= np.timedelta64(30, "D"):
                raise UserError(
                    f"realisations {before.identity} and {after.identity} need more than "
                    "30 days between them, in order"
                )

    @classmethod
    def daily(
        cls, train: int = 10, validation: int = 1, test: int = 2, *, days: int = 365, seed: int = 0
    ) -> Records:
        """One daily realisation per calendar year, as far apart as `Plan.years` has them."""
        return cls(tuple(Days(*one) for one in _apart(train, validation, test, days)), seed)

    @property
    def times(self) -> NDArray[np.datetime64]:
        """The whole time axis, datetime64[ns]."""
        return np.concatenate([one.times for one in self.realisations])

    @property
    def splits(self) -> dict[str, list[tuple[np.datetime64, np.datetime64]]]:
        """Split → ranges (first time, last time), both included."""
        ranges: dict[str, list[tuple[np.datetime64, np.datetime64]]] = {}
        for one in self.realisations:
            ranges.setdefault(one.split, []).append((one.times[0], one.times[-1]))
        return ranges

    @property
    def offsets(self) -> list[int]:
        """Index on the time axis at which each realisation starts."""
        return [0, *np.cumsum([one.times.size for one in self.realisations]).tolist()][:-1]

    @property
    def chunk(self) -> int:
        """Times per chunk: the largest divisor of every realisation's length up to 100, so that a
        chunk has one owner.
        """
        common = int(np.gcd.reduce([one.times.size for one in self.realisations]))
        return max(d for d in range(1, 101) if common % d == 0)


@dataclass(frozen=True)
class Plan(Records):
    """That of an atmosphere on a grid; up to `batch` realisations are stepped together."""

    latitudes: int = 32
    longitudes: int = 64
    spin_up_days: int = 60
    batch: int = 8
    restart_splits: tuple[str, ...] = ("validation", "test")

    @classmethod
    def years(
        cls, train: int = 10, validation: int = 1, test: int = 2, *,
        days: int = 365, seed: int = 0, latitudes: int = 32, longitudes: int = 64,
    ) -> Plan:  # fmt: skip
        """One realisation per year, four calendar years apart (two if they are many), training
        first.
        """
        records = tuple(Realisation(*one) for one in _apart(train, validation, test, days))
        return cls(records, seed, latitudes, longitudes)

    @property
    def groups(self) -> list[list[int]]:
        """Indices of realisations of equal length stepped together; they decide bits, the number
        of processes does not.
        """
        by_length: dict[int, list[int]] = {}
        for i, one in enumerate(self.realisations):
            by_length.setdefault(one.days, []).append(i)
        groups: list[list[int]] = []
        for alike in by_length.values():
            pairs = -(-len(alike) // (2 * self.batch))  # two processes end together
            groups += [part.tolist() for part in np.array_split(alike, 2 * pairs) if len(part)]
        return groups


def _apart(train: int, validation: int, test: int, days: int) -> list[tuple[int, str, int, str]]:
    """What makes each realisation: one every four calendar years, every two if they are many."""
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test
    apart = 4 if len(splits) <= 15 else 2
    return [(i, f"{2201 + apart * i}-01-01", days, split) for i, split in enumerate(splits)]
