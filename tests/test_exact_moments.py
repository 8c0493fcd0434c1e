"""The sampler alone: exact denoisers of a world whose law is known, in grid space and through a
linear autoencoder. With a Gaussian's denoiser a draw is linear in its noise: the covariance
of all draws follows from unit impulses, and nothing is sampled. As everywhere in the package,
what is drawn is the departure from what is expected: its mean is 0."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sciladm.autoencoder.patch import PatchAutoencoder
from sciladm.diffusion.departure import Departure
from sciladm.diffusion.sampler import Heun, Multistep
from sciladm.grid import Axis, Grid
from sciladm.recipe_sampler import Sampler
from sciladm.simulate.gaussian import GaussianWorld

PATCH, KEPT = 4, 4
"""Cells a side of a patch, and components kept of its 16 numbers."""
FINE = lambda top: Multistep(40, top, 5e-3)
HEUN = lambda top: Heun(20, top, 5e-3)  # the same number of evaluations
DEFAULT = lambda top: Multistep(Sampler().steps, top, Sampler().sigma_min)


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
def today():
    return GaussianWorld.tiny().climate.sample(np.random.default_rng(0), 300)


@pytest.fixture(scope="module")
def forecast(today):
    """How tomorrow departs from what is expected of it."""
    return Normal(GaussianWorld.tiny().predictive(today[0], 1.0).covariance.dense())


def matrix(change, shape):
    """(in, out) of a function of (batch, *shape) that is linear but for a constant."""
    zero = torch.zeros(1, *shape)
    unit = torch.eye(zero.numel()).view(-1, *shape)
    return (change(unit) - change(zero)).flatten(1).double().numpy()


def drawn(sampler, covariance, shape, ends):
    """Covariance of what the package draws of departures with ``covariance``: whitened as it is
    fitted, sampled there with the exact denoiser, coloured again."""
    root = Normal(covariance)
    exact = (root.values.clip(min=0) * len(covariance)) ** 0.5 * root.vectors
    samples = torch.from_numpy(exact.T).float().view(-1, *shape)
    rows = torch.arange(shape[1])[:, None].expand(shape[1:])
    departure = Departure(shape[0], rows, ends, 512)
    departure.measure(lambda: [torch.cat([samples, -samples])] * 20)
    to, back = matrix(departure.whiten, shape), matrix(departure.colour, shape)
    white = Normal(to.T @ covariance @ to)
    assert white.values.max() < 1.5 and white.values.min() > 0.5
    return back.T @ white.drawn(sampler) @ back


def off(drawn, true):
    """Largest error of a standard deviation along the true covariance's own modes, and of one in
    a cell, relative."""
    values, vectors = np.linalg.eigh(true)
    along = np.einsum("im,ij,jm->m", vectors, drawn, vectors)
    modes = np.abs(np.sqrt(along / values) - 1).max()
    return modes, np.abs(np.sqrt(drawn.diagonal() / true.diagonal()) - 1).max()


def test_moments_in_grid_space(forecast):
    assert max(off(forecast.drawn(FINE), forecast.covariance)) < 2e-3
    assert min(off(forecast.drawn(HEUN), forecast.covariance)) > 1e-2


ENDS = ("periodic", "periodic")


def test_moments_in_grid_space_as_the_package_draws(forecast):
    found = drawn(DEFAULT, forecast.covariance, (1, 16, 32), ENDS)
    assert max(off(found, forecast.covariance)) < 2e-3


def test_moments_through_a_linear_autoencoder(forecast, today):
    """What is drawn, decoded, beside what the right latents decode to."""
    axes = [Axis(name, np.arange(float(n)), "periodic") for name, n in (("y", 16), ("x", 32))]
    auto = PatchAutoencoder(Grid(axes, "plane"), 1, 0, KEPT, PATCH, blocks=0, bound=1e6)
    auto.fit_linear([torch.from_numpy(today).float()])
    statics = torch.zeros(0, 16, 32)
    shape = (KEPT, 16 // PATCH, 32 // PATCH)
    encoder = matrix(lambda x: auto.encode(x, statics), (1, 16, 32))
    decoder = matrix(lambda z: auto.decode(z, statics), shape)
    latent = encoder.T @ forecast.covariance @ encoder
    left = np.eye(512) - encoder @ decoder
    residual = left.T @ forecast.covariance @ left
    found = drawn(DEFAULT, latent, shape, ENDS)
    assert max(off(found, latent)) < 2e-3
    right, decoded = (decoder.T @ z @ decoder + residual for z in (latent, found))
    assert max(off(decoded, right)) < 2e-3
    lost = off(decoded - residual, right)  # without the residual, members are too alike
    assert lost[0] > 0.5 and lost[1] > 0.02
