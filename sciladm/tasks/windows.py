"""Windows of latents, ready for the denoiser: known frames, forcings, frames to draw."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciladm.data.splits import Splits
from sciladm.data.times import Times
from sciladm.data.windows import batch_indices, window_starts
from sciladm.latents import open_latents
from sciladm.model import Model

Batch = tuple[Tensor, Tensor, Tensor]
"""Known frames (n, past·k, *cells), forcings (n, f, *cells), frames to draw (n, future·k, …)."""


@dataclass(frozen=True, eq=False)
class Windows:
    """All windows of one split: ``frames`` (n, past + future) number its ``latents``."""

    times: Times
    latents: Tensor
    forcings: Tensor
    frames: NDArray[np.int64]
    past: int

    @classmethod
    def of(cls, model: Model, splits: Splits, split: str, rolled: int = 1) -> "Windows":
        """Those of a run's latent store; its latents are held in memory. With ``rolled`` the
        frames of so many windows in a row are to be drawn."""
        store = open_latents(model.path / "latents.zarr")
        inside = splits.indices(split, store["time"].values)
        store = store.isel(time=slice(int(inside[0]), int(inside[-1]) + 1))
        times = np.asarray(store["time"].values)
        own = model.recipe.window
        window = own.model_copy(update={"future": rolled * own.future})
        frames = window_starts(times, window, splits[split])
        latents = torch.from_numpy(store["latent"].values)
        forcings = torch.from_numpy(model.fields.forcings(times, model.grid))
        return cls(times, latents, forcings, frames, own.past)

    def __len__(self) -> int:
        return len(self.frames)

    def at(self, numbers: NDArray[np.int64]) -> Batch:
        """The windows of these numbers."""
        frames = torch.from_numpy(self.frames[numbers])
        past, future = frames[:, : self.past], frames[:, self.past :]
        return (
            self.latents[past].flatten(1, 2),
            self.forcings[future].flatten(1, 2),
            self.latents[future].flatten(1, 2),
        )

    def numbers(self, size: int, seed: int, step: int, part: slice) -> NDArray[np.int64]:
        """Part of the batch of a training step: a pure function of its arguments."""
        return batch_indices(len(self), size, seed, step)[part]

    def chosen(self, count: int, size: int = 256) -> Iterator[NDArray[np.int64]]:
        """Numbers of about ``count`` windows spread evenly over the split, ``size`` at a time."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int))
        for start in range(0, len(chosen), size):
            yield chosen[start : start + size]

    def spread(self, count: int, size: int = 256) -> Iterator[Batch]:
        """The windows that are `chosen`."""
        return map(self.at, self.chosen(count, size))
