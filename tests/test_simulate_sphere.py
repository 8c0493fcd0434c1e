"""Spherical harmonics against closed forms and against themselves."""

import numpy as np
import pytest

from sciladm.simulate.sphere import RADIUS, Points, Sphere, legendre, random_phase

T = 15


def noise(seed: int = 0, batch: int = 2) -> np.ndarray:
    normal = np.random.default_rng(seed).standard_normal((batch, 3, T + 1, T + 1, 2))
    spectral = random_phase(T, np.r_[0.0, np.ones(T)], normal)
    return np.ascontiguousarray(np.moveaxis(spectral, 0, -1))


def test_legendre_agrees_with_closed_forms():
    mu = np.linspace(-0.99, 0.99, 7)
    p, h = legendre(3, mu)
    np.testing.assert_allclose(p[0, :, 2], np.sqrt(5 / 2) * (3 * mu**2 - 1) / 2, atol=1e-14)
    np.testing.assert_allclose(p[1, :, 2], np.sqrt(15 / 4) * mu * np.sqrt(1 - mu**2), atol=1e-14)
    np.testing.assert_allclose(h[0, :, 2], (1 - mu**2) * np.sqrt(5 / 2) * 3 * mu, atol=1e-14)


def test_round_trip_is_exact_for_band_limited_fields():
    sphere, x = Sphere(T), noise()
    np.testing.assert_allclose(sphere.analyse(sphere.synthesise(x)), x, atol=1e-13)
    assert np.abs(sphere.analyse(sphere.synthesise(x)) - 1.01 * x).max() > 1e-3


def test_power_is_the_mean_square_on_the_sphere():
    power = np.r_[0.0, np.random.default_rng(1).random(T)]
    normal = np.random.default_rng(2).standard_normal((400, T + 1, T + 1, 2))
    fields = Sphere(T).synthesise(np.moveaxis(random_phase(T, power, normal), 0, -1)[None])
    weights = Sphere(T).weights[:, None, None] / 2 / fields.shape[2]
    assert (fields[0] ** 2 * weights).sum() / 400 == pytest.approx(power.sum(), rel=0.03)


def test_winds_and_laplacian_of_a_known_streamfunction():
    sphere = Sphere(T)
    phi, lam = np.deg2rad(sphere.latitude)[:, None], np.deg2rad(sphere.longitude)[None, :]
    psi = (np.cos(phi) ** 4 * np.sin(phi) * np.cos(4 * lam))[
        None, :, :, None
    ]  # degree 5: an eigenfunction
    spectral = sphere.analyse(psi)
    u, v = sphere.winds(spectral)
    exact_u = (
        -(np.cos(phi) ** 5 - 4 * np.cos(phi) ** 3 * np.sin(phi) ** 2) * np.cos(4 * lam) / RADIUS
    )
    exact_v = -4 * np.cos(phi) ** 3 * np.sin(phi) * np.sin(4 * lam) / RADIUS
    np.testing.assert_allclose(u[0, ..., 0], exact_u, atol=1e-20)
    np.testing.assert_allclose(v[0, ..., 0], exact_v, atol=1e-20)
    laplacian = sphere.synthesise(sphere.laplacian * spectral)
    np.testing.assert_allclose(laplacian, -30 / RADIUS**2 * psi, atol=1e-25)


def test_flux_divergence_of_a_product_is_free_of_aliasing():
    """−∇·(q u) = −J(ψ, q) against the same on a finer grid, truncated."""
    coarse, fine = Sphere(T), Sphere(2 * T)
    psi, q = noise(3), noise(4)
    pad = lambda x: np.pad(x, [(0, 0), (0, T), (0, T), (0, 0)])
    small = coarse.minus_flux_divergence(*coarse.winds(psi), coarse.synthesise(q))
    large = fine.minus_flux_divergence(*fine.winds(pad(psi)), fine.synthesise(pad(q)))
    inside = np.arange(T + 1)[:, None] <= np.arange(T + 1)[None, :]
    error = (small - large[:, : T + 1, : T + 1]) * inside[None, :, :, None]
    assert np.abs(error).max() < 1e-12 * np.abs(large).max()


def test_winds_on_an_equiangular_grid_give_the_streamfunction_back():
    latitude = -90 + 180 / 24 * (np.arange(24) + 0.5)
    points, psi = Points(T, latitude, 48, np.float64), noise(5)
    np.testing.assert_allclose(points.fit_winds(*points.winds(psi)), psi, atol=1e-11)


def test_too_few_longitudes_are_refused():
    with pytest.raises(ValueError, match="more than 30"):
        Points(T, np.zeros(1), 30, np.float64)
