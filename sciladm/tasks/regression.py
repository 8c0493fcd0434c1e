"""The dressed regression: what the same networks earn without diffusion.

The network of the mean, trained for nothing but the mean (least squares), given all the steps that
mean and denoiser had together, rolled out without noise, decoded without residual; its anomalies
damped as validation says, for each channel and lead, and dressed with whole errors of that split.
Where it wins, all that the model does for its spread earned nothing; where it loses, the merit may
be that of the mean's scale rather than of diffusion.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sciladm.baselines.dressed import DressedForecast
from sciladm.baselines.harmonics import HarmonicMean
from sciladm.baselines.series import Leads, Series, State
from sciladm.calendar import later
from sciladm.conventions import UserError, parse_duration
from sciladm.data.dataset import DataSet
from sciladm.data.durable import writing
from sciladm.diffusion.mean import MeanForecast
from sciladm.model import Model
from sciladm.tasks.fit import LATENTS
from sciladm.tasks.fit_denoiser import train_mean
from sciladm.tasks.voice import Voice

Array = NDArray[np.float32]
REGRESSION = "regression.safetensors"


@dataclass(frozen=True, eq=False)
class RolledOut:
    """The regression rolled out from the encoded past: (init_time, leads) → fields."""

    model: Model
    network: MeanForecast
    state: State

    @torch.inference_mode()
    def __call__(self, init_time: np.datetime64, leads: Leads) -> Array:
        """(lead, channel, *space), physical units."""
        model, window = self.model, self.model.recipe.window
        step = parse_duration(window.step)
        if (leads % step).astype(np.int64).any():
            raise UserError(f"it forecasts every {window.step}, and not all leads are among these")
        before = later(init_time, -np.arange(window.past)[::-1] * step)
        frames = [model.encode(self.state(time)[None], before[[n]])[0]
                  for n, time in enumerate(before)]  # fmt: skip
        while len(frames) - window.past < int(leads.max() / step):
            done = len(frames) - window.past
            times = later(init_time, (done + 1 + np.arange(window.future)) * step)
            forcings = model.forcings(times)[None]
            known = frames[len(frames) - window.past :]
            past = torch.cat(known)[None] if known else forcings[:, :0]
            z, _ = self.network(past, forcings, model.latent_statics[None])
            frames += list(z[0].chunk(window.future))
        chosen = [window.past - 1 + int(lead / step) for lead in leads]
        latents = torch.stack([frames[n] for n in chosen])
        return model.decode(latents, later(init_time, leads), None)


def train_regression(model: Model, data: DataSet, voice: Voice) -> MeanForecast:
    """The regression of a run: trained the first time, kept in the run's folder."""
    own = model.recipe.denoiser
    steps = own.mean_steps + own.steps
    network = model.mean_forecast(steps, says_scale=False).to(model.device)
    if not (model.path / REGRESSION).exists():
        if not (model.path / LATENTS).exists():
            raise UserError(
                f"it is not trained yet, and {model.path / LATENTS}, which it learns from, is "
                "gone; `python -m sciladm.train` with the run's recipe makes it again"
            )
        voice.say(
            f"training the regression that the model is held against, once: {steps} steps of "
            f"{own.batch} windows, about as long as the model's networks took; kept as "
            f"{model.path / REGRESSION}"
        )
        with writing(model.path):
            with voice.progress("regression") as report:
                train_mean(model, network, data, steps, "regression", report)
            model.save_part(REGRESSION, mean=network)
        (model.path / "regression.checkpoint.safetensors").unlink(missing_ok=True)
    model.load_part(REGRESSION, mean=network)
    return network


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
    usual: HarmonicMean,
) -> DressedForecast:
    """The regression as an ensemble of ``members``, its anomalies from ``usual`` damped."""
    mean = RolledOut(model, train_regression(model, data, voice), state)
    window = model.recipe.window
    back = np.arange(1, window.past) * parse_duration(window.step)
    known = WithPast(validation.times, validation.read, back)
    return DressedForecast.fit(
        "dressed_regression", mean, known, leads, members,
        seed=seed, usual=usual, area=data.fields.grid.area,
    )  # fmt: skip
