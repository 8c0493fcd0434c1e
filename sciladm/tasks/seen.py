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

    def coloured(self, scale: Tensor) -> Tensor:
        """What each number of white r adds to departures that go as far as ``scale`` (1, channel,
        *space) says: (number, number)."""
        return self._colour * scale.flatten()

    @cached_property
    def _colour(self) -> Tensor:
        departure, units = self.denoiser.departure, self._units()
        nothing = departure.colour(torch.zeros_like(units[0][:1]))
        return torch.cat([(departure.colour(some) - nothing).flatten(1) for some in units])

    def response(self, later: bool = False) -> Tensor:
        """What each number of a departure of the usual scale adds to the fields of a window, next
        to the climatology (number, frame, channel, *space); ``later`` as in `clean`."""
        if later not in self._made:
            with torch.no_grad():
                parts = [self._added(SMALL * some, later) for some in self._units()]
            self._made[later] = torch.cat(parts) / (2 * SMALL)
        return self._made[later]

    def _added(self, departure: Tensor, later: bool) -> Tensor:
        """To fields, between as much less and as much more of it (batch, channel, *space)."""
        frames = departure.shape[1] // len(self.autoencoder.centre)

        def fields(d: Tensor) -> Tensor:
            z = self.denoiser.base.joined(d)
            if self.rolled is not None:
                z = self.rolled(torch.zeros_like(z), z, later)
            flat = self.autoencoder.decode(apart(z, frames).flatten(0, 1), self.statics)
            return flat.view(len(d), frames, *flat.shape[1:])

        return fields(departure) - fields(-departure)

    def _units(self) -> Sequence[Tensor]:
        """Each number of a window by itself (batch, channel, *space), some at a time."""
        shape = self.denoiser.weight.shape
        if (numbers := shape.numel()) > LARGEST:
            raise UserError(
                f"a window has {numbers} latents, and matrices between more than {LARGEST} are "
                "not made (denoiser.masks, method 'amortised'); with fewer frames or channels, or "
                "larger patches, there are fewer, and method 'guided' does without"
            )
        return torch.split(torch.eye(numbers).to(self.statics).view(-1, *shape), 64)


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
