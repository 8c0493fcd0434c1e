"""What was observed of the frames of one draw, as its latents tell it."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor, nn

from sciladm.autoencoder.combined import Combined
from sciladm.autoencoder.curved import Curved
from sciladm.autoencoder.observed import Observed
from sciladm.autoencoder.patch import PatchAutoencoder
from sciladm.conventions import UserError
from sciladm.diffusion.denoiser import Context, Denoiser
from sciladm.diffusion.rolled import Rolled
from sciladm.model import Model

Frame = Observed | Combined | Curved
"""What was observed of one frame."""
LARGEST = 4096
"""Numbers of a draw up to which matrices between them are made."""
Part = TypeVar("Part", bound=nn.Module)
SMALL = 1e-3
"""Step, in standard deviations, along which a decoder's slope is taken."""


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

    def pulled(self, response: Tensor) -> Tensor:
        """Aᵀ (number, observation): what they say of each number's `response`."""
        said = torch.cat([o.told(response[:, n]) for n, o in enumerate(self.frames)], dim=1)
        return said[:, self.rows]


@dataclass(frozen=True, eq=False)
class Precise:
    """What of a run is linear, or nearly, in float64. Thousands of good observations pin down a
    pattern of the whole field a million times as well as one of a patch; in float32 rounding of
    the first is more than there is of the second."""

    denoiser: Denoiser
    rolled: Rolled | None
    autoencoder: PatchAutoencoder
    statics: Tensor
    _made: dict[bool, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model) -> "Precise":
        """Copies; of runs that go on from a past with what roll-outs say of windows. (What they
        say of decoding has in it what else forecasts err by there: not a law of observations.)"""
        rolled = _double(model.rolled) if model.recipe.window.past else None
        parts = _double(model.denoiser), rolled, _double(model.autoencoder)
        return cls(*parts, model.statics.double())

    def clean(self, r: Tensor, context: Context, later: bool) -> Tensor:
        """White r (batch, channel, *space) → latents z of a window; ``later``: whether it follows
        draws, not states that are known."""
        z = self.denoiser.clean(r, context)
        return z if self.rolled is None else self.rolled(context.mean, z, later)

    def response(self, later: bool = False) -> Tensor:
        """What each number of white r adds to the fields of a window, next to the climatology, for
        departures of the usual scale (number, frame, channel, *space); ``later`` as in `clean`."""
        if later not in self._made:
            self._made[later] = self._response(later)
        return self._made[later]

    def _response(self, later: bool) -> Tensor:
        shape, k = self.denoiser.weight.shape, len(self.autoencoder.centre)
        numbers, frames = shape.numel(), shape[0] // k
        if numbers > LARGEST:
            raise UserError(
                f"a window has {numbers} latents, and matrices between more than {LARGEST} are "
                "not made (denoiser.masks, method 'amortised'); with fewer frames or channels, or "
                "larger patches, there are fewer, and method 'guided' does without"
            )
        nothing = torch.zeros(1, *shape).to(self.statics)
        context = Context(nothing, torch.ones_like(nothing), nothing)

        def fields(r: Tensor) -> Tensor:
            z = apart(self.clean(r, context, later), frames)
            flat = self.autoencoder.decode(z.flatten(0, 1), self.statics)
            return flat.view(len(r), frames, *flat.shape[1:])

        unit = SMALL * torch.eye(numbers).to(nothing).view(-1, *shape)
        with torch.no_grad():
            parts = [fields(some) - fields(-some) for some in torch.split(unit, 64)]
        return torch.cat(parts) / (2 * SMALL)


def _double(part: Part) -> Part:
    """A copy in float64 and complex128."""
    out = deepcopy(part).double()
    for inner in out.modules():
        for name, buffer in inner.named_buffers(recurse=False):
            if buffer.is_complex():  # double() leaves it as it is
                setattr(inner, name, buffer.to(torch.complex128))
    return out


def apart(latents: Tensor, frames: int) -> Tensor:
    """(member, frame · k, *cells) → (member, frame, k, *cells)."""
    return latents.view(len(latents), frames, -1, *latents.shape[2:])
