"""What is expected: the forecast that the drawn frames depart from.

Diffusion is a costly way to learn a mean, since its network sees it through noise. Here the mean
is learnt first, by least squares, and diffusion learns what is left (Mardani et al. 2025,
CorrDiff, arXiv:2309.15214).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sciladm.nn.linear import LocalLinear

Samples = Iterable[tuple[Tensor, Tensor, Tensor]]
"""Batches of past latents, forcings and the frames that followed."""
ENOUGH = 200
"""Samples that a group of cells needs for a standard deviation of its own."""


class MeanForecast(nn.Module):
    """mean = linear(past, forcings) + what a network adds; std: of what they leave, per channel
    and group of cells of the linear map.

    network: (batch, features, *space), (batch,) → (batch, channels, *space), in units of what the
    linear map leaves; None where the linear map is all. features = past + channels (the linear
    map's) + forcings + statics.
    """

    std: Tensor

    def __init__(self, linear: LocalLinear, network: nn.Module | None) -> None:
        super().__init__()
        self.linear, self.network = linear, network
        self.register_buffer("std", torch.ones_like(linear.std))

    def forward(self, past: Tensor, forcings: Tensor, statics: Tensor) -> Tensor:
        """Latents of known frames, forcings at the drawn frames' times, statics, all (batch, …,
        *space) on the latent grid → mean (batch, channels, *space)."""
        mean: Tensor = self.linear(past, forcings)
        if self.network is None:
            return mean
        seen = torch.cat([past, mean, forcings, statics], dim=1)
        added: Tensor = self.network(seen, mean.new_zeros(len(mean)))
        return mean + self.linear.left() * added

    def left(self) -> Tensor:
        """Standard deviation of the departure (channels, *space)."""
        return self.std.T[:, self.linear.groups]

    def loss(self, past: Tensor, forcings: Tensor, statics: Tensor, future: Tensor) -> Tensor:
        """Squared departures (batch, channels, *space), in units of what the linear map leaves."""
        departure: Tensor = future - self(past, forcings, statics)
        return (departure / self.linear.left()).square()

    @torch.no_grad()
    def measure(self, samples: Samples, statics: Tensor) -> None:
        """Set `std` from samples; in groups of too few it is scaled as in all cells together."""
        flat = self.linear.groups.flatten()
        square = torch.zeros_like(self.std, dtype=torch.float64)
        count = torch.zeros(len(self.std), dtype=torch.float64, device=flat.device)
        for past, forcings, future in samples:
            placed = statics.expand(len(past), *statics.shape)
            left = (future - self(past, forcings, placed)).flatten(2).double().square().sum(0)
            square.index_add_(0, flat, left.T)
            count.index_add_(0, flat, torch.full_like(flat, len(past), dtype=torch.float64))
        before = self.std.double().square() * count[:, None]
        scaled = self.std.double().square() * square.sum(0) / before.sum(0)
        few = (count < ENOUGH)[:, None]
        own = square / count[:, None].clamp(min=1)
        self.std.copy_(own.where(~few, scaled).clamp(min=1e-12).sqrt())
