"""Variances of many cells from few samples."""

import torch
from torch import Tensor

TINY = 1e-12
"""A ratio of variances that means: it never varies."""
NOTHING = 1e9
"""Error variance of what nothing is known of."""


def grown(square: Tensor, before: Tensor, group: Tensor, samples: int | Tensor) -> Tensor:
    """How many times ``before`` the sums of squares are (cell, …), drawn together within groups.

    ``square`` sums so many samples, everywhere or (cell, …); ``group`` (cell,) numbers cells that
    are much alike. The ln of a ratio is drawn to that of its group by as much as it would be wrong
    otherwise: it varies by 2/samples, and what it varies more is the cells' own (James & Stein). A
    logarithm, since sizes differ by orders of magnitude; a group's sum stays what it was found to
    be. Where ``before`` is `TINY` or less, there is nothing to tell a size by.
    """
    of_group = (total(square, group) / total(before, group)).clamp(min=TINY)
    own = (square / before).clamp(min=TINY)
    apart = (own / of_group).log()
    varies = (own > TINY) & (before > TINY)
    wrong = 2 / samples * torch.ones_like(own)
    more = (apart.square() - wrong).where(varies, 0.0).sum() / varies.sum().clamp(min=1)
    share = more.clamp(min=0) / (more.clamp(min=0) + wrong)
    drawn = of_group * (share * apart).exp()
    whole = total(square, group) / total(before * drawn, group)
    return drawn * whole.clamp(min=TINY)


def evened(square: Tensor, before: Tensor, group: Tensor, samples: int | Tensor) -> Tensor:
    """``square`` (cell,), each group times one number, so that the ratios of groups' sums to those
    of ``before`` are drawn together: by as much as they would be wrong otherwise, in ln, which is
    2/samples over how many cells a group has in effect (James & Stein)."""
    blank = square.new_zeros(int(group.max()) + 1)
    each = 2 / samples * square.square(), square, before
    varies, found, had = (blank.index_add(0, group, x) for x in each)
    ln = (found / had).log()
    drawn = pooled(ln, varies / found.square(), torch.zeros_like(group[: len(ln)]))
    return square * (drawn - ln).exp()[group]


def drawn(covariance: Tensor, samples: int) -> Tensor:
    """Of ``samples`` (block, number, number), each drawn to its mean variance and no correlations
    by as much as it would be wrong otherwise (Ledoit & Wolf 2004, with the error of Gaussian
    samples)."""
    number = covariance.shape[-1]
    trace = covariance.diagonal(dim1=1, dim2=2).real.sum(-1)
    mean = (trace / number)[:, None, None] * torch.eye(number)
    wrong = (trace**2 + covariance.abs().square().sum((1, 2))) / samples
    apart = (covariance - mean).abs().square().sum((1, 2))
    share = (wrong / apart.clamp(min=TINY)).clamp(max=1)[:, None, None]
    return covariance + share * (mean - covariance)


def total(x: Tensor, group: Tensor) -> Tensor:
    """Sums over the cells of a group, for each cell: x (cell, …), group (cell,)."""
    return torch.zeros_like(x).index_add_(0, group, x)[group]


def pooled(found: Tensor, wrong: Tensor, group: Tensor) -> Tensor:
    """Numbers (cell,) that were ``found`` with error variances ``wrong``, drawn to the mean of
    their group by as much as they would be wrong otherwise (James & Stein)."""
    weight = 1 / wrong
    mean = total(weight * found, group) / total(weight, group)
    apart = (found - mean).square() - wrong
    own = ((weight * apart).sum() / weight.sum()).clamp(min=0)
    return mean + own / (own + wrong) * (found - mean)
