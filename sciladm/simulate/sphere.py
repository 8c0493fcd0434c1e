"""Spherical harmonics on a Gaussian grid and at any latitudes: synthesis, analysis, winds, least
squares.

A field is f(λ, μ) = Σ_m Σ_n f[n, m] P[n, m](μ) e^{imλ}, μ = sin φ, with ∫ P² dμ = 1 over [−1, 1]
and f[n, −m] = conj f[n, m].
Spectral arrays are complex `(level, m, n, batch)`, triangular truncation, entries n < m zero;
grids are `(level, latitude, longitude, batch)`.
Batch last: one real matrix product per (level, m) serves every state of the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import DTypeLike, NDArray

Real = NDArray[np.floating[Any]]
Complex = NDArray[np.complexfloating[Any, Any]]
Hours = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]  # since 2201-01-01 00 h, (batch,)

RADIUS = 6.371e6  # of the Earth [m]


def coupling(truncation: int) -> Real:
    """ε[m, n] = √((n² − m²) / (4n² − 1)) for n ≤ truncation + 1, zero where n ≤ m. Shape
    (truncation + 1, truncation + 2).
    """
    m = np.arange(truncation + 1)[:, None]
    n = np.arange(truncation + 2)[None, :]
    return np.asarray(np.sqrt(np.clip(n**2 - m**2, 0, None) / np.abs(4.0 * n**2 - 1)))


def legendre(truncation: int, mu: Real) -> tuple[Real, Real]:
    """Normalised P and H = (1 − μ²) dP/dμ at `mu`, both (m, point, n).

    μ P[n] = ε[n+1] P[n+1] + ε[n] P[n−1] and H[n] = (n+1) ε[n] P[n−1] − n ε[n+1] P[n+1] (Belousov
    1962).
    """
    size = truncation + 1
    eps = coupling(truncation)
    p = np.zeros((size, mu.size, size + 1))
    sectoral = np.full(mu.size, np.sqrt(0.5))
    for m in range(size):
        if m:
            sectoral = sectoral * np.sqrt((2 * m + 1) / (2 * m)) * np.sqrt(1 - mu**2)
        p[m, :, m] = sectoral
        for n in range(m, size):
            below = eps[m, n] * p[m, :, n - 1] if n > m else 0.0
            p[m, :, n + 1] = (mu * p[m, :, n] - below) / eps[m, n + 1]
    h = np.zeros((size, mu.size, size))
    for n in range(size):
        below = (n + 1) * eps[:, n, None] * p[:, :, n - 1] if n else 0.0
        h[:, :, n] = below - n * eps[:, n + 1, None] * p[:, :, n + 1]
        h[n + 1 :, :, n] = 0.0
    return np.ascontiguousarray(p[:, :, :size]), h


def multiply(matrix: Real, x: Complex) -> Complex:
    """Real matrices (m, i, j) times complex (level, m, j, batch), without a complex product."""
    real = np.ascontiguousarray(x).view(matrix.dtype)
    return (matrix @ real).view(x.dtype)


class Points:
    """Evaluates spectral fields at given latitudes [degrees] and `longitudes` equally spaced
    meridians from 0°.
    """

    def __init__(self, truncation: int, latitude: Real, longitudes: int, dtype: DTypeLike) -> None:
        if longitudes <= 2 * truncation:
            raise ValueError(
                f"{longitudes} longitudes cannot hold zonal wavenumber {truncation}: "
                f"use more than {2 * truncation}"
            )
        self.truncation, self.longitudes = truncation, longitudes
        self.latitude = np.asarray(latitude, np.float64)
        self.longitude = np.arange(longitudes) * 360.0 / longitudes
        self.dtype = np.dtype(dtype)
        self.complex = np.result_type(self.dtype, np.complex64)
        mu = np.sin(np.deg2rad(self.latitude))
        p, h = legendre(truncation, mu)
        self.cosine = np.sqrt(1 - mu**2)[None, :, None]
        self.p, self.h = p.astype(self.dtype), h.astype(self.dtype)
        self._wind_u = (-h / (RADIUS * self.cosine)).astype(self.dtype)
        self._wind_v = (p / (RADIUS * self.cosine)).astype(self.dtype)
        self.im = (1j * np.arange(truncation + 1))[:, None, None].astype(self.complex)
        n = np.arange(truncation + 1)
        self.laplacian = (-n * (n + 1) / RADIUS**2)[:, None].astype(self.dtype)  # (n, 1) [m⁻²]

    def to_grid(self, waves: Complex) -> Real:
        """Sum over m: (level, m, latitude, batch) → (level, latitude, longitude, batch)."""
        grid: Real = scipy.fft.irfft(waves, n=self.longitudes, axis=1, norm="forward")
        return np.moveaxis(grid, 1, 2)

    def to_waves(self, grid: Real) -> Complex:
        """Fourier coefficients m ≤ truncation: (level, latitude, longitude, batch) → (level, m,
        latitude, batch).
        """
        waves: Complex = scipy.fft.rfft(grid, axis=2, norm="forward")
        return np.moveaxis(waves[:, :, : self.truncation + 1], 2, 1)

    def synthesise(self, spectral: Complex) -> Real:
        """(level, m, n, batch) → (level, latitude, longitude, batch), the same units."""
        return self.to_grid(multiply(self.p, spectral))

    def winds(self, psi: Complex) -> tuple[Real, Real]:
        """Streamfunction [m² s⁻¹] → u = −∂ψ/(a ∂φ), v = ∂ψ/(a cos φ ∂λ) [m s⁻¹] on the grid."""
        u = self.to_grid(multiply(self._wind_u, psi))
        return u, self.to_grid(multiply(self._wind_v, self.im * psi))

    def fit_winds(self, u: Real, v: Real) -> Complex:
        """Streamfunction whose winds are nearest to (u, v), least squares weighted by cell area;
        its global mean is zero.
        """
        waves = np.concatenate(
            [self.to_waves(u), self.to_waves(v)], axis=2
        )  # (level, m, 2 latitude, batch)
        size = self.truncation + 1
        weight = np.tile(np.sqrt(self.cosine[0, :, 0]), 2)
        psi = np.zeros((waves.shape[0], size, size, waves.shape[3]), np.complex128)
        for m in range(size):
            low = max(m, 1)  # n = 0 has no wind
            basis = np.concatenate([self._wind_u[m], 1j * m * self._wind_v[m]], axis=0)[
                :, low:
            ].astype(np.complex128)
            inverse = np.linalg.pinv(weight[:, None] * basis) * weight
            psi[:, m, low:] = inverse @ waves[:, m]
        return psi.astype(self.complex)


class Sphere(Points):
    """The Gaussian grid on which products of two fields of this truncation are free of
    aliasing.
    """

    def __init__(self, truncation: int, dtype: DTypeLike = np.float64) -> None:
        latitudes = 2 * ((3 * truncation + 1 + 3) // 4)
        mu, weights = np.polynomial.legendre.leggauss(latitudes)
        longitudes = scipy.fft.next_fast_len(3 * truncation + 1, real=True)
        super().__init__(truncation, np.rad2deg(np.arcsin(mu)), longitudes + longitudes % 2, dtype)
        self.mu, self.weights = mu, weights
        scale = weights / (RADIUS * (1 - mu**2))
        p, h = legendre(truncation, mu)
        self._analysis = np.swapaxes(p * weights[:, None], 1, 2).astype(self.dtype).copy()
        self._flux_u = np.swapaxes(-p * scale[:, None], 1, 2).astype(self.dtype).copy()
        self._flux_v = np.swapaxes(h * scale[:, None], 1, 2).astype(self.dtype).copy()
        self._cos = np.sqrt(1 - mu**2)[None, :, None, None].astype(self.dtype)

    def analyse(self, grid: Real) -> Complex:
        """(level, latitude, longitude, batch) → (level, m, n, batch); exact for fields of this
        truncation.
        """
        return multiply(self._analysis, self.to_waves(grid.astype(self.dtype, copy=False)))

    def minus_flux_divergence(self, u: Real, v: Real, q: Real) -> Complex:
        """−∇·(q (u, v)) as spectral coefficients, by parts in μ so that the global mean is
        conserved.
        """
        carried = q * self._cos
        zonal = multiply(self._flux_u, self.to_waves(u * carried))
        zonal *= self.im
        zonal += multiply(self._flux_v, self.to_waves(v * carried))
        return zonal


def random_phase(truncation: int, power: Real, normal: Real) -> Complex:
    """Homogeneous isotropic noise: `normal` (…, m, n, 2) standard normal → complex (…, m, n),
    variance per degree `power` (n,).

    The mean square over the sphere of the field is Σ_n power[n].
    """
    size = truncation + 1
    m, n = np.arange(size)[:, None], np.arange(size)[None, :]
    # the mean square of P e^{imλ} over the sphere is 1/2; m > 0 counts twice (its conjugate)
    real_only = np.sqrt(2 * power / (2 * n + 1)) * (m == 0)
    paired = np.sqrt(power / (2 * n + 1)) * ((m > 0) & (n >= m))
    amplitude = np.stack([real_only + paired, paired], axis=-1).astype(normal.dtype)
    scaled = np.ascontiguousarray(normal * amplitude)
    return scaled.view(np.result_type(normal.dtype, np.complex64))[..., 0]
