"""Where a random field lives: a torus of any dimension, or the sphere; how scale and drift act.

Both give a field's law by its *scales* k: waves round the longest side, or degrees of spherical
harmonics. A drift along the last axis, x or longitude, turns phases.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from sciladm.simulate.sphere import legendre
from sciladm.simulate.waves import Complex, Covariance, Layout, Real

Labels = dict[str, tuple[Real, dict[str, Any]]]
"""Axis → its cells and attributes, in the order of a field's."""


class Domain(Protocol):
    """A grid, and the operators that treat all its places alike."""

    @property
    def labels(self) -> Labels:
        """Axes in order."""
        ...

    @property
    def scale(self) -> Real:
        """k² of each scale (scale,)."""
        ...

    def variance(self, spectrum: Real) -> float:
        """Mean over the cells of the variance that ``spectrum`` (scale,) gives."""
        ...

    def layout(self, channels: int) -> Layout:
        """That of fields (channel, *space)."""
        ...

    def covariance(self, spectrum: Real, between: Real) -> Covariance:
        """That of ``spectrum`` (scale,), times ``between`` (channel, channel)."""
        ...

    def operator(self, gain: Real, cells: float, channels: int) -> Complex:
        """Multiplies each scale by ``gain`` (scale,) and moves fields ``cells`` on."""
        ...


@dataclass(frozen=True)
class Torus:
    """Square cells, every axis periodic: a plane (y, x) or a box (z, y, x)."""

    shape: tuple[int, ...]

    @property
    def labels(self) -> Labels:
        """Cells by number; `modulo` says where an axis begins again."""
        names = ("z", "y", "x")[-len(self.shape) :]
        return {
            name: (np.arange(float(n)), {"units": "1", "axis": name.upper(), "modulo": float(n)})
            for name, n in zip(names, self.shape, strict=True)
        }

    @cached_property
    def _waves(self) -> list[Real]:
        """Whole waves round each axis (*shape)."""
        sides = (np.fft.fftfreq(n, 1 / n) for n in self.shape)
        return list(np.meshgrid(*sides, indexing="ij"))

    @cached_property
    def scale(self) -> Real:
        """k² (wave,), k the waves per longest side."""
        longest = max(self.shape)
        sides = zip(self._waves, self.shape, strict=True)
        return np.asarray(sum((k * longest / n) ** 2 for k, n in sides)).reshape(-1)

    def variance(self, spectrum: Real) -> float:
        """The mean of λ: cells and waves are equally many."""
        return float(spectrum.mean())

    def layout(self, channels: int) -> Layout:
        """All axes are alike."""
        return Layout((channels, *self.shape), len(self.shape))

    def covariance(self, spectrum: Real, between: Real) -> Covariance:
        """λ(k) times ``between``."""
        blocks = spectrum[:, None, None] * between
        return Covariance(self.layout(len(between)), blocks.astype(np.complex128))

    def operator(self, gain: Real, cells: float, channels: int) -> Complex:
        """(wave, channel, channel). The shortest wave along x of an even number of cells does not
        say where it is: it does not move."""
        k, n = self._waves[-1].reshape(-1), self.shape[-1]
        phase = np.where(2 * np.abs(k) == n, 0.0, -2 * np.pi * k * cells / n)
        blocks = (gain * np.exp(1j * phase))[:, None, None] * np.eye(channels)
        return blocks.astype(np.complex128)


@dataclass(frozen=True)
class Globe:
    """A regular grid of (latitude, longitude) without poles, as of the simulated atmosphere.

    Isotropic fields of degree n ≤ ``truncation``: (truncation + 1)² numbers on more cells, for
    meridians meet at the poles. Such a field is confined to a subspace; there its law is exact.
    """

    shape: tuple[int, int]

    def __post_init__(self) -> None:
        if self.truncation < 1:
            raise ValueError(f"{self.shape} cells are too few for a field on the sphere")

    @property
    def truncation(self) -> int:
        """Degrees that latitudes and longitudes carry well."""
        return min(2 * self.shape[0] // 3, (self.shape[1] - 1) // 2)

    @property
    def labels(self) -> Labels:
        """Latitude ascending, longitude from 0°."""
        spacing = [180.0 / self.shape[0], 360.0 / self.shape[1]]
        latitude = np.arange(-90.0 + spacing[0] / 2, 90.0, spacing[0])
        longitude = np.arange(0.0, 360.0, spacing[1])
        return {
            "latitude": (latitude, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": (longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        }

    @cached_property
    def scale(self) -> Real:
        """n (n + 1) (degree,): minus the eigenvalues of the Laplacian."""
        n = np.arange(self.truncation + 1.0)
        return n * (n + 1)

    def variance(self, spectrum: Real) -> float:
        """Σ (2n + 1) spectrum[n]: degree n has 2n + 1 harmonics; the same at every cell."""
        return float(((2 * np.arange(len(spectrum)) + 1) * spectrum).sum())

    def layout(self, channels: int) -> Layout:
        """Longitudes are alike, latitudes are not."""
        return Layout((channels, *self.shape), 1)

    @cached_property
    def _functions(self) -> list[Real]:
        """Per wave of the longitudes P (latitude, degree) of all degrees, ∫ P² dμ = 1."""
        latitude = self.labels["latitude"][0]
        table = legendre(self.truncation, np.sin(np.deg2rad(latitude)))[0].astype(np.float64)
        nothing = np.zeros_like(table[0])
        orders = np.abs(self._orders).astype(int)
        return [table[m] if m <= self.truncation else nothing for m in orders]

    @property
    def _orders(self) -> Real:
        """m of each wave."""
        return np.asarray(np.fft.fftfreq(self.shape[1], 1 / self.shape[1]), np.float64)

    def covariance(self, spectrum: Real, between: Real) -> Covariance:
        """Blocks L · 2 Σₙ spectrum[n] P P′ by the addition theorem,
        (2n + 1) Pₙ(cos γ) = 2 Σₘ P̄ₙₘ(μ) P̄ₙₘ(μ′) e^{imΔλ}, L the number of longitudes."""
        own = [2 * self.shape[1] * (p * spectrum) @ p.T for p in self._functions]
        blocks = np.stack([np.kron(between, block) for block in own])
        return Covariance(self.layout(len(between)), blocks.astype(np.complex128))

    def operator(self, gain: Real, cells: float, channels: int) -> Complex:
        """(wave, channel · latitude, channel · latitude): each latitude circle is read as its
        harmonics (least squares weighted by cell area, exact for fields of this truncation),
        these are changed, and written again."""
        weight = np.sqrt(np.cos(np.deg2rad(self.labels["latitude"][0])))
        phase = np.exp(-2j * np.pi * self._orders * cells / self.shape[1])
        blocks = []
        for p, turn in zip(self._functions, phase, strict=True):
            inverse = np.linalg.pinv(weight[:, None] * p) * weight
            blocks.append(np.kron(np.eye(channels), turn * ((p * gain) @ inverse)))
        return np.stack(blocks)
