"""Noise levels of training, from spectra that are known."""

import math

import pytest
import torch

from sciladm.diffusion.levels import WIDER, spectrum, training_levels

LONE = WIDER * math.pi / math.sqrt(12)
"""Standard deviation for modes of one variance."""


def field(variances, samples, seed=0):
    """Periodic r (sample, 2, cell) whose wave k and channel c have variances[c, k]."""
    gen = torch.Generator().manual_seed(seed)
    white = torch.randn(samples, 2, 2 * variances.shape[1] - 2, generator=gen)
    waves = torch.fft.rfft(white, dim=-1) * variances.sqrt()
    return torch.fft.irfft(waves, white.shape[-1], dim=-1)


def test_white_departures():
    r = torch.randn(600, 8, 6, 8, generator=torch.Generator().manual_seed(1))
    assert training_levels(r) == pytest.approx((0, LONE), abs=0.011)
    assert training_levels(3 * r) == pytest.approx((math.log(3), LONE), abs=0.011)


def test_a_steep_spectrum_moves_and_widens_them():
    variances = 10.0 ** torch.stack([torch.linspace(1, -3, 17), torch.linspace(0, -2, 17)])
    modes = torch.cat([variances, variances[:, 1:-1]], dim=1)
    half = modes.double().log().flatten() / 2
    want = float(half.mean()), WIDER * math.sqrt(math.pi**2 / 12 + float(half.var(correction=0)))
    assert want[0] < -1 and want[1] > 1.5 * LONE
    r = field(variances, 2000)
    assert training_levels(r) == pytest.approx(want, abs=0.02)
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    assert training_levels(torch.einsum("ij,njx->nix", turn, r)) == pytest.approx(want, abs=0.02)


def test_few_samples_do_not_bend_the_spectrum():
    """Eigenvalues of 30 samples of 16 white channels spread over three octaves; these do not."""
    r = torch.randn(30, 16, 8, 8, generator=torch.Generator().manual_seed(2))
    rows = torch.fft.fftn(r, dim=[2, 3], norm="ortho").flatten(2).movedim(2, 0)
    plain = torch.linalg.eigvalsh(rows.mH @ rows / 30)
    assert plain.log2().std() > 1
    assert spectrum(r).log2().std() < 0.45  # 15 samples measure a variance so well, no better
    assert float(spectrum(r).mean()) == pytest.approx(1, abs=0.02)
    assert training_levels(r) == pytest.approx((0, LONE), abs=0.08)


def test_what_never_departs_has_no_level():
    r = torch.randn(600, 8, 6, 8, generator=torch.Generator().manual_seed(1))
    r[:, 3] = 0
    assert training_levels(r) == pytest.approx((0, LONE), abs=0.011)
    assert all(map(math.isfinite, training_levels(0 * r)))
