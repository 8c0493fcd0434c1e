"""Three-level flow: closed forms, conservation, convergence."""

from dataclasses import replace

import numpy as np
import pytest

from sciladm.simulate.earth import OMEGA, diurnal
from sciladm.simulate.quasigeostrophic import Flow, QuasiGeostrophic
from sciladm.simulate.sphere import RADIUS, random_phase

FREE = Flow(
    truncation=12,
    relaxation_days=0.0,
    drag_days=0.0,
    diffusion_days=0.0,
    scale_height=1e12,
    land_heating=0.0,
)
HOUR = np.zeros(1)


def free(steps: int = 4, truncation: int = 12) -> QuasiGeostrophic:
    return QuasiGeostrophic(replace(FREE, steps=steps, truncation=truncation), np.float64)


def stirred(model: QuasiGeostrophic, wind: float = 12.0, seed: int = 0) -> np.ndarray:
    """A random ψ whose wind is some metres per second, degrees 2–8."""
    size = model.flow.truncation + 1
    n = np.arange(size)
    power = np.where(
        (n >= 2) & (n <= 8), wind**2 / 7 * RADIUS**2 / np.maximum(n * (n + 1), 1), 0.0
    )
    normal = np.random.default_rng(seed).standard_normal((1, 3, size, size, 2))
    return np.ascontiguousarray(np.moveaxis(random_phase(size - 1, power, normal), 0, -1))


def test_rossby_haurwitz_wave_keeps_its_shape_and_speed():
    """ψ = −a²ω μ + one degree n: an exact solution; λ drift ω − 2(ω + Ω)/(n(n+1)) (Haurwitz
    1940).
    """
    model, n, m, omega = free(steps=6), 5, 4, 4e-6
    psi = np.zeros((3, 13, 13, 1), complex)
    solid = model.sphere.analyse(
        (-(RADIUS**2) * omega * model.sphere.mu)[None, :, None, None]
        * np.ones((3, 1, model.sphere.longitudes, 1))
    )
    psi[:, m, n] = 2e7 * np.exp(0.3j)
    state = psi + solid
    days = 5
    for _ in range(days * 24):
        state = model.step(state, HOUR)
    seconds = days * 24 * model.dt
    speed = omega - 2 * (omega + OMEGA) / (n * (n + 1))
    expected = psi * np.exp(-1j * m * speed * seconds) + solid
    assert abs(m * speed * seconds) > 1.5  # it did travel
    assert np.abs(state - expected).max() < 2e-4 * np.abs(psi).max()


def test_equilibrium_without_waves_is_steady():
    model = free()
    psi = model.equilibrium(HOUR)
    assert np.abs(model.tendency(psi, 0 * psi)).max() < 1e-12 * np.abs(psi).max()


def energy(model: QuasiGeostrophic, psi: np.ndarray) -> float:
    """−Σ ψ* q over the modes: twice kinetic and available potential energy."""
    twice = np.where(np.arange(psi.shape[1]) > 0, 2.0, 1.0)[None, :, None, None]
    return float(-(twice * (psi.conj() * model.potential_vorticity(psi)).real).sum())


def test_energy_is_conserved_and_the_step_converges():
    drift, ends = [], []
    for steps in (3, 6, 12):
        model = free(steps)
        psi = stirred(model)
        before = energy(model, psi)
        for _ in range(2 * 4 * steps):
            psi = model.step(psi, HOUR)
        drift.append(abs(energy(model, psi) / before - 1))
        ends.append(psi)
    assert drift[0] < 1e-3
    assert drift[2] < drift[1] / 8 < drift[0] / 64
    coarse, fine = (np.abs(end - ends[2]).max() for end in ends[:2])
    assert coarse / fine > 10  # order 4: 16 and a little


def test_drag_takes_energy_and_relaxation_reaches_equilibrium():
    damped = QuasiGeostrophic(replace(FREE, drag_days=2.0), np.float64)
    psi = stirred(damped)
    change = damped.tendency(psi, 0 * psi)
    assert energy(damped, psi + 1e3 * change) < energy(damped, psi)
    relaxed = QuasiGeostrophic(replace(FREE, relaxation_days=5.0), np.float64)
    equilibrium = relaxed.equilibrium(HOUR)
    target = np.einsum("kl,lmnb->kmnb", relaxed.stretching, equilibrium)
    assert np.abs(relaxed.tendency(equilibrium, target)).max() < 1e-10 * np.abs(equilibrium).max()


def test_potential_vorticity_inverts():
    model = free()
    psi = stirred(model)
    np.testing.assert_allclose(
        model.invert(model.potential_vorticity(psi)), psi, atol=1e-6 * np.abs(psi).max()
    )


def test_seasons_are_opposite_and_jets_stronger_in_winter():
    model = QuasiGeostrophic(Flow(), np.float64)
    hours = np.array([21 * 24.0, (21 + 182) * 24.0])
    u, _ = model.sphere.winds(model.equilibrium(hours))
    zonal = u[0].mean(axis=1)
    north, south = model.sphere.latitude > 0, model.sphere.latitude < 0
    assert zonal[north, 0].max() > 1.3 * zonal[north, 1].max()
    assert zonal[south, 1].max() > 1.3 * zonal[south, 0].max()


@pytest.mark.parametrize("hour", [0, 6, 15])
def test_daily_wave_follows_local_solar_time(hour):
    latitude, longitude = np.array([0.0]), np.arange(0, 360, 15.0)
    wave = diurnal(latitude, longitude, np.array([hour]))[0, :, 0]
    local = (hour + longitude / 15.0) % 24
    assert local[wave.argmax()] == 14.0
    assert abs(diurnal(latitude, longitude[:1], np.arange(24.0)).mean()) < 2e-3
