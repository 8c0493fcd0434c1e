"""What was observed of the frames of one draw, as its latents tell it."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sciladm.autoencoder.combined import Combined
from sciladm.autoencoder.curved import Curved
from sciladm.autoencoder.observed import Observed
from sciladm.autoencoder.patch import PatchAutoencoder
from sciladm.diffusion.denoiser import Denoiser
from sciladm.model import Model

Frame = Observed | Combined | Curved
"""What was observed of one frame."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What was observed of the frames of one draw."""

    autoencoder: PatchAutoencoder
    statics: Tensor
    frames: Sequence[Frame]

    def told(self, latents: Tensor) -> Tensor:
        """Latents (member, future · k, *cells) → (member, number), in standard errors."""
        fields = self.decoded(latents)
        return torch.cat([o.told(x) for o, x in zip(self.frames, fields, strict=True)], dim=1)

    def decoded(self, latents: Tensor) -> Sequence[Tensor]:
        """The fields of each frame (member, channel, *space)."""
        frames = apart(latents, len(self.frames)).flatten(0, 1)
        fields = self.autoencoder.decode(frames, self.statics)
        return fields.view(len(latents), len(self.frames), *fields.shape[1:]).unbind(1)

    @cached_property
    def rows(self) -> Tensor:
        """Which numbers say anything (number,)."""
        return torch.cat([o.says for o in self.frames])

    @cached_property
    def wanted(self) -> Tensor:
        """What they should say (1 or member, number)."""
        parts = [o.wanted() for o in self.frames]
        most = max(len(part) for part in parts)
        return torch.cat([part.expand(most, -1) for part in parts], dim=1)


@dataclass(frozen=True, eq=False)
class Precise:
    """What of a run is linear, or nearly, in float64. Thousands of good observations pin down a
    pattern of the whole field a million times as well as one of a patch; in float32 rounding of
    the first is more than there is of the second."""

    denoiser: Denoiser
    autoencoder: PatchAutoencoder

    @classmethod
    def of(cls, model: Model) -> "Precise":
        """Copies."""
        denoiser = deepcopy(model.denoiser).double()
        if denoiser.departure.patterns.is_complex():  # which double() leaves as they are
            denoiser.departure.patterns = denoiser.departure.patterns.to(torch.complex128)
        return cls(denoiser, deepcopy(model.autoencoder).double())


def apart(latents: Tensor, frames: int) -> Tensor:
    """(member, frame · k, *cells) → (member, frame, k, *cells)."""
    return latents.view(len(latents), frames, -1, *latents.shape[2:])
