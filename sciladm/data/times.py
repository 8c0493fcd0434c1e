"""Time coordinates as numbers, in any calendar: datetime64[ns] arrays and arrays of cftime alike.

A *tick* is a microsecond since 1970-01-01 in the times' own calendar (int64): it orders times,
measures them and names them (the key of a draw), and years before 1678 do not overflow it.
"""

import re
from typing import Any

import cftime  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from sciladm.calendar import MONTH
from sciladm.conventions import UserError, format_duration, parse_duration

Times = NDArray[Any]
"""(n,) datetime64[ns], or objects of cftime."""
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_EPOCH = "microseconds since 1970-01-01"
_DAY = 86_400_000_000
_TEXT = re.compile(
    r"^\s*(\d{1,4})(?:-(\d{1,2})(?:-(\d{1,2})"
    r"(?:[T ](\d{1,2})(?::?(\d{2}))?(?::?(\d{2})(?:\.0+)?)?Z?)?)?)?\s*$"
)


def calendar_of(times: Times) -> str:
    """CF name of the calendar."""
    if times.dtype.kind == "M" or not times.size:
        return "proleptic_gregorian"
    return str(times.flat[0].calendar)


def ticks(times: Times) -> Ints:
    """Microseconds since 1970-01-01 in the times' own calendar."""
    if times.dtype.kind == "M":
        return np.asarray(times.astype("M8[us]").astype(np.int64))
    if times.dtype.kind != "O":
        raise UserError(
            f"times are plain numbers ({times.flat[0]!r} …), not dates; give the file's time "
            "coordinate `units` such as 'days since 1900-01-01'"
        )
    numbers = cftime.date2num(times, _EPOCH, calendar=calendar_of(times))
    return np.asarray(numbers, dtype=np.int64).reshape(times.shape)


def parts(times: Times) -> tuple[Ints, Ints, Floats, Floats]:
    """Year, month 1…12, fraction of the year [0, 1), fraction of the day [0, 1)."""
    if times.dtype.kind == "M":
        years = times.astype("M8[Y]")
        length = (years + 1).astype("M8[us]") - years.astype("M8[us]")
        in_year = (times.astype("M8[us]") - years.astype("M8[us]")) / length
        year = years.astype(np.int64) + 1970
        month = times.astype("M8[M]").astype(np.int64) % 12 + 1
    else:
        year = np.array([t.year for t in times.flat], dtype=np.int64).reshape(times.shape)
        month = np.array([t.month for t in times.flat], dtype=np.int64).reshape(times.shape)
        name = calendar_of(times)
        every = range(int(year.min()), int(year.max()) + 2) if year.size else range(0)
        starts = {y: _number(y, name) for y in every}
        start = np.array([starts[int(y)] for y in year.flat]).reshape(times.shape)
        end = np.array([starts[int(y) + 1] for y in year.flat]).reshape(times.shape)
        in_year = (ticks(times) - start) / (end - start)
    return year, month, np.asarray(in_year, dtype=np.float64), ticks(times) % _DAY / _DAY


def _number(year: int, calendar: str, month: int = 1, day: int = 1, *clock: int) -> int:
    date = cftime.datetime(year, month, day, *clock, calendar=calendar)
    return int(cftime.date2num(date, _EPOCH, calendar=calendar))


def spaced(times: Times) -> tuple[Ints, np.timedelta64]:
    """Whole steps since the first time, and the step [ns]; UserError where there is no such step.

    Gaps are fine. Months and years of unequal length count as equal steps of their mean length
    (``conventions.parse_duration("1mo")``). A single time has step 0.
    """
    t = ticks(times)
    if t.size < 2:
        return np.zeros(t.size, dtype=np.int64), np.timedelta64(0, "ns")
    steps = np.diff(t)
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0))
        raise UserError(
            f"times do not increase: {times[at]} is followed by {times[at + 1]} (number {at + 1} "
            f"of {t.size}); sort them and drop doubles: ds.sortby('time').drop_duplicates('time')"
        )
    if steps.min() >= 27 * _DAY and (months := _months(times)) is not None:
        return months
    lengths, counts = np.unique(steps, return_counts=True)
    step = int(lengths[np.argmax(counts)])
    if (odd := (t - t[0]) % step != 0).any():
        at = int(np.argmax(odd))
        usual = format_duration(np.timedelta64(step, "us"))
        raise UserError(
            f"times are not on one step: most are {usual} apart, but {times[at]} (number {at} of "
            f"{t.size}) does not lie a whole number of steps after the first, {times[0]}; "
            f"interpolate them, or give a part of the data that is regular"
        )
    return (t - t[0]) // step, np.timedelta64(step, "us").astype("m8[ns]")


def _months(times: Times) -> tuple[Ints, np.timedelta64] | None:
    """Steps of whole calendar months, if the times keep to about the same day of the month."""
    year, month, _, _ = parts(times)
    day = (ticks(times) - np.array(
        [_number(int(y), calendar_of(times), int(m), 1) for y, m in zip(year, month, strict=True)]
    )) / _DAY  # fmt: skip
    number = year * 12 + month
    apart = np.diff(number)
    if np.ptp(day) > 3.0 or (apart < 1).any():
        return None
    unit = int(np.gcd.reduce(apart))
    return (number - number[0]) // unit, MONTH * unit


def stride(times: Times, step: str | np.timedelta64) -> int:
    """How many of the data's own steps make one ``step``; UserError if that is not whole."""
    _, own = spaced(times)
    wanted = parse_duration(step) if isinstance(step, str) else step
    if own == np.timedelta64(0):
        raise UserError("the data have a single time: nothing can be forecast from them")
    count = wanted / own
    if count < 1 or count != round(count):
        raise UserError(
            f"a step of {format_duration(wanted)} is not a whole number of the data's own, "
            f"{format_duration(own)}; set window.step to a multiple of {format_duration(own)}, or "
            "give a trained run data on the step it was trained with"
        )
    return round(count)


def date_text(tick: int, calendar: str) -> str:
    """A tick as people write it: ``2020-01-31T06:00:00``."""
    return str(cftime.num2date(int(tick), _EPOCH, calendar=calendar).isoformat())


def spell(text: str, calendar: str) -> tuple[int, int]:
    """First tick of a date's text and the first tick after it: ``"2017"`` is the whole year."""
    match = _TEXT.match(str(text))
    if not match:
        raise UserError(f"not a date: {text!r}; write 2020, 2020-01, 2020-01-31 or 2020-01-31T06")
    given = [int(part) for part in match.groups() if part is not None]
    full = [*given, *(1, 1, 0, 0, 0)[len(given) - 1 :]]
    try:
        start = _number(full[0], calendar, *full[1:])
    except ValueError as error:
        raise UserError(f"no such date in the {calendar} calendar: {text!r} ({error})") from None
    if len(given) == 1:
        return start, _number(full[0] + 1, calendar)
    if len(given) == 2:
        return start, _number(full[0] + full[1] // 12, calendar, full[1] % 12 + 1, 1)
    seconds = {3: 86400, 4: 3600, 5: 60, 6: 1}[len(given)]
    return start, start + seconds * 1_000_000
