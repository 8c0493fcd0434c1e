"""What was observed of each frame besides its cells, in the units that networks see."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sciladm.autoencoder.combined import Combined, dense
from sciladm.autoencoder.curved import Curved
from sciladm.autoencoder.observed import Observed
from sciladm.conventions import UserError
from sciladm.observe import Operator, Readings, Rows
from sciladm.observe.derived import refuse_rigid
from sciladm.tasks.gaps import Gaps
from sciladm.tasks.seen import Frame

FAR, ABSURD = 6.0, 20.0
"""Standard deviations from climatology beyond which an observation is worth a word, and beyond
which it is none."""


@dataclass(frozen=True, eq=False)
class Besides:
    """Of one frame: weighted sums of cells, and functions of them."""

    rows: Rows | None = None
    readings: Readings | None = None

    def __len__(self) -> int:
        return sum(len(part) for part in (self.rows, self.readings) if part is not None)

    def beside(self, cells: Observed) -> Frame:
        """These and observed ``cells``."""
        rows, readings = self.rows, self.readings
        if readings is not None and len(readings):
            parts = [readings] if rows is None or not len(rows) else [_as_readings(rows), readings]
            whole = Readings.of(parts)
            return Curved.of(cells, whole.read, whole.values, whole.std)
        if rows is not None and len(rows):
            return Combined.of(cells, rows.weights, rows.values, rows.std)
        return cells


def besides(gaps: Gaps, operators: Sequence[Operator]) -> list[Besides]:
    """What operators say of the anomalies of each frame."""
    model, times = gaps.model, gaps.frames.times
    valid = model.normaliser.valid
    if not operators:
        return [Besides()] * len(times)
    each = [one.rows(model.fields, valid, times, model.step) for one in operators]
    centres = model.normaliser.centre(times).astype(np.float64)
    scale = model.normaliser.std.reshape(-1, *[1] * (valid.ndim - 1))
    out = []
    for parts, centre in zip(zip(*each, strict=True), centres, strict=True):
        centre = np.where(valid, centre, 0)
        rows = [part for part in parts if isinstance(part, Rows)]
        readings = [part.anomalies(centre, scale) for part in parts
                    if isinstance(part, Readings) and len(part)]  # fmt: skip
        for part in readings:
            refuse_rigid(part.read, valid.shape)
        out.append(
            Besides(
                Rows.of(rows).anomalies(centre, scale) if rows else None,
                Readings.of(readings) if readings else None,
            )
        )
    return out


def far_off(gaps: Gaps, told: Sequence[Besides]) -> int:
    """How many weighted sums are worth a word: how far off one would be if all its cells were.
    UserError for one that cannot be meant."""
    count = 0
    for time, one in zip(gaps.frames.times, told, strict=True):
        if (rows := one.rows) is None:
            continue
        off = np.abs(rows.values) / np.maximum(np.abs(rows.weights).sum(axis=1).A1, 1e-12)
        if (off > ABSURD).any():
            raise UserError(
                f"a point or a mean at {str(time)[:19]} is {off.max():.0f} standard "
                f"deviations from climatology, and {(off > ABSURD).sum() - 1} more are beyond "
                f"{ABSURD:g}; leave out what is no value"
            )
        count += int((off > FAR).sum())
    return count


def _as_readings(rows: Rows) -> Readings:
    places, shares = (torch.from_numpy(x) for x in dense(rows.weights))

    def read(anomalies: Tensor) -> Tensor:
        here = anomalies.flatten()[places.to(anomalies.device)]
        return (here * shares.to(here)).sum(1)

    return Readings(read, rows.values, rows.std)
