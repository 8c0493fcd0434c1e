"""The dressed regression: what the same network earns without diffusion.

The denoiser at infinite noise sees the context alone, and the best it can say is the mean. It is
trained for that and nothing else, with the same steps, batches and learning rate, rolled out
without noise, decoded without residual and dressed with whole validation errors: if diffusion does
not beat it, diffusion earned nothing.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciladm.baselines.dressed import DressedForecast
from sciladm.baselines.series import Leads, Series, State
from sciladm.conventions import UserError, parse_duration
from sciladm.data.dataset import DataSet
from sciladm.diffusion.denoiser import Context, Denoiser
from sciladm.model import Model
from sciladm.tasks.fit import LATENTS, parts
from sciladm.tasks.voice import Voice
from sciladm.tasks.windows import Windows
from sciladm.training.loop import Loop

Array = NDArray[np.float32]
REGRESSION = "regression.safetensors"


def mean_departure(denoiser: Denoiser, context: Context) -> Tensor:
    """E[r | context] (batch, channel, *space): the backbone with no noisy frames to look at."""
    nothing = torch.zeros_like(context.mean)
    seen = torch.cat([nothing, context.features], dim=1)
    out: Tensor = denoiser.backbone(seen, nothing.new_zeros(len(nothing)))
    return out


@dataclass(frozen=True, eq=False)
class MeanForecast:
    """The regression rolled out from the encoded past: (init_time, leads) → fields."""

    model: Model
    network: Denoiser
    state: State

    @torch.inference_mode()
    def __call__(self, init_time: np.datetime64, leads: Leads) -> Array:
        """(lead, channel, *space), physical units."""
        model, window = self.model, self.model.recipe.window
        step = parse_duration(window.step)
        if (leads % step).astype(np.int64).any():
            raise UserError(f"it forecasts every {window.step}, and not all leads are among these")
        before = init_time - np.arange(window.past)[::-1] * step
        known = model.encode(np.stack([self.state(time) for time in before]), before)
        frames = list(known)
        while len(frames) - window.past < int(leads.max() / step):
            done = len(frames) - window.past
            times = init_time + (done + 1 + np.arange(window.future)) * step
            past = torch.cat(frames[-window.past :])[None]
            context = self.network.context(past, model.forcings(times)[None], model.latent_statics)
            z = self.network.clean(mean_departure(self.network, context), context)
            frames += list(z[0].chunk(window.future))
        chosen = [window.past - 1 + int(lead / step) for lead in leads]
        latents = torch.stack([frames[n] for n in chosen])
        return model.decode(latents, init_time + leads, None)


def train_regression(model: Model, data: DataSet, voice: Voice) -> Denoiser:
    """The regression of a run: trained the first time, kept in the run's folder."""
    network = Model.start(model.path, model.recipe, model.device).denoiser
    network.base.load_state_dict(model.denoiser.base.state_dict())
    if not (model.path / REGRESSION).exists():
        if not (model.path / LATENTS).exists():
            raise UserError(
                f"it is not trained yet, and {model.path / LATENTS}, which it learns from, is "
                "gone; `python -m sciladm.train` with the run's recipe makes it again"
            )
        own = model.recipe.denoiser
        voice.say(
            f"training the regression that the model is held against, once: {own.steps} steps of "
            f"{own.batch} windows, about as long as the denoiser took; kept as "
            f"{model.path / REGRESSION}"
        )
        _train(model, network, data, voice)
        model.save_part(REGRESSION, denoiser=network)
    model.load_part(REGRESSION, denoiser=network)
    return network


def _train(model: Model, network: Denoiser, data: DataSet, voice: Voice) -> None:
    own, seed = model.recipe.denoiser, model.recipe.seed
    windows = Windows.of(model, data.splits, "train")
    count = parts(model.device)

    def step_loss(step: int, part: int) -> Tensor:
        batch = windows.batch(own.batch, seed, step, slice(part, None, count))
        past, forcings, future = (x.to(model.device) for x in batch)
        context = network.context(past, forcings, model.latent_statics)
        error = mean_departure(network, context) - network.departure(future, context)
        return (error.square() * network.weight).mean()

    with voice.progress("regression") as report:
        loop = Loop(
            network, step_loss, model.path, "regression", steps=own.steps, parts=count,
            learning_rate=own.learning_rate, ema_width=own.ema,
            save_every=model.recipe.checkpoint_every,
            progress=lambda step, loss: report(step / own.steps, f"loss {loss:.3f}"),
        )  # fmt: skip
        network.load_state_dict(loop.run(), strict=False)


@dataclass(frozen=True)
class WithPast(Series):
    """A series whose starts also have the frames ``back`` before them."""

    back: Leads

    def starts(self, leads: Leads) -> NDArray[np.int64]:
        """Indices of the times from which every lead, and all of the past, is in the series."""
        return super().starts(np.concatenate([leads, -self.back]))


def dressed_regression(
    model: Model,
    data: DataSet,
    state: State,
    validation: Series,
    leads: Leads,
    members: int,
    seed: int,
    voice: Voice,
) -> DressedForecast:
    """The regression as an ensemble of ``members``."""
    mean = MeanForecast(model, train_regression(model, data, voice), state)
    window = model.recipe.window
    back = np.arange(1, window.past) * parse_duration(window.step)
    known = WithPast(validation.times, validation.read, back)
    return DressedForecast.fit("dressed_regression", mean, known, leads, members, seed=seed)
