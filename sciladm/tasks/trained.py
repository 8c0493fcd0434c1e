"""What people call in Python: a trained run as an object, Datasets in and Datasets out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

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
from sciladm.tasks import both_ways
from sciladm.tasks import typicality as typical
from sciladm.tasks.augment import Asked, augment_array
from sciladm.tasks.augment import augment as augmented
from sciladm.tasks.fit import fit as train
from sciladm.tasks.forecast import from_states, whole_windows
from sciladm.tasks.generate import generate as draw_climate
from sciladm.tasks.infill import Wish
from sciladm.tasks.infill import infill as fill
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

    def infill(
        self,
        ds: xr.Dataset,
        members: int = 16,
        obs_error: float | Mapping[str, float] = 0.0,
        method: Literal["guided", "oi"] = "guided",
        output: Literal["members", "mean_std", "quantiles"] = "members",
        evaluations: int = 24,
        seed: int = 0,
        workers: int = 2,
    ) -> xr.Dataset:
        """An ensemble of what is missing in ``ds``: NaN is the question, members are the answer.

        Times a step of the run apart are filled together; a gap in time, or another hour of the
        day, begins another series. A run without past frames (``window.past: 0``) fills any of
        them. Another one is a filter: it takes its first frames, which must be whole, as they are
        and goes on from there; what is observed later does not reach back.

        Args:
            ds: States with holes, names and layout as CF or WeatherBench2 have them.
            members: Ensemble size. A member's values do not depend on it.
            obs_error: Standard error of the observations, in the unit of the variable; by name
                where there are several. With 0 observed values come back bit for bit.
            method: "guided": the denoiser; "oi": optimal interpolation with the fitted covariance
                of the latents, the baseline that a denoiser has to beat.
            output: "members"; "mean_std": their mean and, as ``<name>_std``, their standard
                deviation; "quantiles" over ``quantile``.
            evaluations: Of the network a draw.
            seed: Of the draws.
            workers: Micro-batches of members drawn at once.

        Returns:
            ``ds`` with its variables over ``member`` too, and where they were observed as
            ``<name>_observed``; cells that never hold data stay NaN. Attributes tell the method.
        """
        wish = Wish(members, obs_error, method, output, evaluations, seed, workers)
        return fill(self.model, ds, wish)

    def generate(
        self, n: int, like: xr.Dataset | None = None, seed: int = 0, workers: int = 2
    ) -> xr.Dataset:
        """Draws from the climate of the training data, by a run without past frames
        (``window.past: 0``).

        Args:
            n: Samples. A sample's values do not depend on it.
            like: Its times are the samples', in order and over again; absent: training times,
                drawn by the seed.
            seed: Of the draws.
            workers: Micro-batches of samples drawn at once.

        Returns:
            Dataset over ``sample``, ``frame`` where the run draws several, and space, with their
            ``time``; attributes say that it is synthetic and by which run.
        """
        return draw_climate(self.model, n, like, seed, workers)

    @overload
    def augment(
        self, ds: xr.Dataset, members: int = ..., strength: float = ..., seed: int = ...,
        times: Any = ..., workers: int = ...,
    ) -> xr.Dataset: ...  # fmt: skip
    @overload
    def augment(
        self, ds: np.ndarray, members: int = ..., strength: float = ..., seed: int = ...,
        times: Any = ..., workers: int = ...,
    ) -> np.ndarray: ...  # fmt: skip
    def augment(
        self,
        ds: xr.Dataset | np.ndarray,
        members: int = 4,
        strength: float = 0.4,
        seed: int = 0,
        times: Any = None,
        workers: int = 2,
    ) -> xr.Dataset | np.ndarray:
        """Copies of training states that differ from them by a told amount: each is noised, and
        drawn again. docs/augmentation.md measures what is replaced at each scale.

        A run with past frames takes them from ``ds``, and its copies stay near what was expected
        of them. States that are in no whole window of the run are left out, with a warning.

        Args:
            ds: States of the training split without holes; or an array (time, channel, *space)
                in their units, channels as the run has them.
            members: Copies of each. A copy's values do not depend on it.
            strength: 1 − c², c the anomaly correlation of copies with their originals: the share
                of the variance of each pattern that is new. 0: the very originals; 1: draws of
                the climate, as `generate` makes them.
            seed: Of the draws.
            times: Dates of an array's states.
            workers: Micro-batches of copies drawn at once.

        Returns:
            ``ds`` with its variables over ``member`` too, ``time`` that of the parents; an array
            (member, time, channel, *space) for an array. Attributes tell the origin.
        """
        asked = Asked(members, strength, seed, workers)
        if isinstance(ds, np.ndarray):
            return augment_array(self.model, ds, times, asked)
        return augmented(self.model, ds, asked)

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

    def invert(self, ds: xr.Dataset, evaluations: int = 64) -> xr.Dataset:
        """The noise that the states of ``ds`` come from, given the states before them there.

        Args:
            ds: States at several times.
            evaluations: Of the network, along the probability flow.

        Returns:
            ``noise`` over time (those whose past ``ds`` holds; of the first frame where the model
            draws several), frame, latent channel and latent space; standard normal numbers where
            the model is right. `draw` takes them back.
        """
        return both_ways.invert(self.model, ds, evaluations)

    def draw(self, noise: xr.Dataset, ds: xr.Dataset, evaluations: int = 64) -> xr.Dataset:
        """The inverse of `invert`, but for what the autoencoder loses: the states that ``noise``
        and the states before in ``ds`` lead to."""
        return both_ways.draw(self.model, noise, ds, evaluations)

    def interpolate(
        self, ds_a: xr.Dataset, ds_b: xr.Dataset, n: int = 5, evaluations: int = 64
    ) -> xr.Dataset:
        """``n`` states on the way from the last state of ``ds_a`` to the last of ``ds_b``, both
        ends included, over ``share``; as decoded.

        Noise, and the latents of the states before, go along great circles, so that states on the
        way are as rough as those at the ends; forcings and climatology go straight.
        """
        return both_ways.interpolate(self.model, ds_a, ds_b, n, evaluations)

    def log_likelihood(self, ds: xr.Dataset, evaluations: int = 64, probes: int = 8) -> xr.Dataset:
        """How likely the model finds each state given the states before it in ``ds``.

        It is the density of latents, not of fields: nats per latent dimension, by the change of
        variables along the probability flow and through the whitening of departures. Values of
        two runs with different autoencoders cannot be compared.

        Args:
            ds: States at several times.
            evaluations: Of the network, along the flow.
            probes: Random directions for the trace; as many as a draw has numbers: exact.

        Returns:
            ``log_likelihood`` and its ``standard_error`` from the probes over time, NaN where
            ``ds`` does not hold the past.
        """
        return both_ways.log_likelihood(self.model, ds, evaluations, probes)

    def typicality(self, ds: xr.Dataset, reference: xr.Dataset | None = None) -> xr.Dataset:
        """Whether states are like those of the validation split, too smooth as well as too rough.

        Joined are the likelihood, the noise each state comes from (per latent channel and
        wavenumber), what the autoencoder loses of it, and the range of its latents. A state whose
        past ``ds`` does not hold is judged without likelihood and noise (``given_past``).

        Args:
            ds: States at one or more times.
            reference: States that are as they should be; absent: the run's validation split,
                asked once and kept in the run's folder.

        Returns:
            ``typicality`` over time, the share of usual states that are as far from the usual or
            farther, ``distance``, ``apart`` (time, question): each answer in standard deviations
            from the usual, which tells what is wrong.
        """
        return typical.typicality(self.model, ds, reference)

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
