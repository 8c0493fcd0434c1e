"""A table of observations at points between cells."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sciladm.calendar import find
from sciladm.conventions import BY_NAME, SPACE, UserError
from sciladm.data.fields import Fields
from sciladm.data.times import Times
from sciladm.grid import Axis, Grid
from sciladm.observe.rows import Floats, Ints, Mask, Rows, frames_of, untransformed


@dataclass(frozen=True, eq=False)
class Points:
    """A table of observations at points: stations, buoys, profiles.

    Columns: ``time``, one for each axis of the grid, ``value``, ``error`` (standard, of what the
    point says of the grid's cells, representativeness included), and, where a run has several,
    ``variable`` and ``level``. Errors are taken to be independent. Fields are interpolated
    linearly between centres of cells; of cells that never hold data nothing is taken.
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        clean = self.table.reset_index(drop=True).rename(columns=_columns(self.table))
        if "time" not in clean:
            there = ", ".join(map(str, self.table.columns))
            raise UserError(f"points: no column time; there are {there}")
        object.__setattr__(self, "table", clean.assign(time=_dates(clean["time"])))

    @classmethod
    def read(cls, path: Path) -> "Points":
        """A table from a CSV file."""
        try:
            return cls(pd.read_csv(path))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: no table that can be read: {error}") from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    @property
    def times(self) -> Times:
        """Times at which something was observed."""
        return np.unique(np.asarray(self.table["time"]))

    def at(self, times: Times, step: np.timedelta64) -> "Points":
        """See `Operator`."""
        return Points(self.table[find(times, np.asarray(self.table["time"]), step) >= 0])

    def rows(self, fields: Fields, valid: Mask, times: Times, step: np.timedelta64) -> list[Rows]:
        """See `Operator`."""
        table = self._whole(fields)
        weights, share = _interpolating(fields.grid, _channel(table, fields), table, valid)
        if len(dry := np.flatnonzero(share < 0.5)):
            raise UserError(
                f"points: row {dry[0]} and {len(dry) - 1} more lie among cells that never hold "
                "data; leave them out"
            )
        frame = frames_of(np.asarray(table["time"]), times, step, "points", once=False)
        value, std = (table[name].to_numpy(np.float64) for name in ("value", "error"))
        each = [np.flatnonzero(frame == number) for number in range(len(times))]
        return [Rows(weights[at], value[at], std[at]) for at in each]

    def _whole(self, fields: Fields) -> pd.DataFrame:
        """Whole; UserError where a column lacks or has no sense."""
        table = self.table
        several = len(fields.channels) > 1
        levels = any(channel.level is not None for channel in fields.channels)
        wanted = ["time", *fields.grid.names, "value", "error"]
        wanted += ["variable"] * several + ["level"] * (several and levels)
        if lacking := [name for name in wanted if name not in table]:
            raise UserError(
                f"points: no column {', '.join(lacking)}; there are "
                f"{', '.join(map(str, self.table.columns))}"
            )
        asked = [*fields.grid.names, "value", "error"]
        table = table.assign(**{n: pd.to_numeric(table[n], errors="coerce") for n in asked})
        numbers = table[asked].to_numpy(np.float64)
        if len(bad := np.flatnonzero(~np.isfinite(numbers).all(axis=1))):
            raise UserError(f"points: row {bad[0]} and {len(bad) - 1} more lack a number")
        if len(bad := np.flatnonzero(~(table["error"].to_numpy() > 0))):
            raise UserError(
                f"points: the error of row {bad[0]} is {table['error'].iloc[bad[0]]:g}; a point "
                "is no cell of the grid, so that it needs one above 0"
            )
        return table


def _dates(column: pd.Series) -> Any:
    """datetime64[ns], of text and of times in a zone, too; other calendars' dates as they are."""
    if column.dtype == object and len(column) and not isinstance(column.iloc[0], str):
        return column
    try:
        return pd.to_datetime(column, utc=True, format="ISO8601").dt.tz_localize(None)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"points: times as 2011-02-01T12:00, please; one of them is not: {error}"
        ) from None


def _columns(table: pd.DataFrame) -> dict[Any, str]:
    """Columns as people call them → ours; by name alone, never by where they stand."""
    ours = {name: BY_NAME.get(str(name).lower()) for name in table.columns}
    wanted = ("time", "level", *SPACE)
    return {name: our for name, our in ours.items() if our in wanted and our not in table}


def _channel(table: pd.DataFrame, fields: Fields) -> Ints:
    """Number of the channel of each row; UserError for one that the run does not have."""
    pairs = [(channel.variable, channel.level) for channel in fields.channels]
    known: dict[tuple[str, float | None], int] = {pair: n for n, pair in enumerate(pairs)}
    only = fields.channels[0]
    names = table["variable"] if "variable" in table else [only.variable] * len(table)
    levels = table["level"] if "level" in table else [only.level] * len(table)
    asked = [
        (str(name), None if pd.isna(level) else float(level))
        for name, level in zip(names, levels, strict=True)
    ]
    if unknown := [pair for pair in asked if pair not in known]:
        at = "" if unknown[0][1] is None else f" at level {unknown[0][1]:g}"
        raise UserError(
            f"points: no {unknown[0][0]}{at} in the run; there are {', '.join(fields.names)}"
        )
    numbers = np.array([known[pair] for pair in asked], np.int64)
    untransformed(fields, {fields.channels[n].variable for n in numbers}, "points")
    return numbers


def _interpolating(
    grid: Grid, channel: Ints, table: pd.DataFrame, valid: Mask
) -> tuple[Any, Floats]:
    """Weights of linear interpolation (row, channel · cells), and what share of them falls on
    cells that hold data (row,)."""
    count, axes = len(table), []
    for axis in grid.axes:
        axes.append(_between(axis, table[axis.name].to_numpy(np.float64)))
    cells, weights = channel[:, None], np.ones((count, 1))
    for axis, (index, weight) in zip(grid.axes, axes, strict=True):
        cells = (cells[:, :, None] * len(axis) + index[:, None, :]).reshape(count, -1)
        weights = (weights[:, :, None] * weight[:, None, :]).reshape(count, -1)
    weights = weights * valid.ravel()[cells]
    share = weights.sum(axis=1)
    weights = weights / np.maximum(share, 1e-12)[:, None]
    rows = np.repeat(np.arange(count), cells.shape[1])
    whole = sparse.csr_matrix((weights.ravel(), (rows, cells.ravel())), (count, valid.size))
    return whole, share


def _between(axis: Axis, at: Floats) -> tuple[Ints, Floats]:
    """The two cells beside each place, and their weights, both (place, 2). Within half a cell of
    an end the outermost cell alone."""
    sign = np.sign(axis.spacing)
    centres, edges, at = sign * axis.values, np.sort(sign * axis.bounds), sign * at
    if axis.name == "longitude":
        at = edges[0] + (at - edges[0]) % 360.0
    elif axis.boundary == "periodic":
        at = edges[0] + (at - edges[0]) % (edges[-1] - edges[0])
    if len(out := np.flatnonzero((at < edges[0]) | (at > edges[-1]))):
        raise UserError(
            f"points: row {out[0]} and {len(out) - 1} more lie outside the grid: {axis.name} "
            f"{sign * at[out[0]]:g}, where it goes from {axis.bounds[0]:g} to "
            f"{axis.bounds[-1]:g}; leave them out"
        )
    number = np.arange(len(axis))
    if axis.boundary == "periodic":
        around = edges[-1] - edges[0]
        centres = np.concatenate([[centres[-1] - around], centres, [centres[0] + around]])
        number = np.concatenate([[len(axis) - 1], number, [0]])
    after = np.clip(np.searchsorted(centres, at), 1, max(len(centres) - 1, 1))
    after = np.minimum(after, len(centres) - 1)
    before = np.maximum(after - 1, 0)
    apart = np.maximum(centres[after] - centres[before], 1e-12)
    weight = np.clip((at - centres[before]) / apart, 0.0, 1.0)
    return number[np.stack([before, after], 1)], np.stack([1 - weight, weight], 1)
