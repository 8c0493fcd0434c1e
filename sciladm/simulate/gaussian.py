"""A stationary Gaussian world: every answer about it is known in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciladm.simulate.laws import Gaussian
from sciladm.simulate.stochastic import Regimes, Stochastic
from sciladm.simulate.waves import Real


@dataclass(frozen=True)
class GaussianWorld(Stochastic):
    """One regime: linear stochastic dynamics, so that states and forecasts are Gaussian; a world
    of `simulate.WORLDS`.

    `climate` is the law of a state, `predictive` that of a later one given a state: both are
    `laws.Gaussian`, with likelihood, score, denoiser and conditioning on observations.
    """

    slope: float = 2.75

    @classmethod
    def tiny(cls) -> GaussianWorld:
        """The same on 16 × 32 cells, for tests."""
        return cls(shape=(16, 32))

    @property
    def slopes(self) -> tuple[float, ...]:
        """One."""
        return (self.slope,)

    @property
    def climate(self) -> Gaussian:
        """The law of a state (channel, *space)."""
        return self.law(0)

    def predictive(self, states: Real, days: float) -> Gaussian:
        """The law of what follows ``days`` after states (…, channel, *space)."""
        return self.law_after(states, days, 0, 0)

    def regimes_of(self, states: Real, chance: Real) -> Regimes:
        """All the same."""
        return np.zeros(len(states), np.int64)

    def switch(self, regimes: Regimes, days: int, chance: Real) -> Regimes:
        """Never."""
        return regimes
