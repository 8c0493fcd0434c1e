"""Covariances of many cells from few samples: what a cell has to do with all, the nearest say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from sciladm.baselines.filling import gaussian_crps
from sciladm.nn.shrink import drawn
from sciladm.observe.masks import block, clouds

LEAST = 1e-4
"""Of a number's variance: what no other number tells of it, at least. Less is rounding."""
ORDERS = 8
"""In which cells are told, each a chance one: a covariance is the mean over them."""
TRIED = 2
"""Orders of laws that are only compared."""
STRETCHES = 3
"""Of a series, each of which is judged by the law of the others."""
CELLS = 3, 4, 6, 8, 12, 24
RIDGES = 0.003, 0.01, 0.03, 0.1, 0.3, 1.0
"""Among which numbers of neighbours and ridges `how_near` chooses."""
USUAL = 0.03
"""The ridge with which it compares numbers of neighbours."""
SCORED = 100
"""Samples of a stretch that a law is judged by."""
HIDDEN = block, block, clouds, clouds
"""What is hidden of them."""


@dataclass(frozen=True)
class Near:
    """How cells are told: each by the nearest ``cells`` of those told before it, in linear
    regression with a ``ridge``, a share of the variance of a number that tells nothing and that
    no other tells."""

    cells: int
    ridge: float


def covariance(rows: Tensor, shape: Sequence[int], near: Near | None) -> Tensor:
    """The covariance (number, number) of ``rows`` (sample, number), float64: numbers are channels
    by cells of a grid ``shape`` without periodic axes, white cell by cell.

    Days that follow each other are worth far fewer independent ones, so correlations with far
    cells are mostly chance, and there are more far cells than near ones. Here cells are told one
    after another, each by a few that were told before it and are near: a chain whose inverse
    covariance has a root with few entries (Vecchia 1988). What far cells share they share by way
    of those between, so that large scales keep their variance, which they lose where correlations
    are made to fade with distance. Orders differ in what they leave out (Guinness 2018 compares
    some), and a mean over chance ones errs less than any of them. Variances are those of the rows.

    None: all cells tell each other, and correlations are drawn to none by Ledoit & Wolf's share
    (2004).
    """
    moments = rows.double().T @ rows.double() / len(rows)
    return _law(moments, len(rows), shape, near, ORDERS)


def _law(
    moments: Tensor, samples: int, shape: Sequence[int], near: Near | None, orders: int
) -> Tensor:
    """As `covariance` has it, of second moments of so many ``samples``."""
    if near is None:
        return drawn(moments[None], samples)[0]
    cells = prod(shape)
    at = torch.from_numpy(np.indices(shape).reshape(len(shape), -1).T).double()
    apart, channels = torch.cdist(at, at), len(moments) // cells
    blocks = moments.view(channels, cells, channels, cells).permute(1, 0, 3, 2)
    found = torch.zeros_like(blocks)
    generator = torch.Generator().manual_seed(0)
    for _ in range(orders):
        order = torch.randperm(cells, generator=generator)
        chained = _chained(blocks[order][:, :, order], apart[order][:, order], near)
        back = order.argsort()
        found += chained[back][:, :, back] / orders
    whole = found.permute(1, 0, 3, 2).reshape_as(moments)
    size = (moments.diagonal() / whole.diagonal()).sqrt()
    return whole * size * size[:, None]


def _chained(moments: Tensor, apart: Tensor, near: Near) -> Tensor:
    """The covariance of a chain of cells, told in the order they have in ``moments`` (cell,
    channel, cell, channel), ``apart`` (cell, cell)."""
    cells, channels = moments.shape[:2]
    inverse = torch.zeros_like(moments)
    untold = (LEAST + near.ridge) * torch.eye(channels)
    for cell in range(cells):
        some = apart[cell, :cell].argsort(stable=True)[: near.cells]
        told = len(some) * channels
        seen = moments[some][:, :, some].reshape(told, told)
        crossed = moments[some, :, cell].reshape(told, channels)
        weight = torch.linalg.solve(seen + near.ridge * torch.eye(told), crossed)
        left = moments[cell, :, cell] - crossed.T @ weight
        root = torch.linalg.inv(torch.linalg.cholesky(left + untold))
        inverse[cell, :, cell] = root
        inverse[cell][:, some] = -(root @ weight.T).view(channels, len(some), channels)
    numbers = cells * channels
    upper = inverse.view(numbers, numbers).flip(0, 1)  # for LAPACK, which wants it so
    return torch.cholesky_inverse(upper, upper=True).flip(0, 1).reshape_as(moments)


def how_near(rows: Tensor, shape: Sequence[int]) -> Near | None:
    """How cells are told where gaps in any of `STRETCHES` of the ``rows``, a series, are filled
    best by the law of the others: how far a law is to be believed is seen where it has to say what
    is not there. First how many cells tell one, then with what ridge: the more samples, the less
    of it. None of fewer samples than stretches."""
    if len(rows) < STRETCHES:
        return None
    channels = rows.shape[1] // prod(shape)
    masks = [kind(np.random.default_rng(n), shape) for n, kind in enumerate(HIDDEN)]
    seen = [np.tile(mask.ravel(), channels) for mask in masks if mask.any() and not mask.all()]
    stretches = rows.tensor_split(STRETCHES)
    products = [stretch.double().T @ stretch.double() for stretch in stretches]
    whole = torch.stack(products).sum(0)

    @cache
    def missed(near: Near | None) -> float:
        total = 0.0
        for stretch, own in zip(stretches, products, strict=True):
            others = len(rows) - len(stretch)
            law = _law((whole - own) / others, others, shape, near, TRIED)
            judged = stretch[:: -(-len(stretch) // SCORED)].double()
            total += sum(filled(law, judged, torch.from_numpy(mask)) for mask in seen)
        return total

    best = _downhill([Near(count, USUAL) for count in CELLS], missed)
    best = _downhill([replace(best, ridge=ridge) for ridge in RIDGES], missed)
    chosen = min(best, None, key=missed)
    return chosen and replace(chosen, ridge=chosen.ridge * (1 - 1 / STRETCHES))


def _downhill(options: Sequence[Near], missed: Callable[[Near], float]) -> Near:
    """Of options in a row the one that misses least, from one in the middle on."""
    at = (len(options) - 1) // 2
    for way in (-1, 1):
        while 0 <= at + way < len(options) and missed(options[at + way]) < missed(options[at]):
            at += way
    return options[at]


def filled(law: Tensor, rows: Tensor, seen: Tensor) -> float:
    """Mean CRPS of what was not ``seen`` (number,) of ``rows`` (sample, number), were they normal
    with the covariance ``law`` (number, number)."""
    law = law + LEAST * law.diagonal().mean() * torch.eye(len(law))
    root = torch.linalg.cholesky(law[seen][:, seen])
    told = torch.linalg.solve_triangular(root, law[seen][:, ~seen], upper=False)
    white = torch.linalg.solve_triangular(root, rows[:, seen].T, upper=False)
    std = (law.diagonal()[~seen] - told.square().sum(0)).clamp(min=0).sqrt()
    truth = rows[:, ~seen].numpy()
    return float(gaussian_crps((white.T @ told).numpy(), std.numpy(), truth).mean())
