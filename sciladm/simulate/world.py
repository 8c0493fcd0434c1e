"""What a simulated world offers to data sets and to the door that simulates."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray


class World(Protocol):
    """Its parameters are a frozen dataclass's; `plan`, `run` and `perfect` belong together."""

    ensemble: ClassVar[str]
    """What its ensembles are called: `perfect` from the model's own state, `exact` from the
    gridded state by a law in closed form."""

    @classmethod
    def tiny(cls) -> Self:
        """A small one, for tests."""
        ...

    @property
    def channels(self) -> tuple[tuple[str, int | None], ...]:
        """(variable, level) of each channel of an ensemble."""
        ...

    def parameters(self) -> dict[str, Any]:
        """Everything that decides the numbers besides the plan, plain values."""
        ...

    def plan(self, **years: int) -> Any:
        """The `plan.Records` of so many years: train, validation, test, days, seed, …"""
        ...

    def run(self, path: Path, plan: Any, progress: Callable[[float], None] | None = None) -> None:
        """Write the plan's record to a new zarr store at ``path``."""
        ...

    def perfect(
        self, path: Path, init_times: Sequence[np.datetime64], members: int,
        leads: Sequence[np.timedelta64], seed: int,
    ) -> Iterator[tuple[np.datetime64, NDArray[np.floating[Any]]]]:  # fmt: skip
        """Per initial time of the record at ``path`` (init_time, members (member, lead, channel,
        *space))."""
        ...
