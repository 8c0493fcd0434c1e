"""Covariances of many cells from few samples: little of what far cells seem to share is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sciladm.baselines.filling import gaussian_crps
from sciladm.nn.shrink import drawn
from sciladm.observe.masks import block, clouds

LEAST = 1e-4
"""Of a number's variance: what patterns have at least. Less is a constant, or rounding."""
REACHES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125)
"""Half of how far correlations reach, over the longest side of the grid."""
POWERS = 64
"""Of a covariance, of which the leading pattern is found."""
SCORED = 100
"""Samples of a half that a law is judged by."""
HIDDEN = block, block, clouds, clouds
"""What is hidden of them."""


def localised(rows: Tensor, shape: Sequence[int], reach: float | None) -> Tensor:
    """The covariance (number, number) of ``rows`` (sample, number), float64: numbers are channels
    by cells of a grid ``shape`` without periodic axes, white cell by cell.

    Days that follow each other are worth far fewer independent ones, so correlations with far
    cells are mostly chance, and there are more far cells than near ones. The leading pattern, what
    all cells share, stays as it is; what else two cells have in common fades with the distance
    between them and ends at twice the ``reach``, in longest sides of the grid (Gaspari & Cohn
    1999, eq 4.10). None: nothing fades, and all correlations are drawn to none alike, by Ledoit &
    Wolf's share (2004).
    """
    return _Law.of(rows, shape).covariance(reach)


def reach_of(rows: Tensor, shape: Sequence[int]) -> float | None:
    """The reach, or None, by which gaps in either half of the ``rows``, a series, are
    filled best from the law of the other: how far a law is to be believed is seen where it has to
    say what is not there. (The likelihood of whole samples likes longer reaches, which fill gaps
    worse and too narrowly: it is about what near cells say, of which there are many.)"""
    channels = rows.shape[1] // int(np.prod(shape))
    masks = [kind(np.random.default_rng(n), shape) for n, kind in enumerate(HIDDEN)]
    seen = [np.tile(mask.ravel(), channels) for mask in masks if mask.any() and not mask.all()]
    halves = rows.chunk(2)
    laws = [_Law.of(half, shape) for half in halves]
    judged = [half[:: -(-len(half) // SCORED)].double() for half in reversed(halves)]

    def missed(reach: float | None) -> float:
        total = 0.0
        for law, some in zip(laws, judged, strict=True):
            covariance = law.covariance(reach)
            total += sum(filled(covariance, some, torch.from_numpy(mask)) for mask in seen)
        return total

    return min((None, *REACHES), key=missed)


@dataclass(frozen=True, eq=False)
class _Law:
    """Second moments (number, number) of ``samples`` rows, on cells ``apart`` (cell, cell), in
    longest sides."""

    moments: Tensor
    samples: int
    apart: Tensor

    @classmethod
    def of(cls, rows: Tensor, shape: Sequence[int]) -> _Law:
        at = torch.from_numpy(np.indices(shape).reshape(len(shape), -1).T).double()
        moments = rows.double().T @ rows.double() / len(rows)
        return cls(moments, len(rows), torch.cdist(at, at) / max(shape))

    def covariance(self, reach: float | None) -> Tensor:
        """As `localised` has it."""
        if reach is None:
            return drawn(self.moments[None], self.samples)[0]
        pattern = self.moments[self.moments.square().sum(0).argmax()]
        for _ in range(POWERS):
            pattern = nn.functional.normalize(self.moments @ pattern, dim=0)
        said = self.moments @ pattern
        shared = torch.outer(said, said) / (pattern @ said)
        channels, cells = len(self.moments) // len(self.apart), len(self.apart)
        left = (self.moments - shared).view(channels, cells, channels, cells)
        return shared + (left * taper(self.apart / reach)[:, None]).view_as(shared)


def taper(distance: Tensor) -> Tensor:
    """A correlation that is 0 from 2 on, of distances in units of half its reach: Gaspari & Cohn
    (1999), eq 4.10."""
    r = distance.clamp(min=1e-9)
    near = 1 + r**2 * (-5 / 3 + r * (5 / 8 + r * (1 / 2 - r / 4)))
    far = 4 - 2 / (3 * r) + r * (-5 + r * (5 / 3 + r * (5 / 8 + r * (-1 / 2 + r / 12))))
    return near.where(r <= 1, far.where(r < 2, 0.0))


def filled(covariance: Tensor, rows: Tensor, seen: Tensor) -> float:
    """Mean CRPS of what was not ``seen`` (number,) of ``rows`` (sample, number), were they normal
    with that covariance (number, number)."""
    covariance = covariance + LEAST * covariance.diagonal().mean() * torch.eye(len(covariance))
    root = torch.linalg.cholesky(covariance[seen][:, seen])
    told = torch.linalg.solve_triangular(root, covariance[seen][:, ~seen], upper=False)
    white = torch.linalg.solve_triangular(root, rows[:, seen].T, upper=False)
    std = (covariance.diagonal()[~seen] - told.square().sum(0)).clamp(min=0).sqrt()
    truth = rows[:, ~seen].numpy()
    return float(gaussian_crps((white.T @ told).numpy(), std.numpy(), truth).mean())
