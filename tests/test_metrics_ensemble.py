"""Kernels against brute force, closed forms, hand counts and two packages."""

import numpy as np
import pytest

from sciladm.metrics.ensemble import (
    Blocks,
    crps,
    crps_terms,
    energy_score,
    fair_crps,
    gram,
    largest_member,
    truth_ranks,
    variogram_score,
)

RNG = np.random.default_rng(3)


def members_and_truth(m=7, shape=(2, 3, 4)):
    return RNG.standard_normal((m, *shape)), RNG.standard_normal(shape)


def brute_crps(x, y, fair):
    m = len(x)
    error = sum(abs(x[i] - y) for i in range(m)) / m
    pairs = sum(abs(x[i] - x[j]) for i in range(m) for j in range(m))
    return error - pairs / (2 * m * (m - 1) if fair else 2 * m * m)


@pytest.mark.parametrize("m", [2, 3, 16, 51])
def test_both_crps_are_the_double_loop(m):
    x, y = members_and_truth(m)
    np.testing.assert_allclose(fair_crps(x, y), brute_crps(x, y, True), atol=1e-12)
    np.testing.assert_allclose(crps(x, y), brute_crps(x, y, False), atol=1e-12)


def test_crps_over_more_cells_than_one_slab():
    x, y = members_and_truth(4, (3, 9001))
    np.testing.assert_allclose(fair_crps(x, y), brute_crps(x, y, True), atol=1e-12)


def test_crps_by_hand():
    x, y = np.array([[0.0], [1.0], [3.0]]), np.array([1.0])
    # |x − y| = 1, 0, 2: mean 1; pairs 1 + 3 + 2 = 6
    assert fair_crps(x, y) == pytest.approx(1 - 6 / (3 * 2))
    assert crps(x, y) == pytest.approx(1 - 6 / 9)
    assert crps_terms(x, y)[2] == pytest.approx(1.0)
    assert crps_terms(x[:2], y)[2] == pytest.approx(0.5)  # even number: midway


def test_a_single_member_has_the_absolute_error_as_crps():
    x, y = members_and_truth(1)
    np.testing.assert_allclose(crps(x, y), np.abs(x[0] - y))


def test_fair_crps_of_a_gaussian_is_the_closed_form_for_any_number_of_members():
    # E over y and members: 1/√π for a calibrated standard Gaussian
    for m in (2, 8):
        x, y = RNG.standard_normal((m, 400_000)), RNG.standard_normal(400_000)
        assert fair_crps(x, y).mean() == pytest.approx(1 / np.sqrt(np.pi), rel=5e-3)
        assert crps(x, y).mean() > 1.02 / np.sqrt(np.pi)


def test_crps_agrees_with_scores():
    xr = pytest.importorskip("xarray")
    probability = pytest.importorskip("scores.probability")
    x, y = members_and_truth(9, (5, 6))
    fields = xr.DataArray(x, dims=("member", "y", "x")), xr.DataArray(y, dims=("y", "x"))
    for method, ours in (("fair", fair_crps), ("ecdf", crps)):
        theirs = probability.crps_for_ensemble(
            *fields, "member", method=method, preserve_dims="all"
        )
        np.testing.assert_allclose(ours(x, y), theirs.transpose("y", "x"), atol=1e-12)


def test_crps_agrees_with_xskillscore():
    xr = pytest.importorskip("xarray")
    xskillscore = pytest.importorskip("xskillscore")
    x, y = members_and_truth(9, (5, 6))
    theirs = xskillscore.crps_ensemble(
        xr.DataArray(y, dims=("y", "x")), xr.DataArray(x, dims=("member", "y", "x")), dim=[]
    )
    np.testing.assert_allclose(crps(x, y), theirs, atol=1e-12)


def test_float32_members_on_a_large_offset_lose_nothing_that_matters():
    x, y = members_and_truth(16)
    large = (x + 55_000).astype(np.float32), (y + 55_000).astype(np.float32)
    np.testing.assert_allclose(fair_crps(*large), fair_crps(x, y), atol=2e-2)


def test_ranks_count_members_below_and_share_ties_evenly():
    x = np.array([[0.0], [1.0], [2.0]])
    rng = np.random.default_rng(0)
    assert truth_ranks(x, np.array([-1.0]), rng) == 0
    assert truth_ranks(x, np.array([1.5]), rng) == 2
    assert truth_ranks(x, np.array([9.0]), rng) == 3
    many = truth_ranks(np.zeros((3, 40_000)), np.zeros(40_000), rng)
    np.testing.assert_allclose(np.bincount(many) / 40_000, 0.25, atol=0.01)


def brute_energy(x, y, w):
    m = len(x)

    def norm(d):
        return np.sqrt((w * d**2).sum())

    pairs = sum(norm(x[i] - x[j]) for i in range(m) for j in range(m)) / (2 * m * (m - 1))
    return sum(norm(x[i] - y) for i in range(m)) / m - pairs


def test_energy_score_is_the_double_loop_and_gram_matrices_add():
    x, y = members_and_truth(6, (3, 20))
    w = RNG.random((3, 20))
    np.testing.assert_allclose(
        energy_score(gram(x, y, w)), [brute_energy(x[:, c], y[c], w[c]) for c in range(3)]
    )
    assert energy_score(gram(x, y, w).sum(axis=0)) == pytest.approx(brute_energy(x, y, w))


def test_energy_score_in_one_dimension_is_the_fair_crps():
    x, y = members_and_truth(6, (1,))
    assert energy_score(gram(x, y, np.ones(1))) == pytest.approx(float(fair_crps(x, y)[0]))


def test_energy_score_of_close_members_far_from_the_truth_keeps_its_digits():
    x = RNG.standard_normal((8, 500)).astype(np.float32) * np.float32(1e-3)
    y = RNG.standard_normal(500).astype(np.float32)
    w = np.full(500, 1 / 500, np.float32)
    exact = brute_energy(x.astype(float), y.astype(float), w)
    assert energy_score(gram(x, y, w)) == pytest.approx(exact, rel=1e-5)


def test_largest_member_sees_one_that_went_astray():
    x, y = members_and_truth(16, (500,))
    w = np.full(500, 1 / 500)
    assert largest_member(gram(x, y, w)) < 1.2
    x[3] *= 3.0
    centred = np.sqrt((w * (x - x.mean(axis=0)) ** 2).sum(axis=1))
    assert largest_member(gram(x, y, w)) == pytest.approx(centred.max() / np.median(centred))
    assert np.isnan(largest_member(gram(np.zeros((4, 5)), np.ones(5), np.ones(5))))


def test_variogram_score_is_the_double_loop():
    x, y = members_and_truth(5, (6,))
    total = 0.0
    for k in range(6):
        for l in range(k):
            inner = np.mean([abs(x[i, k] - x[i, l]) ** 0.5 for i in range(5)])
            total += (abs(y[k] - y[l]) ** 0.5 - inner) ** 2 / 15
    assert variogram_score(x, y) == pytest.approx(total)


def test_block_means_are_weighted_and_odd_sizes_end_in_smaller_blocks():
    blocks = Blocks((5, 7), (2, 4))
    x, w = RNG.standard_normal((2, 3, 35)), RNG.random((3, 35))
    w[0, :2] = 0.0
    means, weight = blocks.mean(x, w)
    assert means.shape == (2, 3, 6)
    field, share = x.reshape(2, 3, 5, 7), w.reshape(3, 5, 7)
    last = (field * share)[:, :, 4:, 4:].sum(axis=(2, 3)) / share[:, 4:, 4:].sum(axis=(1, 2))
    np.testing.assert_allclose(means[..., -1], last, rtol=1e-6)
    np.testing.assert_allclose(weight.sum(axis=-1), w.sum(axis=-1), rtol=1e-6)
