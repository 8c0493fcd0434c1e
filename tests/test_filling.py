"""Baselines of in-filling, against dense algebra."""

import numpy as np
import pytest

from sciladm.baselines.filling import (
    SHARES,
    OptimalInterpolation,
    OrthogonalFunctions,
    gaussian_crps,
)
from sciladm.metrics.ensemble import fair_crps

NUMBERS = 40


def world(count, seed, rank=6):
    """Windows of a few smooth patterns and a little noise of its own."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(9).normal(size=(rank, NUMBERS)).cumsum(axis=1) / 5
    return rng.normal(size=(count, rank)) @ patterns + 0.1 * rng.normal(size=(count, NUMBERS))


def hidden(windows, seed):
    rng = np.random.default_rng(seed)
    return [(x, rng.random(NUMBERS) < 0.4) for x in windows]


def regression(covariance, x, observed, error):
    seen = covariance[np.ix_(observed, observed)] + error**2 * np.eye(observed.sum())
    gain = covariance[:, observed] @ np.linalg.inv(seen)
    left = covariance - gain @ covariance[observed]
    return gain @ x[observed], np.sqrt(np.maximum(left.diagonal(), 0))


@pytest.mark.parametrize("kind", [OptimalInterpolation, OrthogonalFunctions])
def test_answers_are_the_regression_on_what_was_observed(kind):
    fitted = kind.fit(world(2000, 0), hidden(world(20, 1), 2), 0.05)
    if kind is OptimalInterpolation:
        covariance = fitted.covariance
        assert fitted.share in SHARES
    else:
        covariance = fitted.functions @ fitted.functions.T + np.diag(fitted.rest**2)
    for x, observed in hidden(world(3, 5), 6):
        mean, std = fitted.fill(x, observed, 0.05)
        want, spread = regression(covariance, x, observed, 0.05)
        np.testing.assert_allclose(mean[~observed], want[~observed], atol=1e-6)
        np.testing.assert_allclose(std[~observed], spread[~observed], atol=1e-6)
    nothing = np.zeros(NUMBERS, bool)
    mean, std = fitted.fill(x, nothing, 0.05)
    assert not mean.any()
    np.testing.assert_allclose(std**2, covariance.diagonal(), rtol=1e-6)


@pytest.mark.parametrize("kind", [OptimalInterpolation, OrthogonalFunctions])
def test_calibrated_and_near_the_best_there_is(kind):
    fitted = kind.fit(world(3000, 0), hidden(world(40, 1), 2), 0.05)
    pairs = hidden(world(400, 3), 4)
    true = np.cov(world(100_000, 7).T)
    own, best, z = [], [], []
    for x, observed in pairs:
        mean, std = fitted.fill(x, observed, 0.05)
        own.append(gaussian_crps(mean, std, x)[~observed].mean())
        best.append(gaussian_crps(*regression(true, x, observed, 0.05), x)[~observed].mean())
        z.append(((x - mean) / std)[~observed])
    assert np.mean(own) < 1.06 * np.mean(best)
    assert abs(np.concatenate(z).std() - 1) < 0.06


def test_few_windows_are_drawn_to_their_diagonal():
    few = OptimalInterpolation.fit(world(60, 0), hidden(world(40, 1), 2), 0.05)
    many = OptimalInterpolation.fit(world(5000, 0), hidden(world(40, 1), 2), 0.05)
    assert few.share > many.share


def test_crps_of_a_normal_distribution_is_that_of_its_draws():
    rng = np.random.default_rng(0)
    members, truth = 1.0 + 0.5 * rng.normal(size=(20_000, 5)), rng.normal(size=5)
    got = gaussian_crps(np.full(5, 1.0), np.full(5, 0.5), truth)
    np.testing.assert_allclose(got, fair_crps(members, truth), atol=0.01)
