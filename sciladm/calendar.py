"""Months and years as steps: a lead of a month is a calendar month, whatever its length."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciladm.conventions import parse_duration

MONTH = parse_duration("1mo")
"""The mean month, as durations have it; no whole number of hours is that long."""
_DAY = np.timedelta64(1, "D")


def later(times: Any, leads: Any) -> NDArray[Any]:
    """``times`` and ``leads`` after them, broadcast; datetime64[ns], or cftime objects.

    A lead of whole mean months means calendar months: the middle of a month, its last day, or the
    same day and hour as far as there is one, as monthly data are labelled.
    """
    times, leads = np.asarray(times), np.asarray(leads)
    if times.dtype.kind != "M":
        return np.asarray(times + leads.astype("m8[us]").astype(object))
    whole = leads % MONTH == np.timedelta64(0)
    if not whole.any():
        return np.asarray(times + leads)
    first: NDArray[Any] = times.astype("M8[M]")
    then = first + (leads // MONTH).astype("m8[M]")
    into = times - first
    old, new = ((month + 1).astype("M8[ns]") - month for month in (first, then))
    shifted = np.minimum(into, new - _DAY + into % _DAY)
    shifted = np.where(into >= old - _DAY, new - old + into, shifted)
    shifted = np.where(2 * into == old, new // 2, shifted)
    return np.asarray(np.where(whole, then + shifted, times + leads))


def find(times: NDArray[Any], wanted: Any, steps: Any) -> NDArray[np.int64]:
    """Where ``wanted`` (any shape) stands in sorted ``times``, −1 where it does not.

    Where ``steps``, by which ``wanted`` was reached, are months, and the data are monthly, a time
    of the same month will do: the labels of monthly data are on no one day.
    """
    wanted = np.asarray(wanted)
    found = _exactly(times, wanted)
    if (found < 0).any() and _in_months(steps) and _is_monthly(times):
        return _exactly(times.astype("M8[M]"), wanted.astype("M8[M]"))
    return found


def _in_months(steps: Any) -> bool:
    return not (np.asarray(steps) % MONTH).astype(np.int64).any()


def _exactly(times: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64]:
    at = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
    return np.where(times[at] == wanted, at, -1)


def _is_monthly(times: NDArray[Any]) -> bool:
    """Times in months of their own, on about the same day of them."""
    if times.dtype.kind != "M" or len(times) < 2 or np.diff(times).min() < 27 * _DAY:
        return False
    return bool(np.ptp(times - times.astype("M8[M]")) <= 3 * _DAY)
