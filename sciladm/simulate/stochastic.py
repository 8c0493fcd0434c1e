"""Random fields that drift, fade and are stirred: what the worlds with known answers share.

In *regime* r the anomaly x of a field has the spectrum S_r(k) ∝ (knee² + k²)^−slope_r. Its scales
k forget themselves at their own rates while they drift along the last axis, stirred by white
noise: with z = S_r^−½ x,

    z(t + τ) = a^τ drift(τ) z(t) + √(1 − a^2τ) white noise,    a = exp(−√(1 + k²/knee²)/memory),

exact for any number of days τ, whichever regimes come and go meanwhile: z knows nothing of them.
So x is stationary, without seasons, with variance 1 everywhere, and the gridded state is all that
need be known of it: there are no other restart states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.simulate.domains import Domain, Globe, Torus
from sciladm.simulate.laws import Gaussian
from sciladm.simulate.plan import Records
from sciladm.simulate.tracers import NAMES, hour_of, read_state, write_tracers
from sciladm.simulate.waves import Complex, Covariance, Real

VERSION = 1  # of the simulator: raised whenever any written number changes
BLOCK = 16  # members drawn together: member m is always in slot m mod BLOCK
DAY = np.timedelta64(1, "D")
TRUTH, EXACT = 0, 1  # streams of noise
AXES = {"plane": 2, "sphere": 2, "box": 3}
Regimes = NDArray[np.int64]


@dataclass(frozen=True)
class Stochastic(ABC):
    """A world of fields (channel, *space) that are in one of some regimes."""

    geometry: str = "plane"  # plane and box are periodic; sphere: latitude, longitude
    shape: tuple[int, ...] = (32, 64)
    tracers: int = 1  # one field, or two that are correlated
    correlation: float = 0.6  # of the second with the first, at every scale
    knee: float = 3.0  # scale at which spectra bend: waves per longest side, or degree
    memory: float = 6.0  # of the largest scales [days]
    drift: float = 1.6  # along the last axis [cells a day]
    average: float = 10.0  # of the field, everywhere and always

    ensemble: ClassVar[str] = "exact"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if len(self.shape) != AXES.get(self.geometry) or self.tracers not in (1, 2):
            raise UserError(
                "a world of random fields is a plane or a sphere (2 axes) or a box (3), and has 1 "
                f"or 2 tracers; got {self.geometry}, shape {self.shape}, tracers {self.tracers}"
            )

    @property
    @abstractmethod
    def slopes(self) -> tuple[float, ...]:
        """Of the spectrum in each regime."""

    @abstractmethod
    def regimes_of(self, states: Real, chance: Real) -> Regimes:
        """Regimes (n,) of states (n, channel, *space), as far as these tell; ``chance`` (n,), even
        in [0, 1), decides what they do not."""

    @abstractmethod
    def switch(self, regimes: Regimes, days: int, chance: Real) -> Regimes:
        """Regimes (n,) ``days`` after these; ``chance`` (n,) decides."""

    def parameters(self) -> dict[str, Any]:
        """Everything that decides the numbers besides the plan, plain values."""
        return {"version": VERSION, **asdict(self)}

    def plan(self, **years: int) -> Records:
        """Daily realisations, a year of the calendar or more apart."""
        return Records.daily(**years)

    @property
    def channels(self) -> tuple[tuple[str, int | None], ...]:
        """(variable, level) of each channel."""
        return tuple((name, None) for name in NAMES[: self.tracers])

    @cached_property
    def domain(self) -> Domain:
        """Its grid."""
        if self.geometry == "sphere":
            return Globe((self.shape[0], self.shape[1]))
        return Torus(self.shape)

    def spectrum(self, regime: int) -> Real:
        """S_r (scale,)."""
        power = (self.knee**2 + self.domain.scale) ** -self.slopes[regime]
        return np.asarray(power / self.domain.variance(power))

    def memories(self, days: float) -> Real:
        """a^τ (scale,)."""
        rate = np.sqrt(1 + self.domain.scale / self.knee**2) / self.memory
        return np.asarray(np.exp(-days * rate))

    def law(self, regime: int) -> Gaussian:
        """The stationary distribution of fields in a regime."""
        return Gaussian(np.full((self.tracers, *self.shape), self.average), _still(self, regime))

    def law_after(self, states: Real, days: float, now: int, then: int) -> Gaussian:
        """The distribution ``days`` after states (…, channel, *space), both regimes given."""
        blocks, left = _after(self, float(days), now, then)
        moved = left.layout.apply(blocks, np.asarray(states, np.float64) - self.average)
        return Gaussian(self.average + moved, left)

    def run(
        self,
        path: Path,
        plan: Records,
        progress: Callable[[float], None] | None = None,
        processes: int = 1,
    ) -> None:
        """Write the plan's record to a new zarr store at `path`; `progress` gets the fraction
        done. One process is enough, whatever ``processes`` says.
        """
        records, count = [], 0
        total = sum(one.times.size for one in plan.realisations)
        for one in plan.realisations:
            source = _source(plan.seed, TRUTH, one.identity)
            record = np.empty((one.times.size, self.tracers, *self.shape), np.float32)
            for row, state in enumerate(self._record([source], one.times.size)):
                record[row] = state[0]
            records.append(record)
            count += len(record)
            if progress is not None:
                progress(0.9 * count / total)
        about = {"simulator_version": VERSION, "parameters": self.parameters()}
        write_tracers(Path(path), plan, np.concatenate(records), self.domain.labels, about)
        if progress is not None:
            progress(1.0)

    def perfect(
        self, path: Path, init_times: Sequence[np.datetime64], members: int,
        leads: Sequence[np.timedelta64], seed: int,
    ) -> Iterator[tuple[np.datetime64, NDArray[np.float32]]]:  # fmt: skip
        """The exact ensemble: per initial time (init_time, float32 (member, lead, channel,
        *space)), drawn from what follows from the gridded state there.

        Member m's bits depend on (seed, init_time, m) alone; leads of a member are one path.
        """
        days = lead_days(leads)
        for init in init_times:
            state = read_state(Path(path), init, self.channels).astype(np.float64)
            number = hour_of(init)
            blocks = []
            for first in range(0, members, BLOCK):
                who = range(first, first + BLOCK)
                sources = [_source(seed, EXACT, (number << 20) + m) for m in who]
                states = np.broadcast_to(state, (BLOCK, *state.shape))
                regimes = self.regimes_of(states, _chances(sources))
                steps = np.diff([0, *days])
                frames = [
                    x.astype(np.float32) for x in self._walk(states, regimes, sources, steps)
                ]
                blocks.append(np.stack(frames, axis=1))
            yield init, np.concatenate(blocks)[:members]

    def _record(self, sources: Sequence[np.random.Generator], days: int) -> Iterator[Real]:
        """Days of independent realisations (n, channel, *space), stationary from the first on."""
        regimes = (_chances(sources) * len(self.slopes)).astype(np.int64)
        white = _white(sources, (self.tracers, *self.shape))
        states = np.stack(
            [self.law(int(r)).colour(w) for r, w in zip(regimes, white, strict=True)]
        )
        yield states
        yield from self._walk(states, regimes, sources, [1] * (days - 1))

    def _walk(
        self,
        states: Real,
        regimes: Regimes,
        sources: Sequence[np.random.Generator],
        steps: Iterable[int],
    ) -> Iterator[Real]:
        """States (n, channel, *space) after each of the ``steps`` [days]."""
        for days in steps:
            then = self.switch(regimes, int(days), _chances(sources))
            white = _white(sources, states.shape[1:])
            moved = np.empty_like(white)
            for now, after in sorted(set(zip(regimes.tolist(), then.tolist(), strict=True))):
                rows = (regimes == now) & (then == after)
                moved[rows] = self.law_after(states[rows], days, now, after).colour(white[rows])
            states, regimes = moved, then
            yield states


def lead_days(leads: Sequence[np.timedelta64]) -> list[int]:
    """Lead times as numbers of days, ascending."""
    days = [float(np.timedelta64(lead) / DAY) for lead in leads]
    if any(d != int(d) or d <= 0 for d in days) or sorted(days) != days:
        raise UserError(
            f"leads of a world of random fields are ascending whole days, got {list(leads)}"
        )
    return [int(d) for d in days]


@lru_cache(maxsize=64)
def _still(world: Stochastic, regime: int) -> Covariance:
    return world.domain.covariance(world.spectrum(regime), _between(world))


@lru_cache(maxsize=64)
def _after(world: Stochastic, days: float, now: int, then: int) -> tuple[Complex, Covariance]:
    """What carries a field on (wave, block, block), and the covariance of what is new."""
    before, after = world.spectrum(now), world.spectrum(then)
    gain = np.sqrt(after / before) * world.memories(days)
    carried = world.domain.operator(gain, world.drift * days, world.tracers)
    new = after * (1 - world.memories(2 * days))
    return carried, world.domain.covariance(new, _between(world))


def _between(world: Stochastic) -> Real:
    """Covariance of the tracers with each other."""
    one, ρ = np.eye(world.tracers), world.correlation
    return np.asarray(ρ + (1 - ρ) * one)


def _source(seed: int, stream: int, who: int) -> np.random.Generator:
    """Noise as a function of (seed, stream, who): Philox."""
    key = np.array([seed % 2**64, who % 2**64], np.uint64)
    counter = np.array([0, 0, stream, 0], np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


def _chances(sources: Sequence[np.random.Generator]) -> Real:
    return np.array([source.random() for source in sources])


def _white(sources: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Real:
    return np.stack([source.standard_normal(shape) for source in sources])
