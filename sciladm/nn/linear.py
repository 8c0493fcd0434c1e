"""A linear map of a cell's neighbourhood, in closed form: where networks start from."""

from collections.abc import Iterable, Sequence
from itertools import product

import torch
from torch import Tensor, nn

from sciladm.grid import Boundary, pad
from sciladm.nn.shrink import TINY

ENOUGH = 4
"""Samples per predictor that a group of cells needs for a map of its own."""


class LocalLinear(nn.Module):
    """y = W · (x in the 3 × 3 cells around, extra numbers of the cell itself, 1), one W per group
    of cells; beside it the standard deviation of what it leaves, per output and group. With
    ``reach`` 0 it sees the cell alone.

    groups: int64 (*space), e.g. `Grid.rows()`: on the sphere every latitude has a map of its own,
    the same all along it. With `local` > 0 every cell has one, drawn to its group's as if by that
    many samples. Before `fit`, y = 0 and std = 1, which is right where nothing is known.
    """

    weight: Tensor
    std: Tensor
    groups: Tensor
    kin: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        groups: Tensor,
        boundaries: Sequence[Boundary],
        extra: int = 0,
        local: int = 0,
        reach: int = 1,
    ) -> None:
        super().__init__()
        self.inputs, self.extra, self.local, self.reach = inputs, extra, local, reach
        self.boundaries = tuple(boundaries)
        self.around = (2 * reach + 1) ** len(self.boundaries)
        kin = groups
        if local:
            groups = torch.arange(groups.numel()).view(groups.shape)
        n = int(groups.max()) + 1
        self.predictors = inputs * self.around + extra + 1
        self.register_buffer("groups", groups)
        self.register_buffer("kin", kin, persistent=False)
        self.register_buffer("weight", torch.zeros(n, outputs, self.predictors))
        self.register_buffer("std", torch.ones(n, outputs))

    def _rows(self, x: Tensor, extra: Tensor | None) -> Tensor:
        """(batch, channel, *space) → predictors (batch, cells, predictors)."""
        space = x.shape[2:]
        around = []
        wide = pad(x, self.reach, self.boundaries) if self.reach else x
        for shift in product(range(2 * self.reach + 1), repeat=len(space)):
            cells = wide
            for dim, (first, n) in enumerate(zip(shift, space, strict=True), start=2):
                cells = cells.narrow(dim, first, n)
            around.append(cells)
        parts = [*around, *([] if extra is None else [extra]), x.new_ones(len(x), 1, *space)]
        return torch.cat(parts, dim=1).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """x (batch, inputs, *space), extra (batch, extra, *space) → (batch, outputs, *space)."""
        rows = self._rows(x, extra)
        if self.local:
            y = torch.einsum("bcp,cop->bco", rows, self.weight)
        else:
            y = rows.new_empty(len(rows), rows.shape[1], self.weight.shape[1])
            flat = self.groups.flatten()
            for group in range(len(self.weight)):
                here = flat == group
                y[:, here] = rows[:, here] @ self.weight[group].T
        return y.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])

    def left(self) -> Tensor:
        """Standard deviation of what the map leaves of its target (outputs, *space)."""
        return self.std.T[:, self.groups]

    @torch.no_grad()
    def fit(self, samples: Iterable[tuple[Tensor, Tensor | None, Tensor]], ridge: float) -> None:
        """Ridge least squares over batches of (x, extra, target); sums in float64.

        ridge: added to the predictors' mean squares, as a share of their average: the variance
        of noise that the map is to bear. Fields are redundant: with 1e-4 a one-day forecast of
        weather gains 3 % and, fed its own draws, multiplies their errors by 3.6 a step; with 0.02
        it damps them. A group with fewer than 4 samples per predictor takes
        the map of all cells together; where even those are fewer, neighbours are left out.
        ValueError where there are fewer samples than the predictors that then remain.
        """
        groups, outputs, p = self.weight.shape
        flat = self.groups.flatten()
        xx = torch.zeros(groups, p, p, dtype=torch.float64)
        xy = torch.zeros(groups, p, outputs, dtype=torch.float64)
        yy = torch.zeros(groups, outputs, dtype=torch.float64)
        count = torch.zeros(groups, dtype=torch.float64)
        for x, extra, target in samples:
            rows, goal = self._rows(x, extra), target.flatten(2).transpose(1, 2)
            for group in range(groups):
                a = rows[:, flat == group].flatten(0, 1)
                b = goal[:, flat == group].flatten(0, 1)
                xx[group] += (a.T @ a).double().cpu()
                xy[group] += (a.T @ b).double().cpu()
                yy[group] += b.double().square().sum(0).cpu()
                count[group] += len(a)
        used = self._used(int(count.sum()))
        sums = [xx[:, used][:, :, used], xy[:, used], yy, count]
        flat, kin = self.groups.flatten().cpu(), self.kin.flatten().cpu()
        family = torch.zeros(groups, dtype=torch.int64).scatter(0, flat, kin)
        whole = [s.new_zeros(int(kin.max()) + 1, *s.shape[1:]).index_add(0, family, s)
                 for s in sums]  # fmt: skip
        few = whole[-1] < ENOUGH * len(used)
        for part in whole:
            part[few] = part.sum(0).expand_as(part[few]).clone()
        common: dict[int, tuple[Tensor, Tensor]] = {}
        self.weight.zero_()
        for group, own in enumerate(family.tolist()):
            a, b, squares, n = (part[own] for part in whole)
            if own not in common:  # the constant, last, is not shrunk
                common[own] = _ridge(a, b, ridge * a.diagonal()[:-1].mean(), 1)
            w, free = common[own]
            if self.local:
                a, b, squares, n = (part[group] for part in sums)
                usual = a.diagonal()[:-1].mean().clamp(min=TINY)  # where nothing varies: land
                more, free = _ridge(a, b - a @ w, self.local / n * usual, 0)
                w = w + more
            rest = squares - 2 * (w * b).sum(0) + (w * (a @ w)).sum(0)
            self.weight[group, :, used] = w.T.float().to(self.weight.device)
            self.std[group] = (rest / (n - free)).clamp(min=1e-12).sqrt().float()

    def _used(self, samples: int) -> Tensor:
        """Numbers of the predictors that so many samples can bear."""
        inputs, around = self.inputs, self.around
        if samples >= ENOUGH * self.predictors:
            return torch.arange(self.predictors)
        first = around // 2 * inputs
        used = torch.cat(
            [
                torch.arange(first, first + inputs),
                torch.arange(around * inputs, self.predictors),
            ]
        )
        if samples <= len(used):
            raise ValueError(
                f"a linear map with {len(used)} predictors needs more samples than {samples}"
            )
        return used


def borne_out(pairs: Iterable[tuple[Tensor, Tensor]], counts: Tensor) -> float:
    """How much to keep of a map, 0 to 1, by samples it was not fitted to: the slope of what there
    was on what it said, pairs (said, was), each cell counting as ``counts`` (*space) has it."""
    agreed = power = 0.0
    for said, was in pairs:
        agreed += float((said * was * counts).sum())
        power += float((said.square() * counts).sum())
    return min(max(agreed / max(power, 1e-12), 0.0), 1.0)


def _ridge(a: Tensor, b: Tensor, shrink: Tensor, last: int) -> tuple[Tensor, Tensor]:
    """(A + shrink)⁻¹ b, the `last` predictors free; and how many samples that fit uses up, the
    trace of (A + shrink)⁻¹ A."""
    held = torch.diag(shrink * (torch.arange(len(a)) < len(a) - last))
    w, hat = torch.linalg.solve(a + held, torch.cat([b, a], dim=1)).tensor_split([b.shape[1]], 1)
    return w, hat.trace()
