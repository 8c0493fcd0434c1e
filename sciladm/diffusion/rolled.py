"""What an ensemble needs from its second window on, which no training on single windows teaches.

A network learns from states that were analysed; in a roll-out it sees its own draws, in which its
errors lie along with the weather. So it exaggerates: where a day leaves 1 % of the variance
unexplained, a mean too large by 1 % doubles what a climate of such days has left over. One number
per pattern says how much of the mean to believe, another how far frames depart from it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from sciladm.diffusion.departure import LARGEST
from sciladm.grid import Boundary
from sciladm.nn.shrink import grown, pooled
from sciladm.nn.waves import Waves

RANGE = 0.25, 4.0
"""Departures are never scaled by less, or by more."""


@dataclass
class Tally:
    """Sums over ensembles, per pattern and for the rest of each block, if it has one (block, own).

    agreed: truth times ensemble mean; expected: the ensemble mean's square, as if of infinitely
    many members; spread: the members' variance; error: the ensemble mean's squared error, again of
    infinitely many. ensembles: how many of them were drawn.
    """

    agreed: Tensor
    expected: Tensor
    spread: Tensor
    error: Tensor
    ensembles: int

    def __add__(self, other: "Tally") -> "Tally":
        names = (field.name for field in fields(self))
        return Tally(*(getattr(self, name) + getattr(other, name) for name in names))


class Rolled(nn.Module):
    """z = mean + departure → kept · mean + size · departure along the patterns of the climate.

    Patterns are the eigenvectors of the covariance of frames, of each wavenumber apart, cells
    weighted by area; as in `Departure`, `patterns` bounds how many of a block are kept, and the
    rest of a block shares its numbers. Until fitted z stays as it is.
    """

    root: Tensor
    patterns: Tensor
    kept: Tensor
    size: Tensor

    def __init__(
        self, channels: int, area: Tensor, boundaries: Sequence[Boundary], patterns: int
    ) -> None:
        super().__init__()
        self.waves = Waves(area.shape, boundaries)
        root = (area / area.mean()).sqrt()
        self.register_buffer("root", root, persistent=False)
        blocks, numbers = self.waves.rows(torch.zeros(1, channels, *area.shape)).shape[1:]
        held = min(patterns, numbers) if numbers <= LARGEST else 0
        kind = torch.complex64 if self.waves.periodic else torch.float32
        alone = torch.eye(numbers, held, dtype=kind).repeat(blocks, 1, 1)
        self.register_buffer("patterns", alone)
        own = held + (held < numbers)
        self.register_buffer("kept", torch.ones(blocks, own))
        self.register_buffer("size", torch.ones(blocks, own))

    def forward(self, mean: Tensor, z: Tensor) -> Tensor:
        """mean and draws z (batch, channel, *space) of a window that follows draws → z."""
        rows, drawn = self._rows(mean), self._rows(z - mean)
        return self._fields(self._scaled(rows, self.kept) + self._scaled(drawn, self.size))

    def _rows(self, z: Tensor) -> Tensor:
        return self.waves.rows(z * self.root)

    def _fields(self, rows: Tensor) -> Tensor:
        return self.waves.fields(rows) / self.root

    def _scaled(self, rows: Tensor, by: Tensor) -> Tensor:
        held = self.patterns.shape[2]
        rest = by[:, held:] if by.shape[1] > held else torch.zeros_like(by[:, :1])
        along = self._along(rows) * (by[:, :held] - rest)
        return rest * rows + torch.einsum("bkp,knp->bkn", along, self.patterns)

    def _along(self, rows: Tensor) -> Tensor:
        return torch.einsum("bkn,knp->bkp", rows, self.patterns.conj())

    @torch.no_grad()
    def measure(self, frames: Iterable[Tensor]) -> None:
        """The patterns of batches of frames (batch, channel, *space)."""
        blocks, numbers, held = self.patterns.shape
        if not held:
            return
        kind = torch.complex128 if self.waves.periodic else torch.float64
        covariance = torch.zeros(blocks, numbers, numbers, dtype=kind)
        for z in frames:
            rows = self._rows(z).transpose(0, 1).cpu()
            covariance += rows.mT @ rows.conj()
        self.patterns.copy_(torch.linalg.eigh(covariance)[1][..., numbers - held :])

    @torch.no_grad()
    def tally(self, members: Tensor, truth: Tensor) -> Tally:
        """members (batch, member, channel, *space) of ensembles and what came (batch, …)."""
        number, count = members.shape[:2]
        rows = self._rows(members.flatten(0, 1))
        each = rows.view(number, count, *rows.shape[1:])
        mean, came = each.mean(1), self._rows(truth)
        apart = (each - mean[:, None]).flatten(0, 1)
        spread = self._products(apart, apart) / (count - 1)
        return Tally(
            self._products(came, mean),
            self._products(mean, mean) - spread / count,
            spread,
            self._products(came - mean, came - mean) - spread / count,
            number,
        )

    def _products(self, a: Tensor, b: Tensor) -> Tensor:
        """Real parts of Σ a b* per pattern, and of what no pattern holds (block, own)."""
        own = (self._along(a) * self._along(b).conj()).real.double().sum(0)
        if own.shape[1] < self.kept.shape[1]:
            whole = (a * b.conj()).real.double().sum((0, 2))
            own = torch.cat([own, (whole - own.sum(1))[:, None]], dim=1)
        return own.cpu()

    @torch.no_grad()
    def improve(self, tally: Tally, windows: float) -> None:
        """Towards ensembles whose mean is neither too large nor too small (truth regresses on it
        with slope 1) and whose spread is their error; ``tally`` was taken after so many windows,
        on average, that this had changed. No pattern is ever made larger than the network said."""
        blocks, own = self.kept.shape
        group = torch.arange(blocks).repeat_interleave(own)
        error, spread = (x.flatten().clamp(min=1e-9) for x in (tally.error, tally.spread))
        expected = tally.expected.flatten().clamp(min=1e-9)
        slope = (tally.agreed.flatten() / expected).clamp(0.5, 1.5)
        slope = pooled(slope, error / expected / tally.ensembles, group).clamp(0.5, 1.5)
        kept = self.kept * slope.view(blocks, own).to(self.kept) ** (1 / windows)
        self.kept.copy_(kept.clamp(max=1))
        ratio = grown(error, spread, group, tally.ensembles).view(blocks, own).sqrt()
        self.size.copy_((self.size * ratio.to(self.size)).clamp(*RANGE))
