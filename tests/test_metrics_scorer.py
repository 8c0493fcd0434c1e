"""Tables against direct computation; masks, weights, single members, pairs and shares."""

import numpy as np
import pandas as pd
import pytest
from fields_oracle import sphere

from sciladm.conventions import UserError
from sciladm.metrics import tables
from sciladm.metrics.derived import find_winds, spread_classes, verdict
from sciladm.metrics.ensemble import energy_score, fair_crps, gram
from sciladm.metrics.regions import regions
from sciladm.metrics.scorer import Scorer
from sciladm.metrics.spectrum import spectrum_for

GRID = sphere(12)
CHANNELS = ["u_component_of_wind_500", "v_component_of_wind_500", "2m_temperature"]
NORMALISER = np.array([2.0, 3.0, 10.0])
INIT = np.datetime64("2201-01-05T06", "ns")
DAY = np.timedelta64(1, "D")
LAND = np.random.default_rng(9).random(GRID.shape)


def scorer(leads=(24.0, 48.0), headline=("u_component_of_wind_500", "2m_temperature"), **more):
    named = regions(GRID, LAND)
    return Scorer(CHANNELS, named, GRID.area, NORMALISER, leads, headline, **more)


def case(seed, m=6):
    rng = np.random.default_rng(seed)
    shape = (3, *GRID.shape)
    scale = NORMALISER[:, None, None]
    x, y = rng.standard_normal((m, *shape)) * scale, rng.standard_normal(shape) * scale
    return (x + 100).astype(np.float32), (y + 100).astype(np.float32)


def filled(cases=5, m=6, names=("model",), **more):
    s = scorer(**more)
    for i in range(cases):
        for k, name in enumerate(names):
            for lead in range(len(s.leads)):
                x, _ = case(1000 * k + 10 * i + lead, m)
                s.add(name, INIT + i * DAY, lead, x, case(10 * i + lead)[1])
    return s


def one(table, variable="2m_temperature", region="global", metric="fair_crps", lead=24.0, **k):
    rows = table[
        (table.variable == variable)
        & (table.region == region)
        & (table.metric == metric)
        & (table.lead_hours == lead)
        & (table.season == k.get("season", "all"))
        & (table.forecast == k.get("forecast", "model"))
    ]
    assert len(rows) == 1, rows
    return float(rows.value.iloc[0])


def weighted(field, region="global", keep=None):
    w = GRID.area * regions(GRID, LAND)[region]
    w = w if keep is None else w * keep
    return float((field * w).sum() / w.sum())


@pytest.mark.parametrize("region", ["global", "tropics", "sea"])
def test_scores_are_means_over_area_and_cases_and_roots_come_last(region):
    table = tables.score_table(filled())
    x, y = (np.stack(a).astype(float) for a in zip(*(case(10 * i) for i in range(5)), strict=True))
    x, y = x[:, :, 2], y[:, 2]
    mean, var = x.mean(axis=1), x.var(axis=1, ddof=1)

    def over(fields):
        return np.mean([weighted(f, region) for f in fields])

    square, spread = over((mean - y) ** 2), over(var)
    expected = {
        "fair_crps": over(fair_crps(x.swapaxes(0, 1), y)),
        "rmse": np.sqrt(square),
        "bias": over(mean - y),
        "mae": over(np.abs(np.median(x, axis=1) - y)),
        "spread": np.sqrt(spread),
        "spread_skill": np.sqrt(7 / 6 * spread / square),
        "outliers": over((y < x.min(axis=1)) | (y > x.max(axis=1))) * 7 / 2,
    }
    for metric, value in expected.items():
        assert one(table, region=region, metric=metric) == pytest.approx(value, rel=2e-4, abs=2e-4)
    assert list(table.columns) == list(tables.SCORES)
    assert (table.n_init[table.season == "all"] == 5).all()
    assert (table.n_members == 6).all()


def test_all_is_the_mean_of_ratios_over_the_headline_and_pools_spread_and_skill():
    s = filled()
    table = tables.score_table(s)
    for metric in ("fair_crps", "crps", "rmse"):
        ratios = [
            one(table, name, metric=metric) / NORMALISER[CHANNELS.index(name)]
            for name in ("u_component_of_wind_500", "2m_temperature")
        ]
        assert one(table, "all", metric=metric) == pytest.approx(np.mean(ratios))
    up, down = (
        sum(
            (one(table, name, metric=metric) / NORMALISER[CHANNELS.index(name)]) ** 2
            for name in ("u_component_of_wind_500", "2m_temperature")
        )
        for metric in ("spread", "rmse")
    )
    expected = np.sqrt(7 / 6 * up / down)
    assert one(table, "all", metric="spread_skill") == pytest.approx(expected)
    alone = table[table.variable == "all"].metric.unique()
    assert not {"bias", "mae", "spread"} & set(alone)


def test_energy_score_takes_all_headline_channels_together():
    s = filled(cases=1)
    x, y = case(0)
    scale = NORMALISER[[0, 2], None]
    flat = x.reshape(6, 3, -1)[:, [0, 2]] / scale, y.reshape(3, -1)[[0, 2]] / scale
    w = np.repeat(GRID.area.ravel()[None] / 2, 2, axis=0)
    expected = energy_score(gram(*flat, w).sum(axis=0))
    table = tables.score_table(s)
    assert one(table, "all", metric="energy_score") == pytest.approx(float(expected), rel=1e-4)


def test_wind_speed_is_a_further_variable():
    s = filled(cases=1, winds=find_winds(CHANNELS))
    x, y = case(0)
    speed = fair_crps(np.hypot(x[:, 0], x[:, 1]), np.hypot(y[0], y[1]))
    table = tables.score_table(s)
    assert one(table, "wind_speed_500") == pytest.approx(weighted(speed), rel=1e-3)
    assert find_winds(["10m_u_component_of_wind", "10m_v_component_of_wind", "t"]) == {
        "10m_wind_speed": ("10m_u_component_of_wind", "10m_v_component_of_wind")
    }


def test_change_over_a_day_pairs_the_same_members():
    s = filled(cases=1)
    (x0, y0), (x1, y1) = case(0), case(1)
    change = fair_crps(x1[:, 2] - x0[:, 2], y1[2] - y0[2])
    table = tables.score_table(s)
    assert one(table, metric="change_crps", lead=48.0) == pytest.approx(weighted(change), rel=1e-3)
    assert not ((table.metric == "change_crps") & (table.lead_hours == 24.0)).any()


def test_what_lies_under_the_mask_changes_no_bit_and_weights_are_renormalised():
    s, planted = scorer(spectrum=spectrum_for(GRID)), scorer(spectrum=spectrum_for(GRID))
    x, y = case(0)
    keep = np.ones(y.shape, bool)
    keep[2] = LAND > 0.3
    hole = np.where(keep, y, np.nan)
    s.add("model", INIT, 0, np.where(keep, x, np.nan), hole)
    planted.add("model", INIT, 0, np.where(keep, x, 1e30).astype("f4"), y, valid=keep)
    a, b = tables.score_table(s), tables.score_table(planted)
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    expected = weighted(fair_crps(x[:, 2], y[2]), keep=keep[2])
    assert one(a) == pytest.approx(expected, rel=1e-4)
    assert "2m_temperature" not in set(tables.spectrum_table(s).variable)  # it has gaps


def test_a_forecast_with_nan_where_the_truth_is_valid_is_refused():
    x, y = case(0)
    x[3, 2, 1, 1] = np.nan
    with pytest.raises(UserError, match=r"'model'.*lead 24 h: 2m_temperature has NaN"):
        scorer().add("model", INIT, 0, x, y)


def test_ensembles_of_two_sizes_under_one_name_are_refused():
    s = filled(cases=1)
    with pytest.raises(UserError, match="5 members here and 6 before"):
        s.add("model", INIT + DAY, 0, *case(0, 5))


def test_a_single_member_gets_what_it_defines_and_nothing_else():
    table = tables.score_table(filled(m=1))
    assert set(table.metric) == {"mae", "rmse", "bias"}


def test_seasons_are_those_of_the_initial_time():
    s = scorer(leads=(24.0,))
    for i, month in enumerate((1, 2, 7)):
        s.add("model", np.datetime64(f"2201-{month:02d}-10", "ns"), 0, *case(i))
    table = tables.score_table(s)
    assert set(table.season) == {"all", "djf", "jja"}
    x, y = case(2)
    expected = weighted(fair_crps(x[:, 2], y[2]))
    assert one(table, season="jja") == pytest.approx(expected, rel=1e-4)


def test_one_call_or_many_in_any_order_of_initial_times_is_the_same():
    a, b = filled(), scorer()
    for i in (3, 0, 4, 1, 2):
        for lead in (0, 1):
            b.add("model", INIT + i * DAY, lead, *case(10 * i + lead))
    pd.testing.assert_frame_equal(tables.score_table(a), tables.score_table(b))
    np.testing.assert_allclose(tables.rank_table(a).frequency, tables.rank_table(b).frequency)


def test_intervals_and_pairs_and_shares_over_a_year():
    s = scorer(leads=(24.0,))
    rng = np.random.default_rng(0)
    for i in range(60):
        truth = rng.standard_normal((3, *GRID.shape)).astype("f4")
        for name, error in (("climatology", 1.0), ("model", 0.6), ("perfect", 0.5)):
            known = np.sqrt(1 - error**2) * truth
            known = known + error * np.sqrt(1 - error**2) * rng.standard_normal(truth.shape)
            spread = error * rng.standard_normal((6, *truth.shape))
            members = (known + spread) if error < 1 else spread
            s.add(name, INIT + i * 6 * DAY, 0, members.astype("f4"), truth)
    table = tables.score_table(s, resamples=300, seasons=False)
    assert (table.low.dropna() <= table.high.dropna()).all()
    share = one(table, metric="share_of_skill")
    scores = [one(table, forecast=f) for f in ("climatology", "model", "perfect")]
    assert share == pytest.approx((scores[0] - scores[1]) / (scores[0] - scores[2]))
    assert set(table.forecast[table.metric == "share_of_skill"]) == {"model"}
    paired = tables.paired_table(s, "model", "climatology", ["fair_crps"], 300)
    assert set(paired.verdict) == {"better"}
    back = tables.paired_table(s, "climatology", "model", ["fair_crps"], 300)
    assert set(back.verdict) == {"worse"}
    np.testing.assert_allclose(back.difference, -paired.difference)
    same = tables.paired_table(s, "model", "model", ["fair_crps"], 300)
    assert (same.difference == 0).all()
    assert set(same.verdict) == {"no worse"}


def test_share_of_skill_beside_exact_members_too():
    s, rng = scorer(leads=(24.0,)), np.random.default_rng(0)
    for i in range(20):
        truth = rng.standard_normal((3, *GRID.shape)).astype("f4")
        for name, error in (("climatology", 1.0), ("model", 0.6), ("exact", 0.5)):
            members = truth + error * rng.standard_normal((6, *truth.shape))
            s.add(name, INIT + i * 6 * DAY, 0, members.astype("f4"), truth)
    table = tables.score_table(s, resamples=30, seasons=False)
    assert set(table.forecast[table.metric == "share_of_skill"]) == {"model"}
    c, f, e = (one(table, forecast=name) for name in ("climatology", "model", "exact"))
    assert one(table, metric="share_of_skill") == pytest.approx((c - f) / (c - e))


def test_share_is_blank_where_perfect_hardly_beats_climatology():
    s = filled(names=("climatology", "model", "perfect"))  # three alike
    assert "share_of_skill" not in set(tables.score_table(s).metric)


def test_few_cases_have_no_interval_and_no_verdict():
    s = filled(names=("model", "other"))
    assert tables.score_table(s).low.isna().all()
    assert set(tables.paired_table(s, "model", "other").verdict) == {"too few"}


def test_verdicts():
    assert verdict(-2.0, -1.0, 100.0) == "better"
    assert verdict(-2.0, 0.9, 100.0) == "no worse"
    assert verdict(-2.0, 1.1, 100.0) == "unclear"
    assert verdict(0.5, 1.1, 100.0) == "worse"


def test_ranks_of_exchangeable_members_are_flat_and_ties_do_not_depend_on_the_order():
    table = tables.rank_table(filled(cases=40))
    flat = table[(table.region == "global") & (table.lead_hours == 24.0)]
    np.testing.assert_allclose(flat.frequency, 1.0, atol=0.12)
    assert flat.groupby("variable").frequency.mean().to_numpy() == pytest.approx(1.0)
    constant = np.zeros((6, 3, *GRID.shape), np.float32)
    tied = [scorer(leads=(24.0,)) for _ in range(2)]
    for s in tied:
        s.add("model", INIT, 0, constant, constant[0])
    first, second = (tables.rank_table(s).frequency for s in tied)
    np.testing.assert_array_equal(first, second)
    assert first.std() < 0.5


def test_error_in_classes_of_spread_follows_the_spread_of_a_good_ensemble():
    s = scorer(leads=(24.0,))
    rng = np.random.default_rng(0)
    local = np.exp(rng.standard_normal(GRID.shape) * 0.7)
    for i in range(40):
        draws = rng.standard_normal((33, 3, *GRID.shape)) * local
        s.add("model", INIT + i * DAY, 0, draws[1:].astype("f4"), draws[0].astype("f4"))
    table = tables.score_table(s)
    assert one(table, metric="spread_slope") == pytest.approx(1.0, abs=0.1)
    classes = tables.class_table(s)
    some = classes[(classes.variable == "2m_temperature") & (classes.region == "nh")]
    assert list(some.spread_class) == [1, 2, 3, 4, 5]
    assert (np.diff(some.spread) > 0).all()
    np.testing.assert_allclose(some.error / some.spread, 1.0, atol=0.2)


def test_classes_of_spread_share_the_area_evenly_whatever_the_bins():
    bins = np.zeros((96, 3))
    bins[[10, 40, 60], 0] = 0.1, 0.75, 0.15
    bins[:, 1] = bins[:, 0] * np.linspace(1, 2, 96)
    bins[:, 2] = bins[:, 1]
    (expected, error, weight), slope = spread_classes(bins, 10**6)
    np.testing.assert_allclose(weight, 0.2)
    np.testing.assert_allclose(expected, error, rtol=1e-5)
    assert slope == pytest.approx(1.0, rel=1e-4)


def test_spectra_of_members_and_truth_side_by_side():
    table = tables.spectrum_table(filled(cases=3, spectrum=spectrum_for(GRID)))
    assert set(table.columns) >= {
        "forecast", "variable", "lead_hours", "wavenumber", "aliased", "power", "power_truth",
        "ratio", "low", "high", "n_init", "n_members",
    }  # fmt: skip
    assert table.wavenumber.max() == 11
    assert set(table.wavenumber[table.aliased]) == set(range(7, 12))
    total = table[(table.variable == "2m_temperature") & (table.lead_hours == 24.0)]
    assert 30 < total.power_truth.sum() < 300  # white: most of 100 is within reach


def test_an_unknown_headline_is_an_error_that_lists_the_channels():
    with pytest.raises(UserError, match=r"got .'geopotential_500'.*2m_temperature"):
        scorer(headline=("geopotential_500",))
