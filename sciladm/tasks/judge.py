"""What the checks of synthetic fields look at: anomalies, weights, sets of real years."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciladm.metrics.faithfulness import Sets
from sciladm.metrics.spectrum import spectrum_for
from sciladm.tasks.states import Array, Bools, Ints, States, Trio, season

Floats = NDArray[Any]

MOST, WIDEST, FOLDS = 1500, 32, 10


def thin(n: int, most: int) -> Ints:
    """At most ``most`` of n rows, evenly."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


@dataclass(eq=False)
class Judge:
    """Anomalies about train's climatology [physical units], in train's standard deviation ``sd``
    (channel, *space) where standardised; cells that are not valid are 0."""

    trio: Trio
    rng: np.random.Generator
    shortest: float
    ratios: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        trio = self.trio
        self.space = tuple(range(1, trio.valid.ndim))
        columns = season(trio.train.times, trio.train.times)
        mean = trio.train.values.mean(axis=0)
        self.origin = np.where(trio.valid, mean, 0)
        self.law = self.fit(columns, self.whole(trio.train))
        self.train, self.test = self.crossed(trio.train), self.anomalies(trio.test)
        self.synthetic = self.anomalies(trio.synthetic)
        sd = self.train.std(axis=0)
        self.sd = np.where(sd > 1e-6 * sd.max(axis=self.space, keepdims=True), sd, np.inf)
        self.sets = Sets.of(trio.train.years, trio.train.months, trio.synthetic.months, self.rng)
        area = trio.fields.grid.area * trio.valid
        self.weight = area / area.sum(axis=self.space, keepdims=True) / len(area)
        self.spectrum = spectrum_for(trio.fields.grid)

    def whole(self, states: States) -> Array:
        """Values less the origin, cells that are not valid 0."""
        return np.where(self.trio.valid, states.values - self.origin, np.float32(0))

    def fit(self, columns: Floats, values: Floats) -> Floats:
        """Coefficients (k, …) of ``columns`` (n, k) by least squares."""
        flat = values.reshape(len(values), -1)
        solved = np.linalg.lstsq(columns, flat, rcond=None)[0]
        return np.asarray(solved.reshape(-1, *values.shape[1:]), np.float32)

    def anomalies(self, states: States) -> Array:
        """About train's climatology."""
        columns = season(states.times, self.trio.train.times).astype(np.float32)
        return self.whole(states) - np.tensordot(columns, self.law, axes=1)

    def crossed(self, states: States) -> Array:
        """Train's anomalies about the climatology of its other years, a tenth of them at a time:
        a climatology that has seen a field makes its anomaly smaller than a sample's."""
        columns, values = season(states.times, states.times), self.whole(states)
        names = np.unique(states.years)
        out = np.empty_like(values)
        for group in np.array_split(names, min(FOLDS, len(names))):
            rows = np.isin(states.years, group)
            law = self.fit(columns[~rows], values[~rows])
            out[rows] = values[rows] - np.tensordot(columns[rows].astype(np.float32), law, axes=1)
        return out

    def among(self, values: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Rows of ``values`` (train, …) in each set of real years, and in the years left."""
        for chosen, left in zip(self.sets.chosen, self.sets.left, strict=True):
            yield values[chosen], values[left[thin(len(left), MOST)]]

    def flat(self, anomalies: Floats) -> Array:
        """Standardised and weighted by the root of area: (n, channel × cell), mean square 1."""
        scaled = anomalies / self.sd * np.sqrt(self.weight)
        return np.asarray(scaled.reshape(len(scaled), -1), np.float32)


def coarse(fields: Floats, boundaries: tuple[str, ...]) -> Floats:
    """Means of blocks, so that no axis has more than WIDEST cells; one that wraps is only cut
    into equal blocks, and stays as it is where there are none."""
    for axis, end in enumerate(boundaries, start=2):
        n = fields.shape[axis]
        size = -(-n // WIDEST)
        if end == "periodic":
            size = next((f for f in range(size, n // 4) if n % f == 0), 1)
        kept = np.take(fields, np.arange(n // size * size), axis)
        shape = (*kept.shape[:axis], n // size, size, *kept.shape[axis + 1 :])
        fields = kept.reshape(shape).mean(axis=axis + 1)
    return fields


def coarse_mask(valid: Bools, judge: Judge) -> Bools:
    """Blocks of which every cell is valid."""
    blocks = coarse(valid[None].astype(float), judge.trio.fields.grid.boundaries)[0]
    return np.asarray(blocks > 0.99)
