"""What was stays, or fades into the climatological mean; both dressed with validation errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciladm.baselines.dressed import DressedForecast
from sciladm.baselines.harmonics import HarmonicMean
from sciladm.baselines.series import Fields, Leads, Series, State, spread_out
from sciladm.calendar import later


def persistence(
    validation: Series, state: State, leads: Leads, members: int, seed: int = 0
) -> DressedForecast:
    """The whole initial field at every lead."""

    def mean(init_time: np.datetime64, leads: Leads) -> Fields:
        return np.repeat(state(init_time)[None], len(leads), axis=0)

    return DressedForecast.fit("persistence", mean, validation, leads, members, seed=seed)


@dataclass(frozen=True)
class DampedAnomaly:
    """mean(t + τ) + r(τ)·(x(t) − mean(t)), r (lead, channel, *space) the regression of training
    anomalies on those τ before, held within [0, 1]."""

    mean: HarmonicMean
    state: State
    leads: Leads
    damping: Fields

    @classmethod
    def fit(
        cls, train: Series, mean: HarmonicMean, state: State, leads: Leads, pairs: int = 1500
    ) -> DampedAnomaly:
        """From at most about `pairs` starts of training."""
        damping = []
        for lead in leads:
            one = np.array([lead])
            starts = spread_out(train, train.starts(one), pairs)
            product: Fields | float = 0.0
            square: Fields | float = 1e-30
            for some in np.array_split(starts, -(-len(starts) // 128)):
                first = train.times[some]
                x = train.read(some) - mean.at(first)
                then = later(first, lead)
                y = train.read(train.find(then)) - mean.at(then)
                product, square = product + (x * y).sum(axis=0), square + (x * x).sum(axis=0)
            damping.append(np.clip(product / square, 0.0, 1.0))
        return cls(mean, state, leads, np.stack(damping).astype(np.float32))

    def __call__(self, init_time: np.datetime64, leads: Leads) -> Fields:
        """(lead, channel, *space)."""
        which = [int(np.flatnonzero(self.leads == lead)[0]) for lead in leads]
        anomaly = self.state(init_time) - self.mean.at(np.array([init_time]))[0]
        return np.asarray(self.mean.at(later(init_time, leads)) + self.damping[which] * anomaly)


def damped_persistence(
    train: Series,
    validation: Series,
    mean: HarmonicMean,
    state: State,
    leads: Leads,
    members: int,
    seed: int = 0,
) -> DressedForecast:
    """The damped anomaly, dressed."""
    damped = DampedAnomaly.fit(train, mean, state, leads)
    return DressedForecast.fit("damped_persistence", damped, validation, leads, members, seed=seed)
