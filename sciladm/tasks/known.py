"""The masks that a denoiser is trained with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sciladm.autoencoder.observed import Observed
from sciladm.diffusion.known import Known, Law
from sciladm.diffusion.noise import training_generator
from sciladm.model import Model
from sciladm.observe.masks import mask
from sciladm.tasks.seen import Precise, Seen

NOTHING = 0.25
"""Share of training steps in which nothing is observed."""


@dataclass(frozen=True, eq=False)
class Masks:
    """What is seen through them is decoded latents with a residual and an error of their laws: as
    good as the states themselves, and in closed form."""

    laws: Sequence[Law]
    seed: int

    @classmethod
    def of(cls, model: Model) -> "Masks":
        """As many as the recipe says; each a function of the seed and its number."""
        precise, seed, like = Precise.of(model), model.recipe.seed, model.denoiser.weight
        shape = (model.recipe.window.future, *model.valid.shape)
        nothing = torch.zeros(shape[1:], dtype=torch.float64, device=model.device)
        laws = []
        for number in range(model.recipe.denoiser.masks):
            seen, error = mask(np.random.default_rng([seed, number]), shape)
            frames = [
                Observed.of(nothing, nothing + error, one & model.valid, model.residual)
                for one in torch.from_numpy(seen).to(model.device)
            ]
            told = Seen(precise.autoencoder, precise.statics, frames)
            laws.append(Law.of(told.pulled(precise.response()), like.shape).to(like))
        return cls(laws, seed)

    def known(self, r: Tensor, step: int, part: int) -> Known | None:
        """What one of them tells of the departures r (batch, channel, *space) of a training step;
        None where nothing is observed."""
        generator = training_generator(self.seed, step, f"mask {part}")
        if torch.rand((), generator=generator) < NOTHING:
            return None
        law = self.laws[int(torch.randint(len(self.laws), (), generator=generator))]
        normal = torch.randn(len(r), len(law.values), generator=generator)
        return law.observed(r, normal.to(r))
