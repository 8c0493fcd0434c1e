"""Training states and their copies, for a training loop of one's own."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import Dataset

from sciladm.conventions import UserError
from sciladm.tasks.augment import Asked, left_out, refuse_strangers, training
from sciladm.tasks.copies import Array, Copies
from sciladm.tasks.gaps import Gaps
from sciladm.tasks.strength import Strength
from sciladm.tasks.trained import TrainedModel, load


class Item(NamedTuple):
    """A state (channel, *space), float32 in the units of the data, NaN where there is never any;
    the number of its parent in the data set; 1 for a copy, 0 for the parent itself."""

    state: Tensor
    parent: int
    synthetic: int


class AugmentedDataset(Dataset[Item]):
    """States of a data set and copies of them: item (members + 1) · p is parent p, the items after
    it are its copies.

    They are those of `TrainedModel.augment`, the same in every epoch, order and worker. A copy is
    drawn when it is first asked for, with all others of its window, and stays in memory; in that
    of each worker of a DataLoader, which ``persistent_workers=True`` keeps from epoch to epoch.

    Args:
        ds: Training states without holes, each in a whole window of the run.
        model: A trained run, or its folder.
        members, strength, seed: As `TrainedModel.augment` has them.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        model: TrainedModel | str | Path,
        members: int = 4,
        strength: float = 0.4,
        seed: int = 0,
    ) -> None:
        run = (model if isinstance(model, TrainedModel) else load(model)).model
        gaps, data = Gaps.of(run, ds), training(run)
        asked = Asked(members, strength, seed, workers=1)
        times, self._states, self.members = gaps.frames.times, gaps.values, asked.members
        refuse_strangers(run, data, times, self._states)
        self._copies = Copies(run, times, self._states, Strength.of(run, data, strength), seed)
        self._windows = {n: one for one in self._copies.windows for n in one.kept.tolist()}
        made = np.isin(np.arange(len(times)), list(self._windows))
        if not made.all():
            raise UserError(left_out(run, times, made) + "; give data without them")
        self._order = np.argsort(gaps.order)
        self._held: dict[int, Array] = {}

    def __len__(self) -> int:
        return len(self._order) * (self.members + 1)

    def __getitem__(self, number: int) -> Item:
        if not 0 <= number < len(self):
            raise IndexError(f"item {number} of {len(self)}")
        parent, member = divmod(number, self.members + 1)
        at = int(self._order[parent])
        state = self._copies_of(at)[member - 1] if member else self._states[at]
        channels = self._copies.model.fields.channels
        rows = [channel.inverse(row) for channel, row in zip(channels, state, strict=True)]
        return Item(torch.from_numpy(np.stack(rows)), parent, int(member > 0))

    def _copies_of(self, at: int) -> Array:
        """(member, channel, *space) of state number ``at``."""
        if at not in self._held:
            window = self._windows[at]
            blocks = list(self._copies.draw([window], self.members, workers=1))
            frames = np.concatenate([states for *_, states in blocks])[:, window.new]
            self._held |= {n: frames[:, k] for k, n in enumerate(window.kept.tolist())}
        return self._held[at]
