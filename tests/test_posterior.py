"""Draws given observations, against exact posteriors of Gaussian fields, averaged over truths."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pytest
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtr

from sciladm.autoencoder.observed import Observed
from sciladm.autoencoder.patch import PatchAutoencoder
from sciladm.autoencoder.residual import ResidualCovariance
from sciladm.diffusion.posterior import Curvature, Observations, Posterior, solve
from sciladm.diffusion.sampler import Multistep
from sciladm.grid import Axis, Grid

SIDE, MEMBERS = 64, 32
NUMBERS = np.fft.fftfreq(SIDE, 1 / SIDE)
POWER = (NUMBERS[:, None] ** 2 + NUMBERS**2 + 4.0) ** -1.5
POWER = POWER / POWER.mean()  # variance 1
SAMPLER = Multistep(24, 30 * POWER.max() ** 0.5, 0.005, corrector=False)


def filtered(x, gain):
    """x (batch, 1, y, x) times ``gain`` of each wavenumber."""
    return torch.fft.ifft2(torch.fft.fft2(x) * torch.from_numpy(gain).to(x)).real


class Field:
    """The exact denoiser, which counts what it is asked."""

    def __init__(self, fault=0.0):
        self.forwards, self.fault = 0, fault

    def __call__(self, x, sigma):
        self.forwards += 1
        exact = filtered(x, POWER / (POWER + sigma**2))
        if not self.fault:
            return exact
        # rms `fault` of the denoising error, another function of x at every cell
        size = self.fault * np.sqrt((POWER * sigma**2 / (POWER + sigma**2)).mean())
        wild = torch.sin(3 * x.roll(1, -1) / (1 + sigma) + x.roll(2, -2) / (1 + sigma))
        return exact + size * 2**0.5 * wild


def prior(sigma):
    return lambda x: filtered(x, POWER * sigma**2 / (POWER + sigma**2))


@dataclass
class Problem:
    """Cells that are observed, how well, and the exact answer."""

    seen: np.ndarray
    std: float
    seed: int = 0

    @cached_property
    def truth(self):
        white = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(self.seed))
        return filtered(white.double(), POWER**0.5)

    @cached_property
    def observations(self):
        where = torch.from_numpy(np.flatnonzero(self.seen))
        noise = torch.randn(len(where), generator=torch.Generator().manual_seed(self.seed + 99))
        values = self.truth.flatten()[where] + self.std * noise
        return Observations(lambda x: x.flatten(1)[:, where] / self.std, values / self.std)

    @cached_property
    def exact(self):
        """Mean and standard deviation of each cell (cell,)."""
        table = np.fft.ifft2(POWER).real
        y, x = np.divmod(np.arange(SIDE**2), SIDE)
        at = np.flatnonzero(self.seen)
        between = lambda a, b: table[(y[a][:, None] - y[b]) % SIDE, (x[a][:, None] - x[b]) % SIDE]
        crossed = between(np.arange(SIDE**2), at)
        factor = cho_factor(between(at, at) + self.std**2 * np.eye(len(at)))
        mean = crossed @ cho_solve(factor, self.std * self.observations.wanted.numpy())
        known = (crossed * cho_solve(factor, crossed.T).T).sum(1)
        return mean, np.sqrt(1 - known)

    def scores(self, drawn):
        """Fair CRPS over the exact one's and spread–skill, of the cells in the gap, in
        expectation over truths that these observations leave."""
        mean, std = (part[~self.seen.ravel()] for part in self.exact)
        x = drawn.flatten(1).double().numpy()[:, ~self.seen.ravel()]
        z = (x - mean) / std
        apart = std * (z * (2 * ndtr(z) - 1) + 2 * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
        ordered, n = np.sort(x, axis=0), len(x)
        ranks = 2 * np.arange(1, n + 1)[:, None] - n - 1
        within = (ranks * ordered).sum(0) * 2 / (n * (n - 1))
        crps = (apart.mean(0) - within / 2).mean() / (std / np.sqrt(np.pi)).mean()
        spread = x.var(0, ddof=1).mean() * (1 + 1 / n)
        return float(crps), float(np.sqrt(spread / ((x.mean(0) - mean) ** 2 + std**2).mean()))


def points(seed=0):
    seen = np.zeros(SIDE**2, bool)
    seen[np.random.default_rng(seed).choice(SIDE**2, 204, replace=False)] = True
    return Problem(seen.reshape(SIDE, SIDE), 0.1, seed)


def block(seed=0):
    seen = np.ones((SIDE, SIDE), bool)
    seen[10:55, 8:53] = False
    return Problem(seen, 0.01, seed)


PROBLEMS = {"points": points, "block": block}
EACH = ["points", pytest.param("block", marks=pytest.mark.slow)]
BARS = {"points": 1.01, "block": 1.02}
SWITCH = float(POWER.max() ** 0.5)


def draw(problem, denoise, switch=SWITCH, members=slice(MEMBERS), **options):
    """Members and what guided them."""
    noise = torch.randn(
        MEMBERS, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    guided = Posterior(denoise, problem.observations, prior, switch, **options)
    return SAMPLER.sample(guided, noise[members]), guided


@cache
def answered(name):
    """A problem, with the exact denoiser, its members and what guided them."""
    problem, denoise = PROBLEMS[name](), Field()
    return problem, denoise, *draw(problem, denoise)


@pytest.mark.parametrize("name", EACH)
def test_calibrated_at_the_promised_cost(name):
    problem, denoise, drawn, guided = answered(name)
    crps, calibration = problem.scores(drawn)
    assert crps < BARS[name] and 0.97 < calibration < 1.03
    assert denoise.forwards == 24 and guided.products <= 80
    misfit = problem.observations.told(drawn) - problem.observations.wanted
    assert 0.9 < float(misfit.square().mean().sqrt()) < 1.1


def test_a_free_corrector_spoils_it():
    """It takes the noise that it found to be the noise: true without observations alone."""
    problem = block()
    guided = Posterior(Field(), problem.observations, prior, SWITCH)
    noise = torch.randn(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7)).double()
    drawn = Multistep(24, SAMPLER.sigmas[0], 0.005).sample(guided, noise)
    misfit = problem.observations.told(drawn) - problem.observations.wanted
    assert misfit.square().mean().sqrt() > 2


def test_draws_that_know_nothing_are_seen_to_fail():
    """Negative controls: the climate, and guidance as if cells were independent (DiffPIR)."""
    problem = points()
    noise = torch.randn(
        MEMBERS, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7)
    ).double()
    assert problem.scores(filtered(noise, POWER**0.5))[0] > 1.4
    alone = Posterior(
        Field(), problem.observations, lambda sigma: lambda x: sigma**2 / (1 + sigma**2) * x, 0.0
    )
    assert problem.scores(SAMPLER.sample(alone, noise))[0] > 1.3


@pytest.mark.parametrize("name", EACH)
def test_a_network_with_faults(name):
    """10 % of the error of denoising, and a derivative that is not symmetric."""
    problem = PROBLEMS[name]()
    crps, calibration = problem.scores(draw(problem, Field(fault=0.1), members=slice(16))[0])
    assert crps < {"points": 1.01, "block": 1.02}[name] and 0.97 < calibration < 1.03


@pytest.mark.slow
def test_no_seam_at_the_border_of_a_gap():
    problem, _, drawn, _ = answered("block")
    drawn, mean, std = drawn[:, 0].numpy(), *problem.exact
    inside, outside = drawn[:, 10, 8:53], drawn[:, 9, 8:53]
    jump = np.square(inside - outside).mean()
    at = (mean.reshape(SIDE, SIDE)[10, 8:53] - problem.truth[0, 0, 9, 8:53].numpy()) ** 2
    right = (at + std.reshape(SIDE, SIDE)[10, 8:53] ** 2 + problem.std**2).mean()
    assert 0.95 < np.sqrt(jump / right) < 1.05


def test_a_member_is_the_same_in_any_batch():
    problem = points()
    whole, alone = (draw(problem, Field(), members=part)[0] for part in (slice(8), slice(3, 4)))
    assert (whole[3] - alone[0]).abs().max() < 1e-5


def test_whitened_departures_need_no_climate():
    """r = S⁻¹ x, as the package draws: the climate's C is σ²/(1 + σ²), the switch at 1."""
    problem = points()
    white = lambda x, sigma: x / (1 + sigma**2)
    observations = problem.observations
    told = Observations(lambda r: observations.told(filtered(r, POWER**0.5)), observations.wanted)
    noise = torch.randn(
        MEMBERS, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7)
    ).double()
    guided = Posterior(white, told, lambda sigma: lambda x: sigma**2 / (1 + sigma**2) * x, 1.0)
    drawn = filtered(Multistep(24, 60.0, 0.005, corrector=False).sample(guided, noise), POWER**0.5)
    crps, calibration = problem.scores(drawn)
    assert crps < 1.01 and 0.97 < calibration < 1.03


class Regimes:
    """An equal mixture of a rough and a smooth Gaussian field, and its exact denoiser."""

    def __init__(self):
        power = [(NUMBERS[:, None] ** 2 + NUMBERS**2 + 4.0) ** -slope for slope in (1.0, 2.5)]
        self.powers = [p / p.mean() for p in power]

    def __call__(self, x, sigma):
        spectrum = torch.fft.fft2(x).abs().square() / SIDE**2
        evidence = [
            -0.5 * (spectrum / torch.from_numpy(p + sigma**2)).sum((1, 2, 3))
            - 0.5 * float(np.log(p + sigma**2).sum())
            for p in self.powers
        ]
        odds = (evidence[0] - evidence[1]).sigmoid().view(-1, 1, 1, 1)
        one, other = (filtered(x, p / (p + sigma**2)) for p in self.powers)
        return odds * one + (1 - odds) * other

    def climate(self, sigma):
        power = sum(self.powers) / 2
        return lambda x: filtered(x, power * sigma**2 / (power + sigma**2))


def test_two_regimes(monkeypatch):
    """A smooth truth, whose regime 5 % of the cells tell: the exact posterior is the smooth one's.
    A fixed covariance, as optimal interpolation has it, is seen to fail."""
    module = __import__(__name__, fromlist=["POWER"])
    world = Regimes()
    monkeypatch.setattr(module, "POWER", world.powers[1])
    problem = points(3)
    assert problem.truth.std() > 0.3 and np.isfinite(problem.exact[0]).all()
    noise = torch.randn(
        MEMBERS, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7)
    ).double()
    top = float(max(p.max() for p in world.powers)) ** 0.5
    sampler = Multistep(24, 30 * top, 0.005, corrector=False)
    guided = Posterior(world, problem.observations, world.climate, top)
    crps, _ = problem.scores(sampler.sample(guided, noise))
    climate = Posterior(
        lambda x, sigma: world.climate(sigma)(x) / sigma**2,
        problem.observations,
        world.climate,
        0.0,
    )
    fixed, _ = problem.scores(sampler.sample(climate, noise))
    assert crps < 1.04 and fixed > 1.1, (crps, fixed)


def test_equations_are_solved():
    """Against dense solutions, of matrices that are not symmetric, from good and bad guesses."""
    generator = torch.Generator().manual_seed(0)
    batch, size = 5, 30
    matrix = torch.randn(batch, size, size, generator=generator).double() / 10
    misfit = torch.randn(batch, size, generator=generator).double()
    dense = torch.eye(size).double() + matrix
    want = torch.linalg.solve(dense, misfit[..., None])[..., 0]
    back = lambda v: v
    ahead = lambda v: torch.einsum("bij,bj->bi", matrix, v)
    for guess in (None, want + 1e-3, 1e6 * torch.ones_like(want)):
        found, pulled, left = solve(back, ahead, misfit, guess, 1e-8, 40)
        torch.testing.assert_close(found, want, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(pulled, found)
        assert (left < 1e-8).all()
    rough, _, left = solve(back, ahead, misfit, None, 0.1, 40)
    off = torch.linalg.vector_norm(misfit - rough - ahead(rough), dim=1) / misfit.norm(dim=1)
    torch.testing.assert_close(off, left)
    assert (left < 0.1).all() and (left > 1e-4).all()


@pytest.mark.parametrize("count", [20, 60])
def test_misfits_are_weighed_by_what_the_climate_lets_expect(count):
    """Against singular values, of fewer and more observations than numbers, some far better than
    others and one that says nothing."""
    random = np.random.default_rng(0)
    matrix = random.standard_normal((count, 30)) * 10.0 ** random.integers(-1, 6, (count, 1))
    matrix[3] = 0
    pulled = torch.from_numpy(matrix.T)
    curvature = Curvature.of(
        lambda r: r.flatten(1) @ pulled, torch.zeros(1, 2, 3, 5).double(), count, size=7
    )
    dual = random.standard_normal((3, count))
    left, sizes, _ = np.linalg.svd(matrix)
    values = np.pad(sizes**2, (0, count - len(sizes)))
    for variance, exponent in ((0.9, -0.5), (1e-3, -1.0)):
        want = dual @ left * (1 + variance * values) ** exponent @ left.T
        found = curvature.power(variance, exponent)(torch.from_numpy(dual)).numpy()
        np.testing.assert_allclose(found, want, atol=2e-3)


class Latents:
    """The field's latents under a linear autoencoder, with their exact denoiser."""

    PATCH, KEPT = 4, 4
    SHAPE = (KEPT, SIDE // PATCH, SIDE // PATCH)

    def __init__(self):
        white = torch.randn(400, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        fields = filtered(white.double(), POWER**0.5).float()
        axes = [Axis(name, np.arange(float(SIDE)), "periodic") for name in "yx"]
        grid = Grid(axes, "plane")
        auto = PatchAutoencoder(grid, 1, 0, self.KEPT, self.PATCH, blocks=0, bound=1e4)
        auto.fit_linear([fields[:300]])
        self.auto, self.statics = auto.double(), torch.zeros(0, SIDE, SIDE).double()
        groups = torch.zeros(self.SHAPE[1:], dtype=torch.int64)
        self.residual = ResidualCovariance(auto.patches, 1, groups, rank=16)
        held = fields[300:].double()
        self.residual.fit([held - self.decode(self.encode(held))])
        self.residual.double()
        unit = torch.eye(SIDE**2).double().view(-1, 1, SIDE, SIDE)
        encoder = (self.encode(unit) - self.encode(0 * unit[:1])).flatten(1)
        rooted = filtered(encoder.T.reshape(-1, 1, SIDE, SIDE), POWER**0.5).flatten(1)
        self.values, self.vectors = torch.linalg.eigh(rooted @ rooted.T)

    def encode(self, x):
        return self.auto.encode(x, self.statics)

    def decode(self, z):
        return self.auto.decode(z, self.statics)

    def shrunk(self, z, gain):
        return (z.flatten(1) @ self.vectors * gain @ self.vectors.T).view_as(z)

    def denoise(self, z, sigma):
        return self.shrunk(z, self.values / (self.values + sigma**2))

    def prior(self, sigma):
        return lambda z: self.shrunk(z, self.values * sigma**2 / (self.values + sigma**2))


@pytest.fixture(scope="module")
def latents():
    with torch.no_grad():
        return Latents()


@pytest.mark.parametrize(
    ("name", "members"), [("points", 4), pytest.param("block", MEMBERS, marks=pytest.mark.slow)]
)
def test_calibrated_through_an_autoencoder(latents, name, members):
    """The residual is in the errors and drawn given the observations; left out, members are too
    alike."""
    problem = PROBLEMS[name]()
    values = torch.zeros(1, SIDE, SIDE).double()
    seen = torch.from_numpy(problem.seen)[None]
    values[seen] = problem.std * problem.observations.wanted
    std = torch.full_like(values, problem.std)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(members, *latents.SHAPE, generator=generator).double()
    top = float(latents.values.max()) ** 0.5
    sampler = Multistep(24, 30 * top, 0.01, corrector=False)

    def drawn(residual):
        observed = Observed.of(values, std, seen, residual)
        observations = Observations(lambda z: observed.told(latents.decode(z)), observed.wanted())
        guided = Posterior(latents.denoise, observations, latents.prior, top)
        return observed, guided, latents.decode(sampler.sample(guided, noise))

    observed, guided, decoded = drawn(latents.residual)
    numbers = (members, latents.residual.numbers, *latents.SHAPE[1:])
    lost = latents.residual.draw(torch.randn(numbers, generator=generator).double())
    error = torch.randn(decoded.shape, generator=generator).double()
    whole = decoded + observed.residual(decoded, lost, error)
    crps, calibration = problem.scores(whole)
    # The block's bar is 1.03: 1.02 where equations are solved to 0.02, at 384 products.
    widest = {"points": 1.03, "block": 1.06}[name]
    assert crps < 1.025 and 0.97 < calibration < widest
    assert guided.products <= 150
    misfit = (whole - values)[:, seen] / problem.std
    assert 0.9 < float(misfit.square().mean().sqrt()) < 1.1
    none = ResidualCovariance(latents.auto.patches, 1, latents.residual.groups).double()
    assert problem.scores(drawn(none)[2])[1] < 0.96
