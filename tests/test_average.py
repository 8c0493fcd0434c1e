"""Averages of weights against the plain sum over all steps."""

import numpy as np
import pytest
import torch
from torch import nn

from sciladm.conventions import UserError
from sciladm.training.average import Average, at_width, combination, exponent, moments, pair
from sciladm.training.checkpoint import read_tensors

STEPS = 400


def test_power_average_has_the_width_asked_for():
    net = nn.Linear(1, 1, bias=False)
    for width in (0.05, 0.1):
        average = Average(net, (width,))
        total, steps = [], 400
        weight = np.zeros(steps)  # share of each step in the average
        for t in range(1, steps + 1):
            beta = (1 - 1 / t) ** exponent(width)
            weight *= beta
            weight[t - 1] += 1 - beta
        place = (np.arange(steps) + 1) / steps
        mean = np.sum(weight * place)
        assert weight.sum() == pytest.approx(1)
        assert np.sqrt(np.sum(weight * (place - mean) ** 2)) == pytest.approx(width, rel=0.02)
        values = np.random.default_rng(0).normal(size=steps)
        for t, value in enumerate(values):
            net.weight.data.fill_(value)
            average.update(t)
        total.append(float(average.weights["weight"]))
        assert total[0] == pytest.approx(np.sum(weight * values), abs=1e-5)
    with average.applied():
        assert float(net.weight.detach()) == float(average.weights["weight"])
    assert float(net.weight.detach()) == pytest.approx(values[-1])


def profile(width, steps=STEPS):
    """Share of each step, by the recursion and nothing else."""
    share = np.zeros(steps)
    for t in range(1, steps + 1):
        beta = (1 - 1 / t) ** exponent(width)
        share *= beta
        share[t - 1] += 1 - beta
    return share


def walk(folder, widths, seed=0):
    """A module whose weights walk at random; → the walk (step, weight), from start to end."""
    net = nn.Linear(40, 50, bias=False)
    steps = np.random.default_rng(seed).normal(size=(STEPS, 50, 40)).astype(np.float32)
    path = steps.cumsum(0) / STEPS**0.5 + 3
    average, at = Average(net, widths), moments(STEPS)
    for t, weight in enumerate(path):
        net.weight.data.copy_(torch.from_numpy(weight))
        average.update(t)
        if t + 1 in at:
            average.keep(folder, "net", t + 1)
    return path, average


TOLERANCES = {0.02: 0.031, 0.03: 0.012, 0.04: 0.004, 0.05: 1e-3, 0.07: 2e-3, 0.1: 1e-3, 0.2: 0.005,
              0.25: 0.01}  # fmt: skip
"""Of a random walk that ends 1 from its start; 1e-3 is what half precision leaves of 3."""


def test_any_width_afterwards(tmp_path):
    path, _ = walk(tmp_path, pair(0.05))
    found = {}
    for width, tolerance in TOLERANCES.items():
        want = np.tensordot(profile(width), path, 1)
        got = at_width(tmp_path, width, "net")["weight"].numpy()
        found[width] = float(np.sqrt(np.mean((got - want) ** 2)))
        assert found[width] < tolerance, found
    other = np.tensordot(profile(0.05), path, 1) - np.tensordot(profile(0.02), path, 1)
    assert np.sqrt(np.mean(other**2)) > 2 * TOLERANCES[0.02]  # widths do differ


def test_one_width_alone_does_not_span_the_others(tmp_path):
    path, _ = walk(tmp_path, (0.1,))
    want = np.tensordot(profile(0.04), path, 1)
    got = at_width(tmp_path, 0.04, "net")["weight"].numpy()
    assert np.sqrt(np.mean((got - want) ** 2)) > 3 * TOLERANCES[0.04]


def test_the_least_error_of_a_random_walk():
    """Its error in closed form, Σ over steps of (what later steps are wrong by)²; any other
    coefficients that add up to 1 are worse."""
    profiles = [(width, t) for t in sorted(moments(STEPS)) for width in pair(0.05)]
    share = np.zeros((STEPS, len(profiles)))
    for column, (width, t) in enumerate(profiles):
        share[:t, column] = profile(width, t)

    def error(coefficients):
        wrong = share @ coefficients - profile(0.03)
        return np.sqrt(np.mean(wrong[::-1].cumsum()[::-1] ** 2))

    best = combination(profiles, 0.03, STEPS)
    assert best.sum() == pytest.approx(1)
    assert error(best) == pytest.approx(0.0102, rel=0.05)
    for change in np.random.default_rng(0).normal(size=(20, len(best))):
        assert error(best + 0.02 * (change - change.mean())) > error(best)


def test_a_stored_width_is_itself():
    profiles = [(width, t) for t in sorted(moments(STEPS)) for width in pair(0.05)]
    for last, width in ((-2, 0.05), (-1, 0.1)):
        want = np.zeros(len(profiles))
        want[last] = 1
        np.testing.assert_allclose(combination(profiles, width, STEPS), want, atol=1e-9)


def test_snapshots_are_small_and_few(tmp_path):
    walk(tmp_path, pair(0.2))
    files = sorted((tmp_path / "averages").iterdir())
    assert [read_tensors(file)[1]["step"] for file in files] == [66, 133, 200, 266, 333, 400]
    assert read_tensors(files[0])[1]["widths"] == [0.2, 0.1]
    assert sum(file.stat().st_size for file in files) < 6.5 * 4 * 2000
    assert moments(3) == {1, 2, 3} and max(moments(10**6)) == 10**6


def test_a_run_without_snapshots_says_so(tmp_path):
    with pytest.raises(UserError, match=r"keeps no averages of 'denoiser'.*Train it again"):
        at_width(tmp_path, 0.1)
    with pytest.raises(ValueError, match=r"must lie in \(0, 0.28\); got 0.3"):
        Average(nn.Linear(1, 1), (0.3,))
