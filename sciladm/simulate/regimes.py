"""A world of two regimes, rough and smooth: not Gaussian, yet known in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciladm.simulate.laws import Mixture
from sciladm.simulate.stochastic import Regimes, Stochastic
from sciladm.simulate.waves import Real


@dataclass(frozen=True)
class TwoRegimes(Stochastic):
    """Each day is rough or smooth, half of them each; a world of `simulate.WORLDS`.

    The regime r is a Markov chain of its own: with probability `stay` tomorrow's is today's. The
    field is xₜ = S_r^½ zₜ: a Gaussian process z, as in the Gaussian world, that appears with the
    spectrum of the day's regime. r and z are independent and (r, z) is Markov; therefore

    - a state has the law ½ N(0, S₀) + ½ N(0, S₁) about its mean (`climate`);
    - a state tells its regime by p(r | x) ∝ N(x; 0, S_r) (nearly always beyond doubt), hence z;
    - what follows after τ days has the law Σ p(r | x) P_τ(r, r′) N(S_r′^½ S_r^−½ a^τ drift x,
      S_r′ (1 − a^2τ)), P_τ(r, r) = ½ (1 + (2 stay − 1)^τ) (`predictive`).

    Both are `laws.Mixture`. One long series holds many changes of the regime, so training needs
    no more realisations than elsewhere.
    """

    rough: float = 1.75
    smooth: float = 3.75
    stay: float = 0.75

    @classmethod
    def tiny(cls) -> TwoRegimes:
        """The same on 16 × 32 cells, for tests."""
        return cls(shape=(16, 32))

    @property
    def slopes(self) -> tuple[float, ...]:
        """Rough, smooth."""
        return (self.rough, self.smooth)

    @property
    def climate(self) -> Mixture:
        """The law of a state (channel, *space); components rough, smooth."""
        return Mixture(np.log([0.5, 0.5]), (self.law(0), self.law(1)))

    def predictive(self, states: Real, days: float) -> Mixture:
        """The law of what follows ``days`` after states (…, channel, *space); components (now,
        then): rough–rough, rough–smooth, smooth–rough, smooth–smooth."""
        now = self.climate.responsibilities(np.asarray(states, np.float64))
        same = self._same(days)
        with np.errstate(divide="ignore"):
            change = np.log([[same, 1 - same], [1 - same, same]])
        joint = (now[..., None] + change).reshape(*now.shape[:-1], 4)
        pairs = [(r, after) for r in (0, 1) for after in (0, 1)]
        return Mixture(joint, tuple(self.law_after(states, days, *pair) for pair in pairs))

    def regimes_of(self, states: Real, chance: Real) -> Regimes:
        """Drawn from p(r | x)."""
        rough = np.exp(self.climate.responsibilities(states)[..., 0])
        return (chance >= rough).astype(np.int64)

    def switch(self, regimes: Regimes, days: int, chance: Real) -> Regimes:
        """By P_τ."""
        return np.where(chance < self._same(days), regimes, 1 - regimes)

    def _same(self, days: float) -> float:
        return float(0.5 * (1 + (2 * self.stay - 1) ** days))
