"""The parts of a run, wired: the only file that knows both recipes and networks.

A run is a folder of YAML, JSON and safetensors. `Model.load` builds its parts from the recipe and
fills in their tensors; nothing in the folder is executed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciladm import recipe as recipes
from sciladm.autoencoder.patch import PatchAutoencoder
from sciladm.autoencoder.residual import ResidualCovariance
from sciladm.conventions import parse_duration
from sciladm.data.durable import write_durably
from sciladm.data.fields import Fields
from sciladm.data.normalise import Normaliser
from sciladm.data.times import Times
from sciladm.diffusion.denoiser import Context, Denoiser
from sciladm.diffusion.departure import Departure, alike
from sciladm.diffusion.guidance import in_context
from sciladm.diffusion.known import Informed
from sciladm.diffusion.mean import MeanForecast
from sciladm.diffusion.noise import Key, fresh_normal, unit_normal
from sciladm.diffusion.parametrisation import PARAMETRISATIONS
from sciladm.diffusion.rolled import Rolled
from sciladm.diffusion.sampler import SAMPLERS, Sampler
from sciladm.grid import Grid
from sciladm.nn.linear import LocalLinear
from sciladm.nn.unet import UNet
from sciladm.recipe import Recipe
from sciladm.training.checkpoint import (
    read_json,
    read_modules,
    read_tensors,
    refuse_unfinished,
    write_modules,
    write_tensors,
)

Array = NDArray[np.float32]
STATISTICS = "statistics.safetensors"
AUTOENCODER = "autoencoder.safetensors"
MEAN = "mean.safetensors"
DENOISER = "denoiser.safetensors"
ROLLED = "rolled.safetensors"
WEIGHTS = AUTOENCODER, DENOISER, ROLLED
"""Files that a draw depends on."""


@dataclass(eq=False)
class Model:
    """Recipe, labels, statistics, networks; states (n, channel, *space) ⇄ latents (n, k, *cells).

    ``facts`` is what the run knows of its origin: source, data fingerprint, versions.
    """

    path: Path
    recipe: Recipe
    fields: Fields
    normaliser: Normaliser
    facts: dict[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def step(self) -> np.timedelta64:
        """Time between frames."""
        return parse_duration(self.recipe.window.step)

    @cached_property
    def grid(self) -> Grid:
        """The latent grid."""
        return self.fields.grid.coarsen(self.recipe.autoencoder.patch)

    @cached_property
    def statics(self) -> Tensor:
        """Static fields (static, *space)."""
        return torch.from_numpy(self.fields.statics).to(self.device)

    @cached_property
    def autoencoder(self) -> PatchAutoencoder:
        """Fields ⇄ latents."""
        own = self.recipe.autoencoder
        torch.manual_seed(self.recipe.seed)
        made = PatchAutoencoder(
            self.fields.grid,
            channels=len(self.fields.channels),
            statics=len(self.fields.statics),
            latents=own.channels,
            patch=own.patch,
            width=own.width,
            blocks=own.blocks,
            bound=own.bound,
        )
        return made.to(self.device)

    @cached_property
    def residual(self) -> ResidualCovariance:
        """What the autoencoder loses."""
        groups = torch.from_numpy(self.grid.rows())
        rank = self.recipe.autoencoder.residual_rank
        patches, channels = self.autoencoder.patches, len(self.fields.channels)
        return ResidualCovariance(patches, channels, groups, rank).to(self.device)

    @cached_property
    def denoiser(self) -> Denoiser:
        """E[frames | noisy frames, context]."""
        own = self.recipe.denoiser
        mean = self.mean_forecast(own.mean_steps, own.scale)
        seen, drawn = self._channels
        made_of, told = (Informed, 3 * drawn) if own.masks else (Denoiser, 0)
        backbone = self._backbone(drawn + seen + told, drawn, own.gains)
        groups = alike(torch.from_numpy(self.grid.rows()), self._valid_share().cpu())
        departure = Departure(drawn, groups, self.grid.boundaries, own.patterns)
        said = PARAMETRISATIONS[own.parametrisation]
        made = made_of(backbone, mean, departure, self._cells(), said)
        return made.to(self.device)

    @cached_property
    def rolled(self) -> Rolled:
        """How forecasts mend the mean and the size of departures, and of what decoding loses."""
        own, drawn = self.recipe, self._channels[1]
        patterns = own.denoiser.patterns if own.window.past else 0
        area = torch.tensor(self.grid.area, dtype=torch.float32)
        lost = self.residual.stretch.shape
        return Rolled(drawn, area, self.grid.boundaries, patterns, lost).to(self.device)

    def mean_forecast(self, steps: int, says_scale: bool) -> MeanForecast:
        """An untrained mean, with a network if there will be steps to train it, which says how
        far frames may depart from it, or not. The seed is the recipe's."""
        torch.manual_seed(self.recipe.seed + 1)
        (seen, drawn), window = self._channels, self.recipe.window
        known, forced = window.past * drawn // window.future, window.future * self._forcing_count
        linear = LocalLinear(
            known, drawn, torch.from_numpy(self.grid.rows()), self.grid.boundaries, extra=forced,
            local=self.recipe.denoiser.local,
        )  # fmt: skip
        outputs = drawn * (2 if says_scale else 1)
        network = self._backbone(seen, outputs) if steps else None
        return MeanForecast(linear, network, says_scale)

    @property
    def _channels(self) -> tuple[int, int]:
        """Channels of what a mean sees, and of the frames that are drawn."""
        window, k = self.recipe.window, self.recipe.autoencoder.channels
        known, drawn = window.past * k, window.future * k
        forced, placed = window.future * self._forcing_count, len(self.latent_statics)
        return known + drawn + forced + placed, drawn

    def _backbone(self, inputs: int, outputs: int, gains: bool = False) -> UNet:
        own, ends = self.recipe.denoiser, self.grid.boundaries
        shape = inputs, outputs, ends, own.widths, own.blocks
        return UNet(*shape, attention=own.attention, gains=gains)

    def _cells(self) -> Tensor:
        """What each latent cell counts (*cells): its area, as far as data can be there."""
        return torch.tensor(self.grid.area).to(self._valid_share()) * self._valid_share()

    def _valid_share(self) -> Tensor:
        """Of each latent cell's numbers, those that may hold data (*cells)."""
        return self.autoencoder.patches.split(self.valid.float()[None])[0].mean(0)

    def decoded(self) -> Tensor:
        """M (frame · channel, drawn, drawn): as `PatchAutoencoder.decoded`, of each frame."""
        frames = torch.eye(self.recipe.window.future).to(self.device)
        each = self.autoencoder.decoded()
        return torch.stack([torch.kron(torch.diag(f), m) for f in frames for m in each])

    @cached_property
    def valid(self) -> Tensor:
        """Cells that may hold data (channel, *space); the others are land, say."""
        return torch.from_numpy(self.normaliser.valid).to(self.device)

    @cached_property
    def _forcing_count(self) -> int:
        return self.forcings(np.array(["2001-01-01"], "M8[ns]")).shape[0]

    @cached_property
    def latent_statics(self) -> Tensor:
        """Static fields and places as the denoiser sees them (k, *cells)."""
        parts = self.autoencoder.patches.split(self.statics[None])[0]
        place = torch.from_numpy(self.grid.features()).to(self.device)
        return torch.cat([parts, place])

    @cached_property
    def sampler(self) -> Sampler:
        """Noise → draws."""
        return self.sampler_from(self.sigma_max)

    def sampler_from(self, sigma: float) -> Sampler:
        """Noise of σ, with or without something under it → draws."""
        own = self.recipe.sampler
        last = own.sigma_min if sigma == self.sigma_max else min(own.sigma_min, sigma / 4)
        return SAMPLERS[own.name](own.steps, sigma, last, **own.own_keys())

    @property
    def sigma_max(self) -> float:
        """From which σ on noise drowns all there is."""
        own = self.recipe.sampler.sigma_max
        return float(self.facts.get("sigma_max", 80.0)) if own == "auto" else own

    def forcings(self, times: Times) -> Tensor:
        """Forcings of all frames at ``times`` on the latent grid (k, *cells)."""
        values = torch.from_numpy(self.fields.forcings(times, self.grid))
        return values.flatten(0, 1).to(self.device)

    def anomalies(self, values: Array, times: Times) -> Tensor:
        """States (n, channel, *space) in physical units → in standard deviations from
        climatology, 0 where a cell never holds data; UserError where one that does has none."""
        found = self.normaliser.whole_anomalies(values, times, self.fields.names)
        return torch.from_numpy(found).to(self.device)

    @torch.inference_mode()
    def encode(self, values: Array, times: Times) -> Tensor:
        """States (n, channel, *space) in physical units → latents (n, k, *cells)."""
        latents: Tensor = self.autoencoder.encode(self.anomalies(values, times), self.statics)
        return latents

    @torch.inference_mode()
    def decode(
        self, latents: Tensor, times: Times, keys: Sequence[Key] | None, draw: int = 0,
        ahead: bool = False,
    ) -> Array:  # fmt: skip
        """Latents (n, k, *cells) → states (n, channel, *space) in physical units, NaN where a
        cell never holds data.

        With ``keys`` (n,) the scales that the autoencoder lost are drawn, by these labels and the
        number of the ``draw``; as large as they are where latents are a forecast's (``ahead``).
        """
        fields = self.autoencoder.decode(latents, self.statics)
        if keys is not None:
            normal = unit_normal(keys, "residual", draw, self.residual.numbers, self.grid.shape)
            times_lost = self.rolled.lost if ahead else None
            fields = fields + self.residual.draw(normal.to(self.device), times_lost)
        states = self.normaliser.denormalise(fields.cpu().numpy(), times)
        return np.where(self.normaliser.valid, states, np.float32(np.nan))

    @torch.inference_mode()
    def sample(
        self, past: Tensor, times: Times, keys: Sequence[Key], later: bool = False
    ) -> Tensor:
        """Draw the frames at ``times`` that follow known ones.

        past: latents of the known frames (member, past, k, *cells); keys (member,), their
        valid time the first of ``times``; later: whether ``past`` has draws in it.
        → latents (member, future, k, *cells).
        """
        forcings = self.forcings(times).expand(len(past), -1, *self.grid.shape)
        context = self.denoiser.context(past.flatten(1, 2), forcings, self.latent_statics)
        drawn = self.draw(context, keys)
        frames: Tensor = self.rolled(context.mean, drawn.flatten(1, 2), later)
        return frames.view_as(drawn)

    @torch.inference_mode()
    def draw(
        self, context: Context, keys: Sequence[Key], sampler: Sampler | None = None
    ) -> Tensor:
        """Draw frames in a context, by the run's sampler or another one.
        → latents (member, future, k, *cells)."""
        own, count = self.recipe.sampler, context.mean.shape[1]
        fresh = fresh_normal(keys, "denoiser", count, self.grid.shape, self.device)
        denoise = in_context(self.denoiser, context, own.guidance, own.guidance_interval)
        white = (sampler or self.sampler).sample(denoise, fresh(0), fresh)
        drawn = self.denoiser.clean(white, context)
        return drawn.view(len(keys), self.recipe.window.future, -1, *self.grid.shape)

    def save_statistics(self) -> None:
        """Write labels, statistics and facts."""
        arrays = self.normaliser.state() | {"statics": self.fields.statics}
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        write_tensors(self.path / STATISTICS, tensors, {"fields": self.fields.as_dict()})

    def save_facts(self, **new: Any) -> None:
        """Add to what the run knows of itself."""
        self.facts |= new
        text = json.dumps(self.facts, indent=1, sort_keys=True)
        write_durably(self.path / "facts.json", text.encode())

    def save_part(self, name: str, **modules: torch.nn.Module) -> None:
        """Write the tensors of some modules as one file."""
        write_modules(self.path / name, modules)

    def load_part(self, name: str, **modules: torch.nn.Module) -> None:
        """The inverse of `save_part`."""
        read_modules(self.path / name, modules)

    @classmethod
    def start(cls, path: Path, recipe: Recipe, device: torch.device) -> "Model":
        """A run whose statistics are there; its networks are not loaded yet."""
        tensors, facts = read_tensors(path / STATISTICS)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        fields = Fields.from_dict(facts["fields"], arrays.pop("statics"))
        told = read_json(path / "facts.json")
        return cls(path, recipe, fields, Normaliser.from_state(arrays), told, device)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: torch.device | str = "cpu",
        changes: dict[str, Any] | None = None,
    ) -> "Model":
        """Open a trained run; ``changes`` are dotted keys of what may change after training."""
        path = Path(path)
        refuse_unfinished(path, ("recipe.yaml", "facts.json", STATISTICS, *WEIGHTS))
        recipe = recipes.after_training(recipes.load(path / "recipe.yaml"), changes or {})
        model = cls.start(path, recipe, torch.device(device))
        model.load_part(AUTOENCODER, autoencoder=model.autoencoder, residual=model.residual)
        model.load_part(DENOISER, denoiser=model.denoiser)
        model.load_part(ROLLED, rolled=model.rolled)
        return model
