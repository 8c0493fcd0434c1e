"""The Gaussian world against brute force: dense matrices, sums over waves, many draws."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.special import eval_legendre
from scipy.stats import chi2, multivariate_normal

from sciladm.conventions import UserError
from sciladm.simulate import WORLDS, GaussianWorld
from sciladm.simulate.plan import Days, Records

DAY = np.timedelta64(1, "D")
SMALL = {
    "plane": GaussianWorld(shape=(4, 6), tracers=2),
    "box": GaussianWorld("box", (3, 4, 4)),
    "sphere": GaussianWorld("sphere", (6, 9), tracers=2, drift=0.7),
}
EACH = pytest.mark.parametrize("world", SMALL.values(), ids=SMALL)
PLAN = Records((Days(0, "2201-01-01", 40, "train"), Days(1, "2205-01-01", 40, "validation"),
                Days(2, "2209-06-01", 160, "test")))  # fmt: skip


def kernel(world, days):
    """Cov(x(t + days), x(t)) (size, size) from its definition: cosines of the waves on a torus,
    Legendre polynomials of the angle on the sphere; both drift."""
    two = np.array([[1.0, world.correlation], [world.correlation, 1.0]])
    between = two[: world.tracers, : world.tracers]
    sides = [np.arange(n) for n in world.shape]
    cells = np.stack(np.meshgrid(*sides, indexing="ij")).reshape(len(sides), -1).astype(float)
    if world.geometry == "sphere":
        φ = np.deg2rad(-90 + 180 / world.shape[0] * (cells[0] + 0.5))
        λ = 2 * np.pi * cells[1] / world.shape[1]
        moved = λ + 2 * np.pi * world.drift * days / world.shape[1]
        cosine = np.sin(φ)[:, None] * np.sin(φ) + np.cos(φ)[:, None] * np.cos(φ) * np.cos(
            λ[:, None] - moved
        )
        n = np.arange(world.domain.truncation + 1)
        power = (2 * n + 1) * (world.knee**2 + n * (n + 1.0)) ** -world.slope
        fade = np.exp(-days / world.memory * np.sqrt(1 + n * (n + 1) / world.knee**2))
        total = sum(p * f * eval_legendre(k, np.clip(cosine, -1, 1))
                    for k, p, f in zip(n, power, fade, strict=True))  # fmt: skip
        return np.kron(between, total / power.sum())
    total, norm = np.zeros((len(cells[0]),) * 2), 0.0
    for wave in np.ndindex(world.shape):
        k = np.array([w if 2 * w <= n else w - n for w, n in zip(wave, world.shape, strict=True)])
        square = sum((k / world.shape * max(world.shape)) ** 2)
        power = (world.knee**2 + square) ** -world.slope
        fade = np.exp(-days / world.memory * np.sqrt(1 + square / world.knee**2))
        still = 2 * abs(k[-1]) == world.shape[-1]
        shift = np.array([*[0.0] * (len(k) - 1), 0.0 if still else world.drift * days])
        angle = sum(
            2 * np.pi * ki / n * (c[:, None] - c - s)
            for ki, n, c, s in zip(k, world.shape, cells, shift, strict=True)
        )
        total += power * fade * np.cos(angle)
        norm += power
    return np.kron(between, total / norm)


def flat(x):
    return np.asarray(x).reshape(*x.shape[: x.ndim - 1 - WIDTH[x.shape[-1]]], -1)


WIDTH = {6: 2, 4: 3, 9: 2}
"""Axes of space by the length of the last one: the small worlds differ in it."""


def draws(law, count, seed=0):
    return law.sample(np.random.default_rng(seed), count)


@EACH
def test_covariance_is_the_sum_over_waves_or_degrees(world):
    C = world.climate.covariance.dense()
    np.testing.assert_allclose(C, kernel(world, 0), atol=1e-12)
    np.testing.assert_allclose(np.diag(C), 1, atol=1e-12)
    np.testing.assert_allclose(np.ravel(world.climate.variance), 1, atol=1e-12)
    assert np.abs(C - kernel(replace(world, knee=3.3), 0)).max() > 1e-3


@EACH
def test_predictive_is_the_conditional_of_a_dense_joint_law(world):
    x = draws(world.climate, 2)
    C, crossed = kernel(world, 0), kernel(world, 2)
    gain = crossed @ np.linalg.pinv(C, rcond=1e-11, hermitian=True)
    law = world.predictive(x, 2)
    expected = world.average + (flat(x) - world.average) @ gain.T
    np.testing.assert_allclose(flat(law.mean), expected, atol=1e-8)
    np.testing.assert_allclose(law.covariance.dense(), C - gain @ crossed.T, atol=1e-8)
    other = replace(world, drift=world.drift + 0.1).predictive(x, 2)
    assert np.abs(other.mean - law.mean).max() > 1e-3


@EACH
def test_two_days_are_two_single_days(world):
    x = draws(world.climate, 1)[0]
    one = world.predictive(x, 1)
    two = world.predictive(one.mean, 1)
    size = one.covariance.layout.size
    eye = world.average + np.eye(size).reshape(size, *x.shape)
    M = flat(world.predictive(eye, 1).mean - world.average).T
    at_once = world.predictive(x, 2)
    np.testing.assert_allclose(at_once.mean, two.mean, atol=1e-12)
    added = M @ one.covariance.dense() @ M.T + two.covariance.dense()
    np.testing.assert_allclose(at_once.covariance.dense(), added, atol=1e-12)
    far = world.predictive(x, 1000)
    np.testing.assert_allclose(far.mean, world.climate.mean, atol=1e-9)
    np.testing.assert_allclose(far.variance, 1.0)


@EACH
@pytest.mark.parametrize("sigma", [0.01, 0.5, 30.0])
def test_likelihood_score_and_denoiser_are_the_dense_ones(world, sigma):
    start = draws(world.climate, 1)[0]
    later = world.predictive(start, 1)
    for law, C in [(world.climate, kernel(world, 0)), (later, later.covariance.dense())]:
        x = draws(law, 3, 1) + sigma * np.random.default_rng(2).standard_normal((3, *start.shape))
        S, μ = C + sigma**2 * np.eye(len(C)), law.mean.ravel()
        np.testing.assert_allclose(
            law.log_likelihood(x, sigma), multivariate_normal(μ, S).logpdf(flat(x)), rtol=1e-9
        )
        score = -np.linalg.solve(S, (flat(x) - μ).T).T
        np.testing.assert_allclose(flat(law.score(x, sigma)), score, rtol=1e-6, atol=1e-8 / sigma)
        denoised = μ + (flat(x) - μ) @ np.linalg.solve(S, C)
        np.testing.assert_allclose(flat(law.denoise(x, sigma)), denoised, atol=1e-9)
        np.testing.assert_allclose(
            law.denoise(x, sigma), x + sigma**2 * law.score(x, sigma), atol=1e-9 * (1 + sigma**2)
        )
        left = law.clean(x, sigma).covariance.dense()
        np.testing.assert_allclose(left, C - C @ np.linalg.solve(S, C), atol=1e-10)
        assert np.abs(law.denoise(x, sigma) - law.denoise(x, 1.1 * sigma)).max() > 1e-7


def test_score_is_the_slope_of_the_likelihood():
    law = SMALL["plane"].climate
    x, step = draws(law, 1)[0], 1e-5
    bumps = step * np.eye(x.size).reshape(-1, *x.shape)
    slope = (law.log_likelihood(x + bumps, 0.3) - law.log_likelihood(x - bumps, 0.3)) / (2 * step)
    np.testing.assert_allclose(law.score(x, 0.3).ravel(), slope, atol=1e-6)


def test_a_field_on_the_sphere_is_confined():
    world = SMALL["sphere"]
    law, C = world.climate, kernel(world, 0)
    x = draws(law, 4)
    values, vectors = np.linalg.eigh(C)
    free = values > 1e-10
    assert free.sum() == 2 * (world.domain.truncation + 1) ** 2 < len(C)
    power = ((flat(x) - world.average) @ vectors[:, free]) ** 2 / values[free]
    expected = -0.5 * (power + np.log(2 * np.pi * values[free])).sum(axis=1)
    np.testing.assert_allclose(law.log_likelihood(x), expected, rtol=1e-9)
    np.testing.assert_allclose(law.log_likelihood(x.astype(np.float32)), expected, rtol=1e-3)
    noisy = x + 0.01 * np.random.default_rng(0).standard_normal(x.shape)
    assert (law.log_likelihood(noisy) == -np.inf).all()
    with pytest.raises(ValueError, match="no score"):
        law.score(x, 0.0)


@EACH
def test_given_observations(world):
    random = np.random.default_rng(3)
    for prior in (world.climate, world.predictive(draws(world.climate, 1)[0], 1)):
        C, μ = prior.covariance.dense(), prior.mean.ravel()
        A = random.standard_normal((7, len(C)))
        R = np.cov(random.standard_normal((7, 30))) * 0.1
        y = A @ flat(draws(prior, 1, 4))[0] + random.multivariate_normal(np.zeros(7), R)
        S = A @ C @ A.T + R
        K = C @ A.T @ np.linalg.inv(S)
        told = prior.condition(A.reshape(7, *prior.mean.shape), y, R)
        np.testing.assert_allclose(told.mean.ravel(), μ + K @ (y - A @ μ), atol=1e-9)
        np.testing.assert_allclose(told.variance.ravel(), np.diag(C - K @ A @ C), atol=1e-9)
        evidence = multivariate_normal(A @ μ, S).logpdf(y)
        np.testing.assert_allclose(told.log_evidence, evidence)
        single, variance = prior.condition(A[:1], y[:1], 0.4), A[0] @ C @ A[0] + 0.16
        evidence = multivariate_normal(A[0] @ μ, variance).logpdf(y[0])
        np.testing.assert_allclose(single.log_evidence, evidence)


def test_draws_given_observations_have_the_conditional_law():
    prior = SMALL["plane"].climate
    A = np.random.default_rng(3).standard_normal((5, prior.mean.size))
    told = prior.condition(A, A @ draws(prior, 1)[0].ravel(), 0.3)
    members = flat(draws(told, 20_000))
    C, S = prior.covariance.dense(), A @ prior.covariance.dense() @ A.T + 0.09 * np.eye(5)
    expected = C - C @ A.T @ np.linalg.solve(S, A @ C)
    np.testing.assert_allclose(members.mean(0), told.mean.ravel(), atol=0.04)
    np.testing.assert_allclose(np.cov(members.T), expected, atol=0.05)
    assert np.abs(np.cov(members.T) - C).max() > 0.2


def test_exact_observations_are_met_and_contradictions_refused():
    world = SMALL["sphere"]
    cells = np.eye(world.climate.mean.size)[::17]
    truth = draws(world.climate, 1)[0].ravel()
    told = world.climate.condition(cells, cells @ truth, 0.0)
    np.testing.assert_allclose(flat(draws(told, 3)) @ cells.T, [cells @ truth] * 3, atol=1e-6)
    assert told.variance.ravel()[::17].max() < 1e-9 < told.variance.max()
    with pytest.raises(ValueError, match="error above 0"):
        world.climate.condition(np.tile(cells, (2, 1)), 0.0, 0.0)


def test_a_batch_is_each_field_for_itself():
    world = SMALL["plane"]
    x = draws(world.climate, 6).reshape(2, 3, 2, 4, 6)
    law = world.predictive(x, 1)
    A = np.random.default_rng(0).standard_normal((3, x[0, 0].size))
    y = np.random.default_rng(1).standard_normal((2, 3, 3))
    told = law.condition(A, y, 0.2)
    one = world.predictive(x[1, 2], 1)
    alone = one.condition(A, y[1, 2], 0.2)
    np.testing.assert_allclose(law.log_likelihood(x)[1, 2], one.log_likelihood(x[1, 2]))
    np.testing.assert_allclose(told.mean[1, 2], alone.mean, atol=1e-12)
    np.testing.assert_allclose(told.log_evidence[1, 2], alone.log_evidence)
    assert draws(told, 5).shape == (5, 2, 3, 2, 4, 6)


def test_the_denoiser_given_observations_too():
    """Noise seen everywhere and observations somewhere, at once and one after the other."""
    law, sigma = SMALL["plane"].climate, 0.7
    x = draws(law, 1)[0] + sigma
    A = np.random.default_rng(0).standard_normal((4, x.size))
    both = law.condition(
        np.concatenate([np.eye(x.size), A]), np.r_[x.ravel(), [1.0] * 4],
        np.r_[[sigma] * x.size, [0.2] * 4],
    )  # fmt: skip
    turned = law.clean(x, sigma).condition(A, [1.0] * 4, 0.2)
    np.testing.assert_allclose(turned.mean, both.mean, atol=1e-8)
    np.testing.assert_allclose(turned.variance, both.variance, atol=1e-8)


def test_the_sphere_turns_and_the_plane_shifts():
    for world in (SMALL["sphere"], SMALL["plane"]):
        x = draws(world.climate, 1)[0]
        turned = world.predictive(np.roll(x, 2, axis=-1), 1).mean
        np.testing.assert_allclose(turned, np.roll(world.predictive(x, 1).mean, 2, axis=-1))
    whole = replace(SMALL["sphere"], drift=1.0, memory=1e9)
    x = draws(whole.climate, 1)[0]
    np.testing.assert_allclose(whole.predictive(x, 3).mean, np.roll(x, 3, axis=-1), atol=1e-6)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "record.zarr"
    done = []
    GaussianWorld.tiny().run(path, PLAN, done.append)
    assert done == sorted(done) and done[-1] == 1.0
    return path


def test_the_record_is_an_ordinary_labelled_store(record, tmp_path):
    ds = xr.open_zarr(record)
    assert ds["tracer"].dims == ("time", "y", "x") and ds["tracer"].dtype == np.float32
    assert ds["x"].attrs["modulo"] == 32 and ds.attrs["source"] == "simulated"
    np.testing.assert_array_equal(ds["time"], PLAN.times)
    assert ds["time"].values[0] == np.datetime64("2201-01-01") and len(ds["time"]) == 240
    assert float(ds["tracer"].mean()) == pytest.approx(10, abs=0.1)
    assert float(ds["tracer"].std()) == pytest.approx(1, abs=0.05)
    again = tmp_path / "again.zarr"
    GaussianWorld.tiny().run(again, PLAN)
    xr.testing.assert_identical(ds.load(), xr.open_zarr(again).load())
    with pytest.raises(UserError, match="exists already"):
        GaussianWorld.tiny().run(again, PLAN)
    other = tmp_path / "other.zarr"
    GaussianWorld.tiny().run(other, replace(PLAN, seed=1))
    assert float(abs(xr.open_zarr(other)["tracer"] - ds["tracer"]).mean()) > 0.5


def test_realisations_do_not_know_of_each_other(record, tmp_path):
    alone = tmp_path / "alone.zarr"
    GaussianWorld.tiny().run(alone, Records(PLAN.realisations[2:]))
    part = xr.open_zarr(record)["tracer"].sel(time=slice("2209", None))
    np.testing.assert_array_equal(xr.open_zarr(alone)["tracer"], part)


def test_truth_is_one_of_the_exact_members(record):
    """Ranks of the truth in one cell are even, errors and spread agree; of last week's forecast
    they do not."""
    world, leads = GaussianWorld.tiny(), [DAY, 3 * DAY]
    inits = PLAN.times[80:-3]
    drawn = np.stack([x for _, x in world.perfect(record, inits, 8, leads, 5)])
    tracer = xr.open_zarr(record)["tracer"].values
    for lead, days in enumerate((1, 3)):
        truth = tracer[80 + days :][: len(inits)]
        members = drawn[:, :, lead, 0]
        error = np.mean((members.mean(1) - truth) ** 2)
        spread = np.sqrt(9 / 8 * members.var(1, ddof=1).mean())
        assert spread / np.sqrt(error) == pytest.approx(1, abs=0.03)
        expected = world.predictive(world.climate.mean, days).variance.mean()
        assert error == pytest.approx(9 / 8 * expected, rel=0.05)
        assert flatness(members, truth) > 0.01
        wrong = np.roll(truth, 7, axis=0)
        assert spread / np.sqrt(np.mean((members.mean(1) - wrong) ** 2)) < 0.9
        assert days > 1 or flatness(members, wrong, every=1) < 1e-3


def flatness(members, truth, every=3):
    """p of χ² that truth ranks evenly among members, one random cell in some of the cases."""
    random = np.random.default_rng(0)
    y, x = random.integers(truth.shape[1:], size=(len(truth), 2)).T
    cases = np.arange(len(truth))
    ranks = (members[cases, :, y, x] < truth[cases, y, x, None]).sum(1)[::every]
    counts = np.bincount(ranks, minlength=members.shape[1] + 1)
    expected = counts.mean()
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1)


def test_a_members_bits_are_its_own(record):
    world, init = GaussianWorld.tiny(), PLAN.times[100]
    one = lambda *a: next(world.perfect(record, [init], *a))[1]
    all_of_them = one(20, [DAY, 2 * DAY], 0)
    np.testing.assert_array_equal(one(3, [DAY, 2 * DAY], 0), all_of_them[:3])
    np.testing.assert_array_equal(one(3, [DAY], 0), all_of_them[:3, :1])
    assert (one(3, [DAY], 1) != all_of_them[:3, :1]).mean() > 0.99
    assert len({member.tobytes() for member in all_of_them}) == 20


def test_mistakes_are_told(record, tmp_path):
    world = GaussianWorld.tiny()
    with pytest.raises(UserError, match="whole days"):
        next(world.perfect(record, PLAN.times[:1], 1, [np.timedelta64(6, "h")], 0))
    with pytest.raises(UserError, match="no state at 2203"):
        next(world.perfect(record, [np.datetime64("2203-01-01")], 1, [DAY], 0))
    with pytest.raises(UserError, match="no simulated record"):
        next(world.perfect(tmp_path / "none", PLAN.times[:1], 1, [DAY], 0))
    with pytest.raises(UserError, match="box"):
        GaussianWorld("box", (4, 4))
    assert WORLDS["gaussian"] is GaussianWorld
