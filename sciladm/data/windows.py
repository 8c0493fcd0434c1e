"""Which times make a window, in which order windows are trained on, what --init means."""

import logging
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sciladm.calendar import MONTH, later
from sciladm.conventions import UserError, format_duration, parse_duration
from sciladm.data.splits import Splits as Splits
from sciladm.data.splits import range_of
from sciladm.data.times import Times, calendar_of, date_text, spaced, spell, ticks
from sciladm.data.times import stride as stride

log = logging.getLogger(__name__)
Ints = NDArray[np.int64]
NO_TIME = np.timedelta64(0, "ns")


class Window(Protocol):
    """What a recipe says of a window: frames known, frames drawn, the time between them."""

    past: int
    future: int
    step: str


def window_starts(times: Times, window: Window, ranges: tuple[tuple[int, int], ...]) -> Ints:
    """All windows within one range of a split: numbers of their frames' times, (n, frames).

    No window crosses a split, a boundary between ranges, or a gap in the data (every time of the
    data's own step between the first frame and the last is there).
    """
    count = window.past + window.future
    offsets = np.arange(count) * (stride(times, window.step) if count > 1 else 1)
    position, _ = spaced(times)
    owner = range_of(ticks(times), ranges)
    first = np.arange(max(len(times) - int(offsets[-1]), 0))
    last = first + offsets[-1]
    whole = position[last] - position[first] == offsets[-1]
    inside = (owner[first] >= 0) & (owner[first] == owner[last])
    starts: Ints = first[whole & inside]
    return starts[:, None] + offsets


def batch_indices(n: int, batch: int, seed: int, step: int) -> Ints:
    """Which of ``n`` samples make batch number ``step``: a pure function, (batch,).

    Every epoch is a permutation of its own; a batch may end one epoch and begin the next.
    """
    place = step * batch + np.arange(batch)
    return np.array(
        [_permutation(n, seed, int(p) // n)[int(p) % n] for p in place], dtype=np.int64
    )


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> Ints:
    return np.random.Generator(
        np.random.Philox(key=np.array([seed, epoch], np.uint64))
    ).permutation(n)


def resolve_init(
    text: str | None,
    times: Times,
    splits: Splits,
    lead: np.timedelta64,
    past: np.timedelta64 = NO_TIME,
) -> Ints:
    """Numbers of the initial times that ``text`` names, ascending.

    ``"2020-01-01T00,2020-02-01T00"``: these. ``"START/STOP/STEP"``: from, to and with, every.
    ``"test:K"``: the K-th initial time of that split whose forecast can be verified in it;
    ``"test:K:N"``: N of them (or all there are) spread evenly from the K-th on. None:
    ``"test:0:48"``. Each needs ``past`` before it without a gap.
    """
    text = text or "test:0:48"
    if match := text.split(":") if text.split(":")[0] in splits.ranges else None:
        return _of_split(match, text, times, splits, lead, past)
    t, calendar = ticks(times), calendar_of(times)
    try:
        wanted = _dates(text, calendar)
    except UserError as error:
        known = ", ".join(f"{name}:0:48" for name in splits.ranges)
        other = f"or name initial times of a split: {known}"
        if not known:
            other = f"the data's {len(times)} times are too few to be split"
        raise UserError(f"--init {text}: {error}; {other}") from None
    at = np.searchsorted(t, wanted)
    there = t[np.minimum(at, len(t) - 1)] == wanted
    if not wanted.size or not there.all():
        first = f", first {date_text(wanted[~there][0], calendar)}" if wanted.size else ""
        raise UserError(
            f"--init {text}: {(~there).sum()} of {wanted.size} initial times are not in the data"
            f"{first}; those go from {date_text(t[0], calendar)} to {date_text(t[-1], calendar)}"
        )
    position, own = spaced(times)
    back = round(past / own) if own else 0
    short = (at < back) | (position[at] - position[np.maximum(at - back, 0)] != back)
    if short.any():
        raise UserError(
            f"--init {text}: {times[at[short][0]]} lacks the {format_duration(past)} before it"
        )
    return at


def _dates(text: str, calendar: str) -> Ints:
    """Ticks of ``A,B,C`` or ``START/STOP/STEP``, ascending."""
    if text.count("/") != 2:
        return np.array(sorted({spell(one, calendar)[0] for one in text.split(",")}))
    start, stop, step = text.split("/")
    first, last = (spell(end, calendar)[0] for end in (start, stop))
    every = parse_duration(step)
    if every % MONTH or calendar not in ("standard", "gregorian", "proleptic_gregorian"):
        return np.arange(first, last + 1, int(every / np.timedelta64(1, "us")))
    count = (last - first) // (27 * 86_400_000_000) + 1
    dates = ticks(later(np.datetime64(first, "us").astype("M8[ns]"), np.arange(count) * every))
    return dates[dates <= last]


def _of_split(
    words: list[str],
    text: str,
    times: Times,
    splits: Splits,
    lead: np.timedelta64,
    past: np.timedelta64,
) -> Ints:
    if len(words) > 3 or not all(word.isdigit() for word in words[1:]):
        raise UserError(f"--init {text}: write {words[0]}:NUMBER or {words[0]}:NUMBER:COUNT")
    position, own = spaced(times)
    back, ahead = round(past / own) if own else 0, -round(-lead / own // 1) if own else 0
    owner = range_of(ticks(times), splits[words[0]])
    now = np.arange(back, max(len(times) - ahead, back))
    whole = position[now + ahead] - position[now - back] == back + ahead
    same = (
        (owner[now] >= 0) & (owner[now - back] == owner[now]) & (owner[now + ahead] == owner[now])
    )
    usable: Ints = now[whole & same]
    first, count = int(words[1]) if len(words) > 1 else 0, int(words[2]) if len(words) > 2 else 1
    usable = usable[first:]
    if not len(usable) or not count:
        raise UserError(
            f"--init {text}: from number {first} on no initial time can be forecast "
            f"{format_duration(lead)} ahead within {words[0]}; a shorter lead may do"
        )
    if len(usable) < count:
        log.warning("--init %s: %d initial times are all there are", text, len(usable))
        count = len(usable)
    spread = np.linspace(0, len(usable) - 1, count).round().astype(np.int64)
    return np.asarray(usable[spread])
