"""How large what is left usually is, by what is known of any time before it comes."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

RANGE = 1.0
"""|ln scale| at most: e times as large, or as small, as usual."""
ROUNDS = 12
RIDGE = 0.01
"""Of the predictors' mean squares: forcings of neighbouring frames are nearly the same."""


class LogLinear(nn.Module):
    """ln scale = W · (x of the cell, 1), one W per group of cells and output, within ±`RANGE`;
    0 until fitted.

    groups: int64 (*space), as of `LocalLinear`.
    """

    weight: Tensor
    groups: Tensor

    def __init__(self, inputs: int, outputs: int, groups: Tensor) -> None:
        super().__init__()
        count = int(groups.max()) + 1
        self.register_buffer("groups", groups, persistent=False)
        self.register_buffer("weight", torch.zeros(count, outputs, inputs + 1))

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, inputs, *space) → scale (batch, outputs, *space), positive."""
        seen = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        size = torch.einsum("...oi,bi...->bo...", self.weight[self.groups], seen)
        return size.clamp(-RANGE, RANGE).exp()

    @torch.no_grad()
    def fit(self, samples: Iterable[tuple[Tensor, Tensor]]) -> None:
        """From batches of (x, what is left (batch, outputs, *space)): the most likely W where it
        is N(0, scale²), by Fisher's scoring (McCullagh & Nelder 1989, section 2.5: a gamma law of
        squares with a logarithmic link). Cells of a group are averaged first: x varies little
        among them."""
        flat = self.groups.flatten().cpu()
        share = torch.zeros(len(flat), len(self.weight), dtype=torch.float64)
        share[torch.arange(len(flat)), flat] = 1.0
        share /= share.sum(0)
        pairs = [
            (x.flatten(2).cpu().double() @ share, left.flatten(2).cpu().double().square() @ share)
            for x, left in samples
        ]
        x, squares = (torch.cat(part).permute(2, 0, 1) for part in zip(*pairs, strict=True))
        seen = torch.cat([x, torch.ones_like(x[..., :1])], dim=2)  # (group, sample, input + 1)
        usual = squares.mean(1, keepdim=True).clamp(min=1e-12)
        products = seen.mT @ seen
        held = RIDGE * products.diagonal(dim1=1, dim2=2)
        held[:, -1] = 0.0  # the constant is free
        inverse = torch.linalg.inv(products + torch.diag_embed(held + 1e-9 * len(x)))
        weight = torch.zeros(len(x), seen.shape[2], squares.shape[2], dtype=torch.float64)
        for _ in range(ROUNDS):
            size = (seen @ weight).clamp(-2 * RANGE, 2 * RANGE)
            more = seen.mT @ (squares / usual * (-2 * size).exp() - 1) / 2
            weight += inverse @ (more - held[:, :, None] * weight)
        weight[:, -1] += usual[:, 0].log() / 2
        self.weight.copy_(weight.mT)
