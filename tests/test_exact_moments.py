"""The sampler alone: exact denoisers of a world whose law is known, in grid space and through a
linear autoencoder. With a Gaussian's denoiser a draw is linear in its noise: the covariance
of all draws follows from unit impulses, and nothing is sampled. As everywhere in the package,
what is drawn is the departure from what is expected: its mean is 0."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sciladm.diffusion.sampler import Heun, Multistep
from sciladm.simulate.gaussian import GaussianWorld

PATCH, KEPT = 4, 4
"""Cells a side of a patch, and components kept of its 16 numbers."""
DEFAULT = lambda top: Multistep(40, top, 5e-3)
HEUN = lambda top: Heun(20, top, 5e-3)  # the same number of evaluations


@dataclass
class Normal:
    """N(0, covariance) of flat vectors, with its denoiser."""

    covariance: np.ndarray

    def __post_init__(self):
        self.values, self.vectors = np.linalg.eigh(self.covariance)

    def denoise(self, x, sigma):
        along = x.numpy() @ self.vectors
        return torch.from_numpy(along * self.values / (self.values + sigma**2) @ self.vectors.T)

    def drawn(self, sampler):
        """The covariance of what ``sampler`` draws, given its range of σ, exactly."""
        unit = torch.eye(len(self.covariance), dtype=torch.float64)
        gains = sampler(30 * self.values.max() ** 0.5).sample(self.denoise, unit).numpy()
        return gains.T @ gains


@pytest.fixture(scope="module")
def forecast():
    """How tomorrow departs from what is expected of it."""
    world = GaussianWorld.tiny()
    today = world.climate.sample(np.random.default_rng(0), 1)[0]
    return Normal(world.predictive(today, 1.0).covariance.dense())


def components(covariance):
    """E (latent, cell): the leading principal components of each patch, one patch like another."""
    rows, columns = 16 // PATCH, 32 // PATCH
    cells = np.arange(16 * 32).reshape(rows, PATCH, columns, PATCH).transpose(0, 2, 1, 3)
    cells = cells.reshape(rows * columns, -1)
    mean = np.mean([covariance[np.ix_(c, c)] for c in cells], axis=0)
    basis = np.linalg.eigh(mean)[1][:, -KEPT:].T
    encoder = np.zeros((rows * columns * KEPT, covariance.shape[0]))
    for n, own in enumerate(cells):
        encoder[n * KEPT : (n + 1) * KEPT, own] = basis
    return encoder


def off(drawn, true):
    """Largest error of a standard deviation along the true covariance's own modes, and of one in
    a cell, relative."""
    values, vectors = np.linalg.eigh(true)
    along = np.einsum("im,ij,jm->m", vectors, drawn, vectors)
    modes = np.abs(np.sqrt(along / values) - 1).max()
    return modes, np.abs(np.sqrt(drawn.diagonal() / true.diagonal()) - 1).max()


def test_moments_in_grid_space(forecast):
    assert max(off(forecast.drawn(DEFAULT), forecast.covariance)) < 2e-3
    assert min(off(forecast.drawn(HEUN), forecast.covariance)) > 1e-2


def test_moments_through_a_linear_autoencoder(forecast):
    """z = E x; back by least squares, what that leaves drawn beside it."""
    true, encoder = forecast.covariance, components(forecast.covariance)
    crossed = true @ encoder.T
    latent = Normal(encoder @ crossed)
    decoder = np.linalg.solve(latent.covariance, crossed.T).T
    residual = true - decoder @ crossed.T
    drawn = latent.drawn(DEFAULT)
    assert max(off(drawn, latent.covariance)) < 2e-3
    decoded = decoder @ drawn @ decoder.T
    assert max(off(decoded + residual, true)) < 2e-3
    lost = off(decoded, true)  # without the residual, members are too alike
    assert lost[0] > 0.5 and lost[1] > 0.02
