"""What is drawn given observations of it, by a network that was trained with them.

Observations y = A r + e, e ~ N(0, 1), of white r, which is seen with noise, too: x = r + σ n.
Were r Gaussian, it would be N(g, C) given both,

    g = C (x / σ² + Aᵀ y),   C = (1 + 1/σ² + Aᵀ A)⁻¹

and whatever its law, D = g + C^½ F with F = E[C^−½ (r − g) | x, y], which a network can learn: of
white numbers again, as where nothing is observed (then this is EDM's preconditioning). So A and
the errors of y stand in closed form, and all that is to be learnt is how r is not Gaussian.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sciladm.diffusion.denoiser import Context, Denoiser
from sciladm.diffusion.posterior import squared


@dataclass(frozen=True, eq=False)
class Law:
    """Aᵀ A = V diag(λ) Vᵀ for r of ``shape`` (channel, *space): vectors V (number, mode), values λ
    (mode,), none of them 0."""

    vectors: Tensor
    values: Tensor
    shape: torch.Size

    @classmethod
    def of(cls, said: Tensor, shape: torch.Size) -> "Law":
        """From Aᵀ (number, observation), float64."""
        return cls(*squared(said), shape)

    def to(self, like: Tensor) -> "Law":
        """In another kind of numbers, or on another device."""
        return Law(self.vectors.to(like), self.values.to(like), self.shape)

    def stretched(self, x: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
        """x (batch, channel, *space) times factor(Aᵀ A), a function of λ that broadcasts."""
        flat, nothing = x.flatten(1), self.values.new_zeros(1)
        across, along = (factor(values) for values in (nothing, self.values))
        told = (along - across) * (flat @ self.vectors)
        return (across * flat + told @ self.vectors.T).view_as(x)

    @cached_property
    def std(self) -> Tensor:
        """Of each number given the observations (channel, *space)."""
        told = self.vectors.square() @ (self.values / (1 + self.values))
        return (1 - told).clamp(min=0).sqrt().view(self.shape)

    def given(self, pulled: Tensor) -> "Known":
        """The law given Aᵀ y, ``pulled`` (batch, number)."""
        along = (pulled.to(self.vectors) @ self.vectors) / (1 + self.values)
        return Known(self, (along @ self.vectors.T).view(-1, *self.shape))

    def observed(self, r: Tensor, normal: Tensor) -> "Known":
        """The law given observations of r with errors of ``normal`` numbers (batch, mode): it is
        as if each mode were observed by itself, √λ Vᵀ r + e."""
        root = self.values.sqrt()
        told = root * (r.flatten(1) @ self.vectors) + normal
        along = root * told / (1 + self.values)
        return Known(self, (along @ self.vectors.T).view(-1, *self.shape))


@dataclass(frozen=True, eq=False)
class Known:
    """N(mean, (1 + AᵀA)⁻¹): what observations alone tell of Gaussian r; mean (batch, channel,
    *space). Noise levels σ broadcast as (batch, 1)."""

    law: Law
    mean: Tensor

    def float(self) -> "Known":
        """The same in float32."""
        return Known(self.law.to(self.mean.float()), self.mean.float())

    def expected(self, x: Tensor, sigma: Tensor) -> Tensor:
        """g."""
        moved = self.law.stretched(x - self.mean, lambda v: 1 / (1 + sigma**2 * (1 + v)))
        return self.mean + moved

    def coloured(self, white: Tensor, sigma: Tensor) -> Tensor:
        """C^½ white."""
        return self.law.stretched(white, lambda v: sigma / (1 + sigma**2 * (1 + v)).sqrt())

    def white(self, off: Tensor, sigma: Tensor) -> Tensor:
        """C^−½ off."""
        return self.law.stretched(off, lambda v: (1 + sigma**2 * (1 + v)).sqrt() / sigma)


class Informed(Denoiser):
    """A denoiser whose network sees what is known, too: backbone as `Denoiser` has it, with 3 ·
    channels features more. With nothing known it is what it was."""

    def forward(
        self, x: Tensor, sigma: Tensor | float, context: Context, known: Known | None = None
    ) -> Tensor:
        """E[r | x, y]."""
        if known is None:
            return super().forward(x, sigma, context)
        level = torch.as_tensor(sigma).to(x).view(-1, *[1] * (x.ndim - 1))
        expected, output = self._said(x, level.expand(len(x), *level.shape[1:]), context, known)
        return expected + known.coloured(output, level.view(-1, 1))

    def loss(
        self,
        r: Tensor,
        context: Context,
        sigma: Tensor,
        noise: Tensor,
        known: Known | None = None,
    ) -> Tensor:
        """Mean of weight · (F − C^−½ (r − g))²: 1 for Gaussian r, to begin with."""
        if known is None:
            return super().loss(r, context, sigma, noise)
        level = sigma.to(r).view(-1, *[1] * (r.ndim - 1))
        flat = level.view(-1, 1)
        expected, output = self._said(r + level * noise, level, context, known)
        goal = known.white(r - expected, flat)
        return ((output - goal).square() * self.weight).mean()

    def _said(
        self, x: Tensor, level: Tensor, context: Context, known: Known
    ) -> tuple[Tensor, Tensor]:
        """g, and what the network says."""
        expected = known.expected(x, level.view(-1, 1))
        std = known.law.std.expand_as(x)
        return expected, self._seen(x, level, context, known.mean.expand_as(x), std, expected)

    def _network(self, x: Tensor, level: Tensor, context: Context) -> Tensor:
        nothing, all_ = torch.zeros_like(x), torch.ones_like(x)
        return self._seen(x, level, context, nothing, all_, x / (1 + level**2))

    def _seen(self, x: Tensor, level: Tensor, context: Context, *known: Tensor) -> Tensor:
        seen, time = self.parametrisation.seen(x, level)
        out: Tensor = self.backbone(
            torch.cat([seen, context.features, *known], dim=1), time.flatten()
        )
        return out
