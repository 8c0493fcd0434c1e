"""E[clean | noisy, context], and what it is trained on.

The network never sees the target z itself but its whitened departure r from what is expected:
z = mean(context) + P (scale(context) · d), d = its own mean + S r, P what joins the parts of a
departure. Noise, sampler and guidance work on
r, whose covariance is 1.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sciladm.diffusion.departure import Departure
from sciladm.diffusion.mean import MeanForecast
from sciladm.diffusion.parametrisation import EDM, Parametrisation


@dataclass(frozen=True)
class Context:
    """All that is known, computed once per sampler call.

    mean: (batch, channel, *space); scale: how far each part of a frame may depart from it this
    time (batch, part, *space); features: (batch, feature, *space).
    """

    mean: Tensor
    scale: Tensor
    features: Tensor

    def double(self) -> "Context":
        """The same in float64."""
        return Context(self.mean.double(), self.scale.double(), self.features.double())


class Denoiser(nn.Module):
    """D(x, σ, context) = E[r | r + σ n = x], whatever its network is trained to say.

    backbone: (batch, channels + features, *space), (batch,) → (batch, channels, *space), where
    features = past + channels (the mean) + forcings + statics. cells: (*space), what each counts
    in the loss (areas; 0 where no data can be); only its ratios matter.
    """

    cells: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        base: MeanForecast,
        departure: Departure,
        cells: Tensor,
        parametrisation: Parametrisation = EDM,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.base = base
        self.departure = departure
        self.parametrisation = parametrisation
        self.register_buffer("cells", cells / cells.mean())

    @property
    def weight(self) -> Tensor:
        """What each number counts in the loss (part, *space), 1 on average."""
        return self.base.parts.weight(self.cells)

    def context(self, past: Tensor, forcings: Tensor, statics: Tensor) -> Context:
        """Latents of known frames (batch, past, *space), forcings at the valid time (batch,
        forcing, *space), statics (static, *space) or with a batch, all on the latent grid."""
        statics = statics.expand(len(past), *statics.shape[-past.ndim + 1 :])
        mean, scale = self.base(past, forcings, statics)
        scale = scale.where(self.cells > 0, 1.0)  # where no data can be, nothing was learnt
        features = torch.cat([past, mean, forcings, statics], dim=1)
        return Context(mean, scale, features)

    def told(self, context: Context, share: Tensor | float) -> Context:
        """The same departures, of which the network is told all (1) or nothing (0): a number, or
        one for each of the batch (batch,)."""
        told = torch.as_tensor(share).to(context.features)
        told = told.view(-1, *[1] * (context.features.ndim - 1))
        return replace(context, features=context.features * told)

    def departed(self, z: Tensor, context: Context) -> Tensor:
        """z → d, the parts by which it departs from what is expected, as shares of how far they
        may."""
        return self.base.apart(z - context.mean) / context.scale

    def white(self, z: Tensor, context: Context) -> Tensor:
        """z → r."""
        return self.departure.whiten(self.departed(z, context))

    def clean(self, r: Tensor, context: Context) -> Tensor:
        """r → z."""
        return context.mean + self.base.joined(context.scale * self.departure.colour(r))

    def log_volume(self, context: Context) -> Tensor:
        """ln of the volume that `clean` gives to a unit of r (batch,), float64."""
        told = context.scale.flatten(1).double().log().sum(1)
        return told + self.base.log_det() + self.departure.log_det()

    def forward(self, x: Tensor, sigma: Tensor | float, context: Context) -> Tensor:
        """Noisy x (batch, channel, *space) at noise level σ (a number, or (batch,)) → r."""
        level = sigma.to(x) if isinstance(sigma, Tensor) else x.new_full((len(x),), sigma)
        level = level.view(-1, *[1] * (x.ndim - 1))
        return self.parametrisation.denoised(self._network(x, level, context), x, level)

    def _network(self, x: Tensor, level: Tensor, context: Context) -> Tensor:
        seen, time = self.parametrisation.seen(x, level)
        out: Tensor = self.backbone(torch.cat([seen, context.features], dim=1), time.flatten())
        return out

    def loss(self, r: Tensor, context: Context, sigma: Tensor, noise: Tensor) -> Tensor:
        """Mean over batch, channel and cell of weight · (F − what F should say)².

        For EDM and v that is weight · (D − r)² over the squared error of the best D for white
        Gaussian r, which r is but for what there is to learn: 1 at every σ, to begin with. No
        weighting by σ is left to choose (a learned one was tried: docs/log.md).
        """
        level = sigma.to(r).view(-1, *[1] * (r.ndim - 1))
        got = self._network(r + level * noise, level, context)
        goal = self.parametrisation.goal(r, noise, level)
        return ((got - goal).square() * self.weight).mean()
