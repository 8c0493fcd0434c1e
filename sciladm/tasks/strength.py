"""How far copies are to be from their originals, and the noise that takes them there.

The anomaly correlation c of copies with their originals is about the run's climatology, its
products and squares averaged over cells by area, over states, and over variables in standard
deviations, before the root; the strength of copies is 1 − c². A mean of squares of the
correlations of single fields is no measure of it: those of independent smooth fields are not 0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciladm.conventions import UserError
from sciladm.data.dataset import DataSet
from sciladm.diffusion.sampler import Sampler
from sciladm.diffusion.sampler.near import keeping
from sciladm.model import Model
from sciladm.tasks.windows import Windows

WINDOWS = 256
"""Of training that say how much of anomalies is expected beforehand."""


@dataclass(frozen=True)
class Strength:
    """The sampler that takes copies ``asked`` far, None where they begin at noise alone or are
    the originals; ``kept``, the correlation with the original of what is drawn anew that no
    sampler draws."""

    asked: float
    kept: float
    sampler: Sampler | None

    @classmethod
    def of(cls, model: Model, data: DataSet, asked: float) -> "Strength":
        """UserError for what cannot be had."""
        if not 0 <= asked <= 1:
            raise UserError(f"strength {asked:g}: from 0, the originals, to 1, the climate")
        if asked == 0:
            return cls(asked, 1.0, None)
        wanted, common = math.sqrt(1 - asked), shared(model, data)
        if wanted < common:
            raise UserError(
                f"strength {asked:g}: this run draws a state given the {model.recipe.window.past} "
                "before it, which an original and its copies have in common: a strength of "
                f"{1 - common**2:.2g} is all they can have; a run with window.past: 0 reaches 1"
            )
        sampler = keeping(model.sampler_from, (wanted - common) / (1 - common), model.sigma_max)
        return cls(asked, wanted, sampler)


@torch.inference_mode()
def shared(model: Model, data: DataSet) -> float:
    """The share of the variance of decoded training anomalies that is expected from the states
    before; 0 without them: climatology is no part of an anomaly."""
    if not model.recipe.window.past:
        return 0.0
    area = torch.tensor(model.fields.grid.area, dtype=torch.float32).to(model.device) * model.valid
    windows, sums = Windows.of(model, data.splits, "train"), torch.zeros(2, dtype=torch.float64)

    def size(latents: Tensor) -> float:
        frames = latents.view(-1, model.recipe.autoencoder.channels, *model.grid.shape)
        fields = model.autoencoder.decode(frames, model.statics)
        return float((fields.square() * area).sum(dtype=torch.float64))

    for batch in windows.spread(WINDOWS, model.recipe.micro_batch):
        past, forcings, drawn = (part.to(model.device) for part in batch)
        mean = model.denoiser.context(past, forcings, model.latent_statics).mean
        sums += torch.tensor([size(mean), size(mean) + size(drawn - mean)])
    return float(sums[0] / sums[1])
