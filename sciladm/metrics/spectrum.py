"""How much variance a field holds at each scale: one call, on the sphere or on a bounded grid."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sciladm.grid import Grid

Floats = NDArray[np.floating]


class Spectrum(Protocol):
    """fields (…, *space) without gaps → power (…, scale), which sums to a mean square.

    `wavenumbers` (scale,) names the scales, the mean state (0) left out; `aliased` (scale,) is
    True where the grid cannot carry a scale and its power holds that of others.
    """

    wavenumbers: NDArray[np.float64]
    aliased: NDArray[np.bool_]

    def __call__(self, fields: Floats) -> Floats:
        """fields (…, *space) → (…, scale)."""
        ...


def spectrum_for(grid: Grid) -> Spectrum:
    """Degrees of spherical harmonics on the whole sphere (axes latitude, longitude last), else
    isotropic wavenumbers."""
    if grid.names[-2:] == ("latitude", "longitude") and "pole" in grid.boundaries:
        return SphericalSpectrum(grid.axes[-2].values, grid.shape[-1])
    lengths = [abs(axis.spacing) * len(axis) for axis in grid.axes]
    if grid.geometry == "sphere":
        latitude = grid.axes[grid.names.index("latitude")].values
        lengths[grid.names.index("longitude")] *= float(np.cos(np.deg2rad(latitude.mean())))
    periodic = tuple(b == "periodic" for b in grid.boundaries)
    return PlanarSpectrum(grid.shape, tuple(lengths), periodic)


def legendre(μ: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """Associated Legendre functions P̄ₗᵐ(μ), (m, l, place), of mean square 1 over the sphere for
    each (l, m) pair of sine and cosine; zero for l < m. Column recurrence of Holmes &
    Featherstone (2002), eqs 11 and 13."""
    table = np.zeros((degree + 1, degree + 1, len(μ)))
    table[0, 0] = 1.0
    cosine = np.sqrt(1.0 - μ**2)
    for m in range(degree + 1):
        if m:
            factor = np.sqrt((2 * m + 1) / (2 * m) * (2.0 if m == 1 else 1.0))
            table[m, m] = factor * cosine * table[m - 1, m - 1]
        for l in range(m + 1, degree + 1):
            a = np.sqrt((2 * l - 1) * (2 * l + 1) / ((l - m) * (l + m)))
            table[m, l] = a * μ * table[m, l - 1]
            if l > m + 1:
                b = (2 * l + 1) * (l + m - 1) * (l - m - 1) / ((l - m) * (l + m) * (2 * l - 3))
                table[m, l] -= np.sqrt(b) * table[m, l - 2]
    return table


def quadrature(μ: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (place,), sum 1, that make the mean over μ in [−1, 1] exact for polynomials of
    degree < n at the n places: Fejér's on equiangular latitudes, Gauss's at Gauss's."""
    conditions = np.polynomial.legendre.legvander(μ, len(μ) - 1).T
    exact = np.zeros(len(μ))
    exact[0] = 1.0
    return np.asarray(np.linalg.lstsq(conditions, exact)[0])


class SphericalSpectrum:
    """Power per degree, Σₘ |aₗᵐ|², on any set of whole latitude circles.

    n circles integrate products of two harmonics exactly up to degree n/2; degrees beyond, as
    far as they are given (to n − 1 on up to 128 circles), are marked aliased.
    """

    def __init__(self, latitude: NDArray[np.float64], n_longitude: int) -> None:
        n = len(latitude)
        degree = min(n - 1 if n <= 128 else n // 2, (n_longitude - 1) // 2)
        self.wavenumbers = np.arange(1.0, degree + 1)
        self.aliased = self.wavenumbers > n // 2
        μ = np.sin(np.deg2rad(latitude))
        table = legendre(μ, degree) * quadrature(μ)
        self._table = np.ascontiguousarray(table.transpose(0, 2, 1).astype(np.float32))

    def __call__(self, fields: Floats) -> Floats:
        """fields (…, latitude, longitude) → (…, degree)."""
        *lead, n_lat, n_lon = fields.shape
        waves = np.fft.rfft(fields.reshape(-1, n_lat, n_lon), axis=-1) / n_lon
        waves = waves[..., : len(self._table)].transpose(2, 0, 1)
        parts = np.concatenate([waves.real, waves.imag], axis=1).astype(np.float32)
        power = (parts @ self._table) ** 2
        power = power.sum(axis=0).reshape(2, -1, power.shape[-1]).sum(axis=0)
        return np.asarray(power[:, 1:].reshape(*lead, -1))


class PlanarSpectrum:
    """Isotropic power per wavenumber, in waves across the longest side. Along bounded axes a
    linear trend is removed and a Hann window laid on; periodic ones are left alone."""

    def __init__(
        self, shape: tuple[int, ...], lengths: tuple[float, ...], periodic: tuple[bool, ...]
    ) -> None:
        self._axes = tuple(range(-len(shape), 0))
        ends = [i for i, closed in enumerate(periodic) if not closed]
        places = [np.linspace(-1, 1, shape[i]) for i in ends]
        columns = [np.ones(shape)]
        window: NDArray[np.float64] = np.ones(shape)
        for i, place in zip(ends, places, strict=True):
            row = [-1 if j == i else 1 for j in range(len(shape))]
            columns.append(np.broadcast_to(place.reshape(row), shape))
            hann = np.cos(0.5 * np.pi * place * shape[i] / (shape[i] + 1)) ** 2
            window = window * hann.reshape(row)
        basis = np.linalg.qr(np.stack(columns).reshape(len(columns), -1).T)[0]
        self._trend = basis.astype(np.float32)
        self._window = (window / np.sqrt((window**2).mean())).astype(np.float32)
        longest = max(lengths)
        waves = [
            np.fft.fftfreq(n, d=1.0 / n) * longest / length
            for n, length in zip(shape, lengths, strict=True)
        ]
        radius = np.sqrt(sum(k**2 for k in np.meshgrid(*waves, indexing="ij")))
        last = min(n // 2 * longest / length for n, length in zip(shape, lengths, strict=True))
        self._bin = np.rint(radius).astype(np.int64).reshape(-1)
        self.wavenumbers = np.arange(1.0, int(last) + 1)
        self.aliased = np.zeros(len(self.wavenumbers), bool)

    def __call__(self, fields: Floats) -> Floats:
        """fields (…, *space) → (…, wavenumber)."""
        shape = fields.shape[len(fields.shape) - len(self._axes) :]
        flat: Floats = fields.reshape(-1, len(self._bin)).astype(np.float32)
        flat = flat - (flat @ self._trend) @ self._trend.T
        windowed = flat.reshape(-1, *shape) * self._window
        power = np.abs(np.fft.fftn(windowed, axes=self._axes)).reshape(len(flat), -1) ** 2
        power /= float(len(self._bin)) ** 2
        count = len(self.wavenumbers) + 1
        sums = np.stack([np.bincount(self._bin, row, minlength=count)[1:count] for row in power])
        return np.asarray(sums.reshape(*fields.shape[: -len(shape)], -1))
