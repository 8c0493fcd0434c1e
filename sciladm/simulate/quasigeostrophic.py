"""Three-level quasi-geostrophic flow on the sphere, forced, damped and stirred (Marshall & Molteni
1993, J. Atmos. Sci. 50, 1792).

q = ∇²ψ − S ψ + f (1 + δ₃ h/H),  ∂q/∂t = −J(ψ, q) + S(ψ − ψₑ)/τᵣ − δ₃ ∇²ψ/τₑ − ν(n)(∇²ψ − Sψ) +
white noise   (their eqs. 1–3)

The state is ψ alone: Runge–Kutta of order 4 keeps nothing from one step to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciladm.simulate.earth import OMEGA, land, orography, season
from sciladm.simulate.sphere import RADIUS, Complex, Hours, Real, Sphere, random_phase

LEVELS = (200, 500, 850)  # [hPa]
DAY = 86400.0  # [s]
INTERVAL_HOURS = 6  # between two states of the record


@dataclass(frozen=True)
class Flow:
    """Parameters of the flow; defaults are the frozen ones."""

    truncation: int = 21  # triangular, largest degree
    steps: int = 4  # Runge–Kutta steps in six hours
    shear_upper: float = 19.0  # equilibrium u200 − u500 at the jet [m s⁻¹]
    shear_lower: float = 23.5  # equilibrium u500 − u850 at the jet [m s⁻¹]
    jet_latitude: float = 43.0  # [degrees]
    jet_width: float = 22.0  # [degrees]
    jet_season: float = 0.25  # relative strength added in winter, taken away in summer
    jet_shift: float = 4.0  # poleward shift in summer [degrees]
    land_heating: float = 1.5e6  # equilibrium ψ500 − ψ850 over summer land [m² s⁻¹]
    relaxation_days: float = 25.0  # of both thicknesses to equilibrium
    drag_days: float = 2.8  # of the vorticity at 850 hPa
    diffusion_days: float = 0.9  # at the last degree
    diffusion_order: int = 4  # ν ∝ (n(n+1))^order
    radius_upper: float = 7.0e5  # Rossby radius between 200 and 500 hPa [m]
    radius_lower: float = 4.5e5  # between 500 and 850 hPa [m]
    scale_height: float = 9000.0  # of the orography's effect on q [m]
    stirring: float = 1.15  # white, same at all levels: wind [m s⁻¹ day^−½]
    stirring_low: int = 4  # its first degree
    stirring_high: int = 13  # its last degree
    fastest: float = 150.0  # largest wind; beyond it the run is stopped [m s⁻¹]


class QuasiGeostrophic:
    """Steps ψ, complex (level, m, n, batch) [m² s⁻¹], on its Gaussian grid."""

    def __init__(self, flow: Flow, dtype: type[np.floating] = np.float32) -> None:
        self.flow, self.dtype = flow, np.dtype(dtype)
        self.sphere = Sphere(flow.truncation, dtype)
        self.dt = INTERVAL_HOURS * 3600.0 / flow.steps
        a, b = flow.radius_upper**-2, flow.radius_lower**-2
        stretching = np.array([[a, -a, 0.0], [-a, a + b, -b], [0.0, -b, b]])
        values, modes = np.linalg.eigh(stretching)
        self.stretching, self.modes = stretching.astype(dtype), modes.astype(dtype)
        n = np.arange(flow.truncation + 1)
        laplacian = -n * (n + 1) / RADIUS**2
        inverse = laplacian - values[:, None]
        inverse[np.abs(inverse) < 1e-18] = np.inf  # the barotropic mean of ψ has no wind and no q
        self._inverse = (1.0 / inverse)[:, None, :, None].astype(dtype)
        rate = 1.0 / (flow.diffusion_days * DAY) if flow.diffusion_days else 0.0
        self._diffusion = (rate * (laplacian / laplacian[-1]) ** flow.diffusion_order)[
            :, None
        ].astype(dtype)
        grid = np.zeros((3, self.sphere.latitude.size, self.sphere.longitudes, 1))
        coriolis = 2 * OMEGA * self.sphere.mu[:, None]
        grid += coriolis[None, :, :, None]
        height = self._smooth(orography(self.sphere.latitude, self.sphere.longitude))
        grid[2, ..., 0] += coriolis * height / flow.scale_height
        self.planetary = grid.astype(dtype)  # f (1 + δ₃ h/H) [s⁻¹]
        self._equilibrium = self._equilibria()
        power = np.where((n >= flow.stirring_low) & (n <= flow.stirring_high), 1.0, 0.0)
        wind = power * flow.stirring**2 / max(power.sum(), 1.0)  # equal kinetic energy per degree
        self.stir_power = wind / np.maximum(-laplacian, 1e-20) * (self.dt / DAY)

    def _smooth(self, grid: Real) -> Real:
        """The field as the truncation sees it, (latitude, longitude)."""
        spectral = self.sphere.analyse(grid[None, :, :, None])
        return self.sphere.synthesise(spectral)[0, :, :, 0]

    def _equilibria(self) -> tuple[Complex, Complex]:
        """Mean and seasonal amplitude of ψₑ, both (level, m, n, 1): ψₑ = mean + season ·
        amplitude.
        """
        flow, sphere = self.flow, self.sphere
        latitude = np.linspace(-90.0, 90.0, 721)

        def shear(warm: float) -> Real:
            total = np.zeros_like(latitude)
            for side in (1.0, -1.0):
                strength = 1.0 - side * warm * flow.jet_season
                centre = side * flow.jet_latitude + warm * flow.jet_shift
                total += strength * np.exp(-(((latitude - centre) / flow.jet_width) ** 2))
            return total * np.cos(np.deg2rad(latitude)) ** 0.5

        def stream(warm: float) -> Real:
            wind = shear(warm)
            step = np.deg2rad(latitude[1] - latitude[0])
            psi = -RADIUS * np.concatenate([[0.0], np.cumsum((wind[1:] + wind[:-1]) / 2) * step])
            return np.interp(sphere.latitude, latitude, psi)[:, None] * np.ones(sphere.longitudes)

        ground = land(sphere.latitude, sphere.longitude)
        ground = ground - ground.mean(axis=1, keepdims=True)
        # summer land has high thickness Φ; ψ = Φ/f and summer change sign at the equator together
        contrast = flow.land_heating * ground * sphere.mu[:, None] ** 2
        warm, cold = stream(1.0), stream(-1.0)
        layers = []
        for jet, heat in (((warm + cold) / 2, 0.0), ((warm - cold) / 2, 1.0)):
            lower = flow.shear_lower * jet + heat * contrast
            upper = flow.shear_upper * jet + heat * contrast
            psi = np.stack([upper + lower, lower, np.zeros_like(lower)])
            spectral = sphere.analyse(psi[..., None])
            spectral[:, 0, 0] = 0.0
            layers.append(spectral)
        return layers[0], layers[1]

    def equilibrium(self, hours: Hours) -> Complex:
        """ψₑ (level, m, n, batch) at `hours` (batch,) since 2201-01-01, zero at 850 hPa."""
        mean, amplitude = self._equilibrium
        return np.asarray(mean + season(hours).astype(self.dtype) * amplitude)

    def _levels(self, matrix: Real, x: Complex) -> Complex:
        flat = np.ascontiguousarray(x).reshape(3, -1).view(self.dtype)
        return (matrix @ flat).view(x.dtype).reshape(x.shape)

    def potential_vorticity(self, psi: Complex) -> Complex:
        """∇²ψ − Sψ [s⁻¹], spectral."""
        return np.asarray(self.sphere.laplacian * psi - self._levels(self.stretching, psi))

    def invert(self, q: Complex) -> Complex:
        """ψ of a potential vorticity without its planetary part."""
        return self._levels(self.modes, self._inverse * self._levels(self.modes.T, q))

    def tendency(self, psi: Complex, equilibrium: Complex) -> Complex:
        """∂ψ/∂t [m² s⁻²] without the white forcing."""
        flow, sphere = self.flow, self.sphere
        vorticity = sphere.laplacian * psi
        stretched = self._levels(self.stretching, psi)
        q = vorticity - stretched
        u, v = sphere.winds(psi)
        total = sphere.synthesise(q)
        total += self.planetary
        change = sphere.minus_flux_divergence(u, v, total)
        if flow.relaxation_days:
            change += (stretched - equilibrium) * self.dtype.type(
                1.0 / (flow.relaxation_days * DAY)
            )
        if flow.drag_days:
            change[2] -= vorticity[2] * self.dtype.type(1.0 / (flow.drag_days * DAY))
        if flow.diffusion_days:
            change -= self._diffusion * q
        return self.invert(change)

    def step(self, psi: Complex, hours: Hours) -> Complex:
        """One Runge–Kutta step from `hours`; the seasonal equilibrium is held at its middle."""
        dt = self.dtype.type(self.dt)
        target = self._levels(self.stretching, self.equilibrium(hours + self.dt / 7200.0))
        k1 = self.tendency(psi, target)
        k2 = self.tendency(psi + dt / 2 * k1, target)
        k3 = self.tendency(psi + dt / 2 * k2, target)
        k4 = self.tendency(psi + dt * k3, target)
        return np.asarray(psi + dt / 6 * (k1 + 2 * (k2 + k3) + k4))

    def stir(self, normal: Real) -> Complex:
        """One step's white forcing of ψ from standard normal (…, m, n, 2)."""
        return random_phase(self.flow.truncation, self.stir_power, normal)
