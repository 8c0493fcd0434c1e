"""Gaussian fields that need not be seen whole to be known, and draws of what is missing of them.

Fields alike everywhere have a covariance that knows only how far apart two cells are: every pair
of cells that was observed together tells of its lag. Where fields are few numbers, any other
covariance can be drawn to that one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from sciladm.grid import Boundary

LEAN = 10
"""Values as whose worth a cell's variance is drawn to that of all cells."""
LEAST = 1e-6
"""Share of the mean variance that is added where a covariance has to have a root."""
ENOUGH, MOST = 1e-3, 1000
"""Share of its equations that may be left unsolved, and products in which it has to be done."""


class Law(Protocol):
    """N(0, C) of fields (channel, *space), float64."""

    def draw(self, random: np.random.Generator) -> Tensor:
        """One (channel, *space)."""
        ...

    def gained(self, at: Tensor, misfit: Tensor, error: Tensor) -> Tensor:
        """C Aᵀ (A C Aᵀ + diag(error²))⁻¹ misfit (number,), where A takes the numbers ``at``
        (observation,) of a field: what so many misfits say of all of it (Gandin 1963)."""
        ...


@dataclass(frozen=True, eq=False)
class Dense:
    """Any ``covariance`` (number, number) of fields of a ``shape``."""

    covariance: Tensor
    root: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, covariance: Tensor, shape: Sequence[int]) -> "Dense":
        """With its lower root."""
        little = LEAST * covariance.diagonal().mean() * torch.eye(len(covariance))
        return cls(covariance, torch.linalg.cholesky(covariance + little), tuple(shape))

    def draw(self, random: np.random.Generator) -> Tensor:
        """As `Law` has it."""
        return (self.root @ torch.from_numpy(random.standard_normal(len(self.root)))).view(
            self.shape
        )

    def gained(self, at: Tensor, misfit: Tensor, error: Tensor) -> Tensor:
        """As `Law` has it."""
        lower, crossed = self._factor(at, error)
        return crossed @ torch.cholesky_solve(misfit[:, None], lower)[:, 0]

    def known(self, at: Tensor, values: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of all numbers, given ``values`` of those ``at``."""
        lower, crossed = self._factor(at, error)
        mean = crossed @ torch.cholesky_solve(values[:, None], lower)[:, 0]
        told = torch.linalg.solve_triangular(lower, crossed.T, upper=False).square().sum(0)
        return mean, (self.covariance.diagonal() - told).clamp(min=0).sqrt()

    def _factor(self, at: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        crossed = self.covariance[:, at]
        return torch.linalg.cholesky(crossed[at] + torch.diag(error.square())), crossed


@dataclass(frozen=True, eq=False)
class Stationary:
    """C = S K S: ``size``, the standard deviation of each number (channel, *space); ``root``
    (*wavenumber, channel, channel), the root of the spectrum of correlations K, on a grid ``wide``
    enough that bounded axes do not meet their own ends."""

    size: Tensor
    root: Tensor
    wide: tuple[int, ...]

    @classmethod
    def fit(cls, samples: Iterable[Tensor], boundaries: Sequence[Boundary]) -> "Stationary":
        """From batches (n, channel, *space) with NaN where nothing was observed; gone through
        twice. A lag has the mean product of its pairs, drawn to 0 towards the far ends of bounded
        axes; what of the spectrum is negative then is chance, and left out."""
        size = _size(samples)
        space = size.shape[1:]
        wide = tuple(n if end == "periodic" or n == 1 else next_fast_len(2 * n, real=True)
                     for n, end in zip(space, boundaries, strict=True))  # fmt: skip
        axes = tuple(range(-len(space), 0))
        products = pairs = torch.zeros(1)
        for x in samples:
            seen = x.isfinite()
            y = torch.fft.rfftn((x.double() / size).where(seen, 0.0), wide, axes)
            m = torch.fft.rfftn(seen.double(), wide, axes)
            products = products + torch.einsum("ni...,nj...->ij...", y, y.conj())
            pairs = pairs + torch.einsum("ni...,nj...->ij...", m, m.conj())
        total, count = (torch.fft.irfftn(s, wide, axes) for s in (products, pairs))
        lags = (total / count.clamp(min=1)).where(count > 0.5, 0.0) * _near(space, wide)
        spectrum = torch.fft.rfftn(lags, wide, axes).movedim((0, 1), (-2, -1))
        values, vectors = torch.linalg.eigh(spectrum)
        root = vectors * values.clamp(min=0).sqrt()[..., None, :]
        kept = torch.fft.irfftn((root @ root.mH).movedim((-2, -1), (0, 1)), wide, axes)
        wanted, got = (x.flatten(2)[..., 0].diagonal() for x in (lags, kept))
        return cls(size, (wanted / got).sqrt()[:, None] * root, wide)

    def draw(self, random: np.random.Generator) -> Tensor:
        """As `Law` has it."""
        normal = torch.from_numpy(random.standard_normal((1, len(self.size), *self.wide)))
        return (self.size * self._times(self.root, normal))[0]

    def gained(self, at: Tensor, misfit: Tensor, error: Tensor) -> Tensor:
        """As `Law` has it, by conjugate gradients, made easy by what the inverse would be if all
        were observed."""
        noise, usual = error.numpy() ** 2, error.square().mean()
        whole = self.root @ self.root.mH
        inverse = torch.linalg.inv(whole + usual * torch.eye(len(self.size)))
        empty = torch.zeros(self.size.numel(), dtype=torch.float64)

        def through(matrix: Tensor, scale: Tensor, dual: np.ndarray) -> Tensor:
            x = empty.index_put((at,), torch.from_numpy(dual)).view_as(self.size)
            return (scale * self._times(matrix, (scale * x)[None])[0]).flatten()

        ahead = lambda dual: through(whole, self.size, dual)[at].numpy() + noise * dual
        easy = lambda dual: through(inverse, 1 / self.size, dual)[at].numpy()
        square = (len(at), len(at))
        dual, _ = cg(
            LinearOperator(square, ahead, dtype=float), misfit.numpy(), rtol=ENOUGH, maxiter=MOST,
            M=LinearOperator(square, easy, dtype=float),
        )  # fmt: skip
        return through(whole, self.size, dual)

    def matrix(self) -> Tensor:
        """C (number, number)."""
        unit = torch.eye(self.size.numel(), dtype=torch.float64)
        whole = self.root @ self.root.mH
        rows = [self.size * self._times(whole, self.size * some.view(-1, *self.size.shape))
                for some in torch.split(unit, 64)]  # fmt: skip
        return torch.cat(rows).flatten(1)

    def _times(self, matrix: Tensor, x: Tensor) -> Tensor:
        """A spectrum times x (n, channel, *space or wide) → (n, channel, *space)."""
        axes = tuple(range(-len(self.wide), 0))
        waves = torch.fft.rfftn(x, self.wide, axes)
        out = torch.einsum("...ij,nj...->ni...", matrix, waves)
        fields: Tensor = torch.fft.irfftn(out, self.wide, axes)
        for dim, n in enumerate(self.size.shape[1:], start=2):
            fields = fields.narrow(dim, 0, n)
        return fields


def _size(samples: Iterable[Tensor]) -> Tensor:
    """Root mean square of each number (channel, *space), drawn to that of all cells."""
    squares = counts = torch.zeros(1)
    for x in samples:
        seen = x.isfinite()
        squares = squares + x.where(seen, 0.0).double().square().sum(0)
        counts = counts + seen.sum(0)
    shared = squares.flatten(1).sum(1) / counts.flatten(1).sum(1).clamp(min=1)
    shared = shared.view(-1, *[1] * (squares.ndim - 1))
    return ((squares + LEAN * shared) / (counts + LEAN)).sqrt().clamp(min=1e-12)


def _near(space: Sequence[int], wide: Sequence[int]) -> Tensor:
    """By how much each lag counts (*wide): 1 along periodic axes, a cosine's arch along others
    (Hann), flat where lags are short, for there it is decided how smooth fields are."""
    out = torch.ones(tuple(wide), dtype=torch.float64)
    for axis, (n, many) in enumerate(zip(space, wide, strict=True)):
        if many > n:
            lag = torch.fft.fftfreq(many, 1 / many, dtype=torch.float64)
            arch = (1 + torch.cos(torch.pi * (lag / n).clamp(-1, 1))) / 2
            out = out * arch.view(-1, *[1] * (len(wide) - axis - 1))
    return out
