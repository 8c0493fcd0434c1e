"""Model state ⇄ what is written: linear balance, thickness, Ekman turning, a slab of ground; and
the way back.

Every prognostic number is a function of the channels: ψ of the winds (least squares), the slab of
the 2 m temperature and the hour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciladm.simulate.earth import GAS, GRAVITY, OMEGA, diurnal, land, orography, season
from sciladm.simulate.quasigeostrophic import DAY, INTERVAL_HOURS, LEVELS, QuasiGeostrophic
from sciladm.simulate.sphere import Complex, Hours, Points, Real, coupling, random_phase

PROFILE_GEOPOTENTIAL = (115700.0, 54600.0, 14300.0)  # global means [m² s⁻²]
PROFILE_TEMPERATURE = (217.0, 254.0, 279.0)  # [K]
VARIABLES = (
    "geopotential", "temperature", "u_component_of_wind", "v_component_of_wind",
    "2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind",
    "mean_sea_level_pressure",
)  # fmt: skip
CHANNELS = tuple((name, level) for name in VARIABLES[:4] for level in LEVELS) + tuple(
    (name, None) for name in VARIABLES[4:]
)


@dataclass(frozen=True)
class Ground:
    """Parameters of the slab and of what is read off the lowest level; defaults are the frozen
    ones.
    """

    memory_land_days: float = 1.0  # of the slab
    memory_sea_days: float = 2.0  # the same over sea
    air_land: float = 1.0  # K of the slab's target per K of air at 850 hPa
    air_sea: float = 0.6  # the same over sea
    season_land: float = 12.0  # amplitude at the pole [K]
    season_sea: float = 3.0  # the same over sea
    day_land: float = 6.0  # amplitude of the daily wave under an overhead sun [K]
    day_sea: float = 0.4  # the same over sea
    noise_land: float = 0.25  # white forcing [K day^−½]
    noise_sea: float = 0.05  # the same over sea
    lapse: float = 5.0e-3  # of the ground with height [K m⁻¹]
    turning: float = 25.0  # of the 10 m wind towards low pressure, outside the tropics [degrees]
    friction_land: float = 0.45  # 10 m speed / 850 hPa speed
    friction_sea: float = 0.7  # the same over sea


class Channels:
    """Writes and reads states on an equiangular grid without poles, latitude ascending."""

    def __init__(
        self, model: QuasiGeostrophic, ground: Ground, latitudes: int, longitudes: int
    ) -> None:
        self.ground, self.model = ground, model
        spacing = 180.0 / latitudes
        latitude = -90.0 + spacing * (np.arange(latitudes) + 0.5)
        self.points = Points(model.flow.truncation, latitude, longitudes, model.dtype)
        self.latitude, self.longitude = self.points.latitude, self.points.longitude
        self.land = land(self.latitude, self.longitude)
        self.height = orography(self.latitude, self.longitude)
        g = ground
        rate = self._blend(1 / g.memory_land_days, 1 / g.memory_sea_days)
        self._keep = np.exp(-rate * INTERVAL_HOURS / 24.0)
        self._air, self._season = (
            self._blend(g.air_land, g.air_sea),
            self._blend(g.season_land, g.season_sea),
        )
        self._day, self._noise = (
            self._blend(g.day_land, g.day_sea),
            self._blend(g.noise_land, g.noise_sea),
        )
        self._friction = self._blend(g.friction_land, g.friction_sea)
        self._sine = np.sin(np.deg2rad(self.latitude))[:, None, None]
        angle = np.deg2rad(g.turning) * np.tanh(self._sine / np.sin(np.deg2rad(15.0)))
        self._cos_turn, self._sin_turn = np.cos(angle), np.sin(angle)
        n = np.arange(model.flow.truncation + 1)
        eps = coupling(model.flow.truncation)
        dtype = model.dtype
        self._up = (2 * OMEGA * n[:-1] * eps[:, 1:-1] / (n[:-1] + 1))[..., None].astype(dtype)
        self._down = (2 * OMEGA * (n[2:] + 1) * eps[:, 2:-1] / n[2:])[..., None].astype(dtype)
        power = np.where((n >= 1) & (n <= 12), 1.0, 0.0)
        self.noise_power = power / power.sum() * INTERVAL_HOURS / 24.0
        mean = (model.equilibrium(np.array([0.0])) + model.equilibrium(np.array([183.0 * 24]))) / 2
        self._reference = 0.8 * self._air_temperature(self._balance(mean))[2]
        profile = 273.15 + 27.0 - 48.0 * self._sine**2
        self._profile = profile - g.lapse * self.height[..., None]

    def _blend(self, on_land: float, on_sea: float) -> Real:
        return np.asarray((self.land * on_land + (1 - self.land) * on_sea)[..., None])

    def _balance(self, psi: Complex) -> Real:
        """Φ′ (level, latitude, longitude, batch) [m² s⁻²] from ∇²Φ = ∇·(f ∇ψ), solved degree by
        degree.
        """
        phi = np.zeros_like(psi)
        phi[:, :, 1:] += self._up * psi[:, :, :-1]
        phi[:, :, 1:-1] += self._down * psi[:, :, 2:]
        return self.points.synthesise(phi)

    def _air_temperature(self, phi: Real) -> Real:
        """T′ (level, …) [K]: hydrostatic layer means, linear in ln p between the layers, constant
        beyond.
        """
        p = np.log(np.array(LEVELS, np.float64))
        layers = [(phi[i] - phi[i + 1]) / (GAS * (p[i + 1] - p[i])) for i in (0, 1)]
        weight = (p[1] - (p[0] + p[1]) / 2) / ((p[2] - p[0]) / 2)
        return np.stack([layers[0], (1 - weight) * layers[0] + weight * layers[1], layers[1]])

    def warm(self, slab: Real, psi: Complex, hours: Hours, normal: Real) -> Real:
        """The slab (latitude, longitude, batch) [K] six hours on, at `hours`, with ψ there; normal
        (batch, m, n, 2).
        """
        air = self._air_temperature(self._balance(psi))[2] - self._reference
        target = self._profile + self._season * self._sine * season(hours) + self._air * air
        noise = random_phase(self.model.flow.truncation, self.noise_power, normal)
        eddy = self.points.synthesise(np.moveaxis(noise, 0, -1)[None].astype(self.points.complex))[
            0
        ]
        change = self._keep * (slab - target) + target + self._noise * eddy
        return np.asarray(change.astype(self.model.dtype))

    def climate(self, hours: Hours) -> Real:
        """The slab's target without weather, where a spin-up starts."""
        return np.asarray(
            (self._profile + self._season * self._sine * season(hours)).astype(self.model.dtype)
        )

    def write(self, psi: Complex, slab: Real, hours: Hours) -> Real:
        """States → float32 (batch, channel, latitude, longitude) in the order of CHANNELS."""
        phi = self._balance(psi)
        u, v = self.points.winds(psi)
        level = np.array(PROFILE_TEMPERATURE)[:, None, None, None]
        temperature = level + self._air_temperature(phi)
        geopotential = phi + np.array(PROFILE_GEOPOTENTIAL)[:, None, None, None]
        near = self._friction * (u[2] * self._cos_turn - v[2] * self._sin_turn)
        near_v = self._friction * (u[2] * self._sin_turn + v[2] * self._cos_turn)
        # down to 1000 hPa through air of its own temperature, then to the height of the sea
        sea_level = geopotential[2] - GAS * temperature[2] * np.log(1000.0 / LEVELS[2])
        pressure = 1.0e5 * np.exp(sea_level / (GAS * 288.0))
        surface = np.stack(
            [
                slab + self._day * diurnal(self.latitude, self.longitude, hours),
                near,
                near_v,
                pressure,
            ]
        )
        stacked = np.concatenate([geopotential, temperature, u, v, surface])
        return np.ascontiguousarray(np.moveaxis(stacked, -1, 0), dtype=np.float32)

    def read(self, fields: Real, hours: Hours) -> tuple[Complex, Real]:
        """(batch, channel, latitude, longitude) → ψ nearest to the winds of the three levels, and
        the slab.
        """
        batch_last = np.moveaxis(np.asarray(fields, np.float64), 0, -1)
        psi = self.points.fit_winds(batch_last[6:9], batch_last[9:12])
        slab = batch_last[12] - self._day * diurnal(self.latitude, self.longitude, hours)
        return psi, slab.astype(self.model.dtype)

    def statics(self) -> dict[str, Real]:
        """land_sea_mask [1] and geopotential_at_surface [m² s⁻²], (latitude, longitude)."""
        ground = GRAVITY * self.height
        return {
            "land_sea_mask": self.land.astype(np.float32),
            "geopotential_at_surface": ground.astype(np.float32),
        }


__all__ = ["CHANNELS", "DAY", "VARIABLES", "Channels", "Ground"]
