"""The simulated atmosphere: its parameters, the record and the perfect-model ensemble."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sciladm.conventions import UserError
from sciladm.simulate.channels import CHANNELS, Channels, Ground
from sciladm.simulate.plan import INTERVAL, Plan
from sciladm.simulate.quasigeostrophic import Flow, QuasiGeostrophic
from sciladm.simulate.record import Restart, write_record
from sciladm.simulate.sphere import Real
from sciladm.simulate.weather import PERFECT, Noise, State, Weather, hours_since_epoch

VERSION = 2  # of the simulator: raised whenever any written number changes
BLOCK = 16  # members stepped together: member m is always in slot m mod BLOCK


@dataclass(frozen=True)
class Atmosphere:
    """Parameters and the steps they give; a world of `simulate.WORLDS`."""

    flow: Flow = field(default_factory=Flow)
    ground: Ground = field(default_factory=Ground)
    dtype: type[np.floating] = np.float32

    ensemble: ClassVar[str] = "perfect"

    @property
    def channels(self) -> tuple[tuple[str, int | None], ...]:
        """(variable, level) of each channel."""
        return CHANNELS

    @classmethod
    def tiny(cls) -> Atmosphere:
        """The same at truncation 15, for 32 × 16 cells and tests."""
        return cls(Flow(truncation=15, steps=3))

    def parameters(self) -> dict[str, Any]:
        """Everything that decides the numbers besides the plan, plain values."""
        kind = np.dtype(self.dtype).name
        return {
            "version": VERSION,
            "dtype": kind,
            "flow": asdict(self.flow),
            "ground": asdict(self.ground),
        }

    def plan(self, **years: int) -> Plan:
        """Six-hourly realisations, a year of the calendar or more apart."""
        return Plan.years(**years)

    def on(self, latitudes: int, longitudes: int) -> Weather:
        """The stepping machine, with its matrices, for one output grid."""
        model = QuasiGeostrophic(self.flow, self.dtype)
        return Weather(model, Channels(model, self.ground, latitudes, longitudes))

    def run(
        self,
        path: Path,
        plan: Plan,
        progress: Callable[[float], None] | None = None,
        processes: int = 2,
    ) -> None:
        """Write the plan's record to a new zarr store at `path`; `progress` gets the fraction
        done.

        Atomic: written beside `path` and renamed when complete. Bits do not depend on `processes`.
        """
        about = {
            "simulator_version": VERSION,
            "parameters": json.dumps(self.parameters(), sort_keys=True),
        }
        write_record(self.on, Path(path), plan, about, progress, processes)

    def perfect(
        self, path: Path, init_times: Sequence[np.datetime64], members: int,
        leads: Sequence[np.timedelta64], seed: int,
        start: Callable[[np.datetime64], Real] | None = None,
    ) -> Iterator[tuple[np.datetime64, Real]]:  # fmt: skip
        """The perfect-model ensemble: per initial time (init_time, float32 (member, lead, channel,
        latitude, longitude)).

        Same state, other noise. Member m's bits depend on (seed, init_time, m) alone. With
        `start`, each member begins instead at
        the gridded state start(init_time), (member, channel, latitude, longitude): the oracle of
        what a model could know.
        """
        steps = lead_steps(leads)
        restart = Restart(Path(path))
        weather = self.on(*restart.shape)
        for init in init_times:
            hours = hours_since_epoch([init])
            blocks = []
            for first in range(0, members, BLOCK):
                if start is None:
                    one, ground = restart.state(init)
                    psi = np.repeat(one[..., None], BLOCK, axis=-1)
                    slab = np.repeat(ground[..., None], BLOCK, axis=-1)
                else:
                    rows = np.arange(first, first + BLOCK) % members
                    psi, slab = weather.channels.read(start(init)[rows], np.repeat(hours, BLOCK))
                who = tuple((int(hours[0]) << 20) + m for m in range(first, first + BLOCK))
                state = State(psi, slab, np.repeat(hours, BLOCK))
                blocks.append(weather.forecast(state, Noise(PERFECT, seed, who), steps))
            yield init, np.concatenate(blocks)[:members]


def lead_steps(leads: Sequence[np.timedelta64]) -> list[int]:
    """Lead times as numbers of six hours, ascending."""
    steps = [float(np.timedelta64(lead) / INTERVAL) for lead in leads]
    if any(s != int(s) or s < 0 for s in steps) or sorted(steps) != steps:
        raise UserError(
            f"leads of the simulated atmosphere are ascending multiples of 6 h, got {list(leads)}"
        )
    return [int(s) for s in steps]
