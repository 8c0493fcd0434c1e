"""Bad ensembles fail the calibration bars, exact ones pass: else the bars would mean nothing."""

from functools import cache

import numpy as np
import pytest
from fields_oracle import STEP, LinearWorld, sphere

from sciladm.metrics import tables
from sciladm.metrics.regions import regions
from sciladm.metrics.scorer import Scorer
from sciladm.metrics.spectrum import spectrum_for

WORLD = LinearWorld(sphere(12), patterns=60, damping_days=2.0)
LEADS = (np.array([4, 12]) * STEP).astype("timedelta64[ns]")
MEMBERS, CASES = 16, 120


def shuffled(members, rng):
    """Every cell keeps its own members, in an order of its own."""
    return rng.permuted(members, axis=0)


def smoothed(members, rng):
    near = [np.roll(members, k, axis=-1) for k in (-2, -1, 0, 1, 2)]
    return np.mean(near, axis=0)


def mean_plus_noise(members, rng):
    mean, spread = members.mean(axis=0), members.std(axis=0, ddof=1)
    return mean + spread * rng.standard_normal(members.shape)


def too_wide(members, rng):
    mean = members.mean(axis=0)
    return mean + 1.3 * (members - mean)


def exact(members, rng):
    return members


ENSEMBLES = {f.__name__: f for f in (exact, shuffled, smoothed, mean_plus_noise, too_wide)}


@cache
def scored():
    series, states = WORLD.series("2201-01-01", 380, 1)
    hours = LEADS / np.timedelta64(1, "h")
    scorer = Scorer(
        ["first", "second"], regions(WORLD.grid), WORLD.grid.area, WORLD.normaliser(), hours,
        ["first", "second"], spectrum=spectrum_for(WORLD.grid),
    )  # fmt: skip
    rng = np.random.default_rng(5)
    for i in range(CASES):
        at = 12 * i
        init = series.times[at]
        truth = series.read(series.find(init + LEADS))
        drawn = {name: WORLD.exact(states[at], init, LEADS, MEMBERS, 10 * i) for name in ENSEMBLES}
        drawn = {name: ENSEMBLES[name](x, rng) for name, x in drawn.items()}
        drawn["perfect"] = WORLD.exact(states[at], init, LEADS, MEMBERS, 10 * i + 1)
        anywhere = WORLD.states(2 * MEMBERS, 100 + i)[::2]
        drawn["climatology_at_random"] = np.repeat(
            WORLD.fields(anywhere, np.repeat(init, MEMBERS))[:, None], len(LEADS), axis=1
        )
        for name, x in drawn.items():
            for lead in range(len(LEADS)):
                scorer.add(name, init, lead, x[:, lead].astype(np.float32), truth[lead])
    return scorer, tables.score_table(scorer, 300, seasons=False)


def value(name, metric, lead, variable="all"):
    _, table = scored()
    rows = table[
        (table.forecast == name) & (table.metric == metric) & (table.variable == variable)
        & (table.region == "global") & (table.lead_hours == lead)
    ]  # fmt: skip
    return float(rows.value.iloc[0])


def failures(name):
    """The calibration bars that an ensemble misses; compared with `perfect` on the same cases."""
    scorer, _ = scored()
    missed = set()
    for lead in (24.0, 72.0):
        if not 0.95 < value(name, "spread_skill", lead) < 1.05:
            missed.add("spread_skill")
        if value(name, "largest_member", lead) > 1.1 * value("perfect", "largest_member", lead):
            missed.add("largest_member")
    for metric in ("fair_crps", "energy_score", "variogram_score", "block_crps"):
        pairs = tables.paired_table(scorer, name, "perfect", [metric], 300)
        if "worse" in set(pairs.verdict[(pairs.variable == "all") & (pairs.region == "global")]):
            missed.add(metric)
    spectra = tables.spectrum_table(scorer, 300)
    own = spectra[(spectra.forecast == name) & ~spectra.aliased]
    if ((own.low > 1.1) | (own.high < 0.9)).any():
        missed.add("spectrum")
    ranks = tables.rank_table(scorer)
    ranks = ranks[(ranks.region == "global") & ranks.forecast.isin([name, "perfect"])]
    uneven = ((ranks.frequency - 1) ** 2).groupby(ranks.forecast).mean()
    if uneven[name] > 4 * uneven["perfect"]:
        missed.add("ranks")
    return missed


@pytest.mark.parametrize("name", ["exact", "perfect"])
def test_samples_of_the_truths_own_distribution_pass(name):
    assert failures(name) == set()


@pytest.mark.parametrize(
    ("name", "telling"),
    [
        ("shuffled", {"variogram_score", "block_crps", "spectrum"}),
        ("smoothed", {"spectrum"}),
        ("mean_plus_noise", {"spectrum", "energy_score", "block_crps"}),
        ("climatology_at_random", {"fair_crps", "energy_score"}),
        ("too_wide", {"spread_skill", "ranks"}),
    ],
)
def test_bad_ensembles_fail(name, telling):
    assert telling <= failures(name)


def test_scores_cell_by_cell_do_not_see_shuffled_members():
    """Which is why there are scores of many cells together."""
    cellwise = {"fair_crps", "spread_skill", "ranks"}
    assert not cellwise & failures("shuffled")
