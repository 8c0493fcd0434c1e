"""Covariances of few samples against the one that they were drawn from."""

import numpy as np
import pytest
import torch

from sciladm.baselines.filling import OptimalInterpolation, gaussian_crps
from sciladm.nn import neighbours
from sciladm.nn.neighbours import Near, covariance, filled, how_near
from sciladm.nn.shrink import drawn

SHAPE = (8, 8)
CELLS = 64


def apart():
    at = torch.from_numpy(np.indices(SHAPE).reshape(2, -1).T).double()
    return torch.cdist(at, at)


def eddies():
    """Two channels of eddies two cells across, and a swing of everything."""
    near = torch.exp(-(apart() ** 2) / 8)
    both = torch.tensor([[1, 0.6], [0.6, 1]], dtype=torch.float64)
    return torch.kron(both, near) + 0.5 + 0.02 * torch.eye(2 * CELLS)


def series(covariance, samples, seed, memory=0.0):
    """Samples of which each remembers the one before."""
    noise = torch.randn(
        samples + 50, len(covariance), generator=torch.Generator().manual_seed(seed)
    )
    out, now = [], torch.zeros(len(covariance))
    for fresh in noise:
        now = memory * now + (1 - memory**2) ** 0.5 * fresh
        out.append(now)
    root = torch.linalg.cholesky(covariance)
    return torch.stack(out[50:]).double() @ root.T


def excess(law, true):
    """Kullback & Leibler's divergence of a law from the true one, per number [nat]."""
    n = len(true)
    ratio = torch.linalg.solve(law + 1e-4 * torch.eye(n), true)
    return float((ratio.trace() - n - ratio.logdet()) / 2 / n)


def found(rows):
    return covariance(rows, SHAPE, how_near(rows, SHAPE))


def sample(rows):
    return rows.T @ rows / len(rows)


def test_a_chain_of_all_cells_is_the_sample():
    """However cells are ordered: nothing is left out."""
    rows = series(eddies(), 4000, 0)
    law = covariance(rows, SHAPE, Near(CELLS, 1e-9))
    torch.testing.assert_close(law, sample(rows), atol=0.02, rtol=0)


@pytest.mark.parametrize("memory, share", [(0.0, 0.85), (0.9, 0.62)])
def test_chains_are_nearer_to_the_truth(memory, share):
    """Than the sample, and than correlations drawn to none; by more where days are alike."""
    true = eddies()
    rows = series(true, 600, 0, memory)
    off = excess(found(rows), true)
    assert off < share * excess(drawn(sample(rows)[None], len(rows))[0], true)
    assert off < share * excess(sample(rows), true)


def test_what_all_share_is_not_lost():
    true = eddies()
    law = found(series(true, 600, 1))
    far = apart() > 8
    near = lambda c: c.view(2, CELLS, 2, CELLS).diagonal(dim1=0, dim2=2)[far].mean()
    assert near(law) == pytest.approx(float(near(true)), rel=0.15)
    torch.testing.assert_close(law, law.T)


def test_all_tell_a_cell_where_far_ones_have_to_do_with_each_other():
    """Six waves across the whole grid, of many days that know nothing of each other."""
    i, j = np.indices(SHAPE).reshape(2, -1)
    waves = [np.cos(k * np.pi * (i + 0.5) / 8) * np.cos(m * np.pi * (j + 0.5) / 8)
             for k, m in ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 1))]  # fmt: skip
    waves = torch.from_numpy(np.stack(waves))
    true = waves.T @ waves + 0.05 * torch.eye(CELLS)
    rows, fresh = series(true, 4000, 2), series(true, 200, 7)
    assert how_near(rows, SHAPE) is None
    seen = torch.from_numpy(np.indices(SHAPE)[0].ravel() < 4)
    assert filled(found(rows), fresh, seen) < 1.02 * filled(true, fresh, seen)


def test_a_mean_over_orders_errs_less_than_one(monkeypatch):
    true = eddies()
    rows, fresh = series(true, 200, 3, 0.9), series(true, 200, 13)
    seen = torch.from_numpy(np.tile(np.indices(SHAPE)[0].ravel() < 4, 2))
    missed = []
    for orders in (1, neighbours.ORDERS):
        monkeypatch.setattr(neighbours, "ORDERS", orders)
        missed.append(filled(covariance(rows, SHAPE, Near(4, 0.02)), fresh, seen))
    assert missed[1] < 0.98 * missed[0]


def test_variances_are_those_of_the_rows():
    rows = series(eddies(), 300, 5, 0.9)
    law = covariance(rows, SHAPE, Near(4, 0.1))
    torch.testing.assert_close(law.diagonal(), sample(rows).diagonal())


def test_a_number_that_is_always_nothing_has_to_do_with_none():
    """As where there is land."""
    rows = series(eddies(), 300, 6)
    rows[:, 5] = 0
    law = covariance(rows, SHAPE, Near(4, 0.1))
    assert torch.isfinite(law).all() and not law[5].any()


def test_few_samples_of_many_channels_are_not_believed():
    """Twelve of thirty channels a cell, which span little of them: new ones are not unheard of."""
    rows, fresh = torch.randn(2, 12, 30 * 16, generator=torch.Generator().manual_seed(9)).double()
    law = covariance(rows, (4, 4), Near(4, 0.3))
    assert float((fresh @ torch.linalg.inv(law) * fresh).sum(1).mean() / law.trace()) < 5


def test_two_samples_choose_nothing():
    rows = series(eddies(), 2, 8)
    assert how_near(rows, SHAPE) is None
    assert torch.isfinite(found(rows)).all()


def test_what_is_filled_is_scored_as_kriging_is():
    true = eddies()
    rows = series(true, 6, 3)
    seen = np.arange(len(true)) % 3 > 0
    kriging = OptimalInterpolation(true.numpy(), 0.0)
    own = []
    for row in rows.numpy():
        mean, std = kriging.fill(row, seen, 0.0)
        own.append(gaussian_crps(mean, std, row)[~seen].mean())
    assert filled(true, rows, torch.from_numpy(seen)) == pytest.approx(np.mean(own), rel=0.01)


@pytest.mark.parametrize("seed", [0, 1])
def test_gaps_are_filled_nearly_as_by_the_truth(seed):
    """Nearer than by correlations drawn to none, and with a spread that is as large as errors."""
    true = eddies()
    rows, fresh = series(true, 200, seed, 0.9), series(true, 200, seed + 10)
    seen = torch.from_numpy(np.tile(np.indices(SHAPE)[0].ravel() < 4, 2))
    law, rival = found(rows), drawn(sample(rows)[None], len(rows))[0]
    by = [filled(c, fresh, seen) for c in (true, law, rival)]
    assert by[0] < by[1] < 0.95 * by[2]
