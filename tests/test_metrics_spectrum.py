"""Spectra of fields whose spectra are known."""

import numpy as np
import pytest
from fields_oracle import sphere
from scipy.special import sph_harm_y

from sciladm.grid import Grid
from sciladm.metrics.spectrum import SphericalSpectrum, legendre, quadrature, spectrum_for


def harmonic(grid, l, m):
    θ, λ = np.meshgrid(
        np.deg2rad(90 - grid.axes[0].values), np.deg2rad(grid.axes[1].values), indexing="ij"
    )
    wave = sph_harm_y(l, m, θ, λ)
    return wave.real * np.sqrt(4 * np.pi * (2 if m else 1))  # mean square 1


@pytest.mark.parametrize(("l", "m"), [(1, 0), (3, 3), (7, 2), (16, 0), (16, 11), (16, 16)])
def test_a_pure_harmonic_has_all_its_power_at_its_degree(l, m):
    grid = sphere(32)
    spectrum = spectrum_for(grid)
    power = spectrum(harmonic(grid, l, m).astype(np.float32))
    trusted = ~spectrum.aliased
    assert power[l - 1] == pytest.approx(1.0, abs=2e-2 if l == 16 else 1e-4)
    others = np.delete(power[trusted], l - 1)
    assert others.max() < (2e-2 if l == 16 else 1e-6)


def test_degrees_beyond_half_the_latitudes_are_marked_aliased():
    spectrum = spectrum_for(sphere(32))
    np.testing.assert_array_equal(spectrum.wavenumbers[spectrum.aliased], range(17, 32))


def test_parseval_and_the_order_of_latitudes():
    grid = sphere(24)
    rng = np.random.default_rng(0)
    waves = [(l, m) for l in range(1, 12) for m in range(l + 1)]
    size = rng.standard_normal(len(waves))
    field = sum(a * harmonic(grid, *lm) for a, lm in zip(size, waves, strict=True))
    spectrum = spectrum_for(grid)
    power = spectrum(field[None] + 5.0)  # the mean state does not count
    expected = [sum(a**2 for a, lm in zip(size, waves, strict=True) if lm[0] == l)
                for l in range(1, 12)]  # fmt: skip
    np.testing.assert_allclose(power[0, :11], expected, rtol=1e-4)
    down = SphericalSpectrum(grid.axes[0].values[::-1], 48)
    np.testing.assert_allclose(down(field[::-1]), spectrum(field), rtol=1e-4, atol=1e-6)


def test_quadrature_is_fejers_and_gausss_and_legendre_orthonormal():
    n = 16
    θ = (np.arange(n) + 0.5) * np.pi / n
    k = np.arange(1, n // 2 + 1)
    terms = np.cos(2 * np.outer(θ, k)) / (4 * k**2 - 1)
    np.testing.assert_allclose(quadrature(np.cos(θ)), (1 - 2 * terms.sum(axis=1)) / n, atol=1e-12)
    μ, w = np.polynomial.legendre.leggauss(n)
    np.testing.assert_allclose(quadrature(μ), w / 2, atol=1e-12)
    table = legendre(μ, 10)
    for m in range(4):
        inner = (table[m] * w / 2) @ table[m].T
        np.testing.assert_allclose(inner[m:, m:], np.eye(11 - m) * (2 if m else 1), atol=1e-10)


def bounded(ny=40, nx=60):
    return Grid.from_coords({"y": np.arange(ny) * 1.0, "x": np.arange(nx) * 1.0})


def test_a_plane_wave_peaks_at_its_wavenumber_and_trends_do_not_count():
    grid = bounded()
    y, x = np.mgrid[:40, :60]
    spectrum = spectrum_for(grid)
    wave = np.cos(2 * np.pi * 9 * x / 60)
    power = spectrum(np.stack([wave, wave + 3 + 0.5 * x - 2.0 * y]))
    assert spectrum.wavenumbers[power[0].argmax()] == 9
    assert power[0].sum() == pytest.approx(0.5, rel=0.05)
    np.testing.assert_allclose(power[1], power[0], atol=1e-5)


def test_white_noise_has_power_in_proportion_to_the_waves_in_a_ring():
    fields = np.random.default_rng(0).standard_normal((200, 40, 60))
    spectrum = spectrum_for(bounded())
    power = spectrum(fields).mean(axis=0)
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(40, 1 / 60), np.fft.fftfreq(60, 1 / 60)))
    waves = np.array([(np.rint(k) == n).sum() for n in spectrum.wavenumbers])
    np.testing.assert_allclose(power[4:], waves[4:] / 2400, rtol=0.05)


def test_a_channel_is_longer_in_waves_where_the_earth_is_wider():
    grid = Grid.from_coords({"latitude": np.arange(50.0, 70, 1), "longitude": np.arange(40.0)})
    spectrum = spectrum_for(grid)  # 20° against 40°·cos 60°: a square
    wave = np.cos(2 * np.pi * 5 * np.arange(40) / 40)
    power = spectrum(np.broadcast_to(wave, (20, 40)).astype(np.float32))
    assert spectrum.wavenumbers[power.argmax()] == 5
    assert spectrum.wavenumbers[-1] == 10
