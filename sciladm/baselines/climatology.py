"""Climatology as an ensemble: what happened in other years at this season and time of day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciladm.baselines.harmonics import HarmonicMean
from sciladm.baselines.series import (
    YEAR,
    Fields,
    Leads,
    Series,
    draw,
    season_distance,
    time_of_day,
)
from sciladm.calendar import later
from sciladm.conventions import UserError

FEWEST_FIELDS = 30


@dataclass(frozen=True)
class Climatology:
    """Training fields within ±15 days of the day of the year at the same time of day, from all
    years; a member keeps to one past stretch of time, so that its changes are real ones.

    With fewer than 5 years of training: the harmonic mean of the valid time, plus training
    anomalies about it within ±45 days (`mean` is then set, and `window` 45). WeatherBench2's
    probabilistic climatology draws from the same windows of years.
    """

    train: Series
    members: int
    window: float
    mean: HarmonicMean | None
    seed: int
    name: str = "climatology"

    @classmethod
    def fit(cls, train: Series, members: int, seed: int = 0) -> Climatology:
        """`members` are drawn anew for every initial time, all different."""
        gaps = np.diff(train.times) / np.timedelta64(1, "D")
        years = float(np.minimum(gaps, 31.0).sum()) / YEAR
        if years >= 4.9:
            return cls(train, members, 15.0, None, seed)
        return cls(train, members, 45.0, HarmonicMean.fit(train), seed)

    def candidates(self, time: np.datetime64, leads: Leads) -> NDArray[np.int64]:
        """Indices of training times of the season and time of day of `time` from which all
        `leads` are training times too."""
        times = self.train.times
        near = season_distance(times, time) <= self.window + 0.5
        near &= time_of_day(times) == time_of_day(np.array(time))
        index = np.flatnonzero(near)
        return index[(self.train.find(later(times[index, None], leads)) >= 0).all(axis=1)]

    def forecast(self, init_time: np.datetime64, leads: Leads) -> Fields:
        """(member, lead, channel, *space)."""
        stretches = self.candidates(init_time, leads)
        if len(stretches) >= max(FEWEST_FIELDS, self.members):
            starts = self.train.times[draw(self.members, stretches, self.seed, init_time)]
            past = later(starts[:, None], leads)
        else:  # training in short pieces: each lead for itself
            past = np.stack([self._single(time) for time in later(init_time, leads)], axis=1)
        index = self.train.find(past)
        values = self.train.read(index.ravel())
        values = values.reshape(*index.shape, *values.shape[1:]).astype(np.float32)
        if self.mean is not None:
            now = self.mean.at(later(init_time, leads))
            values += now - self.mean.at(past.ravel()).reshape(values.shape)
        return values

    def _single(self, time: np.datetime64) -> NDArray[np.datetime64]:
        fields = self.candidates(time, np.zeros(1, "timedelta64[ns]"))
        if len(fields) < FEWEST_FIELDS:
            raise UserError(
                f"The climatology of {time} needs {FEWEST_FIELDS} training fields within "
                f"±{self.window:g} days of the day of the year at the same time of day; there are "
                f"{len(fields)}. Train on a longer period, or on all seasons and hours."
            )
        return self.train.times[draw(self.members, fields, self.seed, time)]
