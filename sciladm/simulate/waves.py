"""Covariances that do not change along some axes: one small matrix per wave tells them whole.

A field (channel, *space) whose law is the same everywhere along its last axes falls into waves
along these that do not know of each other; the numbers of one wave (channels, and cells along the
other axes) are a *block*. The Fourier transform is unitary, so that white noise on the cells is
white noise on the waves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

NOTHING = 1e-12
"""Eigenvalues below this share of the largest are rounding: they count as zero."""


@dataclass(frozen=True)
class Layout:
    """``shape`` (channel, *space), of which the last ``periodic`` axes close and are alike."""

    shape: tuple[int, ...]
    periodic: int

    @property
    def size(self) -> int:
        """Numbers of a field."""
        return prod(self.shape)

    @property
    def waves(self) -> int:
        """Number of waves."""
        return prod(self.shape[-self.periodic :])

    @property
    def block(self) -> int:
        """Numbers of one wave."""
        return self.size // self.waves

    def to_waves(self, x: Real) -> Complex:
        """(…, *shape) → (…, wave, block), orthonormal."""
        lead = x.shape[: x.ndim - len(self.shape)]
        grid = x.reshape(*lead, self.block, *self.shape[-self.periodic :])
        waves = scipy.fft.fftn(grid, axes=range(-self.periodic, 0), norm="ortho")
        return np.swapaxes(waves.reshape(*lead, self.block, self.waves), -1, -2)

    def to_field(self, waves: Complex) -> Real:
        """The inverse of `to_waves`; a wave and its opposite are each other's conjugates."""
        lead = waves.shape[:-2]
        grid = np.swapaxes(waves, -1, -2).reshape(*lead, self.block, *self.shape[-self.periodic :])
        field: Real = scipy.fft.ifftn(grid, axes=range(-self.periodic, 0), norm="ortho").real
        return field.reshape(*lead, *self.shape)

    def apply(self, blocks: Complex, x: Real) -> Real:
        """The real operator of ``blocks`` (wave, block, block) on fields (…, *shape)."""
        return self.to_field(multiply(blocks, self.to_waves(x)))


def multiply(blocks: Complex, waves: Complex) -> Complex:
    """(wave, i, j) times (…, wave, j) → (…, wave, i)."""
    if blocks.shape[1:] == (1, 1):
        return waves * blocks[:, :, 0]
    flat = np.moveaxis(waves.reshape(-1, *waves.shape[-2:]), 0, -1)
    return np.moveaxis(blocks @ flat, -1, 0).reshape(waves.shape)


@dataclass(frozen=True, eq=False)
class Covariance:
    """C = F⁻¹ diag(``blocks``) F, F the transform of ``layout``, blocks (wave, block, block)
    Hermitian and ≥ 0."""

    layout: Layout
    blocks: Complex

    @cached_property
    def _eigen(self) -> tuple[Real, Complex]:
        if self.layout.block == 1:
            values, vectors = self.blocks[:, :, 0].real, np.ones_like(self.blocks)
        else:
            values, vectors = np.linalg.eigh(self.blocks)
        return np.where(values > NOTHING * values.max(), values, 0.0), vectors

    @property
    def eigenvalues(self) -> Real:
        """λ (wave, block): all eigenvalues of C, each as often as it occurs; zero where the field
        has no freedom."""
        return self._eigen[0]

    def coefficients(self, x: Real) -> Complex:
        """x (…, *shape) in the eigenvectors of C: (…, wave, block)."""
        adjoint = np.conj(np.swapaxes(self._eigen[1], 1, 2))
        return multiply(adjoint, self.layout.to_waves(x))

    def function(self, f: Callable[[Real], Real], x: Real) -> Real:
        """f(C) x: (…, *shape) → (…, *shape)."""
        weighted = self.coefficients(x) * f(self.eigenvalues)
        return self.layout.to_field(multiply(self._eigen[1], weighted))

    def mapped(self, f: Callable[[Real], Real]) -> Covariance:
        """f(C), f ≥ 0."""
        values, vectors = self._eigen
        blocks = (vectors * f(values)[:, None, :]) @ np.conj(np.swapaxes(vectors, 1, 2))
        return Covariance(self.layout, blocks)

    def times(self, x: Real) -> Real:
        """C x: (…, *shape) → (…, *shape)."""
        return self.layout.apply(self.blocks, x)

    @cached_property
    def diagonal(self) -> Real:
        """Variance of each number of the field (*shape)."""
        own = np.diagonal(self.blocks, axis1=1, axis2=2).real.mean(axis=0)
        first = self.layout.shape[: -self.layout.periodic]
        alike = own.reshape(*first, *(1,) * self.layout.periodic)
        return np.broadcast_to(alike, self.layout.shape)

    def dense(self) -> Real:
        """C as a matrix (size, size): for small grids."""
        size = self.layout.size
        columns = self.times(np.eye(size).reshape(size, *self.layout.shape))
        return columns.reshape(size, size).T
