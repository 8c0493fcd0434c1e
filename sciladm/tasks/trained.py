"""What people call in Python: a trained run as an object, Datasets in and Datasets out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from sciladm.data.frames import Frames
from sciladm.model import Model
from sciladm.observe import AreaMean, Operator
from sciladm.tasks import both_ways
from sciladm.tasks import typicality as typical
from sciladm.tasks.assimilate import assimilate as cycle
from sciladm.tasks.assimilate import downscale as from_means
from sciladm.tasks.assimilate import unknown
from sciladm.tasks.augment import Asked
from sciladm.tasks.augment import augment as augmented
from sciladm.tasks.errors import Error
from sciladm.tasks.generate import generate as draw_climate
from sciladm.tasks.in_memory import in_memory
from sciladm.tasks.infill import Wish
from sciladm.tasks.infill import infill as fill
from sciladm.tasks.lazy import infill_lazily, is_lazy
from sciladm.tasks.wide import Tiles
from sciladm.tasks.withhold import Withhold, withheld


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
        return in_memory(self.model, ds, lead, members, init, seed, workers)

    def infill(
        self,
        ds: xr.Dataset,
        members: int = 16,
        obs_error: Error = 0.0,
        method: Literal["auto", "amortised", "guided", "oi"] = "auto",
        output: Literal["members", "mean_std", "quantiles"] = "members",
        evaluations: int = 24,
        seed: int = 0,
        workers: int = 2,
        operator: Operator | Sequence[Operator] = (),
        withhold: Withhold | None = None,
        tol: float | None = None,
        tiles: Tiles | None = None,
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
                where there are several; a DataArray where cells differ. With 0 observed values
                come back bit for bit.
            method: "amortised": the denoiser of a run that was trained with masks
                (``denoiser.masks``); "guided": any denoiser; "oi": optimal interpolation with the
                fitted covariance of the latents, the baseline to beat; "auto": the first where the
                run has it and cells alone were observed, else the second.
            output: "members"; "mean_std": their mean and, as ``<name>_std``, their standard
                deviation; "quantiles" over ``quantile``.
            evaluations, seed, workers: Of the network a draw; of the draws; at work at once.
            operator: What was observed besides cells: any number of `sciladm.Points`, `AreaMean`,
                `Weighted`, `Derived` ("oi" is exact for linear functions alone).
            withhold: Hide this share of the cells, or those where masks are true, to see whether
                they come back: there ``<name>_observed`` is false.
            tol: Share of the equations that a draw may leave unsolved; absent: 0.05, "oi" 0.01.
                Where more is left there is a warning, and ``infill_solved`` is 0.
            tiles: Of a ``ds`` larger than the run's grid: cells around each tile's own, or "auto".

        Returns:
            ``ds`` over ``member`` too, and ``<name>_observed``; cells that never hold data stay
            NaN. Attributes tell the method. Of lazy ``ds`` (dask) the answer is lazy, by series.
        """
        if withhold is not None:
            ds = withheld(self.model, ds, withhold, seed)
        told = seed, workers, _several(operator), tol, tiles
        wish = Wish(members, obs_error, method, output, evaluations, *told)
        return infill_lazily(self.model, ds, wish) if is_lazy(ds) else fill(self.model, ds, wish)

    def unknown(self, times: Any) -> xr.Dataset:
        """States on the run's grid at ``times`` of which nothing is known: NaN, for `infill` with
        points and means alone."""
        return unknown(self.model, np.atleast_1d(np.asarray(times, "M8[ns]")))

    def downscale(
        self,
        coarse: xr.Dataset,
        members: int = 16,
        obs_error: float | Mapping[str, float] = 0.0,
        method: Literal["auto", "amortised", "guided", "oi"] = "auto",
        output: Literal["members", "mean_std", "quantiles"] = "members",
        evaluations: int = 24,
        seed: int = 0,
        workers: int = 2,
    ) -> xr.Dataset:
        """An ensemble of fields on the run's grid whose means over coarser cells are given.

        Args:
            coarse: Means over cells of a coarser grid, NaN where there is none.
            members: Ensemble size.
            obs_error: Standard error of the means, in the unit of the variable; by name where
                there are several.
            method, output, evaluations, seed, workers: As `infill` has them.

        Returns:
            Dataset over member, time and space.
        """
        wish = Wish(members, 0.0, method, output, evaluations, seed, workers)
        return from_means(self.model, AreaMean(coarse, obs_error), wish)

    def assimilate(
        self,
        background: xr.Dataset,
        observations: Operator | Sequence[Operator],
        until: Any = None,
        members: int = 16,
        method: Literal["auto", "amortised", "guided", "oi"] = "auto",
        output: Literal["members", "mean_std", "quantiles"] = "members",
        evaluations: int = 24,
        seed: int = 0,
        workers: int = 2,
    ) -> xr.Dataset:
        """An ensemble that goes on from a past and takes up what was observed, time after time.

        Args:
            background: The states before, as many as the run's ``window.past``, a step apart; over
                ``member``, too, where they are an ensemble. Member n goes on from their member n,
                and begins again with their first where there are fewer.
            observations: What `infill` takes as ``operator``, at times a step of the run apart
                after it; without any, the denoiser draws it.
            until: Last time; absent: of the last observation.
            members: Ensemble size.
            method, output, evaluations, seed, workers: As `infill` has them.

        Returns:
            Dataset over member, time and space: of each time given what was observed until then.
        """
        told = _several(observations)
        wish = Wish(members, 0.0, method, output, evaluations, seed, workers, told)
        return cycle(self.model, background, until, wish)

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

    def augment(
        self,
        ds: xr.Dataset,
        members: int = 4,
        strength: float = 0.4,
        seed: int = 0,
        workers: int = 2,
    ) -> xr.Dataset:
        """Copies of training states that differ from them by a told amount: each is noised, and
        drawn again. docs/augmentation.md measures what is replaced at each scale.

        A run with past frames takes them from ``ds``, and its copies stay near what was expected
        of them. States that are in no whole window of the run are left out, with a warning.

        Args:
            ds: States of the training split without holes.
            members: Copies of each. A copy's values do not depend on it.
            strength: 1 − c², c the anomaly correlation of copies with their originals: the share
                of the variance of each pattern that is new. 0: the very originals; 1: draws of
                the climate, as `generate` makes them.
            seed: Of the draws.
            workers: Micro-batches of copies drawn at once.

        Returns:
            ``ds`` with its variables over ``member`` too, ``time`` that of the parents;
            attributes tell the origin.
        """
        return augmented(self.model, ds, Asked(members, strength, seed, workers))

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


def _several(told: Operator | Sequence[Operator]) -> tuple[Operator, ...]:
    return tuple(told) if isinstance(told, Sequence) else (told,)


def load(run: str | Path, device: str = "cpu", **changes: Any) -> TrainedModel:
    """Open a trained run; ``changes`` may set the sampler, as ``{"sampler.steps": 24}`` does."""
    return TrainedModel(Model.load(run, device, changes))
