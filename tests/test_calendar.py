"""Months as steps, against the labels that monthly data have."""

import numpy as np
import pytest

from sciladm.calendar import MONTH, find, later

FIRSTS = np.arange("1999-01", "2005-03", dtype="M8[M]")
STARTS, NEXT = FIRSTS.astype("M8[ns]"), (FIRSTS + 1).astype("M8[ns]")
DAY = np.timedelta64(1, "D").astype("m8[ns]")
LABELS = {
    "start": STARTS,
    "middle": STARTS + (NEXT - STARTS) // 2,
    "last day": NEXT - DAY,
    "last hour": NEXT - DAY // 24,
    "10th": STARTS + 9 * DAY,
}


@pytest.mark.parametrize("label", LABELS)
def test_months_later_are_the_labels_of_monthly_data(label):
    times = LABELS[label]
    for months in (0, 1, 2, 11, 12, 14, 29):
        kept = len(times) - months
        np.testing.assert_array_equal(later(times[:kept], months * MONTH), times[months:])
        np.testing.assert_array_equal(later(times[months:], -months * MONTH), times[:kept])
    table = later(times[:5, None], np.arange(1, 4) * MONTH)
    np.testing.assert_array_equal(table, times[np.arange(5)[:, None] + [1, 2, 3]])


def test_a_month_of_fewer_days_ends_on_its_last():
    time = np.datetime64("2001-01-30T06", "ns")
    expected = [f"2001-{day}T06" for day in ("02-28", "03-30")]
    assert (later(time, np.arange(1, 3) * MONTH) == np.array(expected, "M8[ns]")).all()


def test_the_15th_of_february_is_its_middle_too():
    """What one label cannot tell stays within the month; `find` minds no days there."""
    times = STARTS + 14 * DAY
    then = later(times[:-1], MONTH)
    assert (abs(then - times[1:]) < 2 * DAY).all()
    assert find(times, then, MONTH).tolist() == list(range(1, len(times)))


def test_other_leads_are_sums():
    times, leads = LABELS["middle"][:4, None], np.array([6, 24, 720]) * DAY // 24
    np.testing.assert_array_equal(later(times, leads), times + leads)


def test_monthly_data_are_found_by_their_month():
    wobbly = LABELS["middle"] + np.arange(len(FIRSTS)) % 2 * DAY
    gone = np.delete(wobbly, [7, 8])
    wanted = later(wobbly[:10], MONTH)
    expected = [1, 2, 3, 4, 5, 6, -1, -1, 7, 8]
    assert find(gone, wanted, MONTH).tolist() == expected
    assert (find(gone, wanted, DAY) < 0).any()  # a day later is no month
    thirty = np.datetime64("2001-01-01", "ns") + np.delete(np.arange(40), 3) * 30 * DAY
    assert find(thirty, np.array([np.datetime64("2001-04-02")]), MONTH).tolist() == [-1]
