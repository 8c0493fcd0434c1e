"""The masks that a denoiser is trained with."""

from collections.abc import Iterator, Sequence
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
from sciladm.tasks.windows import Windows

NOTHING = 0.25
"""Share of training steps in which nothing is observed."""
SEASONS = 6
"""Times of the year that masks are worked out for; each is one of them's."""


@dataclass(frozen=True, eq=False)
class Masks:
    """What is seen through them is decoded latents with a residual and an error of their laws: as
    good as the states themselves, and in closed form."""

    laws: Sequence[Law]
    seed: int

    @classmethod
    def of(cls, model: Model, windows: Windows) -> "Masks":
        """As many as the recipe says, each a function of the seed and its number, for departures
        as large as they are at some `SEASONS` of the ``windows``."""
        precise, seed, like = Precise.of(model), model.recipe.seed, model.denoiser.weight
        shape = (model.recipe.window.future, *model.valid.shape)
        nothing = torch.zeros(shape[1:], dtype=torch.float64, device=model.device)
        masks = [mask(np.random.default_rng([seed, n]), shape)
                 for n in range(model.recipe.denoiser.masks)]  # fmt: skip
        laws = []
        for number, scale in enumerate(_scales(model, windows)):
            coloured = precise.coloured(scale)
            for seen, error in masks[number::SEASONS]:
                frames = [
                    Observed.of(nothing, nothing + error, one & model.valid, model.residual)
                    for one in torch.from_numpy(seen).to(model.device)
                ]
                told = Seen(precise.autoencoder, precise.statics, frames)
                said = coloured @ told.pulled(precise.response())
                laws.append(Law.of(said, like.shape).to(like))
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


def _scales(model: Model, windows: Windows) -> Iterator[Tensor]:
    """How far departures may go at times of the ``windows`` (1, channel, *space)."""
    rng = np.random.default_rng([model.recipe.seed, SEASONS])
    past, forcings, _ = windows.at(rng.integers(len(windows), size=SEASONS))
    told = past.to(model.device), forcings.to(model.device), model.latent_statics
    with torch.no_grad():
        yield from torch.split(model.denoiser.context(*told).scale.double(), 1)
