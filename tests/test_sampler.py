"""The sampler against exact denoisers: its own error must be far below that of any network."""

import numpy as np
import pytest
import torch

from sciladm.diffusion.sampler import Heun, Multistep
from sciladm.diffusion.sampler import multistep as module
from sciladm.diffusion.sampler.multistep import exponential_weights
from tests.oracles import gaussian_denoise, two_peaks_denoise

VARIANCES = torch.tensor([1, 0.3, 0.1, 0.03, 0.01, 0.003], dtype=torch.float64)
RANGE = {"sigma_max": 30.0, "sigma_min": 0.3 * 0.003**0.5}


def amplitude_error(sampler, variances=VARIANCES):
    """Relative error of each mode's standard deviation: the sampler is linear in the noise here,
    so one number per mode says it all."""
    start = torch.ones_like(variances)
    return (sampler.sample(gaussian_denoise(variances), start) / variances.sqrt() - 1).abs()


def test_amplitudes_of_all_modes_within_a_percent():
    table = {steps: float(amplitude_error(Multistep(steps, **RANGE)).max()) for steps in
             (8, 10, 12, 14, 16, 18, 20, 30)}  # fmt: skip
    bars = {8: 0.11, 10: 0.05, 12: 0.02, 14: 0.01, 16: 0.01, 18: 0.01, 20: 0.01, 30: 0.01}
    assert all(table[steps] < bar for steps, bar in bars.items()), table
    assert amplitude_error(Heun(9, **RANGE)).max() > 0.1  # 17 evaluations


@pytest.mark.parametrize("order", [1, 2, 3])
def test_order_of_convergence(order):
    noise = torch.tensor([-0.8, -0.3, 0.1, 0.7, 1.2], dtype=torch.float64)

    def sample(steps, order):
        return Multistep(steps, 1e3, 1e-3, order, corrector=False).sample(two_peaks_denoise, noise)

    exact = sample(3000, 3)
    errors = [float((sample(steps, order) - exact).abs().max()) for steps in (240, 480)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2), errors


def test_few_steps_still_work():
    for steps in (2, 4, 5):
        out = Multistep(steps, **RANGE).sample(gaussian_denoise(VARIANCES), torch.ones(6).double())
        assert torch.isfinite(out).all()


def test_known_bug_is_caught(monkeypatch):
    """The last factor of the integral taken at the wrong end of the step."""

    def wrong(nodes, start, end):
        right = exponential_weights(nodes, start, end)
        return right._replace(weights=[w * np.exp(-(end - start)) for w in right.weights])

    monkeypatch.setattr(module, "exponential_weights", wrong)
    assert amplitude_error(Multistep(20, **RANGE)).max() > 0.1


def test_weights_integrate_polynomials_exactly():
    start, end, nodes = 0.3, 1.1, np.array([-0.7, 0.1, 0.3])
    weights = exponential_weights(nodes, start, end).weights
    u, w = np.polynomial.legendre.leggauss(30)
    u = start + (u + 1) * (end - start) / 2
    for k in range(3):
        exact = np.sum(w * np.exp(u - end) * u**k) * (end - start) / 2
        assert np.dot(weights, nodes**k) == pytest.approx(exact, rel=1e-12)


def test_distribution_of_a_correlated_gaussian():
    gen = torch.Generator().manual_seed(0)
    a = torch.randn(6, 6, generator=gen, dtype=torch.float64)
    cov = a @ a.T / 6 + 0.01 * torch.eye(6)
    eye = torch.eye(6, dtype=torch.float64)

    def denoise(x, sigma):
        return x @ torch.linalg.solve(cov + sigma**2 * eye, cov)

    noise = torch.eye(6, dtype=torch.float64)  # the sampler's matrix, column by column
    matrix = Multistep(18, 30 * float(torch.linalg.eigvalsh(cov)[-1]) ** 0.5, 0.02).sample(
        denoise, noise
    )
    assert torch.allclose(matrix.T @ matrix, cov, atol=0.02 * float(cov.diagonal().max()))


def test_wrong_settings():
    with pytest.raises(ValueError, match="steps"):
        Multistep(1)
