"""Any single forecast made an ensemble: whole error fields of validation added to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

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
    time of day where leads are not whole days.
    """

    name: str
    mean: MeanForecast
    starts: Times
    leads: Leads
    errors: Fields
    members: int
    seed: int

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
    ) -> DressedForecast:
        """Runs `mean` from at most about `starts` times of validation, spread over it."""
        possible = validation.starts(leads)
        if not possible.size:
            raise UserError(
                f"No stretch of the validation split is as long as the last lead, "
                f"{leads.max().astype('timedelta64[h]')}: {name} cannot be dressed with its "
                "errors. Lengthen the split or shorten the lead."
            )
        times = validation.times[spread_out(validation, possible, starts)]
        truth = (validation.read(validation.find(later(t, leads))) for t in times)
        errors = [true - mean(t, leads) for true, t in zip(truth, times, strict=True)]
        return cls(name, mean, times, leads, np.stack(errors).astype(np.float32), members, seed)

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
        return np.asarray(self.mean(init_time, leads) + self.errors[chosen][:, which])
