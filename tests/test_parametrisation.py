"""Four methods, one denoiser: closed forms for Gaussian r, in float64."""

import pytest
import torch
from torch import nn

from sciladm.diffusion.denoiser import Context, Denoiser
from sciladm.diffusion.departure import Departure
from sciladm.diffusion.mean import MeanForecast
from sciladm.diffusion.noise import training_generator, training_sigma
from sciladm.diffusion.parametrisation import PARAMETRISATIONS, clean_of_score, score
from sciladm.nn.linear import LocalLinear

SIGMA = torch.logspace(-2.5, 2, 40, dtype=torch.float64)[:, None]
METHODS = pytest.mark.parametrize("method", PARAMETRISATIONS.values(), ids=list(PARAMETRISATIONS))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(got, want, tolerance=1e-12):
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@METHODS
def test_there_and_back(method):
    r, n = normal(2, 40, 50)
    x = r + SIGMA * n
    x_t, t = method.seen(x, SIGMA)
    for got, want in zip(method.mixed(x_t, t), (x, SIGMA), strict=True):
        close(got / want, torch.ones_like(want))
    close(method.denoised(method.goal(r, n, SIGMA), x, SIGMA), r)
    output = normal(40, 50, seed=1)
    back = method.output(method.denoised(output, x, SIGMA), x, SIGMA)
    # σ = 0.003 takes two digits and a half off a difference that is divided by it
    close(back, output, 3e-13 / float(SIGMA.min()))
    close(clean_of_score(score(r, x, SIGMA), x, SIGMA), r)
    close(score(r, x, SIGMA) * SIGMA, -n, 1e-11)


def gaussian(variance):
    """What every method's network says at its best for r ~ N(0, variance), from the literature's
    own variables: E[a r + b n | x_t] by the regression of one Gaussian on another."""
    flow_t = SIGMA / (1 + SIGMA)
    angle = SIGMA.atan()
    alpha, beta = angle.cos(), angle.sin()

    def regression(of_r, of_n, keep, add):
        """E[of_r r + of_n n | x_t = keep r + add n] / x_t."""
        return (of_r * keep * variance + of_n * add) / (keep**2 * variance + add**2)

    return {
        "edm": regression(beta, -alpha, alpha, beta),
        "flow": regression(-1, 1, 1 - flow_t, flow_t),
        "v": regression(-beta, alpha, alpha, beta),
        "noise": regression(0, 1, alpha, beta),
    }


@pytest.mark.parametrize("variance", [0.003, 0.3, 1.0, 7.0])
def test_exact_outputs_are_the_exact_denoiser(variance):
    x = normal(40, 50)
    best = x * variance / (variance + SIGMA**2)
    for name, factor in gaussian(variance).items():
        method = PARAMETRISATIONS[name]
        output = factor * method.seen(x, SIGMA)[0]
        # the network's own rounding is divided by c_out's inverse, at most σ
        close(method.denoised(output, x, SIGMA) / (1 + SIGMA), best / (1 + SIGMA))
        wrong = method.denoised(output * 1.01, x, SIGMA)
        assert variance == 1 or (wrong - best).abs().max() > 1e-4
        for other in PARAMETRISATIONS.values():
            said = other.output(method.denoised(output, x, SIGMA), x, SIGMA)
            close(other.denoised(said, x, SIGMA) / (1 + SIGMA), best / (1 + SIGMA))
    close(score(best, x, SIGMA), -x / (variance + SIGMA**2), 1e-9)


def test_times_are_those_of_the_literature():
    r, n = normal(2, 40, 50)
    x = r + SIGMA * n
    x_t, t = PARAMETRISATIONS["flow"].seen(x, SIGMA)
    close(x_t, (1 - t) * r + t * n)
    velocity = PARAMETRISATIONS["flow"].output(r, x, SIGMA)
    later = (1 - t - 1e-6) * r + (t + 1e-6) * n
    close((later - x_t) / 1e-6, velocity, 1e-9)
    for name in ("v", "noise"):
        x_t, t = PARAMETRISATIONS[name].seen(x, SIGMA)
        angle = t * torch.pi / 2
        close(x_t, angle.cos() * r + angle.sin() * n)
    v, edm = (PARAMETRISATIONS[name].goal(r, n, SIGMA) for name in ("v", "edm"))
    close(v, angle.cos() * n - angle.sin() * r)
    close(v, -edm)
    close(PARAMETRISATIONS["noise"].output(r, x, SIGMA), n, 1e-11)
    assert not torch.allclose(velocity, v)


class Best(nn.Module):
    """The network that is exact for r ~ N(0, variance)."""

    def __init__(self, method, variance):
        super().__init__()
        self.method, self.variance = method, variance

    def forward(self, x, t):
        x, sigma = self.method.mixed(x[:, :2], t[:, None, None])
        return self.method.output(x * self.variance / (self.variance + sigma**2), x, sigma)


def least_loss(name, sigma, variance):
    """E[Var[F | x]] for F = a r + b n, where n − E[n | x] = −(r − E[r | x]) / σ and
    Var[r | x] = variance · σ² / (variance + σ²)."""
    left = variance * sigma**2 / (variance + sigma**2)
    unit = (1 + sigma**2) ** 0.5
    a, b = {"edm": (sigma / unit, -1 / unit), "flow": (-1, 1), "v": (-sigma / unit, 1 / unit),
            "noise": (0, 1)}[name]  # fmt: skip
    return left * (a - b / sigma) ** 2


@pytest.mark.parametrize("name", PARAMETRISATIONS)
def test_loss_at_the_optimum(name):
    method, batch = PARAMETRISATIONS[name], 8000
    for sigma in (0.1, 0.8, 5.0):
        for variance in (0.2, 1.0, 3.0):
            model = denoiser(method, Best(method, variance)).double()
            r, n = normal(2, batch, 2, 4)
            level = torch.full((batch,), sigma, dtype=torch.float64)
            got = float(model.loss(r * variance**0.5, nothing(batch), level, n))
            assert got == pytest.approx(least_loss(name, sigma, variance), rel=0.02)
            worse = denoiser(method, Best(method, 1.5 * variance)).double()
            assert float(worse.loss(r * variance**0.5, nothing(batch), level, n)) > got
    assert name not in ("edm", "v") or least_loss(name, 0.3, 1.0) == pytest.approx(1)


class Gain(nn.Module):
    """F = gain(c_noise) · x_t, a gain for each channel: holds every Gaussian denoiser."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Sequential(nn.Linear(16, 48), nn.SiLU(), nn.Linear(48, 2))
        nn.init.zeros_(self.gain[2].weight)
        nn.init.zeros_(self.gain[2].bias)

    def forward(self, x, noise):
        waves = noise[:, None] * torch.linspace(0.5, 4, 8)
        gain = self.gain(torch.cat([waves.sin(), waves.cos()], dim=1))
        return gain[:, :, None] * x[:, :2]


VARIANCES = torch.tensor([0.1, 2.0])


def denoiser(method, backbone):
    """Two channels of four cells, nothing known."""
    rows = torch.zeros(4, dtype=torch.int64)
    base = MeanForecast(LocalLinear(1, 2, rows, ("periodic",), 1), None, False)
    departure = Departure(2, rows, ("periodic",), 0)
    return Denoiser(backbone, base, departure, torch.ones(4), method)


def nothing(batch):
    return Context(torch.zeros(batch, 2, 4), torch.ones(batch, 2, 4), torch.zeros(batch, 1, 4))


@METHODS
def test_all_learn_the_same_denoiser(method):
    torch.manual_seed(0)
    model = denoiser(method, Gain())
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    steps, batch = 700, 256
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        r, noise = torch.randn(2, batch, 2, 4, generator=training_generator(0, step))
        sigma = training_sigma(0, step, batch, 0.0, 1.4)
        loss = model.loss(r * VARIANCES[:, None].sqrt(), nothing(batch), sigma, noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    for sigma in (0.1, 0.3, 1.0, 3.0, 10.0):
        total = VARIANCES + sigma**2
        x = total.sqrt()[:, None].expand(1, 2, 4)
        got = model(x, sigma, nothing(1)).detach()
        best = (VARIANCES / total)[:, None] * x
        unit = (VARIANCES * sigma**2 / total).sqrt()[:, None]  # what the best leaves, per number
        assert ((got - best) / unit).abs().max() < 0.05, sigma
