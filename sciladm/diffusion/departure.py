"""How far what comes departs from what was expected, as a share of how far it may: a Gaussian,
fitted to what the mean's network leaves.

A network that has to learn from scratch that the sea changes less than the air, that what happens
at one end of a pole's circle happens at the other, and how rough each variable is, gets all of it
nearly right; the spread of an ensemble shows the rest. Second moments have a closed form. What
is left for diffusion is white: how departures are not Gaussian, and what else of them depends on
the state.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from sciladm.grid import Boundary
from sciladm.nn.neighbours import LEAST, STRETCHES, Near, covariance, how_near
from sciladm.nn.shrink import TINY, drawn, grown, total
from sciladm.nn.waves import Waves

Samples = Callable[[], Iterable[Tensor]]
"""Batches of departures (batch, channel, *space), the same at every call."""
DRAWN = 20
"""Samples per channel at which a cell's correlations count as much as those of its group."""
LARGEST = 4096
"""Numbers in a block beyond which cells are not correlated with each other."""


class Departure(nn.Module):
    """d = mean + S r with E[r] = 0, E[r rᵀ] = 1. S = std · A · B: B correlates cells, A the
    channels of a cell; both are symmetric roots, so that r lies where d lies.

    The mean is what was expected of skewed departures amiss: the CRPS of a normal distribution
    is least where its centre is not their mean.

    A and std differ from cell to cell. B does not change along periodic axes, so it falls into
    one block per wavenumber, over channels and the cells of the other axes; `patterns` bounds
    how many eigenvectors of a block are kept, those of the largest variance, and what is left of
    it has one amplitude, `rest`. Where nothing is periodic there is one block. groups: int64
    (*space), cells that are much alike.
    """

    mean: Tensor
    std: Tensor
    axes: Tensor
    size: Tensor
    patterns: Tensor
    amplitude: Tensor
    rest: Tensor
    groups: Tensor

    def __init__(
        self, channels: int, groups: Tensor, boundaries: Sequence[Boundary], patterns: int
    ) -> None:
        super().__init__()
        self.waves = Waves(groups.shape, boundaries)
        cells = groups.numel()
        self.register_buffer("groups", groups.flatten(), persistent=False)
        self.register_buffer("mean", torch.zeros(cells, channels))
        self.register_buffer("std", torch.ones(cells, channels))
        self.register_buffer("axes", torch.eye(channels).repeat(cells, 1, 1))
        self.register_buffer("size", torch.ones(cells, channels))
        blocks, numbers = self.waves.rows(torch.zeros(1, channels, *groups.shape)).shape[1:]
        kept = min(patterns, numbers) if numbers <= LARGEST else 0
        kind = torch.complex64 if self.waves.periodic else torch.float32
        self.register_buffer("patterns", torch.zeros(blocks, numbers, kept, dtype=kind))
        self.register_buffer("amplitude", torch.ones(blocks, kept))
        self.register_buffer("rest", torch.ones(blocks))
        self.near: Near | None = None

    def colour(self, r: Tensor) -> Tensor:
        """White r (batch, channel, *space) → departures d."""
        return self.placed(self._stretched(r, self.amplitude, self.rest))

    def placed(self, u: Tensor) -> Tensor:
        """u = B r → d: what no cell has to do with another."""
        return (self.mean.T + self._turned(u.flatten(2), self.size) * self.std.T).view_as(u)

    def smooth(self, x: Tensor, sigma: float) -> Tensor:
        """E[u | u + σ n = x] of u = B r, r and n white."""
        kept: Callable[[Tensor], Tensor] = lambda size: size**2 / (size**2 + sigma**2)
        if not self.amplitude.numel():
            return x / (1 + sigma**2)
        return self._stretched(x, kept(self.amplitude), kept(self.rest))

    def whiten(self, d: Tensor) -> Tensor:
        """The inverse of `colour`."""
        return self._stretched(self._cellwise(d), 1 / self.amplitude, 1 / self.rest)

    def log_det(self) -> float:
        """ln |det S|, the volume that `colour` gives to a unit of r."""
        _, numbers, kept = self.patterns.shape
        stretch = (
            self.amplitude.double().log().sum(1) + (numbers - kept) * self.rest.double().log()
        )
        stretch = stretch.cpu() * self.waves.mirrored()
        own = self.std.double().log().sum() + self.size.double().log().sum()
        return float(own) + float(stretch.sum())

    def _cellwise(self, d: Tensor) -> Tensor:
        """Departures with the channels of a cell white, as if each were alone."""
        return self._turned((d.flatten(2) - self.mean.T) / self.std.T, 1 / self.size).view_as(d)

    def _turned(self, x: Tensor, size: Tensor) -> Tensor:
        """x (batch, channel, cell) stretched by ``size`` along the axes of each cell."""
        along = torch.einsum("bin,nij->bjn", x, self.axes) * size.T
        return torch.einsum("bjn,nij->bin", along, self.axes)

    def _stretched(self, x: Tensor, amplitude: Tensor, rest: Tensor) -> Tensor:
        """x (batch, channel, *space) stretched by ``amplitude`` along the patterns, and by
        ``rest`` across them."""
        if not self.amplitude.numel():
            return x
        rows = self.waves.rows(x).transpose(0, 1)
        along = rows @ self.patterns.conj() * (amplitude - rest[:, None])[:, None]
        whole = rest[:, None, None] * rows + along @ self.patterns.mT
        return self.waves.fields(whole.transpose(0, 1))

    @torch.no_grad()
    def measure(self, samples: Samples) -> None:
        """Fit all of it. A cell's correlations are drawn to those of its group, as these are to
        all cells', the more, the fewer the samples; means to 0, variances to those of a group and
        a block's correlations to none, by as much as they would be wrong otherwise; where nothing
        is periodic, cells are told by near ones (`neighbours.covariance`)."""
        products, number = torch.zeros(*self.axes.shape, dtype=torch.float64), 0
        first = torch.zeros(self.mean.shape, dtype=torch.float64)
        for d in samples():
            left = d.flatten(2).double().cpu()
            products += torch.einsum("bin,bjn->nij", left, left)
            first += left.sum(0).T
            number += len(left)
        wrong = products.diagonal(dim1=1, dim2=2).sum() / first.square().sum().clamp(min=TINY)
        mean = (1 - wrong).clamp(min=0) * first / number
        self.mean.copy_(mean)
        crossed = mean[:, :, None] * (first - number / 2 * mean)[:, None, :]
        products -= crossed + crossed.mT
        self._rescale(products.diagonal(dim1=1, dim2=2), number)
        correlation = _correlation(products.sum(0))
        for group in (self.groups.cpu(), torch.arange(len(products))):
            count = number * group.bincount()[group].double()[:, None, None]
            own = _correlation(total(products, group))
            share = count / (count + DRAWN * self.std.shape[1])
            correlation = correlation + share * (own - correlation)
        values, axes = torch.linalg.eigh(correlation)
        self.axes.copy_(axes)
        self.size.copy_(values.clamp(min=LEAST).sqrt())
        if self.amplitude.numel() and self.waves.periodic:
            self._keep(self._covariance(samples))
        elif self.amplitude.numel():
            rows = self._rows(samples)
            self.near = how_near(rows, self.waves.shape)
            self._keep(covariance(rows, self.waves.shape, self.near)[None])

    def _covariance(self, samples: Samples) -> Tensor:
        """Of each block's numbers (block, number, number)."""
        blocks, numbers, _ = self.patterns.shape
        products, count = torch.zeros(blocks, numbers, numbers, dtype=torch.complex128), 0
        for d in samples():
            rows = self.waves.rows(self._cellwise(d)).transpose(0, 1).cpu()
            products += rows.mT @ rows.conj()
            count += len(d)
        return drawn(products / count, count)

    def _rows(self, samples: Samples) -> Tensor:
        """Of the one block there is where nothing is periodic (sample, number)."""
        return torch.cat([self.waves.rows(self._cellwise(d))[:, 0].cpu() for d in samples()])

    def _keep(self, covariance: Tensor) -> None:
        """Its eigenvectors as patterns (block, number, number)."""
        _, numbers, kept = self.patterns.shape
        values, vectors = torch.linalg.eigh(covariance)
        self.patterns.copy_(vectors[..., numbers - kept :])
        self.amplitude.copy_(values[..., numbers - kept :].clamp(min=LEAST).sqrt())
        if kept < numbers:
            self.rest.copy_(values[..., : numbers - kept].mean(-1).clamp(min=LEAST).sqrt())

    @torch.no_grad()
    def without(self, samples: Samples) -> list["Departure"]:
        """What was measured in ``samples``, a series, with patterns of all but one of its
        `STRETCHES`, for each; itself alone where waves make blocks so small that patterns are
        known well, and where there are none."""
        if self.waves.periodic or not self.amplitude.numel():
            return [self]
        rows, made = self._rows(samples), []
        stretch = torch.arange(len(rows)) * STRETCHES // len(rows)
        for one in range(STRETCHES):
            made.append(deepcopy(self))
            others = rows[stretch != one]
            made[-1]._keep(covariance(others, self.waves.shape, self.near)[None])
        return made

    @torch.no_grad()
    def rescale(self, samples: Samples) -> None:
        """Fit standard deviations alone, to other samples."""
        square, number = torch.zeros_like(self.std, dtype=torch.float64, device="cpu"), 0
        for d in samples():
            square += (d.flatten(2) - self.mean.T).double().cpu().square().sum(0).T
            number += len(d)
        self._rescale(square, number)

    def _rescale(self, square: Tensor, number: int) -> None:
        before = number * self.std.double().cpu().square()
        ratio = grown(square, before, self.groups.cpu(), number)
        self.std.copy_((before / number * ratio).clamp(min=TINY).sqrt())


def alike(rows: Tensor, share: Tensor) -> Tensor:
    """Groups of cells that are much alike, int64 (*space): those of a row (*space), but each
    coast, where data can be in a ``share`` between 0 and 1, by itself: there land is always 0."""
    own = int(rows.max()) + 1 + torch.arange(rows.numel()).view(rows.shape)
    coast = (share > 0) & (share < 1)
    numbers: Tensor = torch.unique(own.where(coast, rows), return_inverse=True)[1]
    return numbers


def _correlation(products: Tensor) -> Tensor:
    """Of sums of products (…, channel, channel); the identity where nothing varies."""
    size = products.diagonal(dim1=-2, dim2=-1).sqrt()
    size = size.where(size > 0, 1)
    found = products / (size[..., None] * size[..., None, :])
    eye = torch.eye(products.shape[-1], dtype=products.dtype)
    return found.where(eye == 0, eye)
