"""Do samples have the law of the training fields? Scores, and what real years score among selves.

Each score is held against the same of sets of real years against the years left, their months
drawn to match the samples'. So what passes is as near to the training years as these are to each
other, however strongly neighbouring times depend on each other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

SETS = 40
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Score:
    """What was found, and the most it may be (the least, where ``at_least``)."""

    value: float
    bound: float
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """NaN does not pass."""
        inside = self.value >= self.bound if self.at_least else self.value <= self.bound
        return bool(inside)


@dataclass(frozen=True)
class Sets:
    """Sets of real years: ``chosen`` rows of each, months as the samples', and the rows ``left``:
    all those of other years."""

    chosen: list[Ints]
    left: list[Ints]

    @classmethod
    def of(cls, years: Ints, months: Ints, wanted: Ints, rng: np.random.Generator) -> "Sets":
        """For samples of the months ``wanted`` (n,), as many rows in each set as half the real
        ``years`` (m,) allow. Every run of following years is a set, as far as there are SETS of
        them, since a test split is such a run; the others are drawn."""
        names = np.unique(years)
        count = np.bincount(wanted, minlength=13).astype(float)
        there = np.bincount(months, minlength=13) / len(names)
        needed = np.max(count[there > 0] / there[there > 0], initial=1.0)
        k = int(np.clip(np.ceil(needed), 1, len(names) // 2))
        starts = rng.permutation(len(names))[: SETS // 2]
        groups = [np.take(names, np.arange(s, s + k), mode="wrap") for s in starts]
        groups += [rng.permutation(names)[:k] for _ in range(SETS - len(groups))]
        chosen, left = [], []
        for group in groups:
            inside = np.isin(years, group)
            rows = np.flatnonzero(inside)
            chosen.append(rows[matched(months[rows], count, rng)])
            left.append(np.flatnonzero(~inside))
        return cls(chosen, left)


def matched(months: Ints, count: NDArray[np.number], rng: np.random.Generator) -> Ints:
    """Rows of ``months`` (n,), as many as can be in the proportions ``count`` (13,), no more than
    these; all of them where no month is in both."""
    there = np.bincount(months, minlength=13)
    both = (count > 0) & (there > 0)
    if not both.any():
        return np.arange(len(months))
    share = min(1.0, float(np.min(there[both] / count[both])))
    parts = [
        rng.permutation(np.flatnonzero(months == month))[: max(1, int(share * count[month]))]
        for month in np.flatnonzero(both)
    ]
    return np.sort(np.concatenate(parts))


def against(departures: Floats, among: Floats, floor: float) -> Score:
    """The largest of ``departures`` (k,), each in units of twice the root mean square of those
    ``among`` real years (set, k) or of ``floor``, whichever is larger; at most 1, or the 99 %
    quantile among real years."""
    unit = np.maximum(floor, 2 * np.sqrt((among**2).mean(axis=0)))
    return Score(
        float(np.abs(departures / unit).max()),
        max(1.0, float(np.quantile(np.abs(among / unit).max(axis=1), 0.99))),
    )


def moments(values: Floats) -> Floats:
    """Mean, standard deviation and QUANTILES of all ``values``."""
    return np.array([values.mean(), values.std(), *np.quantile(values, QUANTILES)])


def bandwidth(features: Floats) -> float:
    """Median squared distance between features (n, k), of at most 500."""
    some = features[:: -(-len(features) // 500)]
    squares = _squares(some, some)
    return float(np.median(squares[np.triu_indices(len(some), 1)]))


def kernel(a: Floats, b: Floats, width: float) -> Floats:
    """exp(−|a − b|²/width), (n, m)."""
    return np.asarray(np.exp(-_squares(a, b) / width))


def _squares(a: Floats, b: Floats) -> Floats:
    """Squared distances (n, m)."""
    lengths = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
    return np.asarray(np.maximum(lengths - 2 * a @ b.T, 0))


def mmd2(a: Floats, b: Floats, width: float) -> float:
    """Squared maximum mean discrepancy of features (n, k) and (m, k), without bias where they are
    independent: Gretton et al. (2012), eq 3."""
    n, m = len(a), len(b)
    within = (kernel(a, a, width).sum() - n) / (n * (n - 1))
    other = (kernel(b, b, width).sum() - m) / (m * (m - 1))
    return float(within + other - 2 * kernel(a, b, width).mean())


def recall(real: Floats, samples: Floats, k: int = 5) -> float:
    """Share of ``real`` features (m, f) that lie no further from some sample (n, f) than this is
    from its k-th neighbour: Kynkäänniemi et al. (2019), eq 2."""
    own = np.sqrt(np.partition(_squares(samples, samples), k, axis=1)[:, k])
    return float((np.sqrt(_squares(real, samples)) <= own).any(axis=1).mean())


def months_apart(months: Ints, reference: Ints) -> float:
    """Total variation distance of the histograms of two lists of months."""
    a, b = (np.bincount(m, minlength=13) / len(m) for m in (months, reference))
    return float(np.abs(a - b).sum() / 2)


def months_bound(n: int, reference: Ints, rng: np.random.Generator) -> float:
    """The 99 % quantile of that distance for ``n`` months drawn from the reference's own."""
    drawn = [months_apart(rng.choice(reference, n), reference) for _ in range(2000)]
    return float(np.quantile(drawn, 0.99))
