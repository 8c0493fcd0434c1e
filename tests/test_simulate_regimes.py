"""The world of two regimes against brute force: dense matrices, weighed and counted draws."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from sciladm.simulate import WORLDS, TwoRegimes
from sciladm.simulate.plan import Days, Records

DAY = np.timedelta64(1, "D")
SMALL = {
    "plane": TwoRegimes(shape=(4, 6), rough=0.6, smooth=1.2, knee=1.5, tracers=2),
    "box": TwoRegimes("box", (3, 3, 4), rough=0.4, smooth=1.2, knee=1.0),
    "sphere": TwoRegimes("sphere", (6, 9), rough=0.5, smooth=1.2, knee=2.0),
}
"""So alike that no state tells its regime for sure."""
EACH = pytest.mark.parametrize("world", SMALL.values(), ids=SMALL)
PLAN = Records((Days(0, "2201-01-01", 30, "train"), Days(1, "2205-01-01", 30, "validation"),
                Days(2, "2209-06-01", 400, "test")))  # fmt: skip


def flat(world, x):
    return x.reshape(*x.shape[: x.ndim - 1 - len(world.shape)], -1)


def draws(law, count, seed=0):
    return law.sample(np.random.default_rng(seed), count)


def logpdf(x, mean, C):
    return np.asarray(multivariate_normal(mean, C, allow_singular=False).logpdf(x))


def root(C):
    values, vectors = np.linalg.eigh(C)
    return (vectors * np.sqrt(values)) @ vectors.T


def dense(world, regime):
    return world.law(regime).covariance.dense()


@EACH
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_climate_is_an_equal_mixture(world, sigma):
    law = world.climate
    x = draws(law, 5) + sigma * np.random.default_rng(1).standard_normal((5, *law.mean.shape))
    noise = sigma**2 * np.eye(law.mean.size)
    S = [dense(world, r) + noise for r in (0, 1)]
    a = flat(world, x) - world.average
    each = np.stack([logpdf(a, np.zeros(a.shape[1]), s) for s in S], axis=1) + np.log(0.5)
    np.testing.assert_allclose(law.log_likelihood(x, sigma), logsumexp(each, axis=1), rtol=1e-9)
    share = np.exp(each - logsumexp(each, axis=1, keepdims=True))
    np.testing.assert_allclose(np.exp(law.responsibilities(x, sigma)), share, rtol=1e-6)
    score = sum(share[:, r, None] * -np.linalg.solve(S[r], a.T).T for r in (0, 1))
    np.testing.assert_allclose(flat(world, law.score(x, sigma)), score, rtol=1e-6, atol=1e-8)
    tweedie = x + sigma**2 * law.score(x, sigma)
    np.testing.assert_allclose(law.denoise(x, sigma), tweedie, atol=1e-9)
    assert 0.01 < share.min() < share.max() < 0.999 or world.geometry == "sphere"
    rough = world.law(0)
    assert np.abs(law.denoise(x, sigma) - rough.denoise(x, sigma)).max() > 1e-3


def test_score_is_the_slope_of_the_likelihood():
    world = SMALL["plane"]
    law = world.predictive(draws(world.climate, 1)[0], 1)
    x, step = draws(law, 1)[0], 1e-5
    bumps = step * np.eye(x.size).reshape(-1, *x.shape)
    slope = (law.log_likelihood(x + bumps, 0.3) - law.log_likelihood(x - bumps, 0.3)) / (2 * step)
    np.testing.assert_allclose(law.score(x, 0.3).ravel(), slope, atol=1e-6)


@pytest.mark.parametrize("days", [1, 3])
def test_predictive_is_the_conditional_of_all_paths(days):
    """Joint law of both days for each pair of regimes, written down densely: its density over
    that of the first day."""
    world = SMALL["plane"]
    x = draws(world.climate, 3)
    law = world.predictive(x, days)
    y = draws(law, 1, 2)[0]
    both = np.concatenate([flat(world, x), flat(world, y)], axis=1) - world.average
    n = both.shape[1] // 2
    eye = world.average + np.eye(n).reshape(n, *x.shape[1:])
    stays = [1.0, 0.0]
    for _ in range(days):
        stays = [world.stay * s + (1 - world.stay) * (1 - s) for s in stays]
    joint, now = [], []
    kept = flat(world, world.law_after(eye, days, 0, 0).mean - world.average).T
    for r in (0, 1):
        now.append(np.log(0.5) + logpdf(both[:, :n], np.zeros(n), dense(world, r)))
        for then in (0, 1):
            M = root(dense(world, then)) @ np.linalg.solve(root(dense(world, r)), kept)
            crossed = M @ dense(world, r)
            C = np.block([[dense(world, r), crossed.T], [crossed, dense(world, then)]])
            chance = stays[0] if r == then else 1 - stays[0]
            joint.append(np.log(0.5 * chance) + logpdf(both, np.zeros(2 * n), C))
    expected = logsumexp(joint, axis=0) - logsumexp(now, axis=0)
    np.testing.assert_allclose(law.log_likelihood(y), expected, rtol=1e-8)
    np.testing.assert_allclose(law.weights.sum(axis=-1), 1)
    assert law.weights.max() < 0.9
    other = replace(world, stay=0.5).predictive(x, days).log_likelihood(y)
    assert np.abs(other - expected).max() > 1e-3


@EACH
def test_the_climate_is_stationary(world):
    """Averaged over states, what follows them has their own law."""
    states = draws(world.climate, 4000)
    parts = np.split(states, 8)
    after = np.concatenate([draws(world.predictive(p, 2), 1, i)[0] for i, p in enumerate(parts)])
    calm = draws(world.law(1), 4000)
    shares, powers = [], []
    for fields in (states, after, calm):
        waves = np.abs(world.law(0).covariance.coefficients(fields - world.average)) ** 2
        powers.append(waves.mean(0).ravel())
        shares.append(np.exp(world.climate.responsibilities(fields, 0.1)[:, 0]))
    np.testing.assert_allclose(powers[1], powers[0], rtol=0.25, atol=1e-9)
    assert np.abs(powers[2] / (powers[0] + 1e-9) - 1).max() > 0.25
    assert shares[1].mean() == pytest.approx(shares[0].mean(), abs=0.02)
    assert shares[1].var() == pytest.approx(shares[0].var(), rel=0.1)
    assert shares[2].mean() < shares[0].mean() - 0.05


def test_whole_fields_tell_their_regime():
    world = TwoRegimes()
    for regime in (0, 1):
        x = draws(world.law(regime), 4).astype(np.float32)
        assert (world.climate.responsibilities(x)[:, regime] > -1e-9).all()
        weights = world.predictive(x, 1).weights
        np.testing.assert_allclose(weights[:, 2 * regime + regime], world.stay)
        np.testing.assert_allclose(world.predictive(x, 100).weights[:, 2 * regime], 0.5)
    still = replace(world, stay=1.0).predictive(x, 1)
    np.testing.assert_allclose(still.mean, still.components[3].mean)


@EACH
def test_given_observations(world):
    """By sums over a dense prior of each component, and by weighing many draws."""
    law = world.predictive(draws(world.climate, 1)[0], 1)
    A = np.random.default_rng(0).standard_normal((3, law.mean.size)) / 4
    y = A @ draws(law, 1, 1)[0].ravel() + 0.1
    told = law.condition(A, y, 0.5)
    members = draws(law, 60_000, 5)
    log = -0.5 * ((y - members.reshape(60_000, -1) @ A.T) ** 2).sum(1) / 0.25
    weight = np.exp(log - logsumexp(log))
    mean = np.tensordot(weight, members, axes=1)
    variance = np.tensordot(weight, (members - mean) ** 2, axes=1)
    few = 5 * np.sqrt((weight**2).sum())
    np.testing.assert_allclose(told.mean, mean, atol=few)
    np.testing.assert_allclose(told.variance, variance, atol=2 * few)
    drawn = draws(told, 20_000)
    np.testing.assert_allclose(drawn.mean(0), told.mean, atol=0.04)
    np.testing.assert_allclose(drawn.var(0), told.variance, atol=0.06)
    assert np.abs(law.mean - told.mean).max() > 3 * few
    each = [np.log(w) + logpdf(y, A @ one.mean.ravel(), A @ one.covariance.dense() @ A.T
                               + 0.25 * np.eye(3))
            for w, one in zip(law.weights, law.components, strict=True)]  # fmt: skip
    np.testing.assert_allclose(told.weights, np.exp(each - logsumexp(each)), rtol=1e-9)


def test_mean_and_variance_are_those_of_its_draws():
    law = SMALL["plane"].predictive(draws(SMALL["plane"].climate, 1)[0], 1)
    members = draws(law, 40_000)
    np.testing.assert_allclose(members.mean(0), law.mean, atol=0.03)
    np.testing.assert_allclose(members.var(0), law.variance, atol=0.06)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "record.zarr"
    TwoRegimes.tiny().run(path, PLAN)
    return path


def test_the_record_has_both_regimes_in_spells(record):
    world = TwoRegimes.tiny()
    assert WORLDS["two_regimes"] is TwoRegimes
    tracer = xr.open_zarr(record)["tracer"].values[:, None]
    rough = world.climate.responsibilities(tracer)[:, 0] > np.log(0.5)
    assert 0.4 < rough.mean() < 0.6
    assert (rough[61:] == rough[60:-1]).mean() == pytest.approx(world.stay, abs=0.06)


def test_truth_is_one_of_the_exact_members(record):
    world, leads = TwoRegimes.tiny(), [DAY, 2 * DAY]
    inits = PLAN.times[60:-2:2]
    drawn = np.stack([x for _, x in world.perfect(record, inits, 8, leads, 3)])
    tracer = xr.open_zarr(record)["tracer"].values
    states = tracer[60:-2:2, None]
    for lead, days in enumerate((1, 2)):
        truth, members = tracer[60 + days :: 2][: len(inits)], drawn[:, :, lead, 0]
        error = np.mean((members.mean(1) - truth) ** 2)
        ratio = np.sqrt(9 / 8 * members.var(1, ddof=1).mean() / error)
        assert ratio == pytest.approx(1, abs=0.04)
        law = world.predictive(states, days)
        own = law.log_likelihood(truth[:, None])
        other = law.log_likelihood(drawn[:, 0, lead])
        assert own.mean() == pytest.approx(other.mean(), abs=4 * own.std() / len(own) ** 0.5)
        smooth = [(world.climate.responsibilities(m[:, None])[:, 0] < np.log(0.5)).mean()
                  for m in (truth, members[:, 0])]  # fmt: skip
        assert smooth[0] == pytest.approx(smooth[1], abs=0.1)
