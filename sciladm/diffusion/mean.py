"""What is expected, and how far frames may depart from it this time.

Diffusion is a costly way to learn either: its network sees them through noise, and a size it can
only learn by multiplying. Here both are learnt first, by one network whose score is that of the
normal distribution it states (Gneiting et al. 2005, doi:10.1175/MWR2904.1), and diffusion learns
what is left (after Mardani et al. 2025, CorrDiff, arXiv:2309.15214).
"""

import math

import torch
from torch import Tensor, nn

from sciladm.nn.linear import LocalLinear

USUAL, BOUND = -0.75, 1.25
"""ln scale, in units of what the linear map leaves, is USUAL ± BOUND: however strange a state,
frames depart at most 1.6 times as far as if there were no network. With 1.5 more on either side
the rarest storms came out a fifth too wide."""


class MeanForecast(nn.Module):
    """mean = linear(past, forcings) + what a network adds; scale = what that is off by.

    network: (batch, features, *space), (batch,) → (batch, channels or 2 · channels, *space), in
    units of what the linear map leaves; None where the linear map is all. features = past +
    channels (the linear map's) + forcings + statics. A network with twice the channels says the
    scale, too.
    """

    def __init__(self, linear: LocalLinear, network: nn.Module | None) -> None:
        super().__init__()
        self.linear, self.network = linear, network

    def forward(
        self, past: Tensor, forcings: Tensor, statics: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Latents of known frames, forcings at the drawn frames' times, statics, all (batch, …,
        *space) on the latent grid → mean (batch, channels, *space), and how far frames depart
        from it, likewise; None where the network does not say."""
        mean: Tensor = self.linear(past, forcings)
        if self.network is None:
            return mean, None
        seen = torch.cat([past, mean, forcings, statics], dim=1)
        said: Tensor = self.network(seen, mean.new_zeros(len(mean)))
        added, size = said[:, : mean.shape[1]], said[:, mean.shape[1] :]
        left = self.linear.left()
        scale = left * (USUAL + BOUND * (size / BOUND).tanh()).exp() if size.numel() else None
        return mean + left * added, scale

    def loss(self, past: Tensor, forcings: Tensor, statics: Tensor, future: Tensor) -> Tensor:
        """What to make small (batch, channels, *space), in units of what the linear map leaves:
        the CRPS where a scale is said, else the squared departure."""
        mean, scale = self(past, forcings, statics)
        departure, left = future - mean, self.linear.left()
        squared: Tensor = (departure / left).square()
        return squared if scale is None else normal_crps(departure, scale) / left


def normal_crps(departure: Tensor, std: Tensor) -> Tensor:
    """Continuous ranked probability score of N(0, std²) where ``departure`` came (Gneiting et al.
    2005, eq. 5), in the unit of both."""
    z = departure / std
    density = torch.exp(-z.square() / 2) * math.sqrt(2 / math.pi)
    score: Tensor = std * (z * torch.erf(z / 2**0.5) + density - math.pi**-0.5)
    return score
