"""Which times are for training, which for choosing, which for the last word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciladm.conventions import UserError, parse_duration
from sciladm.data.times import Times, calendar_of, spell, ticks

Ints = NDArray[np.int64]
Ranges = tuple[tuple[int, int], ...]
Rule = dict[str, Any]
_DAY = 86_400_000_000


@dataclass(frozen=True)
class Splits:
    """Named ranges of time, half open [first, end) in ticks; a split may have several."""

    ranges: dict[str, Ranges]

    @classmethod
    def resolve(cls, rule: Mapping[str, Any], times: Times) -> "Splits":
        """From ``{train: [[first, last], …], …}``, or repeated blocks.

        Dates are text, both ends belong to the range, "2017" is the whole year. A split may say
        ``{every: 48d, first: 20d, length: 10d}`` (from the first time's midnight on); one may be
        ``rest``, and ``gap: 5d`` keeps it that far from the others.
        """
        rule = dict(rule)
        gap = duration_ticks(rule.pop("gap", None))
        calendar, t = calendar_of(times), ticks(times)
        ranges: dict[str, Ranges] = {}
        rest = [name for name, value in rule.items() if value == "rest"]
        for name, value in rule.items():
            if isinstance(value, Mapping):
                ranges[name] = _repeated(name, value, t)
            elif value != "rest":
                ranges[name] = _explicit(name, value, calendar)
        if len(rest) > 1:
            raise UserError(f"splits {' and '.join(rest)} both say `rest`; only one can")
        if rest:
            ranges[rest[0]] = _complement(ranges, gap, t)
        splits = cls({name: ranges[name] for name in rule})
        splits._check(times)
        return splits

    @staticmethod
    def shares(times: Times) -> Rule:
        """A rule for data that come with none: the first 70 % of the times are for training, 15 %
        for validation, the rest for the test."""
        ends = np.round(np.array([0.0, 0.7, 0.85, 1.0]) * len(times)).astype(int)
        if (np.diff(ends) < 1).any():
            raise UserError(f"{len(times)} times are too few to be split three ways")
        text = [str(t) if times.dtype.kind == "M" else t.isoformat() for t in times]
        names = ("train", "validation", "test")
        return {
            name: [[text[first], text[end - 1]]]
            for name, first, end in zip(names, ends[:-1], ends[1:], strict=True)
        }

    def _check(self, times: Times) -> None:
        """No time in two splits; no split without times."""
        owner: NDArray[Any] = np.full(len(times), "", dtype=object)
        for name in self.ranges:
            inside = self.mask(name, times)
            if not inside.any():
                raise UserError(
                    f"split {name} holds none of the data's times, {times[0]} … {times[-1]}; give "
                    "it dates within them (data.splits in the recipe, splits in the card)"
                )
            if (twice := inside & (owner != "")).any():
                at = int(twice.argmax())
                raise UserError(
                    f"splits {owner[at]} and {name} overlap: {times[at]} and {twice.sum() - 1} "
                    "more times are in both; a score on them would be worth nothing"
                )
            owner[inside] = name

    def __getitem__(self, name: str) -> Ranges:
        if name not in self.ranges:
            raise UserError(f"no split {name!r}; there are: {', '.join(self.ranges)}")
        return self.ranges[name]

    def mask(self, name: str, times: Times) -> NDArray[np.bool_]:
        """Which of ``times`` are in a split: (n,)."""
        return range_of(ticks(times), self[name]) >= 0

    def indices(self, name: str, times: Times) -> Ints:
        """Numbers of the times in a split."""
        return np.flatnonzero(self.mask(name, times))


def duration_ticks(text: Any) -> int:
    """A duration's text in ticks; None is 0."""
    return 0 if text is None else int(parse_duration(text) / np.timedelta64(1, "us"))


def _explicit(name: str, value: Any, calendar: str) -> Ranges:
    ranges = []
    several = isinstance(value, Sequence) and not all(isinstance(part, str) for part in value)
    for pair in value if several else [value]:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise UserError(f"split {name}: {pair!r} is not [first, last]; write [[2012, 2017]]")
        first, last = spell(str(pair[0]), calendar)[0], spell(str(pair[1]), calendar)[1]
        if first >= last:
            raise UserError(f"split {name}: {pair[0]} comes after {pair[1]}")
        ranges.append((first, last))
    return tuple(sorted(ranges))


def _repeated(name: str, value: Mapping[str, Any], t: Ints) -> Ranges:
    if set(value) != {"every", "first", "length"}:
        raise UserError(f"split {name}: say every, first and length; got {', '.join(value)}")
    every, length = duration_ticks(value["every"]), duration_ticks(value["length"])
    start = int(t[0] - t[0] % _DAY) + duration_ticks(
        None if value["first"] == "0d" else value["first"]
    )
    if length > every:
        raise UserError(
            f"split {name}: blocks of {value['length']} every {value['every']} overlap"
        )
    return tuple((at, at + length) for at in range(start, int(t[-1]) + 1, every))


def _complement(ranges: Mapping[str, Ranges], gap: int, t: Ints) -> Ranges:
    taken = sorted((a - gap, b + gap) for several in ranges.values() for a, b in several)
    free, at = [], int(t[0])
    for a, b in [*taken, (int(t[-1]) + 1, 0)]:
        if a > at:
            free.append((at, min(a, int(t[-1]) + 1)))
        at = max(at, b)
    return tuple(free)


def range_of(t: Ints, ranges: Ranges) -> Ints:
    """Number of the range that holds each tick, −1 for none."""
    out = np.full(t.shape, -1, dtype=np.int64)
    for number, (first, end) in enumerate(ranges):
        out[(t >= first) & (t < end)] = number
    return out
