"""From states to the noise that leads to them, and back: inversion, the path between two states,
likelihood. All of it is about p(state | the states before it) as the denoiser has it; a forecast
mends sizes of departures afterwards (`Model.rolled`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from sciladm.calendar import find, later
from sciladm.conventions import UserError
from sciladm.data.frames import Frames
from sciladm.data.times import Times, ticks
from sciladm.diffusion.denoiser import Context
from sciladm.diffusion.flow import Flow, between
from sciladm.diffusion.likelihood import axes, log_density, signs
from sciladm.diffusion.noise import Key
from sciladm.model import Model

Array = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Windows:
    """Stretches of a data set as the model draws them: ``numbers`` (n, past + future) of the
    states ``frames``; a window's time is that of the first frame drawn."""

    model: Model
    frames: Frames
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, model: Model, ds: xr.Dataset) -> "Windows":
        """All that are whole in ``ds``; UserError where there is none."""
        frames = Frames.of(ds, model.fields)
        found = cls.held(model, frames)
        if not len(found.numbers):
            window, times = model.recipe.window, frames.times
            raise UserError(
                f"the model knows a state by the {window.past} before it, {window.step} apart, "
                f"and none of the {len(times)} times ({times[0]} … {times[-1]}) has those"
                f"{f' and the {window.future - 1} after it' if window.future > 1 else ''} in the "
                "data set; give a longer stretch"
            )
        return found

    @classmethod
    def held(cls, model: Model, frames: Frames) -> "Windows":
        """All that are whole, if any."""
        window, times = model.recipe.window, frames.times
        offsets = model.step * np.arange(-window.past, window.future)
        numbers = find(times, later(times[:, None], offsets), model.step)
        return cls(model, frames, numbers[(numbers >= 0).all(axis=1)])

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def times(self) -> Times:
        """Times of the first frames drawn (n,)."""
        return self.frames.times[self.numbers[:, self.model.recipe.window.past]]

    @cached_property
    def _encoded(self) -> tuple[NDArray[np.int64], Tensor]:
        """Numbers of the states that windows need, and their latents."""
        needed = np.unique(self.numbers)
        rows = [self.model.encode(self.frames.read(one), self.frames.times[one])
                for one in needed[:, None]]  # fmt: skip
        return needed, torch.cat(rows).clone()

    def parts(self) -> Iterator[tuple[slice, "Part"]]:
        """The windows a micro-batch at a time."""
        size = self.model.recipe.micro_batch
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self.part(part)

    @torch.no_grad()
    def part(self, part: slice) -> "Part":
        """Some of them, ready for the denoiser."""
        model, (needed, latents) = self.model, self._encoded
        known = self.model.recipe.window.past
        numbers = self.numbers[part]
        z = latents[np.searchsorted(needed, numbers)]
        times = self.frames.times[numbers[:, known:]]
        forcings = torch.stack([model.forcings(one) for one in times])
        return Part(model, times, z[:, :known].flatten(1, 2), forcings, z[:, known:].flatten(1, 2))


@dataclass(frozen=True, eq=False)
class Part:
    """Some windows as tensors: ``times`` (n, future); known latents (n, past · k, *cells),
    forcings (n, f, *cells), latents of the frames drawn (n, future · k, *cells)."""

    model: Model
    times: Times
    past: Tensor
    forcings: Tensor
    drawn: Tensor

    @cached_property
    def context(self) -> Context:
        """What the denoiser knows."""
        with torch.no_grad():
            denoiser = self.model.denoiser
            return denoiser.context(self.past, self.forcings, self.model.latent_statics)

    @torch.no_grad()
    def up(self, flow: Flow) -> Tensor:
        """The noise that leads to the frames (n, future · k, *cells)."""
        denoiser = self.model.denoiser
        white = denoiser.white(self.drawn, self.context)
        return flow.up(partial(denoiser, context=self.context), white)

    @torch.no_grad()
    def down(self, flow: Flow, noise: Tensor) -> Tensor:
        """Latents of the frames that noise leads to (n, future, k, *cells)."""
        denoiser = self.model.denoiser
        r = flow.down(partial(denoiser, context=self.context), noise.to(self.drawn))
        return self.framed(denoiser.clean(r, self.context))

    def framed(self, x: Tensor) -> Tensor:
        """(n, future · k, *cells) → (n, future, k, *cells)."""
        return x.view(len(x), self.model.recipe.window.future, -1, *self.model.grid.shape)

    def log_density(self, flow: Flow, probes: int) -> tuple[Floats, Floats, Tensor]:
        """log p of the frames in nats per latent dimension (n,), its standard error (n,), and
        their noise."""
        denoiser = self.model.denoiser
        white = denoiser.white(self.drawn, self.context)
        shape, count = white.shape[1:], white[0].numel()
        exact = probes >= count
        keys = [Key(0, int(t), 0, 0) for t in ticks(self.times[:, 0])]
        asked = axes(shape, white) if exact else signs(keys, probes, shape[0], shape[1:])
        denoise = partial(denoiser, context=self.context)
        each, noise = log_density(denoise, white, flow, asked.to(white))
        found = (each.mean(0) - denoiser.log_volume(self.context)) / count
        unsure = torch.full_like(found, 0.0 if exact else torch.nan)
        if not exact and probes > 1:
            unsure = each.std(0) / probes**0.5 / count
        return found.cpu().numpy(), unsure.cpu().numpy(), noise


def flow_of(model: Model, evaluations: int) -> Flow:
    """The probability flow of a run, as far up as its sampler starts."""
    top = model.recipe.sampler.sigma_max
    return Flow(evaluations, float(model.facts["sigma_max"]) if top == "auto" else top)


def invert(model: Model, ds: xr.Dataset, evaluations: int) -> xr.Dataset:
    """``noise`` (time, frame, channel, *latent space) of all windows of ``ds``."""
    windows, flow = Windows.of(model, ds), flow_of(model, evaluations)
    noise = torch.cat([part.framed(part.up(flow)) for _, part in windows.parts()])
    dims = ("time", "frame", "channel", *model.grid.names)
    labels = {axis.name: axis.values for axis in model.grid.axes}
    return xr.Dataset(
        {"noise": (dims, noise.cpu().numpy(), {"units": "1", "long_name": "standard normal noise "
                   "that the states before and this lead to the state"})},
        {"time": windows.times, **labels},
    )  # fmt: skip


def draw(model: Model, noise: xr.Dataset, ds: xr.Dataset, evaluations: int) -> xr.Dataset:
    """The states that ``noise`` and the states before in ``ds`` lead to; as decoded, without the
    scales that the autoencoder lost."""
    if "noise" not in noise or "time" not in noise["noise"].dims:
        raise UserError("the first Dataset needs `noise` over time, as `invert` gives it")
    windows, flow = Windows.of(model, ds), flow_of(model, evaluations)
    wanted = np.atleast_1d(noise["time"].values)
    at = find(windows.times, wanted, model.step)
    if (at < 0).any():
        raise UserError(
            f"noise is given at {wanted[at < 0][0]}, and the data set has not the states before "
            "it; give the Dataset that was inverted, or one with the same times"
        )
    chosen = Windows(model, windows.frames, windows.numbers[at])
    given = torch.from_numpy(np.ascontiguousarray(noise["noise"].values)).flatten(1, 2)
    states = np.concatenate(
        [
            _decoded(model, part.down(flow, given[rows]), part.times)
            for rows, part in chosen.parts()
        ]
    )
    if model.recipe.window.future == 1:
        return model.fields.to_dataset(states[:, 0], ("time",), {"time": chosen.times})
    return model.fields.to_dataset(states, ("time", "frame"), {"time": chosen.times})


def _decoded(model: Model, z: Tensor, times: Times) -> Array:
    """Latents (n, future, k, *cells), times (n, future) → states (n, future, channel, *space)."""
    flat = model.decode(z.flatten(0, 1), times.reshape(-1), None)
    return flat.reshape(*z.shape[:2], *flat.shape[1:])


def interpolate(
    model: Model, ds_a: xr.Dataset, ds_b: xr.Dataset, n: int, evaluations: int
) -> xr.Dataset:
    """``n`` states from the last of ``ds_a`` to the last of ``ds_b``, both included."""
    if n < 2:
        raise UserError(f"n counts the states from one to the other, ends included; got {n}")
    flow = flow_of(model, evaluations)
    a, b = (_last(Windows.of(model, ds)) for ds in (ds_a, ds_b))
    noise = a.up(flow), b.up(flow)
    shares, states = np.linspace(0, 1, n), []
    for share in map(float, shares):
        mixed = Part(
            model, a.times, between(a.past, b.past, share),
            torch.lerp(a.forcings, b.forcings, share), a.drawn,
        )  # fmt: skip
        z = mixed.down(flow, between(*noise, share))
        one, other = (_decoded(model, z, end.times)[0] for end in (a, b))
        states.append((1 - share) * one + share * other)
    values = np.stack(states).astype(np.float32)
    labels = {"share": ("share", shares, {"units": "1", "long_name": "share of the second state"})}
    if model.recipe.window.future == 1:
        return model.fields.to_dataset(values[:, 0], ("share",), labels)
    return model.fields.to_dataset(values, ("share", "frame"), labels)


def _last(windows: Windows) -> Part:
    return windows.part(slice(len(windows) - 1, len(windows)))


def log_likelihood(model: Model, ds: xr.Dataset, evaluations: int, probes: int) -> xr.Dataset:
    """``log_likelihood`` and its ``standard_error`` over the time of ``ds``."""
    if probes < 1:
        raise UserError(f"probes must be 1 or more; got {probes}")
    windows, flow = Windows.of(model, ds), flow_of(model, evaluations)
    found = [part.log_density(flow, probes)[:2] for _, part in windows.parts()]
    value, unsure = (np.concatenate(column) for column in zip(*found, strict=True))
    told = "log p(latents | latents before), nats per latent dimension"
    out = xr.Dataset(
        {
            "log_likelihood": ("time", value, {"units": "1", "long_name": told}),
            "standard_error": (
                "time", unsure, {"units": "1", "long_name": "of the trace by random probes"},
            ),
        },
        {"time": windows.times},
        {"evaluations": evaluations, "probes": probes},
    )  # fmt: skip
    return out.reindex(time=windows.frames.times)
