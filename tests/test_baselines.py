"""Baselines in a world of which the answers are known: linear stochastic dynamics with a year."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from fields_oracle import STEP, LinearWorld, sphere

from sciladm.baselines.climatology import Climatology
from sciladm.baselines.dressed import DressedForecast
from sciladm.baselines.harmonics import HarmonicMean
from sciladm.baselines.linear_inverse import LinearInverseModel
from sciladm.baselines.modes import Modes
from sciladm.baselines.persistence import DampedAnomaly, damped_persistence, persistence
from sciladm.baselines.series import Series, season_distance, spread_out, time_of_day
from sciladm.calendar import later
from sciladm.conventions import UserError
from sciladm.metrics.derived import metrics
from sciladm.metrics.ensemble import fair_crps
from sciladm.metrics.regions import regions
from sciladm.metrics.scorer import Scorer

WORLD = LinearWorld(sphere(8), patterns=12, damping_days=3.0, annual=2.0)
LEADS = (np.array([1, 4, 12, 60]) * STEP).astype("timedelta64[ns]")
DAY = np.timedelta64(1, "D")
MEMBERS = 20
LIM = "linear_inverse_model"


@cache
def world():
    train, _ = WORLD.series("2001-01-01", 9 * 365, 1)
    validation, _ = WORLD.series("2010-01-01", 365, 2)
    test, states = WORLD.series("2012-01-01", 4 * 365, 3)
    return train, validation, test, states


def state(time):
    for series in world()[1:3]:
        (at,) = series.find(np.array([time]))
        if at >= 0:
            return series.read(np.array([at]))[0]
    raise KeyError(time)


@cache
def fitted():
    train, validation, *_ = world()
    mean = HarmonicMean.fit(train)
    lim = LinearInverseModel.fit(
        train, validation, mean, state, WORLD.grid.area, WORLD.normaliser(), LEADS, MEMBERS
    )
    return {
        "climatology": Climatology.fit(train, MEMBERS),
        "persistence": persistence(validation, state, LEADS, MEMBERS),
        "damped_persistence": damped_persistence(train, validation, mean, state, LEADS, MEMBERS),
        LIM: lim,
    }


@cache
def scored():
    _, _, test, states = world()
    scorer = Scorer(
        ["first", "second"], regions(WORLD.grid), WORLD.grid.area, WORLD.normaliser(),
        LEADS / np.timedelta64(1, "h"), ["first", "second"],
    )  # fmt: skip
    for case, at in enumerate(range(0, len(test.times) - 60, 19)):
        init = test.times[at]
        truth = test.read(test.find(init + LEADS))
        judged = fitted() if case % 3 == 0 else {LIM: fitted()[LIM]}  # it is held closest
        drawn = {name: f.forecast(init, LEADS) for name, f in judged.items()}
        drawn["exact"] = WORLD.exact(states[at], init, LEADS, MEMBERS, at)
        for name, x in drawn.items():
            assert x.shape == (MEMBERS, len(LEADS), *WORLD.shape)
            assert x.dtype == np.float32
            for lead in range(len(LEADS)):
                scorer.add(name, init, lead, x[:, lead], truth[lead])
    return scorer


def scores(name, metric, beside="exact"):
    """Per lead, on the initial times that `beside` has too."""
    scorer = scored()
    out = []
    for lead in range(len(LEADS)):
        times = scorer.common((name, beside), lead)
        values = scorer.values(name, lead, times, np.ones((1, len(times))))
        out.append(values[metric][0, -1, 0])
    return np.array(out)


def test_the_linear_inverse_model_is_exact_where_the_world_is_linear():
    model, exact = scores(LIM, "fair_crps"), scores("exact", "fair_crps")
    np.testing.assert_allclose(model, exact, rtol=0.02)


def test_the_linear_inverse_model_is_calibrated():
    ratio = scores(LIM, "spread_skill")
    assert ((ratio > 0.95) & (ratio < 1.05)).all(), ratio


def test_the_linear_inverse_model_relaxes_to_climatology():
    test = world()[2]
    last = LEADS[-1:]
    weight = WORLD.grid.area / WORLD.normaliser()[:, None, None] / 2
    both = [replace(fitted()[name], members=80) for name in (LIM, "climatology")]
    totals = np.zeros(2)
    for at in range(0, len(test.times) - 60, 23):
        init = test.times[at]
        (truth,) = test.read(test.find(init + last))
        drawn = (f.forecast(init, last)[:, 0] for f in both)
        totals += [(fair_crps(x, truth) * weight).sum() for x in drawn]
    assert totals[0] <= 1.01 * totals[1]


def test_its_changes_and_joint_scores_are_exact_too():
    for metric in ("energy_score", "block_crps"):
        model, exact = scores(LIM, metric), scores("exact", metric)
        np.testing.assert_allclose(model, exact, rtol=0.025)


def test_every_baseline_is_calibrated():
    for name in fitted():
        ratio = scores(name, "spread_skill")
        assert ((ratio > 0.9) & (ratio < 1.1)).all(), (name, ratio)


def test_persistence_is_good_at_first_and_damping_mends_its_end():
    full, damped, climatology = (
        scores(name, "fair_crps") for name in ("persistence", "damped_persistence", "climatology")
    )
    assert full[0] < 0.6 * climatology[0]
    assert full[-1] > 1.25 * climatology[-1]
    assert (damped < 1.02 * np.minimum(full, climatology)).all()


def test_a_forecast_is_a_function_of_its_labels():
    init = world()[2].times[100]
    for name, baseline in fitted().items():
        again = baseline.forecast(init, LEADS)
        np.testing.assert_array_equal(again, baseline.forecast(init, LEADS), err_msg=name)
        assert not np.array_equal(again[0], again[1])
        assert not np.array_equal(again[0] - again[1], (f := baseline.forecast(
            init + DAY, LEADS))[0] - f[1])  # fmt: skip


def test_climatology_is_of_the_season_and_hour_of_all_years():
    train = world()[0]
    climatology = fitted()["climatology"]
    init = np.datetime64("2012-01-03T06", "ns")  # its window wraps round the year
    chosen = train.times[climatology.candidates(init, LEADS[:1])]
    assert (time_of_day(chosen) == np.timedelta64(6, "h")).all()
    assert season_distance(chosen, init).max() <= 15.5
    years = chosen.astype("datetime64[Y]").astype(int) + 1970
    counts = np.bincount(years - 2001)
    assert np.isin(counts[1:-1], [31, 32]).all()  # 32 where a 29 February is among them


def test_a_member_of_climatology_is_one_stretch_of_the_past():
    train = world()[0]
    init = world()[2].times[51]
    members = fitted()["climatology"].forecast(init, LEADS)
    starts = fitted()["climatology"].candidates(init, LEADS)
    every = train.read(starts + 1)
    for member in members[:3]:
        (at,) = np.flatnonzero((every == member[0]).all(axis=(1, 2, 3)))
        np.testing.assert_array_equal(member[2], train.read(starts[at : at + 1] + 12)[0])


def test_a_short_training_period_borrows_anomalies_from_the_season():
    train, _ = WORLD.series("2001-01-01", 2 * 365, 1)
    climatology = Climatology.fit(train, 60)
    assert climatology.mean is not None
    winter, summer = (
        climatology.forecast(np.datetime64(t, "ns"), LEADS).mean(axis=0)
        for t in ("2012-01-10", "2012-07-10")
    )
    contrast = (winter - summer).mean(axis=(0, 2, 3)) / WORLD.scale
    np.testing.assert_allclose(contrast, 4.0, atol=0.6)


def test_too_little_training_for_a_climatology_says_what_is_missing():
    train, _ = WORLD.series("2001-01-01", 365, 1)
    few = Series(train.times[:80], train.read)
    with pytest.raises(UserError, match="needs 30 training fields within ±45 days"):
        Climatology.fit(few, 10).forecast(np.datetime64("2012-01-10", "ns"), LEADS)
    with pytest.raises(UserError, match="no training data at the time of day"):
        HarmonicMean.fit(few).at(np.array(["2012-01-10T03"], "datetime64[ns]"))


def test_harmonics_find_the_year_for_each_hour():
    times = np.datetime64("2001-01-01", "ns") + np.arange(4 * 365 * 3) * STEP
    day = (times - times.astype("datetime64[Y]")) / DAY
    hour = time_of_day(times) / np.timedelta64(1, "h")
    signal = 280 + hour * np.cos(2 * np.pi * day / 365.2425) + np.sin(4 * np.pi * day / 365.2425)
    values = signal.astype(np.float32).reshape(-1, 1, 1, 1)
    mean = HarmonicMean.fit(Series(times, lambda index: values[index]))
    np.testing.assert_allclose(mean.at(times[::7]), values[::7], atol=2e-3)


def test_damping_is_the_lagged_correlation():
    rng = np.random.default_rng(0)
    x = np.zeros(40_000, np.float32)
    for i in range(1, len(x)):
        x[i] = 0.8 * x[i - 1] + 0.6 * rng.standard_normal()
    times = np.datetime64("2001-01-01", "ns") + np.arange(len(x)) * STEP
    series = Series(times, lambda index: x[index].reshape(-1, 1, 1))
    mean = HarmonicMean.fit(series)
    damped = DampedAnomaly.fit(series, mean, lambda t: x[:1], LEADS[:2], pairs=20_000)
    np.testing.assert_allclose(damped.damping.ravel(), [0.8, 0.8**4], atol=0.03)


def test_dressing_adds_whole_error_fields_of_one_start():
    _, validation, *_ = world()

    def mean(init_time, leads):
        return np.zeros((len(leads), *WORLD.shape), np.float32)

    dressed = DressedForecast.fit("dressed_regression", mean, validation, LEADS, 8)
    members = dressed.forecast(np.datetime64("2012-07-01", "ns"), LEADS[[3, 0]])
    for member in members:
        (at,) = np.flatnonzero((dressed.errors[:, 3] == member[0]).all(axis=(1, 2, 3)))
        np.testing.assert_array_equal(dressed.errors[at, 0], member[1])
        assert season_distance(dressed.starts[at : at + 1], np.datetime64("2012-07-01"))[0] < 140
    with pytest.raises(UserError, match="members needs as many past fields"):
        DressedForecast.fit("d", mean, validation, LEADS, 500).forecast(
            np.datetime64("2012-07-01", "ns"), LEADS
        )
    with pytest.raises(UserError, match="No stretch of the validation split"):
        DressedForecast.fit("d", mean, Series(validation.times[:9], validation.read), LEADS, 4)


def test_anomalies_of_a_dressed_forecast_are_damped_as_far_as_truth_follows_them():
    """Truth follows twice what is forecast less noise; with the right slope errors are noise."""
    rng, days = np.random.default_rng(0), np.arange(2000)
    times = np.datetime64("2001-01-01", "ns") + days * np.timedelta64(1, "D")
    season = 10 * np.sin(2 * np.pi * days / 365.2425)[:, None, None, None]
    known, noise = rng.standard_normal((2, len(days), 2, 3, 4))
    share = np.array([0.5, 0.0])[:, None, None]
    x = (season + share * known + 0.1 * noise).astype(np.float32)
    x[:, :, 0, 0] = known[:, :, 0, 0] = np.nan  # land, of which no one says anything
    series = Series(times, lambda index: x[index])
    usual = HarmonicMean.fit(series)

    def mean(init_time, leads):
        return (season + known)[series.find(later(init_time, leads))].astype(np.float32)

    area = np.array([1.0, 2.0, 3.0])[:, None]
    leads = LEADS[LEADS % np.timedelta64(1, "D") == 0][:2]
    dressed = DressedForecast.fit("d", mean, series, leads, 40, starts=600, usual=usual, area=area)
    np.testing.assert_allclose(dressed.slope, [[0.5, 0.0]] * len(leads), atol=0.03)
    assert np.nanstd(dressed.errors) == pytest.approx(0.1, rel=0.1)
    members = dressed.forecast(times[700], leads)
    came = x[series.find(later(times[700], leads))]
    assert np.nanmax(np.abs(members.mean(0) - came)) < 0.45 and np.isnan(members[..., 0, 0]).all()


def test_modes_are_orthonormal_and_lose_only_what_they_leave_out():
    train, _, *_ = world()
    modes = Modes.fit(train, HarmonicMean.fit(train), WORLD.grid.area, WORLD.normaliser(), 400)
    assert len(modes.patterns) == 12  # the world has no more
    np.testing.assert_allclose(modes.patterns @ modes.patterns.T, np.eye(12), atol=1e-3)
    index = np.arange(0, 40, 7)
    times, values = train.times[index], train.read(index)
    anomalies = modes.anomalies(times, values)
    np.testing.assert_allclose(modes.fields(times, anomalies), values, atol=1e-3)
    assert np.abs(modes.left_out(anomalies)).max() < 5e-2
    assert modes.amplitudes(modes.anomalies(train.times, train.read(np.arange(len(train.times))))
                            ).var() == pytest.approx(1.0, abs=0.1)  # fmt: skip


def test_masked_cells_stay_nan_and_disturb_nothing():
    train, validation, test, _ = world()
    hole = np.zeros(WORLD.shape, bool)
    hole[1, 2, 3] = True

    def masked(series):
        return Series(
            series.times, lambda index: np.where(hole, np.float32(np.nan), series.read(index))
        )

    def blank(time):
        return np.where(hole, np.float32(np.nan), state(time))

    mean = HarmonicMean.fit(masked(train))
    lim = LinearInverseModel.fit(
        masked(train), masked(validation), mean, blank, WORLD.grid.area, WORLD.normaliser(),
        LEADS[:2], 4,
    )  # fmt: skip
    members = lim.forecast(test.times[8], LEADS[:2])
    assert np.isnan(members[:, :, hole]).all()
    assert np.isfinite(members[:, :, ~hole]).all()


def test_nothing_of_the_test_period_is_read_but_the_initial_state():
    train, validation, test, _ = world()
    noise = np.random.default_rng(0).standard_normal(WORLD.shape).astype(np.float32)
    asked = []

    def watched(time):
        asked.append(time)
        return state(time) if time < test.times[0] else noise

    mean = HarmonicMean.fit(train)
    lim = LinearInverseModel.fit(
        train, validation, mean, watched, WORLD.grid.area, WORLD.normaliser(), LEADS, MEMBERS
    )
    persistence(validation, watched, LEADS, MEMBERS)
    assert max(asked) <= validation.times[-1]
    np.testing.assert_array_equal(lim.operators, fitted()[LIM].operators)
    lim.forecast(test.times[8], LEADS)
    assert asked[-1] == test.times[8]


def test_without_skill_the_operator_is_zero():
    rng = np.random.default_rng(0)
    times = np.datetime64("2001-01-01", "ns") + np.arange(1200) * DAY
    values = rng.standard_normal((1200, *WORLD.shape)).astype(np.float32)
    series = Series(times[:960], lambda index: values[index])
    later = Series(times[960:], lambda index: values[960:][index])
    lim = LinearInverseModel.fit(
        series, later, HarmonicMean.fit(series), lambda t: values[1199], WORLD.grid.area,
        np.ones(2), np.array([DAY.astype("timedelta64[ns]")]), 10,
    )  # fmt: skip
    assert np.abs(lim.operators).max() < 0.1
    members = lim.forecast(times[-1], lim.leads)
    truth = rng.standard_normal((300, *WORLD.shape))
    several = np.stack([fair_crps(members[:, 0].astype(float), y) for y in truth])
    assert several.mean() == pytest.approx(1 / np.sqrt(np.pi), rel=0.05)


def test_starts_are_spread_over_the_series_and_the_hours():
    train = world()[0]
    index = spread_out(train, np.arange(len(train.times)), 128)
    hours, counts = np.unique(time_of_day(train.times[index]), return_counts=True)
    assert len(hours) == 4
    assert (counts == 32).all()
    assert np.diff(index).max() < 2 * len(train.times) / 100


def test_leads_that_the_series_lacks_are_not_starts():
    times = np.concatenate([
        np.datetime64("2001-01-01", "ns") + np.arange(10) * DAY,
        np.datetime64("2011-01-01", "ns") + np.arange(10) * DAY,
    ])  # fmt: skip
    series = Series(times, lambda index: np.zeros((len(index), 1, 1), np.float32))
    leads = np.array([1, 5]) * DAY.astype("timedelta64[ns]")
    np.testing.assert_array_equal(series.starts(leads), [0, 1, 2, 3, 4, 10, 11, 12, 13, 14])


def test_metrics_of_a_single_member_are_the_deterministic_ones():
    mean = {"median_error": np.ones((1, 2, 1)), "square": np.ones((1, 2, 1)),
            "error": np.zeros((1, 2, 1))}  # fmt: skip
    assert set(metrics(mean, 1, [0])) == {"mae", "rmse", "bias"}
