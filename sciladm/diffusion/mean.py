"""What is expected: the forecast that the drawn frames depart from.

Diffusion is a costly way to learn a mean, since its network sees it through noise. Here the mean
is learnt first, by least squares, and diffusion learns what is left (Mardani et al. 2025,
CorrDiff, arXiv:2309.15214).
"""

import torch
from torch import Tensor, nn

from sciladm.nn.linear import LocalLinear


class MeanForecast(nn.Module):
    """mean = linear(past, forcings) + what a network adds.

    network: (batch, features, *space), (batch,) → (batch, channels, *space), in units of what the
    linear map leaves; None where the linear map is all. features = past + channels (the linear
    map's) + forcings + statics.
    """

    def __init__(self, linear: LocalLinear, network: nn.Module | None) -> None:
        super().__init__()
        self.linear, self.network = linear, network

    def forward(self, past: Tensor, forcings: Tensor, statics: Tensor) -> Tensor:
        """Latents of known frames, forcings at the drawn frames' times, statics, all (batch, …,
        *space) on the latent grid → mean (batch, channels, *space)."""
        mean: Tensor = self.linear(past, forcings)
        if self.network is None:
            return mean
        seen = torch.cat([past, mean, forcings, statics], dim=1)
        added: Tensor = self.network(seen, mean.new_zeros(len(mean)))
        return mean + self.linear.left() * added

    def loss(self, past: Tensor, forcings: Tensor, statics: Tensor, future: Tensor) -> Tensor:
        """Squared departures (batch, channels, *space), in units of what the linear map leaves."""
        departure: Tensor = future - self(past, forcings, statics)
        return (departure / self.linear.left()).square()
