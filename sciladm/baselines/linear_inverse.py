"""Linear inverse model: the best linear forecast in EOF space, as a Gaussian ensemble.

Penland & Sardeshmukh (1995), with an operator G(τ) for each lead rather than powers of one, so
that none is worse than it need be; shrunk towards damped persistence, and to climatology.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sciladm.baselines.harmonics import HarmonicMean
from sciladm.baselines.modes import Modes
from sciladm.baselines.regression import FOLDS, Choice, LaggedRegression
from sciladm.baselines.series import (
    Fields,
    Leads,
    Series,
    State,
    Times,
    season_distance,
    spread_out,
)
from sciladm.calendar import later
from sciladm.conventions import UserError

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class LinearInverseModel:
    """operators (lead, mode, mode), amplitude at t → at t + lead, rows from predictors.

    errors (start, lead, mode): amplitudes minus forecast in training stretches that the
    operator was not fitted on. rest (time, channel·cell): what the modes leave out of validation.
    Noise is a Gaussian combination of whole errors, the starts of the season weighing most, so
    that its covariance over modes and leads is that of the errors at that season.
    chosen: per lead, see `LaggedRegression`.
    """

    modes: Modes
    state: State
    leads: Leads
    operators: Fields
    errors: Fields
    error_times: Times
    rest: Fields
    rest_times: Times
    chosen: tuple[Choice, ...]
    members: int
    seed: int
    name: str = "linear_inverse_model"

    @classmethod
    def fit(
        cls,
        train: Series,
        validation: Series,
        mean: HarmonicMean,
        state: State,
        area: Floats,
        normaliser: Floats,
        leads: Leads,
        members: int,
        modes: int = 400,
        seed: int = 0,
    ) -> LinearInverseModel:
        """EOFs and operators from training; number of predictors and λ by the squared
        error in validation and in training held out, per lead; errors by cross-validation over
        five stretches of training."""
        basis = Modes.fit(train, mean, area, normaliser, modes)
        z, w = (_amplitudes(basis, series) for series in (train, validation))
        starts = train.starts(leads)
        if len(starts) < 2 * FOLDS:
            raise UserError(
                f"The linear inverse model needs stretches of training as long as the last lead, "
                f"{leads.max().astype('timedelta64[h]')}; it found {len(starts)}."
            )
        sampled = spread_out(train, starts, 1500)
        operators, errors, chosen = [], [], []
        for lead in leads:
            fit = LaggedRegression(train, z, lead, basis.size)
            best = fit.choose(validation, w)
            operators.append(fit.operator(best))
            errors.append(fit.errors(best, sampled))
            chosen.append(best)
        some = spread_out(validation, np.arange(len(validation.times)), 128)
        rest = basis.left_out(basis.anomalies(validation.times[some], validation.read(some)))
        return cls(
            basis, state, leads, np.stack(operators), np.stack(errors, axis=1),
            train.times[sampled], rest, validation.times[some], tuple(chosen), members, seed,
        )  # fmt: skip

    def forecast(self, init_time: np.datetime64, leads: Leads) -> Fields:
        """(member, lead, channel, *space)."""
        which = [int(np.flatnonzero(self.leads == lead)[0]) for lead in leads]
        label = init_time.astype("datetime64[s]").astype(np.int64)
        rng = np.random.default_rng([self.seed, label])
        now = np.array([init_time])
        start = self.modes.amplitudes(self.modes.anomalies(now, self.state(init_time)[None]))
        mean = np.concatenate([start @ self.operators[i] for i in which])
        share = _season_weights(self.error_times, init_time)
        dice = rng.standard_normal((self.members, len(share)), np.float32) * np.sqrt(share)
        noise = np.tensordot(dice, self.errors[:, which], axes=1)
        anomalies = self.modes.anomaly(mean + noise)
        share = _season_weights(self.rest_times, init_time)
        shape = (self.members, len(leads), len(share))
        dice = rng.standard_normal(shape, np.float32) * np.sqrt(share)
        return self.modes.fields(later(init_time, leads), anomalies + dice @ self.rest)


def _amplitudes(modes: Modes, series: Series) -> Fields:
    blocks = [modes.amplitudes(modes.anomalies(t, x)) for t, x in series.blocks()]
    return np.concatenate(blocks)


def _season_weights(times: Times, time: np.datetime64) -> Fields:
    """Weights (time,), sum 1, of a bell over the day of the year, 30 days wide or as much wider
    as makes it count a hundred fields (or half of those there are)."""
    away, width = season_distance(times, time), 30.0
    enough = min(100.0, 0.5 * len(times))
    while True:
        weights = np.exp(-0.5 * (away / width) ** 2) + 1e-12
        weights /= weights.sum()
        if 1.0 / (weights**2).sum() >= enough or width > 1000.0:
            return weights.astype(np.float32)
        width *= 1.3
