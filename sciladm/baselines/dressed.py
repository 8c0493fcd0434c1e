"""Any single forecast made an ensemble: whole error fields of validation added to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciladm.baselines.harmonics import HarmonicMean
from sciladm.baselines.series import (
    Fields,
    Leads,
    Series,
    Times,
    draw,
    season_distance,
    spread_out,
    time_of_day,
)
from sciladm.calendar import later
from sciladm.conventions import UserError

MeanForecast = Callable[[np.datetime64, Leads], Fields]
"""(init_time, leads) → (lead, channel, *space), physical units."""

DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class DressedForecast:
    """errors (start, lead, channel, *space), truth minus forecast, of validation's starts.

    A member takes the errors of one start at all leads and in all variables and places, so that
    they keep together as they did; starts of the season are preferred, and those of the
    time of day where leads are not whole days. With ``usual`` a forecast's anomaly from that
    counts ``slope`` times (lead, channel), the regression of validation's truth on it: whoever
    forecasts one state learns the size of what is there, not of what can be known of it.
    """

    name: str
    mean: MeanForecast
    starts: Times
    leads: Leads
    errors: Fields
    members: int
    seed: int
    usual: HarmonicMean | None = None
    slope: Fields | None = None

    @classmethod
    def fit(
        cls,
        name: str,
        mean: MeanForecast,
        validation: Series,
        leads: Leads,
        members: int,
        starts: int = 128,
        seed: int = 0,
        usual: HarmonicMean | None = None,
        area: NDArray[np.float64] | float = 1.0,
    ) -> DressedForecast:
        """Runs `mean` from at most about `starts` times of validation, spread over it; cells count
        by ``area`` (*space) in the regression."""
        possible = validation.starts(leads)
        if not possible.size:
            raise UserError(
                f"No stretch of the validation split is as long as the last lead, "
                f"{leads.max().astype('timedelta64[h]')}: {name} cannot be dressed with its "
                "errors. Lengthen the split or shorten the lead."
            )
        times = validation.times[spread_out(validation, possible, starts)]
        said = [mean(t, leads) for t in times]
        came = [validation.read(validation.find(later(t, leads))) for t in times]
        slope = None
        if usual is not None:
            slope = _slope(said, came, (usual.at(later(t, leads)) for t in times), area)
            said = [_damped(one, t, leads, usual, slope)
                    for one, t in zip(said, times, strict=True)]  # fmt: skip
        errors = np.stack([true - one for true, one in zip(came, said, strict=True)])
        return cls(
            name, mean, times, leads, errors.astype(np.float32), members, seed, usual, slope
        )

    def forecast(self, init_time: np.datetime64, leads: Leads) -> Fields:
        """(member, lead, channel, *space); `leads` must be among those fitted."""
        which = [int(np.flatnonzero(self.leads == lead)[0]) for lead in leads]
        other_hour = time_of_day(self.starts) != time_of_day(np.array(init_time))
        whole_days = not (leads % DAY).astype(np.int64).any()
        order = np.lexsort(
            [season_distance(self.starts, init_time), other_hour & (not whole_days)]
        )
        nearest = order[: -(-3 * self.members // 2)]
        chosen = draw(self.members, nearest, self.seed, init_time)
        said = self.mean(init_time, leads)
        if self.usual is not None and self.slope is not None:
            said = _damped(said, init_time, leads, self.usual, self.slope[which])
        return np.asarray(said + self.errors[chosen][:, which])


def _slope(
    said: Sequence[Fields],
    came: Sequence[Fields],
    usual: Iterable[Fields],
    area: NDArray[np.float64] | float,
) -> Fields:
    """(lead, channel), at least 0, of anomalies of truth on those of forecasts."""
    product, square = 0.0, 1e-30
    for x, y, mean in zip(said, came, usual, strict=True):
        space = tuple(range(2, x.ndim))
        there = np.isfinite(y)
        anomaly, true = (np.where(there, z - mean, 0.0).astype(np.float64) for z in (x, y))
        product = product + (area * anomaly * true).sum(space)
        square = square + (area * np.square(anomaly)).sum(space)
    return np.asarray(np.maximum(product / square, 0.0), np.float32)


def _damped(
    said: Fields, init_time: np.datetime64, leads: Leads, usual: HarmonicMean, slope: Fields
) -> Fields:
    mean = usual.at(later(init_time, leads))
    return np.asarray(mean + slope.reshape(*slope.shape, *[1] * (said.ndim - 2)) * (said - mean))
