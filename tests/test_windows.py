from dataclasses import dataclass

import cftime
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciladm.conventions import UserError
from sciladm.data.splits import Splits
from sciladm.data.times import parts, spaced, spell, stride, ticks
from sciladm.data.windows import batch_indices, resolve_init, window_starts

HOUR = np.timedelta64(1, "h")
DAY = np.timedelta64(1, "D")


@dataclass
class Window:
    past: int = 1
    future: int = 1
    step: str = "24h"


def every(hours, days, start="2001-01-01"):
    first = np.datetime64(start, "ns")
    return first + np.arange(days * 24 // hours) * np.timedelta64(hours, "h")


def test_parts_agree_with_cftime():
    times = every(7, 900)
    date = cftime.DatetimeProlepticGregorian
    other = np.array([date(*t.timetuple()[:6]) for t in times.astype("M8[s]").tolist()])
    assert np.array_equal(ticks(times), ticks(other))
    for a, b in zip(parts(times), parts(other), strict=True):
        assert np.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("calendar", ["360_day", "noleap", "standard", "proleptic_gregorian"])
def test_monthly_is_one_step(calendar):
    times = np.array(
        [
            cftime.datetime(101 + i // 12, i % 12 + 1, 15 + (i % 2), calendar=calendar)
            for i in range(60)
        ]
    )
    position, step = spaced(np.delete(times, [7, 8]))
    assert position.tolist() == [i for i in range(60) if i not in (7, 8)]
    assert stride(times, "1mo") == 1 and stride(times, "1y") == 12
    assert step / DAY == pytest.approx(30.44, abs=0.01)


def test_monthly_in_numpy():
    times = np.arange("2000-01", "2004-01", dtype="M8[M]").astype("M8[ns]")
    assert spaced(times)[0].tolist() == list(range(48))
    assert spaced(times[::12])[0].tolist() == [0, 1, 2, 3]
    assert stride(times[::12], "1y") == 1


def test_gaps_are_counted():
    times = np.delete(every(6, 5), [3, 4, 9])
    assert spaced(times)[0].tolist() == [i for i in range(20) if i not in (3, 4, 9)]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (every(6, 2)[[0, 1, 3, 2]], "do not increase"),
        (every(6, 2)[[0, 1, 1, 2]], "do not increase"),
        (np.append(every(6, 2), every(6, 2)[-1] + 7 * HOUR), "not on one step"),
        (np.arange(5.0), "plain numbers"),
    ],
)
def test_bad_times(times, message):
    with pytest.raises(UserError, match=message):
        spaced(times)


def test_dates():
    year = 365 * 86_400_000_000
    assert spell("1970", "noleap") == (0, year)
    assert spell("1970-12", "noleap")[1] == year
    assert spell("1970-01-01T06:30:00.000Z", "standard")[0] == 6.5 * 3600e6
    with pytest.raises(UserError, match="no such date in the 360_day"):
        spell("2000-01-31", "360_day")
    with pytest.raises(UserError, match="not a date"):
        spell("yesterday", "standard")


def test_splits():
    times = every(6, 3 * 365)
    splits = Splits.resolve(
        {"train": [["2001", "2002-06"]], "test": ["2003-01-01", "2003-01-02"]}, times
    )
    assert len(splits.indices("train", times)) == (365 + 181) * 4
    assert len(splits.indices("test", times)) == 8
    with pytest.raises(UserError, match="no split 'tests'; there are: train, test"):
        splits["tests"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"train": [["2001", "2002"]], "test": [["2002-12-31", "2003"]]},
            "train and test overlap",
        ),
        ({"train": [["2001", "2001"]], "test": [["1979", "1980"]]}, "test holds none"),
        ({"train": [["2002", "2001"]]}, "comes after"),
        ({"train": [["2001"]]}, "first, last"),
        ({"train": "2001"}, "first, last"),
        ({"train": "rest", "test": "rest"}, "both say"),
        ({"test": {"every": "9d", "length": "10d", "first": "1d"}}, "overlap"),
        ({"test": {"each": "9d", "length": "10d"}}, "every, first and length"),
    ],
)
def test_bad_splits(rule, message):
    with pytest.raises(UserError, match=message):
        Splits.resolve(rule, every(6, 3 * 365))


def test_blocks_with_gaps():
    times = every(6, 2 * 365)
    splits = Splits.resolve(
        {
            "train": "rest",
            "validation": {"every": "144d", "first": "35d", "length": "10d"},
            "test": {"every": "48d", "first": "20d", "length": "10d"},
            "gap": "5d",
        },
        times,
    )
    owner = {name: splits.mask(name, times) for name in splits.ranges}
    assert len(splits["test"]) == 15 and owner["test"].sum() == 600
    train, rest = times[owner["train"]], times[owner["test"] | owner["validation"]]
    assert np.abs(train[:, None] - rest[None, :]).min() > 5 * DAY
    assert (owner["train"].sum() > 1400) and not owner["train"][80]


@settings(deadline=None, max_examples=60)
@given(
    st.sets(st.integers(0, 79), max_size=6),
    st.integers(1, 3), st.integers(1, 3), st.sampled_from([6, 12, 24]),
    st.integers(3, 12), st.booleans(),
)  # fmt: skip
def test_windows_by_brute_force(gone, past, future, hours, cut, noleap):
    times = np.delete(every(6, 20), list(gone))
    if noleap:
        times = np.array(
            [cftime.DatetimeNoLeap(*t.timetuple()[:6]) for t in times.astype("M8[s]").tolist()]
        )
    first, last = f"2001-01-{cut:02}", f"2001-01-{cut + 1:02}"
    rule = {"train": [["2001-01-01", first], [last, "2001-01-20"]]}
    got = window_starts(
        times, Window(past, future, f"{hours}h"), Splits.resolve(rule, times)["train"]
    )
    t = [int(x) for x in ticks(times)]
    border = spell(last, "noleap" if noleap else "standard")[0]
    step, expected = hours * 3_600_000_000, []
    for start in t:
        frames = [start + k * step for k in range(past + future)]
        between = range(start, frames[-1] + 1, 6 * 3_600_000_000)
        if all(x in t for x in between) and (frames[-1] < border or start >= border):
            expected.append([t.index(x) for x in frames])
    assert got.tolist() == expected


@pytest.mark.parametrize("step", ["4h", "9h", "1h"])
def test_steps_that_do_not_fit(step):
    with pytest.raises(UserError, match="not a whole number of the data's own, 6h"):
        window_starts(every(6, 9), Window(step=step), ((0, 10**18),))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 50), st.integers(1, 70), st.integers(0, 2**40))
def test_batches(n, batch, seed):
    steps = -(-3 * n // batch)
    order = np.concatenate([batch_indices(n, batch, seed, step) for step in range(steps)])
    for epoch in range(len(order) // n):
        assert sorted(order[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))
    assert np.array_equal(batch_indices(n, batch, seed, steps - 1), order[-batch:])


def test_batches_differ():
    assert not np.array_equal(batch_indices(50, 50, 0, 0), batch_indices(50, 50, 0, 1))
    assert not np.array_equal(batch_indices(50, 50, 0, 0), batch_indices(50, 50, 1, 0))
    assert batch_indices(5, 3, 7, 10**9).shape == (3,)


TIMES = every(6, 730)
SPLITS = Splits.resolve({"train": [["2001", "2001"]], "test": [["2002", "2002"]]}, TIMES)


def init(text, lead=5 * DAY, **more):
    return TIMES[resolve_init(text, TIMES, SPLITS, lead, **more)]


def test_init_of_a_split():
    assert init("test:0").tolist() == [TIMES[1460].item()]
    assert init("test:7")[0] == TIMES[1467]
    assert np.array_equal(init(None), init("test:0:48"))
    many = init("test:0:48")
    assert len(many) == 48 and many[-1] == TIMES[-1] - 5 * DAY
    assert set(many.astype("M8[h]").astype(int) % 24) == {0, 6, 12, 18}
    assert len(set(many.astype("M8[M]").tolist())) == 12
    assert init("test:0", past=DAY)[0] == TIMES[1464]


def test_init_by_date():
    assert init("2002-03-01T06,2001-05-01").astype("M8[h]").astype(str).tolist() == [
        "2001-05-01T00", "2002-03-01T06"]  # fmt: skip
    assert len(init("2002-01-01/2002-01-03/12h")) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2002-03-01T05", "1 of 1 initial times are not in the data"),
        ("2012-03-01", "not in the data"),
        ("2002-01-03/2002-01-01/12h", "not in the data"),
        ("2002-01-03/2002-01-04/12", "not a duration"),
        ("tests:0", "not a date"),
        ("test:x", "test:NUMBER"),
        ("test:5000", "shorter lead may do"),
        ("test:0:0", "shorter lead may do"),
    ],
)
def test_bad_init(text, message):
    with pytest.raises(UserError, match=message):
        init(text)


def test_fewer_than_asked_for_are_said(caplog):
    assert len(init("test:0:2000")) == 1440 and "1440 initial times are all" in caplog.text


def test_shares():
    for times in (TIMES, np.array([cftime.DatetimeNoLeap(101, 1, d) for d in range(1, 21)])):
        splits = Splits.resolve(Splits.shares(times), times)
        parts_ = [splits.indices(name, times) for name in ("train", "validation", "test")]
        assert np.array_equal(np.concatenate(parts_), np.arange(len(times)))
        assert len(parts_[0]) == round(0.7 * len(times))
    with pytest.raises(UserError, match="too few"):
        Splits.shares(TIMES[:2])


def test_lead_longer_than_the_split():
    with pytest.raises(UserError, match="shorter lead"):
        init("test:0", lead=400 * DAY)
    with pytest.raises(UserError, match="lacks the 24h before it"):
        init("2001-01-01", past=DAY)
