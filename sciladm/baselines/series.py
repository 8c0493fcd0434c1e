"""Fields in time as the baselines read them, and the calendar by which they choose among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sciladm.calendar import MONTH, find, later
from sciladm.conventions import UserError

Fields = NDArray[np.float32]
Times = NDArray[np.datetime64]
Leads = NDArray[np.timedelta64]
State = Callable[[np.datetime64], Fields]
"""The field (channel, *space) at a time, from wherever initial states come."""

YEAR = 365.2425


class Baseline(Protocol):
    """A forecast system; `members` were fixed when it was fitted."""

    @property
    def name(self) -> str:
        """As it is called in scores."""
        ...

    def forecast(self, init_time: np.datetime64, leads: Leads) -> Fields:
        """(member, lead, channel, *space), physical units: a pure function of its arguments."""
        ...


@dataclass(frozen=True)
class Series:
    """Fields at sorted times (n,) datetime64[ns]; `read(indices)` → (len, channel, *space),
    physical units."""

    times: Times
    read: Callable[[NDArray[np.int64]], Fields]

    def find(self, times: Times) -> NDArray[np.int64]:
        """Index of each time, −1 where there is none; of any shape."""
        return find(self.times, times, MONTH)

    def starts(self, leads: Leads) -> NDArray[np.int64]:
        """Indices of the times from which every lead is in the series too."""
        ends = self.find(later(self.times[:, None], leads))
        return np.flatnonzero((ends >= 0).all(axis=1))

    def blocks(self, size: int = 256) -> Iterator[tuple[Times, Fields]]:
        """The whole series in order, `size` fields at a time."""
        for first in range(0, len(self.times), size):
            index = np.arange(first, min(first + size, len(self.times)))
            yield self.times[index], self.read(index)


def time_of_day(times: Times) -> NDArray[np.timedelta64]:
    """Time since midnight."""
    return np.asarray(times - times.astype("datetime64[D]"))


def year_day(times: Times) -> NDArray[np.float64]:
    """Days since the year began."""
    return np.asarray((times - times.astype("datetime64[Y]")) / np.timedelta64(1, "D"))


def season_distance(times: Times, other: np.datetime64) -> NDArray[np.float64]:
    """Days between the days of the year, the short way round: 0…183."""
    apart = np.abs(year_day(times) - year_day(np.array(other)))
    return np.asarray(np.minimum(apart, np.abs(YEAR - apart)))


def spread_out(series: Series, starts: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """At most `number` of `starts`, spread over the whole series and over the times of day."""
    of_day = time_of_day(series.times[starts])
    groups = [starts[of_day == t] for t in np.unique(of_day)]
    each = -(-number // len(groups))
    chosen = [
        g[np.unique(((np.arange(each) + (i + 0.5) / len(groups)) * len(g) / each).astype(int))]
        for i, g in enumerate(groups)
    ]
    return np.sort(np.concatenate(chosen))


def draw(
    number: int, candidates: NDArray[np.int64], seed: int, init_time: np.datetime64
) -> NDArray[np.int64]:
    """`number` different candidates by the labels alone. At random, not evenly: members that
    avoid each other would be coupled, and the fair scores wrong."""
    if number > len(candidates):
        raise UserError(
            f"A baseline of {number} members needs as many past fields of the season and the "
            f"time of day of {init_time}; there are {len(candidates)}. Ask for fewer members, or "
            "give it a longer training or validation split."
        )
    rng = np.random.default_rng([seed, init_time.astype("datetime64[s]").astype(np.int64)])
    return rng.permutation(candidates)[:number]
