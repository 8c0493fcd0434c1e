"""Intervals cover what they say, on dependent fields; blocks are of time, not of rows."""

import numpy as np
import pytest

from sciladm.metrics.bootstrap import interval, resample

DAY = np.timedelta64(1, "D")
START = np.datetime64("2201-01-01", "ns")


def autoregressive(days, persistence, repeats, seed=0):
    rng = np.random.default_rng(seed)
    x = np.empty((days, repeats))
    x[0] = rng.standard_normal(repeats)
    for i in range(1, days):
        x[i] = persistence * x[i - 1] + np.sqrt(1 - persistence**2) * rng.standard_normal(repeats)
    return x


def coverage(days, lead, persistence, repeats, seed=0):
    drawn = resample(START + days * DAY, lead * DAY, 500)
    x = autoregressive(days.max() + 1, persistence, repeats, seed)[days]
    low, high = interval(drawn.weights @ x / drawn.weights.sum(axis=1)[:, None], drawn.blocks)
    return float(((low < 0) & (high > 0)).mean())


YEAR_OF_128 = np.round(np.linspace(0, 364, 128)).astype(int)


@pytest.mark.parametrize("persistence", [0.0, 0.5])
def test_intervals_cover_on_autoregressive_series(persistence):
    assert 0.92 < coverage(YEAR_OF_128, 10, persistence, 1000) < 0.97


@pytest.mark.slow
@pytest.mark.parametrize("persistence", [0.0, 0.3, 0.5, 0.6])
@pytest.mark.parametrize("days", [np.arange(365), YEAR_OF_128, np.arange(120) * 7])
def test_intervals_cover_on_many_autoregressive_series(days, persistence):
    assert 0.92 < coverage(days, 10, persistence, 4000, seed=1) < 0.97


def test_independent_resampling_would_not_cover():
    x = autoregressive(365, 0.5, 500)[:]
    rng = np.random.default_rng(0)
    picks = rng.multinomial(365, np.full(365, 1 / 365), 500)
    values = np.concatenate([np.ones((1, 365)), picks]) @ x / 365
    low, high = interval(values, 365)
    assert ((low < 0) & (high > 0)).mean() < 0.85


def test_paired_differences_are_tighter_than_single_scores():
    drawn = resample(START + np.arange(365) * DAY, DAY)
    common = autoregressive(365, 0.5, 1)[:, 0]
    own = autoregressive(365, 0.5, 2, seed=1) * 0.1
    total = drawn.weights.sum(axis=1)
    a, b = (drawn.weights @ (common + own[:, i]) / total for i in (0, 1))
    single, paired = (np.subtract(*interval(v, drawn.blocks)[::-1]) for v in (a, a - b))
    assert paired < 0.3 * single


def test_too_few_blocks_give_no_interval():
    drawn = resample(START + np.arange(140) * DAY, DAY)
    assert drawn.blocks == 14
    assert drawn.weights.shape == (1, 140)
    assert np.isnan(interval(np.zeros((1, 3)), drawn.blocks)).all()
    assert resample(START + np.arange(160) * DAY, DAY).blocks == 16
    assert resample(START + np.arange(160) * DAY, 15 * DAY).blocks == 10  # the last lead rules


def test_blocks_are_stretches_of_time_and_close_a_circle():
    days = np.sort(np.random.default_rng(0).choice(365, 90, replace=False))
    drawn = resample(START + days * DAY, 10 * DAY, 4000)
    weights = drawn.weights[1:]
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.07)  # the ends too
    alike = np.corrcoef(weights.T)
    gaps = np.diff(days)
    np.testing.assert_allclose(np.diag(alike, 1)[gaps == 1], 1 - 1 / 14.6, atol=0.1)
    np.testing.assert_allclose(np.diag(alike, 1)[gaps >= 8], 1 - 10 / 14.6, atol=0.25)
    assert abs(alike[10, 50]) < 0.1


def test_realisations_decades_apart_count_as_much_as_their_days():
    two = np.concatenate([np.arange(180), 3650 + np.arange(180)])
    assert 24 <= resample(START + two * DAY, DAY).blocks <= 25
    assert resample(START + two[:150] * DAY, DAY).blocks == 15


def test_weights_follow_the_times_in_any_order():
    times = START + np.arange(200) * DAY
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(
        resample(times[order], DAY).weights, resample(times, DAY).weights[:, order]
    )
