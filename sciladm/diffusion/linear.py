"""The linear forecast that the network departs from: closed form, so it costs no training."""

from collections.abc import Iterable, Sequence
from itertools import product

import torch
from torch import Tensor, nn

from sciladm.grid import Boundary, pad


class LinearForecast(nn.Module):
    """mean = W · (past in the 3 × 3 cells around, forcings in the cell itself, 1), one W per group
    of cells; beside it the standard deviation of what it leaves, per channel and group.

    groups: int64 (*space), e.g. `Grid.rows()` of the latent grid. Before `fit`, mean = 0 and
    std = 1, which is right where nothing is known.
    """

    weight: Tensor
    std: Tensor
    groups: Tensor

    def __init__(
        self,
        channels: int,
        past_channels: int,
        forcings: int,
        groups: Tensor,
        boundaries: Sequence[Boundary],
    ) -> None:
        super().__init__()
        self.boundaries = tuple(boundaries)
        n = int(groups.max()) + 1
        self.predictors = past_channels * 3 ** len(self.boundaries) + forcings + 1
        self.register_buffer("groups", groups)
        self.register_buffer("weight", torch.zeros(n, channels, self.predictors))
        self.register_buffer("std", torch.ones(n, channels))

    def _rows(self, past: Tensor, forcings: Tensor) -> Tensor:
        """(batch, channel, *space) → predictors (batch, cells, predictors)."""
        space = past.shape[2:]
        around = []
        wide = pad(past, 1, self.boundaries)
        for shift in product(range(3), repeat=len(space)):
            cells = wide
            for dim, (first, n) in enumerate(zip(shift, space, strict=True), start=2):
                cells = cells.narrow(dim, first, n)
            around.append(cells)
        ones = past.new_ones(len(past), 1, *space)
        return torch.cat([*around, forcings, ones], dim=1).flatten(2).transpose(1, 2)

    def forward(self, past: Tensor, forcings: Tensor) -> tuple[Tensor, Tensor]:
        """Past latents and forcings (batch, channel, *space) → mean (batch, channels, *space)
        and std (channels, *space)."""
        rows = self._rows(past, forcings)
        mean = rows.new_zeros(len(rows), rows.shape[1], self.weight.shape[1])
        flat = self.groups.flatten()
        for group in range(len(self.weight)):
            here = flat == group
            mean[:, here] = rows[:, here] @ self.weight[group].T
        mean = mean.transpose(1, 2).reshape(len(past), -1, *past.shape[2:])
        return mean, self.std.T[:, self.groups]

    @torch.no_grad()
    def fit(self, samples: Iterable[tuple[Tensor, Tensor, Tensor]], ridge: float = 1e-4) -> None:
        """Ridge least squares over batches of (past, forcings, target); sums in float64.

        `ridge` is relative to the mean square of the predictors.
        """
        groups, channels, p = self.weight.shape
        flat = self.groups.flatten()
        xx = torch.zeros(groups, p, p, dtype=torch.float64)
        xy = torch.zeros(groups, p, channels, dtype=torch.float64)
        yy = torch.zeros(groups, channels, dtype=torch.float64)
        count = torch.zeros(groups, dtype=torch.float64)
        for past, forcings, target in samples:
            rows, goal = self._rows(past, forcings), target.flatten(2).transpose(1, 2)
            for group in range(groups):
                x = rows[:, flat == group].flatten(0, 1)
                y = goal[:, flat == group].flatten(0, 1)
                xx[group] += (x.T @ x).double().cpu()
                xy[group] += (x.T @ y).double().cpu()
                yy[group] += y.double().square().sum(0).cpu()
                count[group] += len(x)
        if not (count > p).all():
            raise ValueError(
                f"a linear forecast with {p} predictors needs more samples than the "
                f"{int(count.min())} it got in one group of cells: pool the groups"
            )
        for group in range(groups):
            eye = torch.eye(p, dtype=torch.float64)
            eye[-1, -1] = 0  # the constant is not shrunk
            shrink = ridge * xx[group].diagonal()[:-1].mean() if p > 1 else 0.0
            w = torch.linalg.solve(xx[group] + shrink * eye, xy[group])
            left = yy[group] - 2 * (w * xy[group]).sum(0) + (w * (xx[group] @ w)).sum(0)
            self.weight[group] = w.T.float()
            self.std[group] = (left / (count[group] - p)).clamp(min=1e-12).sqrt().float()
