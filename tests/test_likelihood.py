"""Likelihood, inversion and the path between two states, against laws that are known."""

import math

import numpy as np
import pytest
import torch

from sciladm.diffusion import flow as flow_module
from sciladm.diffusion.flow import Flow, between
from sciladm.diffusion.likelihood import axes, log_density, signs
from sciladm.diffusion.noise import Key
from tests.oracles import gaussian_denoise, periodic_covariance, two_peaks_denoise
from tests.test_departure import ENDS, measured, world

VARIANCES = torch.tensor([1, 0.3, 0.1, 0.03, 0.01, 0.003], dtype=torch.float64)
FLOW = Flow(64, 30.0, 0.005)
KEYS = [Key(0, n, 0, 0) for n in range(16)]


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Normal:
    """N(mean, covariance) over (channel, *space): draws, log density, denoiser."""

    def __init__(self, covariance, shape, mean=0.0):
        self.covariance, self.shape, self.mean = covariance, shape, mean
        self.values, self.vectors = torch.linalg.eigh(covariance)

    def draw(self, n, seed=0):
        root = self.vectors * self.values.clamp(min=0).sqrt()
        return (self.mean + normal(n, len(root), seed=seed) @ root.T).view(n, *self.shape)

    def log_density(self, x, sigma=0.0):
        along = (x.flatten(1) - self.mean) @ self.vectors
        total = self.values + sigma**2
        return -0.5 * (along**2 / total + (2 * math.pi * total).log()).sum(1)

    def denoise(self, x, sigma):
        along = (x.flatten(1) - self.mean) @ self.vectors
        kept = along * (self.values / (self.values + sigma**2))
        return (self.mean + kept @ self.vectors.T).view_as(x)


class Two:
    """An even mixture of two normal laws of the same shape."""

    def __init__(self, *laws):
        self.laws, self.shape = laws, laws[0].shape

    def draw(self, n, seed=0):
        return torch.cat([law.draw(n // 2, seed + k) for k, law in enumerate(self.laws)])

    def log_density(self, x, sigma=0.0):
        parts = torch.stack([law.log_density(x, sigma) for law in self.laws])
        return parts.logsumexp(0) - math.log(2)

    def denoise(self, x, sigma):
        share = torch.stack([law.log_density(x, sigma) for law in self.laws]).softmax(0)
        parts = torch.stack([law.denoise(x, sigma) for law in self.laws])
        return torch.einsum("kb,kb...->b...", share, parts)


def rotated(variances, seed):
    q = torch.linalg.qr(normal(len(variances), len(variances), seed=seed))[0]
    return q * variances @ q.T


def field(power, shape=(16, 16), scale=3.0):
    """A rough or smooth field on a torus, of unit variance per cell."""
    covariance = torch.from_numpy(periodic_covariance(shape, scale, power))
    return Normal(covariance, (1, *shape))


LAWS = {
    "modes": Normal(torch.diag(VARIANCES), (2, 3)),
    "correlated": Normal(rotated(VARIANCES, 1), (2, 3)),
    "two scales": Two(
        Normal(rotated(VARIANCES, 1), (2, 3)), Normal(rotated(VARIANCES, 2), (2, 3))
    ),
    "two places": Two(
        Normal(rotated(VARIANCES, 1), (2, 3), -0.6),
        Normal(rotated(VARIANCES, 2), (2, 3), 0.9),
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_log_density_within_a_hundredth_of_a_nat_per_number(name):
    law = LAWS[name]
    r = law.draw(32)
    found, _ = log_density(law.denoise, r, FLOW, axes((2, 3), r))
    error = (found.mean(0) - law.log_density(r)).abs() / 6
    assert error.max() < 0.01, error.max()
    assert error.mean() < 0.004, error.mean()


def test_log_density_of_two_peaks():
    r = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64).view(-1, 1, 1)
    found, _ = log_density(two_peaks_denoise, r, Flow(64, 60.0), axes((1, 1), r))
    peaks = [torch.distributions.Normal(m, 0.5).log_prob(r).flatten() for m in (1.0, -1.0)]
    true = torch.logaddexp(peaks[0] + math.log(0.3), peaks[1] + math.log(0.7))
    assert (found.mean(0) - true).abs().max() < 0.02
    assert (found.mean(0) - true).abs().mean() < 0.01


def whitened(*laws):
    """The even mixture, in the coordinates in which its covariance is 1, as a network sees it."""
    values, vectors = torch.linalg.eigh(sum(law.covariance for law in laws) / len(laws))
    root = vectors / values.sqrt() @ vectors.T
    return Two(*(Normal(root @ law.covariance @ root, law.shape) for law in laws))


def test_hutchinson_in_large_dimension():
    law = whitened(field(3.0), field(2.0))
    r = law.draw(16)
    found, _ = log_density(law.denoise, r, FLOW, signs(KEYS, 8, 1, (16, 16)).double())
    error = (found.mean(0) - law.log_density(r)) / 256
    assert error.abs().max() < 0.01, error.abs().max()
    told = found.std(0) / 8**0.5 / 256  # what the probes themselves say of it
    assert 0.4 < float(error.square().mean().sqrt() / told.square().mean().sqrt()) < 2.0


def test_probes_belong_to_their_keys():
    some, whole = signs(KEYS[3:5], 2, 2, (4, 3)), signs(KEYS, 3, 2, (4, 3))
    assert torch.equal(some, whole[:2, 3:5])
    assert set(whole.unique().tolist()) == {-1.0, 1.0}
    assert not torch.equal(whole[0], whole[1])


def test_a_forgotten_jacobian_is_caught():
    """The controls: no trace at all, and the trace with its sign turned."""
    law = LAWS["modes"]
    r = law.draw(8)
    found, noise = log_density(law.denoise, r, FLOW, axes((2, 3), r))
    bare = -0.5 * noise.flatten(1).square().sum(1) - 3 * math.log(2 * math.pi)
    grown = found.mean(0) - bare
    for wrong in (bare, bare - grown):
        assert ((wrong - law.log_density(r)).abs() / 6).min() > 0.5


@pytest.mark.parametrize("name", LAWS)
def test_inversion_and_back(name):
    law = LAWS[name]
    r = law.draw(64)
    noise = FLOW.up(law.denoise, r)
    error = (FLOW.down(law.denoise, noise) - r) / r.std(0)
    assert error.square().mean().sqrt() < 1e-3, error.abs().max()


def test_the_noise_of_a_gaussian_is_known():
    r = LAWS["modes"].draw(16).view(16, 6)
    true = r / VARIANCES.sqrt() * (1 + VARIANCES / 900).sqrt()
    noise = FLOW.up(gaussian_denoise(VARIANCES), r)
    assert (noise - true).abs().max() < 2e-3 * true.abs().max()
    first_order = Flow(64, 30.0, 0.005)
    first_order.start = 0.2  # a first step of the wrong length
    assert (first_order.up(gaussian_denoise(VARIANCES), r) - true).abs().max() > 0.1


def test_the_flow_converges_at_third_order():
    r = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

    def up(steps):
        return Flow(steps, 60.0, 1e-3).up(two_peaks_denoise, r)

    exact = up(1600)
    errors = [float((up(steps) - exact).abs().max()) for steps in (60, 120)]
    assert np.log2(errors[0] / errors[1]) > 2.7, errors


def test_weights_at_the_wrong_end_are_caught(monkeypatch):
    right = flow_module.exponential_weights

    def wrong(nodes, start, end):
        update = right(nodes, start, end)
        return update._replace(weights=[w * math.exp(start - end) for w in update.weights])

    monkeypatch.setattr(flow_module, "exponential_weights", wrong)
    r = LAWS["modes"].draw(8).view(8, 6)
    bad = Flow(64, 30.0, 0.005)
    denoise = gaussian_denoise(VARIANCES)
    assert (bad.down(denoise, bad.up(denoise, r)) - r).abs().max() > 0.05


def test_midpoints_have_the_spectrum_of_states():
    """A field in the basis of its own modes, band by band."""
    k = np.fft.fftfreq(16, 1 / 16)
    radius = np.hypot(k[:, None], k).ravel()
    band = np.rint(radius).astype(int)
    variances = torch.from_numpy((9 + radius**2) ** -3.0 * 9**3)
    denoise = gaussian_denoise(variances)
    one, other = (normal(2000, 256, seed=n) * variances.sqrt() for n in (1, 2))
    ends = [FLOW.up(denoise, r) for r in (one, other)]

    def power(r):
        return np.bincount(band, r.square().mean(0).numpy())[:9]

    true = np.bincount(band, variances.numpy())[:9]
    middle = FLOW.down(denoise, between(*ends, 0.5))
    assert np.abs(power(middle) / true - 1).max() < 0.05
    straight = FLOW.down(denoise, (ends[0] + ends[1]) / 2)
    assert (power(straight) / true).max() < 0.6


def test_ends_of_the_path_are_the_ends():
    law = LAWS["two scales"]
    one, other = law.draw(8, 1), law.draw(8, 2)
    ends = [FLOW.up(law.denoise, r) for r in (one, other)]
    for share, end in ((0.0, one), (1.0, other)):
        back = FLOW.down(law.denoise, between(*ends, share))
        assert ((back - end) / one.std(0)).abs().max() < 1e-3


def test_great_circles():
    one, other = normal(3, 2, 5, seed=0), normal(3, 2, 5, seed=1)
    torch.testing.assert_close(between(one, one, 0.3), one)
    halves = between(between(one, other, 0.5), other, 0.5)
    unit = lambda x: x / x.flatten(1).norm(dim=1).view(-1, 1, 1)
    torch.testing.assert_close(
        unit(between(unit(one), unit(other), 0.75)),
        unit(between(between(unit(one), unit(other), 0.5), unit(other), 0.5)),
    )
    assert halves.shape == one.shape
    assert between(one.float(), other.float(), 0.5).dtype == torch.float32


@pytest.mark.parametrize("ends", ENDS, ids="-".join)
def test_the_volume_of_a_departure(ends):
    shape = ENDS[ends]
    scale = torch.linspace(0.1, 3, math.prod(shape)).view(shape)
    for patterns in (512, 3, 0):
        fitted = measured(world(500, shape, 0, scale), shape, ends, patterns)
        unit = torch.eye(2 * math.prod(shape)).view(-1, 2, *shape)
        matrix = (fitted.colour(unit) - fitted.colour(0 * unit)).flatten(1).double()
        assert fitted.log_det() == pytest.approx(float(matrix.slogdet()[1]), abs=1e-3)


def test_too_few_evaluations():
    with pytest.raises(ValueError, match="6 evaluations"):
        Flow(4)
