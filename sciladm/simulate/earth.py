"""An Earth drawn with formulas: continents, mountains, seasons, the sun's day. All smooth, none
measured.
"""

from __future__ import annotations

import numpy as np

from sciladm.simulate.sphere import Hours, Real

GRAVITY = 9.80665  # [m s⁻²]
OMEGA = 7.292e-5  # rotation of the Earth [s⁻¹]
GAS = 287.05  # gas constant of dry air [J kg⁻¹ K⁻¹]
YEAR_HOURS = 365.2425 * 24.0

# Elliptic bumps: longitude, latitude, half widths in longitude and latitude [degrees]
CONTINENTS = (
    (258, 50, 32, 16), (250, 62, 36, 10), (265, 36, 16, 10), (258, 22, 8, 8), (298, -8, 20, 12),
    (295, -28, 12, 16), (318, 74, 18, 11), (15, 52, 20, 10), (30, 58, 26, 11), (70, 56, 42, 16),
    (105, 48, 40, 20), (110, 64, 42, 11), (105, 30, 18, 13), (78, 20, 11, 12), (48, 28, 14, 12),
    (102, 12, 8, 9), (8, 18, 26, 15), (22, 0, 17, 14), (25, -20, 13, 15), (134, -25, 19, 11),
    (115, -2, 12, 6),
)  # fmt: skip
# The same with the height of the top [m]
MOUNTAINS = (
    (250, 43, 14, 15, 2100), (290, -22, 7, 24, 2600),
    (88, 33, 17, 9, 4300), (318, 74, 14, 9, 2300),
    (37, 5, 9, 16, 1300), (25, -27, 9, 8, 1100), (54, 33, 12, 7, 1300), (100, 49, 15, 8, 1500),
    (10, 46, 7, 5, 900), (135, 62, 18, 8, 800),
)  # fmt: skip


def bump(latitude: Real, longitude: Real, centre: tuple[float, ...]) -> Real:
    """exp(−r²) of one ellipse on (latitude, longitude) [degrees], periodic in longitude."""
    east = (longitude[None, :] - centre[0] + 180.0) % 360.0 - 180.0
    north = latitude[:, None] - centre[1]
    return np.asarray(np.exp(-((east / centre[2]) ** 2) - (north / centre[3]) ** 2))


def land(latitude: Real, longitude: Real) -> Real:
    """Fraction of land in 0…1, (latitude, longitude)."""
    height = sum(bump(latitude, longitude, c) for c in CONTINENTS)
    antarctic = np.exp(-((np.clip(latitude + 90.0, 0, None) / 20.0) ** 4))[:, None]
    return np.asarray(1.0 / (1.0 + np.exp(-12.0 * (height + antarctic - 0.45))))


def orography(latitude: Real, longitude: Real) -> Real:
    """Height of the ground [m], (latitude, longitude), zero over the sea."""
    height = sum(m[4] * bump(latitude, longitude, m[:4]) for m in MOUNTAINS)
    antarctic = 2600.0 * np.exp(-((np.clip(latitude + 90.0, 0, None) / 17.0) ** 4))[:, None]
    return np.asarray((height + antarctic) * land(latitude, longitude))


def season(hours: Hours) -> Real:
    """+1 at the warmest time of the north (22 July), −1 half a year later; `hours` (batch,) since
    2201-01-01.
    """
    return np.asarray(np.cos(2 * np.pi * (np.asarray(hours) / YEAR_HOURS - 202.0 / 365.2425)))


def declination(hours: Hours) -> Real:
    """Latitude of the overhead sun [radians], a circular orbit; solstice on 21 June."""
    phase = 2 * np.pi * (np.asarray(hours) / YEAR_HOURS - 171.0 / 365.2425)
    return np.asarray(np.deg2rad(23.44) * np.cos(phase))


def diurnal(latitude: Real, longitude: Real, hours: Hours) -> Real:
    """Shape of the daily wave of temperature, (latitude, longitude, batch): noon's cos(zenith)
    times two harmonics.

    The first harmonic peaks at 14 h of local solar time, the second sharpens the afternoon; the
    mean of both over 24 h is zero.
    """
    noon = np.clip(np.cos(np.deg2rad(latitude)[:, None, None] - declination(hours)), 0.0, None)
    clock = np.asarray(hours, np.float64) % 24.0 / 24.0
    local = 2 * np.pi * (clock + longitude[None, :, None] / 360.0 - 14.0 / 24.0)
    return np.asarray(noon * (np.cos(local) + 0.2 * np.cos(2 * local)))
