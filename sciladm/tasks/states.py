"""Synthetic and real data sets as arrays on one grid: read, compared, refused."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import SPACE, UserError, rename_in
from sciladm.data.climatology import basis, design, slot_of
from sciladm.data.fields import Fields
from sciladm.data.times import Times, parts

Array = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FEWEST = 100
FEWEST_YEARS = 4


@dataclass(frozen=True, eq=False)
class States:
    """``values`` (n, channel, *space) at ``times`` (n,), drawn ``frames`` at once."""

    times: Times
    values: Array
    frames: int = 1

    @property
    def months(self) -> Ints:
        """1…12 (n,)."""
        return parts(self.times)[1]

    @property
    def years(self) -> Ints:
        """(n,)."""
        return parts(self.times)[0]


@dataclass(frozen=True, eq=False)
class Trio:
    """The three on the grid of ``fields``; ``valid`` (channel, *space): cells where train and test
    always have values."""

    fields: Fields
    valid: Bools
    synthetic: States
    train: States
    test: States


def read_trio(synthetic: xr.Dataset, train: xr.Dataset, test: xr.Dataset) -> Trio:
    """Read all three; UserError where they do not fit or are too few."""
    named = {"synthetic": synthetic, "train": train, "test": test}
    flat = {name: flatten(ds, name) for name, ds in named.items()}
    wanted = variables(flat["train"])
    if not wanted:
        raise UserError("train has no variable with dimension time; nothing can be checked")
    for name, ds in flat.items():
        if (there := variables(ds)) != wanted:
            raise UserError(
                f"{name} has the variables {', '.join(sorted(there)) or 'none'}, train "
                f"{', '.join(sorted(wanted))}; give all three the same, such as "
                f"{name}[{sorted(wanted)}]"
            )
        if ds.sizes["time"] < FEWEST:
            raise UserError(
                f"{name} has {ds.sizes['time']} samples; a verdict wants {FEWEST} or more"
            )
    fields = Fields.from_dataset(flat["train"], dict.fromkeys(sorted(wanted)))
    states = {}
    for name, ds in flat.items():
        refuse_other_grid(ds, fields, name)
        frames = named[name].sizes.get("frame", 1)
        values = fields.to_array(ds, gaps=True)
        states[name] = States(np.asarray(ds["time"].values), values, frames)
    if (count := len(np.unique(states["train"].years))) < FEWEST_YEARS:
        raise UserError(
            f"train has times in {count} calendar years; what real years differ by among "
            f"themselves wants {FEWEST_YEARS} or more"
        )
    valid = valid_cells(states, fields.names)
    return Trio(fields, valid, states["synthetic"], states["train"], states["test"])


def valid_cells(states: dict[str, States], names: list[str]) -> Bools:
    """Cells (channel, *space) where train and test always have values; UserError if there are none
    or samples lack any of them."""
    valid = np.ones(states["train"].values.shape[1:], bool)
    for name in ("train", "test"):
        valid &= np.asarray(np.isfinite(states[name].values).all(axis=0))
    for number, channel in enumerate(names):
        there = valid[number]
        if not there.any():
            raise UserError(f"{channel}: no cell has values at all times of train and test")
        lost = ~np.isfinite(states["synthetic"].values[:, number]).all(axis=0) & there
        if lost.any():
            raise UserError(
                f"{channel}: synthetic lacks values in {lost.sum()} cells where train and test "
                "always have one; samples must be whole"
            )
    return valid


def flatten(ds: xr.Dataset, name: str) -> xr.Dataset:
    """All samples along ``time``: from (time), (sample[, frame]) or (member, time)."""
    ds = rename_in(ds)
    if "time" not in ds.variables or ds["time"].dtype.kind not in "MO":
        raise UserError(
            f"{name} has no `time` with dates; a season is wanted for each sample: "
            f"{name}.assign_coords(time=('sample', dates))"
        )
    lead = [d for d in ds.dims if d not in (*SPACE, "level")]
    sampled = [v for v in ds.data_vars if set(ds[v].dims) & set(lead)]
    ds = ds[sampled].squeeze([d for d in lead if ds.sizes[d] == 1 and d != "time"])
    lead = [d for d in lead if d in ds.dims]
    if lead == ["time"]:
        return ds
    if not lead:
        return ds.expand_dims("time")
    whole = {d: ds.sizes[d] for d in lead}
    times = ds["time"].broadcast_like(xr.DataArray(np.zeros(list(whole.values())), dims=lead))
    dates = times.transpose(*lead).values.reshape(-1)
    bare = ds.drop_vars([c for c in ds.coords if set(ds[c].dims) & set(lead) or not ds[c].dims])
    like = times.drop_vars(times.coords)
    rows = xr.Dataset({
        v: bare[v].broadcast_like(like).stack(_row=lead, create_index=False)
        for v in bare.data_vars
    })  # fmt: skip
    return rows.rename(_row="time").assign_coords(time=dates)


def variables(ds: xr.Dataset) -> set[str]:
    """Names of the variables that have times."""
    return {str(name) for name in ds.data_vars if "time" in ds[name].dims}


def refuse_other_grid(ds: xr.Dataset, fields: Fields, name: str) -> None:
    """UserError unless the axes of ``ds`` have as many cells as the grid; `Fields.to_array` goes
    on to compare their places."""
    for axis in fields.grid.axes:
        if axis.name not in ds.dims or ds.sizes[axis.name] != len(axis):
            got = {d: ds.sizes[d] for d in ds.dims if d in SPACE}
            want = dict(zip(fields.grid.names, fields.grid.shape, strict=True))
            raise UserError(
                f"{name} is on the grid {got}, train on {want}; put them on one: "
                f"{name}.interp_like(train)"
            )


def season(times: Times, like: Times) -> NDArray[np.float64]:
    """Columns (n, k) whose combinations are climatologies, as the times ``like`` carry them: two
    annual harmonics for each hour of the day."""
    slots, size = design(like)
    waves, slot = basis(times, size), slot_of(times, slots)
    out = np.zeros((len(times), len(slots), size))
    out[np.arange(len(times)), slot] = waves
    return out.reshape(len(times), -1)
