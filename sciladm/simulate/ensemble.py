"""Perfect-model ensembles of many initial times, several of them at once.

A file of its own, so that a process which starts does not wait for anything but the simulator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sciladm.simulate.processes import beside
from sciladm.simulate.sphere import Real
from sciladm.simulate.world import World


@dataclass(frozen=True)
class Ensemble:
    """All that decides the numbers but the initial time."""

    world: World
    record: Path
    members: int
    leads: tuple[np.timedelta64, ...]
    seed: int

    def draw(self, init: np.datetime64) -> Real:
        """(member, lead, channel, latitude, longitude) from one initial time."""
        drawn = self.world.perfect(self.record, [init], self.members, self.leads, self.seed)
        return next(iter(drawn))[1]

    def draw_all(self, inits: Sequence[np.datetime64], processes: int) -> Iterator[Real]:
        """Those of all initial times in their order, a few of them ahead of their use."""
        if processes == 1 or len(inits) < 4:
            yield from map(self.draw, inits)
            return
        with ProcessPoolExecutor(processes, beside(self.world)) as pool:
            ahead: list[Future[Real]] = []
            try:
                for init in inits:
                    ahead.append(pool.submit(self.draw, init))
                    if len(ahead) > 2 * processes:
                        yield ahead.pop(0).result()
                while ahead:
                    yield ahead.pop(0).result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
