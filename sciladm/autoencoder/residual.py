"""What an autoencoder leaves: fitted once, drawn with every decoded member."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sciladm.autoencoder.patches import Patches
from sciladm.nn.shrink import TINY, grown


class ResidualCovariance(nn.Module):
    """What decode(encode(x)) leaves of x, as a Gaussian per patch: low rank plus diagonal.

    C = L Lᵀ + diag(d) for each group of latent cells (latitudes, say), L the leading `rank`
    eigenvectors and d what they leave of the diagonal, so that every variance is exact; then
    stretched number by number, since coasts lose more than the open sea. Fitted on
    validation data: on training data the residual is too small. Neighbouring patches are
    independent. Until fitted it is zero.
    """

    low: Tensor
    rest: Tensor
    stretch: Tensor
    groups: Tensor

    def __init__(self, patches: Patches, channels: int, groups: Tensor, rank: int = 24) -> None:
        super().__init__()
        self.patches = patches
        size, n = patches.size(channels), int(groups.max()) + 1
        self.rank = min(rank, size)
        self.register_buffer("groups", groups)
        self.register_buffer("low", torch.zeros(n, size, self.rank))
        self.register_buffer("rest", torch.zeros(n, size))
        self.register_buffer("stretch", torch.ones(size, groups.numel()))

    @property
    def numbers(self) -> int:
        """Standard normal numbers that `draw` takes per latent cell."""
        return self.rank + int(self.rest.shape[1])

    @torch.no_grad()
    def fit(self, residuals: Iterable[Tensor]) -> None:
        """From residuals x − decode(encode(x)), batches (n, channel, *space). Groups with fewer
        than 8 patches per dimension of a patch are pooled with all the others."""
        n, size, _ = self.low.shape
        flat = self.groups.flatten().cpu()
        total = torch.zeros(n, size, size, dtype=torch.float64)
        count = torch.zeros(n, dtype=torch.float64)
        square, states = torch.zeros(len(flat), size, dtype=torch.float64), 0
        for residual in residuals:
            cells = self.patches.split(residual).flatten(2).double().cpu()
            square += cells.square().sum(0).T
            states += len(cells)
            for group in range(n):
                rows = cells[:, :, flat == group].transpose(1, 2).flatten(0, 1)
                total[group] += rows.T @ rows
                count[group] += len(rows)
        pooled, expected = total.sum(0) / count.sum(), torch.ones_like(square)
        for group in range(n):
            enough = count[group] >= 8 * size
            covariance = total[group] / count[group] if enough else pooled
            values, vectors = torch.linalg.eigh(covariance)
            low = vectors[:, -self.rank :] * values[-self.rank :].clamp(min=0).sqrt()
            self.low[group] = low.float()
            self.rest[group] = (covariance.diagonal() - low.square().sum(1)).clamp(min=0).float()
            expected[flat == group] = states * covariance.diagonal().clamp(min=TINY)
        self.stretch.copy_(grown(square, expected, flat, states).sqrt().T)

    def covariance(self) -> Tensor:
        """Of the numbers of each patch (cell, number, number)."""
        group = self.groups.flatten()
        whole = self.low @ self.low.mT + torch.diag_embed(self.rest)
        stretch = self.stretch.T
        return stretch[:, :, None] * whole[group] * stretch[:, None, :]

    def draw(self, normal: Tensor, times: Tensor | None = None) -> Tensor:
        """Standard normal (batch, numbers, *cells) → residual fields (batch, channel, *space), so
        many ``times`` (number of a patch, cell) their size."""
        flat = self.groups.flatten()
        cells = normal.flatten(2)
        shared, own = cells[:, : self.rank], cells[:, self.rank :]
        out = own * self.rest.sqrt().T[:, flat]
        for group in range(len(self.low)):
            here = flat == group
            out[:, :, here] += self.low[group] @ shared[:, :, here]
        out = out * (self.stretch if times is None else self.stretch * times)
        return self.patches.join(out.reshape(len(out), -1, *normal.shape[2:]))
