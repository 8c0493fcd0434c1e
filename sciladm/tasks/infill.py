"""Filling what is missing in a Dataset: NaN is the question, members are the answer."""

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError, roles
from sciladm.data.durable import publish, writing
from sciladm.data.frames import Frames
from sciladm.data.labels import level_numbers, places
from sciladm.data.times import ticks
from sciladm.model import Model
from sciladm.tasks.given import ENOUGH, Given, Method
from sciladm.tasks.run import THREADS
from sciladm.tasks.voice import Voice

log = logging.getLogger(__name__)
Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Error = float | Mapping[str, float]
Output = Literal["members", "mean_std", "quantiles"]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PACKED = ("dtype", "scale_factor", "add_offset", "_FillValue", "missing_value")
"""What of an encoding still holds where a dimension has come in."""
FAR = 6.0
"""Standard deviations from climatology beyond which an observation is worth a word."""


@dataclass(frozen=True)
class Wish:
    """How gaps are to be filled."""

    members: int
    obs_error: Error
    method: str
    output: str
    evaluations: int
    seed: int
    workers: int

    def __post_init__(self) -> None:
        for name, got, known in (
            ("method", self.method, get_args(Method)),
            ("output", self.output, get_args(Output)),
        ):
            if got not in known:
                raise UserError(f"{name} {got!r}: there is {', '.join(known)}")
        if self.output != "members" and self.members < 2:
            raise UserError(f"output {self.output!r} needs 2 members at least; got {self.members}")


@dataclass(frozen=True, eq=False)
class Gaps:
    """States with holes: their Dataset, as it was given and with our names, and as numbers (time,
    channel, *space)."""

    model: Model
    given: xr.Dataset
    frames: Frames
    values: Array

    @classmethod
    def of(cls, model: Model, ds: xr.Dataset) -> "Gaps":
        """UserError where the states are not those of the run."""
        frames = Frames.of(ds, model.fields)
        return cls(model, ds, frames, model.fields.to_array(frames.ds, gaps=True))

    @cached_property
    def observed(self) -> Mask:
        """Where there is a value, of the cells that may have one."""
        return np.isfinite(self.values) & self.model.normaliser.valid

    def series(self) -> Iterator[NDArray[np.int64]]:
        """Numbers of times that are to be filled together: a step of the run apart, without a
        time lacking. Where a run draws single frames without a past each is one by itself."""
        window, at = self.model.recipe.window, ticks(self.frames.times)
        if window.past == 0 and window.future == 1:
            yield from np.arange(len(at))[:, None]
            return
        step = int(self.model.step / np.timedelta64(1, "us"))
        place = {int(t): n for n, t in enumerate(at)}
        for t in at.tolist():
            if t - step not in place:
                yield np.array([place[u] for u in _onward(t, step, place)])

    def answer(self, values: Array, kept: Mask) -> dict[str, xr.DataArray]:
        """(member, time, channel, *space) in physical units → variables as they were given, over
        `member`. Where ``kept`` (time, channel, *space) with the very bits of the question."""
        ds, fields, out = self.frames.ds, self.model.fields, {}
        for name, numbers in self.numbers().items():
            channels = [fields.channels[n] for n in numbers]
            levels = [c.level for c in channels if c.level is not None]
            order = ["time", *(["level"] if levels else []), *fields.grid.names]
            array = ds[name].transpose(*order, ...)
            kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)
            whole = np.repeat(array.values.astype(kind)[None], len(values), axis=0)
            view = whole.reshape(len(values), *(array.sizes[dim] for dim in order))
            cells = [places(axis, ds, name) for axis in fields.grid.axes]
            at = np.ix_(*([level_numbers(array, levels)] if levels else []), *cells)
            rows = [c.inverse(values[:, :, n]) for c, n in zip(channels, numbers, strict=True)]
            same = [kept[:, n] for n in numbers]
            new, keep = (np.stack(rows, 2), np.stack(same, 1)) if levels else (rows[0], same[0])
            view[:, :, *at] = np.where(keep, view[:, :, *at], new)
            filled = xr.DataArray(whole, array.coords, ("member", *array.dims), name, array.attrs)
            out[name] = filled.transpose("member", *ds[name].dims)
            packed = {key: ds[name].encoding[key] for key in PACKED if key in ds[name].encoding}
            out[name].encoding = packed
        return out

    def seen(self) -> dict[str, xr.DataArray]:
        """Where each variable was observed."""
        where = {name: self.frames.ds[name].notnull() for name in self.numbers()}
        for name, one in where.items():
            one.attrs = {"long_name": f"whether {name} was observed"}
        return {f"{name}_observed": one for name, one in where.items()}

    def returned(self, new: Mapping[str, xr.DataArray]) -> xr.Dataset:
        """The Dataset that was given with ``new`` variables, under its own names and order."""
        named = self.frames.ds.drop_vars(list(self.numbers())).assign(new)
        found = roles(self.given, {k: v for k, v in self.model.fields.dims.items()
                                   if k in self.given.dims}).names  # fmt: skip
        named = named.rename({ours: theirs for theirs, ours in found.items() if ours != theirs})
        time = next((theirs for theirs, ours in found.items() if ours == "time"), None)
        if time is None:
            return named.isel(time=0).assign_coords(self.given.coords)
        order = self.given[time].argsort(kind="stable").argsort().values
        return named.isel({time: order}).assign_coords(self.given.coords)

    def numbers(self) -> dict[str, list[int]]:
        """Variables and the numbers of their channels."""
        numbers: dict[str, list[int]] = {}
        for n, channel in enumerate(self.model.fields.channels):
            numbers.setdefault(channel.variable, []).append(n)
        return numbers


def _onward(t: int, step: int, place: Mapping[int, int]) -> Iterator[int]:
    while t in place:
        yield t
        t += step


def infill(
    model: Model, ds: xr.Dataset, wish: Wish, report: Callable[..., None] = lambda *_: None
) -> xr.Dataset:
    """What `TrainedModel.infill` says."""
    gaps = Gaps.of(model, ds)
    error = _errors(gaps, wish.obs_error)
    kept = np.asarray(gaps.observed & (error == 0), bool)
    valid = model.normaliser.valid
    values: Array = np.repeat(gaps.values[None], wish.members, axis=0)
    worst = 0.0
    done = 0
    for numbers in gaps.series():
        done += len(numbers)
        if (kept[numbers] | ~valid).all():
            continue
        given = _given(gaps, numbers, error, wish)
        for first, drawn in _drawn(given, wish):
            for member, states in enumerate(drawn, start=first):
                times = gaps.frames.times[numbers]
                values[member, numbers] = model.normaliser.denormalise(states, times)
        worst = max(worst, *given.left)
        report(done / len(gaps.values))
    values[:, :, ~valid] = np.nan
    filled = _reduced(gaps.answer(values, kept), wish.output)
    out = gaps.returned(filled | gaps.seen())
    return out.assign_attrs(_notes(gaps, error, wish, worst))


def write_infill(
    model: Model, ds: xr.Dataset, wish: Wish, out: Path, overwrite: bool, voice: Voice
) -> None:
    """Fill ``ds`` and write it to a new zarr store ``out``, whole or not at all."""
    if out.exists() and not (overwrite and _ours(out)):
        remedy = "give another --out" if overwrite else "--overwrite replaces it, if it is one"
        raise UserError(f"{out} exists" + (" and is no filled store; " if overwrite else "; ")
                        + remedy)  # fmt: skip
    with voice.progress("infill") as report:
        filled = infill(model, ds, wish, report)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for variable in filled.variables.values():
        variable.encoding.clear()
    with writing(out), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        filled.to_zarr(partial, mode="w", zarr_format=3, consolidated=True)
        if out.exists():
            shutil.rmtree(out)
        publish(partial, out)


def _ours(path: Path) -> bool:
    """Whether a store was made by `write_infill`."""
    try:
        return "infill_method" in xr.open_zarr(path).attrs
    except (OSError, ValueError):
        return False


def _errors(gaps: Gaps, told: Error) -> Array:
    """Standard errors (time, channel, *space), in the units of the channels."""
    names = list(gaps.numbers())
    if not isinstance(told, Mapping):
        if told and len(names) > 1:
            raise UserError(
                f"obs_error {told:g}: of which variable? Say {{name: error, …}}; there are "
                f"{', '.join(names)}"
            )
        told = dict.fromkeys(names, told)
    if unknown := [name for name in told if name not in names]:
        raise UserError(f"obs_error: no variable {unknown[0]}; there are {', '.join(names)}")
    if wrong := [name for name, std in told.items() if not 0 <= std < np.inf]:
        raise UserError(f"obs_error of {wrong[0]} is {told[wrong[0]]}; it is a standard deviation")
    out = np.zeros_like(gaps.values)
    for name, std in told.items():
        out[:, gaps.numbers()[name]] = std
    return out


def _given(gaps: Gaps, numbers: NDArray[np.int64], error: Array, wish: Wish) -> Given:
    model, window = gaps.model, gaps.model.recipe.window
    times, observed = gaps.frames.times[numbers], gaps.observed[numbers]
    known = (observed | ~model.normaliser.valid).reshape(len(observed), -1)
    whole = np.asarray(known.all(axis=1))
    if len(times) <= window.past or not whole[: window.past].all():
        raise UserError(
            f"this run draws frames given {window.past} before them, so the first {window.past} "
            f"of each stretch must be whole, with a frame to fill after them; the one from "
            f"{times[0]} to {times[-1]} has {int(whole[: window.past].sum())}. A run with "
            "window.past: 0 fills frames without that"
        )
    anomalies = model.normaliser.normalise(gaps.values[numbers], times)
    std = error[numbers] / model.normaliser.std.reshape(1, -1, *[1] * (error.ndim - 2))
    values, seen, errors = (
        torch.from_numpy(x).to(model.device)
        for x in (np.where(observed, anomalies, np.float32(0)), observed, std.astype(np.float32))
    )
    return Given(
        model, times, values, seen, errors, cast(Method, wish.method), wish.evaluations, wish.seed
    )


def _drawn(given: Given, wish: Wish) -> Iterator[tuple[int, Array]]:
    """First member of each micro-batch and its members (member, time, channel, *space), in
    anomalies; a few micro-batches side by side, one thread each."""
    model = given.model
    _ = model.sampler, model.latent_statics, model.residual, model.denoiser
    starts = range(0, wish.members, model.recipe.micro_batch)
    with ThreadPoolExecutor(
        wish.workers, initializer=torch.set_num_threads, initargs=(THREADS,)
    ) as threads:
        for first, drawn in zip(starts, threads.map(given.members, starts), strict=True):
            yield first, drawn[: wish.members - first]


def _reduced(filled: dict[str, xr.DataArray], output: str) -> dict[str, xr.DataArray]:
    """Members, or what is asked of them."""
    if output == "members":
        return filled
    out = {}
    for name, array in filled.items():
        attrs = array.attrs
        if output == "quantiles":
            out[name] = array.quantile(QUANTILES, "member", keep_attrs=True)
            continue
        out[name] = array.mean("member").assign_attrs(attrs)
        units = {key: attrs[key] for key in ("units",) if key in attrs}
        about = {"long_name": f"standard deviation of {name} over members"}
        out[f"{name}_std"] = array.std("member", ddof=1).assign_attrs(about | units)
    return out


def _notes(gaps: Gaps, error: Array, wish: Wish, left: float) -> dict[str, Any]:
    """Which engine ran, and what a user should know of it."""
    model = gaps.model
    anomalies = model.normaliser.normalise(gaps.values, gaps.frames.times)
    far = int((np.abs(np.where(gaps.observed, anomalies, 0)) > FAR).sum())
    if far:
        log.warning("%d observations are beyond %g standard deviations of climatology", far, FAR)
    if left > ENOUGH[wish.method]:
        log.warning(
            "observations were taken up to %.0f %% of their misfit at worst; more evaluations, or "
            "a larger obs_error, may do better", 100 * left,
        )  # fmt: skip
    return {
        "infill_method": wish.method,
        "infill_members": wish.members,
        "infill_seed": wish.seed,
        "infill_run": str(model.facts["model_hash"]),
        "infill_equations_left": left,
        "infill_observations_beyond_6_std": far,
    }
