"""What is expected, and how far frames may depart from it this time.

Diffusion is a costly way to learn either: its network sees them through noise, and a size it can
only learn by multiplying. Here both are learnt first, by one network whose score is that of the
normal distribution it states (Gneiting et al. 2005, doi:10.1175/MWR2904.1), and diffusion learns
what is left (after Mardani et al. 2025, CorrDiff, arXiv:2309.15214).
"""

import math

import torch
from torch import Tensor, nn

from sciladm.diffusion.parts import Parts
from sciladm.nn.linear import LocalLinear
from sciladm.nn.loglinear import LogLinear

USUAL, BOUND = -0.75, 1.25
"""ln scale, in units of what the linear map leaves, lies within USUAL ± BOUND: however strange a
state, frames depart at most e^0.5 = 1.6 times as far as if there were no network. Where it could
reach e^2 the rarest storms came out a fifth too wide."""
OWN = 500
"""Samples' worth by which what is linear in one cell alone is drawn to nothing."""


class MeanForecast(nn.Module):
    """mean = linear(past, forcings) + what a network adds + what is linear in both after all;
    scale = how far frames may depart.

    network: (batch, features, *space), (batch,) → (batch, outputs, *space), where features =
    past + channels (the linear map's) + forcings + statics; None where the linear map is all. The
    first `channels` outputs are the parts of what is added to the mean; where it `says_scale`, as
    many follow, and these, bounded, are the ln of the scale of each part of a departure. Where
    there is no network, and it shall say a scale, that is log-linear in forcings (`season`).

    around, alone: linear maps of the mean so far and of the past to what is left, fitted in closed
    form when the network is trained: optimisers end a little beside the least squares, too far
    from climatology by 1 %, say, and an ensemble's spread and climate show it. The first is that
    of a row's neighbourhoods; the second, each cell's own, knows what stands there: over the sea,
    where little varies, a loss hardly asks what the air near it does.
    """

    def __init__(self, linear: LocalLinear, network: nn.Module | None, says_scale: bool) -> None:
        super().__init__()
        self.linear, self.network = linear, network
        self.says_scale = says_scale and network is not None
        channels = linear.weight.shape[1]
        self.season: LogLinear | None = None
        if network is None and says_scale:
            self.season = LogLinear(linear.extra, channels, linear.kin.clone())
        self.parts = Parts(channels)
        self.around: LocalLinear | None = None
        self.alone: LocalLinear | None = None
        if network is not None:
            seen, kin, ends = linear.inputs + channels, linear.kin, linear.boundaries
            self.around = LocalLinear(seen, channels, kin.clone(), ends)
            self.alone = LocalLinear(seen, channels, kin.clone(), ends, local=OWN, reach=0)

    def forward(self, past: Tensor, forcings: Tensor, statics: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of known frames, forcings at the drawn frames' times, statics, all (batch, …,
        *space) on the latent grid → mean (batch, channels, *space) and scale (batch, parts,
        *space); 1 where nothing says it."""
        mean, scale = self.said(past, forcings, statics)
        return mean + self.added(torch.cat([mean, past], dim=1)), scale

    @property
    def after(self) -> list[LocalLinear]:
        """Maps of what is left, in the order in which they are fitted."""
        return [more for more in (self.around, self.alone) if more is not None]

    def added(self, seen: Tensor) -> Tensor:
        """What `after` makes of the mean so far and the past (batch, …, *space); 0 without it."""
        added = seen.new_zeros(len(seen), self.linear.weight.shape[1], *seen.shape[2:])
        for more in self.after:
            added = added + more(seen)
        return added

    def said(self, past: Tensor, forcings: Tensor, statics: Tensor) -> tuple[Tensor, Tensor]:
        """The same before what is left is added: what is trained."""
        mean: Tensor = self.linear(past, forcings)
        if self.network is None:
            return mean, self.season(forcings) if self.season else torch.ones_like(mean)
        seen = torch.cat([past, mean, forcings, statics], dim=1)
        said: Tensor = self.network(seen, mean.new_zeros(len(mean)))
        added, size = said[:, : mean.shape[1]], said[:, mean.shape[1] :]
        scale = _scale(size) if self.says_scale else torch.ones_like(mean)
        return mean + self.joined(added), scale

    def apart(self, departure: Tensor) -> Tensor:
        """Departures from the mean, in units of latents → their parts, in units of what the
        linear map leaves."""
        return self.parts.apart(departure / self.linear.left())

    def joined(self, parts: Tensor) -> Tensor:
        """The inverse of `apart`."""
        return self.linear.left() * self.parts.joined(parts)

    def log_det(self) -> float:
        """ln of the volume that `joined` gives to a unit of parts."""
        left = self.linear.left()
        return float(left.double().log().sum()) + left[0].numel() * self.parts.log_det()

    def loss(self, past: Tensor, forcings: Tensor, statics: Tensor, future: Tensor) -> Tensor:
        """What to make small (batch, parts, *space), in units of what the linear map leaves: the
        CRPS of N(0, scale²) where it says a scale, else the squared departure."""
        mean, scale = self.said(past, forcings, statics)
        parts = self.apart(future - mean)
        return normal_crps(parts, scale) if self.says_scale else parts.square()


def _scale(size: Tensor) -> Tensor:
    """What a network says, any number → scale in units of what the linear map leaves."""
    return (USUAL + BOUND * (size / BOUND).tanh()).exp()


def normal_crps(departure: Tensor, std: Tensor) -> Tensor:
    """Continuous ranked probability score of N(0, std²) where ``departure`` came (Gneiting et al.
    2005, eq. 5), in the unit of both."""
    z = departure / std
    density = torch.exp(-z.square() / 2) * math.sqrt(2 / math.pi)
    score: Tensor = std * (z * torch.erf(z / 2**0.5) + density - math.pi**-0.5)
    return score
