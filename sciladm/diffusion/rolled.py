"""What ensembles need that no network learns from single windows.

A network learns from states that were analysed; in a roll-out it sees its own draws, in which its
errors lie along with the weather. So it exaggerates: where a day leaves 1 % of the variance
unexplained, a mean too large by 1 % doubles what a climate of such days has left over. And what a
network says of each cell's scale breaks up combinations of cells that nearly cancel. One number
per pattern says how much of the mean to believe, another how far frames depart from it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from sciladm.diffusion.departure import LARGEST
from sciladm.diffusion.mean import MeanForecast
from sciladm.grid import Boundary
from sciladm.nn.shrink import NOTHING, evened, grown, pooled
from sciladm.nn.waves import Waves

LEADING = 16
"""Patterns of each wavenumber that are looked at as they decode."""
KEPT, SIZE = (0.0, 1.1), (0.02, 4.0)
"""Least and most that each kind of patterns multiplies means and departures by."""
SLOPE = 0.02, 1.5
"""Least and most of a slope that one round believes."""
LEAST = 1e-9
"""Of a sum of squares."""
WORTH = 1e-6
"""Least that a channel's variance counts, of the mean channel's: what decodes to nothing."""


@dataclass
class Tally:
    """Sums over ensembles, per pattern and for the rest of each block, if it has one (block, own).

    agreed: truth times ensemble mean; expected: the ensemble mean's square, as if of infinitely
    many members; spread: the members' variance; error: the ensemble mean's squared error, again of
    infinitely many; missed: the squared error of the mean of the members there are. ensembles: how
    many of them were drawn, those of each window apart, as if an ensemble were not as wrong in
    one as in the next.
    """

    agreed: Tensor
    expected: Tensor
    spread: Tensor
    error: Tensor
    missed: Tensor
    ensembles: int

    def __add__(self, other: "Tally") -> "Tally":
        names = (field.name for field in fields(self))
        return Tally(*(getattr(self, name) + getattr(other, name) for name in names))


class Rolled(nn.Module):
    """z = mean + departure, made right pattern by pattern: first those of latents, all alike, then
    those of each part that a departure is taken apart into, then the leading ones of what latents
    decode to. Until fitted z stays as it is.

    lost (number of a patch, cell): how many times its size what decoding loses has where latents
    are a forecast's. A forecast's errors go along with what is lost, or against it: the mean does
    not know what of yesterday's field an encoder took for something else.
    """

    lost: Tensor

    def __init__(
        self,
        channels: int,
        area: Tensor,
        boundaries: Sequence[Boundary],
        patterns: int,
        lost: Sequence[int] = (0, 0),
    ) -> None:
        super().__init__()
        self.register_buffer("lost", torch.ones(*lost))
        self.alike = Patterns(channels, area, boundaries, patterns, rest=True)
        self.parted = Patterns(channels, area, boundaries, patterns, rest=True, groups=channels)
        self.decoded = Patterns(channels, area, boundaries, min(patterns, LEADING), rest=False)

    @property
    def kinds(self) -> tuple["Patterns", ...]:
        """In the order in which they act."""
        return self.alike, self.parted, self.decoded

    def forward(self, mean: Tensor, z: Tensor, later: bool) -> Tensor:
        """mean and draws z (batch, channel, *space) of a window → z; ``later``: whether the
        window follows draws, not states that were analysed."""
        apart = z - mean
        for patterns in self.kinds:
            mean, apart = patterns(mean, apart, later)
        return mean + apart


class Patterns(nn.Module):
    """mean, departure → kept · mean, size · departure along the patterns of the climate.

    Patterns are the eigenvectors of the covariance of frames, of each wavenumber apart, cells
    weighted by area and channels as `measure` is told; as in `Departure`, a block that is too
    wide has none. Of several ``groups`` each part of a departure, which is about few variables,
    has patterns of its own. With `rest`, what no pattern holds shares its block's numbers, else
    it stays as it is. The mean of a first window is kept whole; departures have a size there and
    another later.
    """

    area: Tensor
    root: Tensor
    turn: Tensor
    back: Tensor
    unit: Tensor
    patterns: Tensor
    kept: Tensor
    size: Tensor

    def __init__(
        self,
        channels: int,
        area: Tensor,
        boundaries: Sequence[Boundary],
        patterns: int,
        rest: bool,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.waves, self.groups = Waves(area.shape, boundaries), groups
        self.register_buffer("area", area / area.mean(), persistent=False)
        self.register_buffer("root", self.area.sqrt().repeat(channels, *[1] * area.ndim))
        if groups > 1:
            self.register_buffer("turn", torch.eye(channels))
            self.register_buffer("back", torch.eye(channels))
            self.register_buffer("unit", torch.ones(channels, *area.shape))
        blocks, numbers = self._rows(torch.zeros(1, channels, *area.shape)).shape[1:]
        held = min(patterns, numbers) if numbers <= LARGEST else 0
        kind = torch.complex64 if self.waves.periodic else torch.float32
        alone = torch.eye(numbers, held, dtype=kind).repeat(blocks, 1, 1)
        self.register_buffer("patterns", alone)
        own = held + (rest and held < numbers)
        sums = torch.ones(own, dtype=torch.float64)  # how many cells each number is of
        sums[held:] = numbers - held
        self.free = self.waves.mirrored().repeat_interleave(groups)[:, None] * sums
        self.register_buffer("kept", torch.ones(blocks, own))
        self.register_buffer("size", torch.ones(2, blocks, own))

    def forward(self, mean: Tensor, apart: Tensor, later: bool) -> tuple[Tensor, Tensor]:
        """mean and departure (batch, channel, *space) → the same."""
        if later:
            mean = self._scaled(mean, self.kept)
        return mean, self._scaled(apart, self.size[int(later)])

    def _rows(self, z: Tensor) -> Tensor:
        """(batch, channel, *space) → (batch, block of a group, number)."""
        if self.groups > 1:
            z = torch.einsum("pc,bc...->bp...", self.turn, z / self.unit)
        rows = self.waves.rows(z * self.root)
        return rows.reshape(len(z), rows.shape[1] * self.groups, -1)

    def _fields(self, rows: Tensor) -> Tensor:
        """The inverse of `_rows`."""
        z = self.waves.fields(rows.reshape(len(rows), rows.shape[1] // self.groups, -1))
        z = z / self.root
        if self.groups > 1:
            z = torch.einsum("cp,bp...->bc...", self.back, z) * self.unit
        return z

    def _scaled(self, z: Tensor, by: Tensor) -> Tensor:
        held, rows = self.patterns.shape[2], self._rows(z)
        rest = by[:, held:] if by.shape[1] > held else by.new_ones(len(by), 1)
        along = self._along(rows) * (by[:, :held] - rest)
        return self._fields(rest * rows + torch.einsum("bkp,knp->bkn", along, self.patterns))

    def _along(self, rows: Tensor) -> Tensor:
        return torch.einsum("bkn,knp->bkp", rows, self.patterns.conj())

    @torch.no_grad()
    def measure(
        self, frames: Iterable[Tensor], worth: Tensor, apart: MeanForecast | None = None
    ) -> None:
        """The patterns of batches of frames (batch, channel, *space), each channel's variance
        counting as its ``worth`` (channel,); or of the parts that a mean takes them ``apart``
        into."""
        counts = (worth / worth.mean()).clamp(min=WORTH).view(-1, *[1] * self.area.ndim)
        self.root.copy_((counts * self.area).sqrt())
        if apart is not None and self.groups > 1:  # one channel is its own part
            self.turn.copy_(apart.parts.turn)
            self.back.copy_(apart.parts.back)
            self.unit.copy_(apart.linear.left())
        blocks, numbers, held = self.patterns.shape
        if not held:
            return
        kind = torch.complex128 if self.waves.periodic else torch.float64
        covariance = torch.zeros(blocks, numbers, numbers, dtype=kind)
        for z in frames:
            rows = self._rows(z).transpose(0, 1).cpu()
            covariance += rows.mT @ rows.conj()
        self.patterns.copy_(torch.linalg.eigh(covariance)[1][..., numbers - held :])

    def beyond(self, z: Tensor) -> Tensor:
        """Σ of area-weighted squares of z (batch, channel, *space) → (batch,), without what the
        leading patterns of each wavenumber hold; 0 where they hold all there is."""
        rows = self._rows(z)
        along = self._along(rows)[..., max(0, self.patterns.shape[2] - LEADING) :]
        if along.shape[2] == rows.shape[2]:
            return z.new_zeros(len(z))
        whole, held = (x.abs().square().sum(2) for x in (rows, along))
        return (whole - held) @ self.waves.mirrored().to(whole)

    @torch.no_grad()
    def tally(self, members: Tensor, truth: Tensor) -> Tally:
        """members (batch, member, channel, *space) of ensembles and what came (batch, …)."""
        number, count = members.shape[:2]
        each = [x.view(number, count, *x.shape[1:]) for x in self._seen(members.flatten(0, 1))]
        came, mean = self._seen(truth), [x.mean(1) for x in each]
        apart = [(x - m[:, None]).flatten(0, 1) for x, m in zip(each, mean, strict=True)]
        off = [x - m for x, m in zip(came, mean, strict=True)]
        spread = self._products(apart, apart) / (count - 1)
        missed = self._products(off, off)
        return Tally(
            self._products(came, mean),
            self._products(mean, mean) - spread / count,
            spread,
            missed - spread / count,
            missed,
            number,
        )

    def _seen(self, z: Tensor) -> list[Tensor]:
        """(batch, channel, *space) → its rows, and along each pattern."""
        rows = self._rows(z)
        return [rows, self._along(rows)]

    def _products(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Real parts of Σ a b* per pattern, and of what no pattern holds (block, own), of what is
        `_seen` of each."""
        own = (a[1] * b[1].conj()).real.double().sum(0)
        if own.shape[1] < self.kept.shape[1]:
            whole = (a[0] * b[0].conj()).real.double().sum((0, 2))
            own = torch.cat([own, (whole - own.sum(1))[:, None]], dim=1)
        return own.cpu()

    @torch.no_grad()
    def improve(self, first: Tally, later: Tally, windows: float) -> None:
        """Towards ensembles whose mean is neither too large nor too small (truth regresses on it
        with slope 1) and whose spread is their error, from tallies of first windows and of later
        ones, which were taken after ``windows``, on average, that `kept` had changed."""
        if not self.kept.numel():
            return
        kept = self.kept * self._slope(later).to(self.kept) ** (1 / windows)
        self.kept.copy_(kept.clamp(*KEPT))
        for size, tally in zip(self.size, (first, later), strict=True):
            size.mul_(self._ratio(tally).sqrt().to(size))
        self.bound()

    @torch.no_grad()
    def doubt(self, later: Tally, more: float, windows: float) -> None:
        """Keep less of means that know their training data. Elsewhere squared errors are ``more``
        times those of the ``later`` tally while truth and mean vary as much: the two have less in
        common by half of what errors gain, and truth regresses on the mean with slope
        1 − (more − 1)/2 · error²/mean². The tally's means had been kept ``windows`` times, on
        average. A mean that is nothing (mean² within its noise) has its block's slope."""
        error, square = _positive(later.error), later.expected
        block = error.sum(1, keepdim=True) / _positive(square.sum(1, keepdim=True))
        apart = (error / _positive(square)).where(square > LEAST, block)
        slope = (1 - (more - 1) / 2 * apart).clamp(*SLOPE)
        self.kept.mul_(slope.to(self.kept) ** (1 / windows))

    def _slope(self, tally: Tally) -> Tensor:
        """Of truth on the ensemble mean (block, own)."""
        expected = _positive(tally.expected)
        wrong = tally.missed / expected / (tally.ensembles * self.free)
        wrong = wrong.where(tally.expected > LEAST, NOTHING)
        slope = (tally.agreed / expected).clamp(*SLOPE)
        slope = pooled(slope.flatten(), _positive(wrong).flatten(), self._group)
        return slope.clamp(*SLOPE).view_as(wrong)

    def _ratio(self, tally: Tally) -> Tensor:
        """Of error² to spread² (block, own), an error at least as large as it may be wrong."""
        samples = tally.ensembles * self.free
        error = _positive(torch.maximum(tally.error, tally.missed * (2 / samples).sqrt()))
        samples = samples * (error / _positive(tally.missed)).square().clamp(max=1)
        seen = error, _positive(tally.spread), samples
        square, before, samples = (x.flatten() for x in seen)
        square = evened(square, before, self._group, samples)
        return grown(square, before, self._group, samples).view_as(error)

    def bound(self) -> None:
        """Keep sizes within what they may be."""
        self.size.clamp_(*SIZE)

    @property
    def _group(self) -> Tensor:
        """The block of each number, in one row."""
        blocks, own = self.kept.shape
        return torch.arange(blocks).repeat_interleave(own)


def _positive(x: Tensor) -> Tensor:
    return x.clamp(min=LEAST)
