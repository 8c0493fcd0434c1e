"""Optimal interpolation where decoding bends: a draw of the Gaussian, moved to where observations,
with errors of their own, are met best (randomised maximum likelihood, Oliver et al. 1996; exact
where decoding is linear)."""

import torch
from torch import Tensor

from sciladm.diffusion.posterior import (
    Curvature,
    Observations,
    Product,
    Tangent,
    along,
    solve,
    weights,
)

BENDS = 12
"""How often, at most, it goes along a new tangent."""
HALVES = 6
"""How often, at most, a step that costs more is halved."""


def nearest(
    drawn: Tensor,
    observations: Observations,
    curvature: Curvature | None,
    tolerance: float,
    most: int,
) -> tuple[Tensor, float]:
    """Where |x − drawn|² + |told(x) − wanted|² is least (batch, …), by Gauss and Newton, for white
    ``drawn``; and the share of the equations that is left, or of the way, if that is more."""
    told, wanted = observations.told, observations.wanted
    x = drawn

    def cost(x: Tensor) -> Tensor:
        with torch.no_grad():
            misfit = told(x) - wanted
        return (x - drawn).flatten(1).square().sum(1) + misfit.square().sum(1)

    root, own = weights(curvature, 1.0)
    back: Product = lambda dual: tangent.back(root(dual))
    ahead: Product = lambda pulled: root(tangent.ahead(pulled))
    for _ in range(BENDS):
        before, tangent = x, Tangent(told, x)
        misfit = root(wanted - tangent.said) + ahead(x - drawn)
        _, gained, share = solve(back, ahead, misfit, None, tolerance, most, own)
        left = float(share.max())
        x = _lower(x, drawn + gained, cost)
        moved = float(((x - before).norm() / x.norm()).clamp(max=1))
        if moved < tolerance:
            break
    return x, max(left, moved)


def _lower(before: Tensor, aim: Tensor, cost: Product) -> Tensor:
    """As far of the way to ``aim`` as does not cost more, of each member by itself."""
    share, most = torch.ones(len(before)).to(before), cost(before) * (1 + 1e-6)
    for _ in range(HALVES):
        there = before + along(share, before) * (aim - before)
        fine = cost(there) <= most
        if fine.all():
            break
        share = share.where(fine, share / 2)
    return there.where(along(fine, there), before)
