"""States, their white noise, and six hours of weather at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciladm.simulate.channels import Channels
from sciladm.simulate.plan import EPOCH
from sciladm.simulate.quasigeostrophic import INTERVAL_HOURS, QuasiGeostrophic
from sciladm.simulate.sphere import Complex, Hours, Real, random_phase

TRUTH, PERFECT, BEGIN = 0, 1, 2  # streams of noise


def hours_since_epoch(times: Any) -> NDArray[np.int64]:
    """datetime64 → whole hours since 2201-01-01."""
    return np.asarray((np.asarray(times).astype("datetime64[h]") - EPOCH).astype(np.int64))


@dataclass
class State:
    """A batch: `psi` complex (level, m, n, batch) [m² s⁻¹], `slab` (latitude, longitude, batch)
    [K], `hours` (batch,).
    """

    psi: Complex
    slab: Real
    hours: Hours


@dataclass(frozen=True)
class Noise:
    """White noise as a pure function of (stream, seed, who, hour): Philox, one counter block per
    six hours.
    """

    stream: int
    seed: int
    who: tuple[int, ...]  # one per state of the batch

    def draw(self, hours: Hours, shape: tuple[int, ...]) -> Real:
        """Standard normal (batch, *shape)."""
        out = np.empty((len(self.who), *shape), np.float32)
        for row, who, hour in zip(out, self.who, hours.tolist(), strict=True):
            key = np.array([self.seed % 2**64, who % 2**64], np.uint64)
            counter = np.array([0, hour % 2**64, self.stream, 0], np.uint64)
            generator = np.random.Generator(np.random.Philox(counter=counter, key=key))
            generator.standard_normal(dtype=np.float32, out=row)
        return out


@dataclass(frozen=True)
class Weather:
    """Model and channels together: steps batches of states."""

    model: QuasiGeostrophic
    channels: Channels

    def begin(self, hours: Hours, noise: Noise) -> State:
        """Radiative equilibrium with waves of a few metres per second: where a spin-up starts."""
        size = self.model.flow.truncation + 1
        degree = np.arange(size)
        power = np.where((degree >= 3) & (degree <= 12), 4.0e12, 0.0)
        wave = random_phase(size - 1, power, noise.draw(hours, (3, size, size, 2)))
        psi = self.model.equilibrium(hours) + np.moveaxis(wave, 0, -1)
        return State(psi.astype(self.model.sphere.complex), self.channels.climate(hours), hours)

    def advance(self, state: State, noise: Noise) -> State:
        """Six hours: Runge–Kutta steps each followed by its kick of white noise, then the slab."""
        flow = self.model.flow
        size = flow.truncation + 1
        normal = noise.draw(state.hours, (flow.steps + 1, size, size, 2))
        psi = state.psi
        for i in range(flow.steps):
            psi = self.model.step(psi, state.hours + i * INTERVAL_HOURS / flow.steps)
            psi += np.moveaxis(self.model.stir(normal[:, i]), 0, -1)
        hours = state.hours + INTERVAL_HOURS
        slab = self.channels.warm(state.slab, psi, hours, normal[:, -1])
        self._guard(psi, hours)
        return State(psi, slab, hours)

    def _guard(self, psi: Complex, hours: Hours) -> None:
        u, _ = self.model.sphere.winds(psi)
        speed = float(np.abs(u).max())
        if not speed <= self.model.flow.fastest:
            when = EPOCH + np.timedelta64(int(hours.min()), "h")
            raise FloatingPointError(
                f"simulated wind reached {speed:.0f} m s⁻¹ by {when} (limit "
                f"{self.model.flow.fastest:.0f}): the step of {self.model.dt:.0f} s is too long "
                "or the shear too strong; raise Flow.steps or lower Flow.shear_upper"
            )

    def write(self, state: State) -> Real:
        """float32 (batch, channel, latitude, longitude)."""
        return self.channels.write(state.psi, state.slab, state.hours)

    def forecast(self, state: State, noise: Noise, steps: Sequence[int]) -> Real:
        """States after each number of six hours: (batch, lead, channel, latitude, longitude)."""
        frames, done = [], 0
        for step in steps:
            for _ in range(step - done):
                state = self.advance(state, noise)
            done = step
            frames.append(self.write(state))
        return np.stack(frames, axis=1)
