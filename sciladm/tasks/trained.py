"""What people call in Python: a trained run as an object, Datasets in and Datasets out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from sciladm import recipe as recipes
from sciladm.calendar import find
from sciladm.conventions import UserError, parse_duration, rename_in
from sciladm.data.catalog import open_card
from sciladm.data.dataset import open_dataset as open_recipe
from sciladm.data.frames import Frames
from sciladm.data.plan import ForecastPlan
from sciladm.data.store import open_store
from sciladm.model import Model
from sciladm.tasks.fit import fit as train
from sciladm.tasks.forecast import from_states, whole_windows
from sciladm.tasks.run import run_path
from sciladm.tasks.voice import Silent, Voice


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A run, ready to be asked. ``model`` holds its parts."""

    model: Model

    def forecast(
        self,
        ds: xr.Dataset,
        lead: str = "5d",
        members: int = 16,
        init: Any = None,
        seed: int = 0,
        workers: int = 2,
    ) -> xr.Dataset:
        """An ensemble of what follows states of ``ds``, in memory.

        Args:
            ds: States at one or more times, names and layout as CF or WeatherBench2 have them.
            lead: Last lead time, such as "5d"; every frame up to it is given.
            members: Ensemble size. A member's values do not depend on it.
            init: Initial times, as datetime64 or text; absent: the last time of ``ds``.
            seed: Of the draws.
            workers: Blocks of members drawn at once.

        Returns:
            Dataset over init_time, member, lead_time and space, with valid_time.
        """
        model, leads = self.model, self._leads(lead)
        frames = Frames.of(ds, model.fields)
        times = frames.times
        wanted = times[-1:] if init is None else np.atleast_1d(np.asarray(init, times.dtype))
        number = find(times, wanted, model.step)
        if (number < 0).any():
            raise UserError(
                f"init: {wanted[number < 0][0]} is not among the {len(times)} times of the data, "
                f"{times[0]} … {times[-1]}; give one of these"
            )
        draws = from_states(model, frames, number, leads, seed)
        state = model.fields.to_dataset(frames.read(number[:1])[0], (), {})
        plan = ForecastPlan(state, times[number], leads, members, model.recipe.micro_batch)
        parts: list[list[np.ndarray]] = [[] for _ in wanted]
        for block, states in draws.draw(plan.blocks(), workers):
            parts[block.init].append(states)
        values = np.stack([np.concatenate(one) for one in parts])
        named = model.fields.to_dataset(values, ("init_time", "member", "lead_time"), {})
        return plan.arrange({str(name): named[name].values for name in named.data_vars})

    def encode(self, ds: xr.Dataset) -> xr.Dataset:
        """Latents of the states of ``ds``: variable ``latent`` over time, channel and space."""
        model = self.model
        frames = Frames.of(ds, model.fields)
        rows = [
            model.encode(frames.read(np.array([i])), frames.times[[i]]).cpu().numpy()
            for i in range(len(frames.times))
        ]
        axes = {axis.name: axis.values for axis in model.grid.axes}
        dims = ("time", "channel", *model.grid.names)
        return xr.Dataset({"latent": (dims, np.concatenate(rows))}, {"time": frames.times} | axes)

    def decode(self, latents: xr.Dataset) -> xr.Dataset:
        """The states of latents, without the scales that the autoencoder lost."""
        model, times = self.model, latents["time"].values
        z = torch.from_numpy(latents["latent"].values).to(model.device)
        states = np.concatenate(
            [model.decode(z[[i]], times[[i]], None) for i in range(len(times))]
        )
        return model.fields.to_dataset(states, ("time",), {"time": times})

    def _leads(self, lead: str) -> np.ndarray:
        step, last = self.model.step, parse_duration(lead)
        if last % step or last < step:
            raise UserError(f"lead {lead} is not a multiple of the run's step of {step}")
        return whole_windows(self.model.recipe, np.arange(1, last // step + 1) * step)


def load(run: str | Path, device: str = "cpu", **changes: Any) -> TrainedModel:
    """Open a trained run; ``changes`` may set the sampler, as ``{"sampler.steps": 24}`` does."""
    return TrainedModel(Model.load(run, device, changes))


def fit(
    recipe: str | Path,
    source: str | None = None,
    run_dir: str | Path | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    changes: dict[str, Any] | None = None,
    voice: Voice | None = None,
) -> TrainedModel:
    """Train what a recipe describes, or go on with it; what ``sciladm.train`` does but scores."""
    read = recipes.load(recipe, changes)
    data = open_recipe(read, source)
    path = Path(run_dir) if run_dir else run_path(read, data)
    return TrainedModel(train(read, data, path, device, overwrite, voice or Silent()))


def open_dataset(card_or_path: str | Path, source: str | None = None) -> xr.Dataset:
    """A data set by its card's name, or files by their path, lazily, with canonical names."""
    if Path(card_or_path).suffix in ("", ".yaml") and not Path(card_or_path).is_dir():
        return open_card(card_or_path, source).dataset
    return rename_in(open_store(card_or_path))
