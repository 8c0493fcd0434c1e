"""Filling what is missing in a Dataset: NaN is the question, members are the answer."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError
from sciladm.model import Model
from sciladm.observe import Derived, Operator
from sciladm.tasks.besides import ABSURD, FAR, Besides, besides, far_off
from sciladm.tasks.errors import Error, errors
from sciladm.tasks.gaps import Array, Gaps
from sciladm.tasks.given import ENOUGH, Given, Method
from sciladm.tasks.run import THREADS, versions
from sciladm.tasks.seen import Precise
from sciladm.tasks.tiled import GivenByTiles
from sciladm.tasks.wide import Tiles, Wide, widened

log = logging.getLogger(__name__)
Output = Literal["members", "mean_std", "quantiles"]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Wish:
    """How gaps are to be filled."""

    members: int = 16
    obs_error: Error = 0.0
    method: str = "auto"
    output: str = "members"
    evaluations: int = 24
    seed: int = 0
    workers: int = 2
    operator: tuple[Operator, ...] = ()
    tol: float | None = None
    tiles: Tiles | None = None

    def __post_init__(self) -> None:
        for name, number, least in (
            ("members", self.members, 1), ("evaluations", self.evaluations, 12),
            ("workers", self.workers, 1),
        ):  # fmt: skip
            if number < least:
                raise UserError(f"{name} {number}: at least {least}")
        for name, got, known in (
            ("method", self.method, ("auto", *get_args(Method))),
            ("output", self.output, get_args(Output)),
        ):
            if got not in known:
                raise UserError(f"{name} {got!r}: there is {', '.join(known)}")
        if self.tol is not None and not 1e-6 <= self.tol < 1:
            raise UserError(f"tol {self.tol:g}: a share of the equations, from 1e-6 to below 1")
        if self.output != "members" and self.members < 2:
            raise UserError(f"output {self.output!r} needs 2 members at least; got {self.members}")

    def by(self, model: Model) -> "Wish":
        """The same with a method; UserError for one that the run has not been trained for."""
        masks = model.recipe.denoiser.masks
        if self.method == "amortised" and not masks:
            raise UserError(
                "method 'amortised': this run was trained without masks; 'guided' does without, "
                "or train one with denoiser.masks (24, say)"
            )
        if self.method == "amortised" and self.tiles is not None:
            raise UserError("method 'amortised' knows no tiles; 'guided' and 'oi' do")
        if self.method == "amortised" and any(isinstance(one, Derived) for one in self.operator):
            raise UserError("method 'amortised' knows no functions of fields; 'guided' does")
        trained = masks and not self.operator and self.tiles is None
        best = "amortised" if trained else "guided"
        return replace(self, method=best) if self.method == "auto" else self


@dataclass(frozen=True, eq=False)
class Asked:
    """Gaps with all that was ``told`` besides, checked before anything is drawn: standard
    ``error`` and where the very bits are ``kept`` (time, channel, *space), the numbers of each
    series that lacks anything and what is given of it, how many observations are ``far`` off."""

    gaps: Gaps
    error: Array
    kept: NDArray[np.bool_]
    told: Sequence[Besides]
    questions: Sequence[tuple[NDArray[np.int64], Given]]
    far: int

    @classmethod
    def of(cls, model: Model, ds: xr.Dataset, wish: Wish, past: Array | None = None) -> "Asked":
        """UserError for what cannot be asked; ``past`` as `Given` has it."""
        gaps = Gaps.of(model, ds)
        error = errors(gaps, wish.obs_error)
        kept = np.asarray(gaps.observed & (error == 0), bool)
        asked = [n for n in gaps.series() if not (kept[n] | ~model.normaliser.valid).all()]
        told, precise = besides(gaps, wish.operator), Precise.of(model)
        each = [(n, _given(gaps, n, error, wish, told, past, precise)) for n in asked]
        return cls(gaps, error, kept, told, each, _far(gaps) + far_off(gaps, told))


def infill(
    model: Model,
    ds: xr.Dataset,
    wish: Wish,
    report: Callable[..., None] = lambda *_: None,
    past: Array | None = None,
) -> xr.Dataset:
    """What `TrainedModel.infill` says; ``past`` as `Given` has it, of a single series."""
    model, wish = on_its_grid(model, ds, wish)
    asked = Asked.of(model, ds, wish, past)
    gaps, valid = asked.gaps, model.normaliser.valid
    values: Array = np.repeat(gaps.values[None], wish.members, axis=0)
    for done, (numbers, first, drawn) in _drawn(asked.questions, wish):
        for member, states in enumerate(drawn, start=first):
            times = gaps.frames.times[numbers]
            values[member, numbers] = model.normaliser.denormalise(states, times)
        report(done)
    left = [share for _, given in asked.questions for share in given.left]
    filled = reduced(gaps.answer(values, asked.kept | ~valid), wish.output)
    out = gaps.returned(filled | gaps.seen())
    found = {"infill_given": given_mark(gaps.values, gaps.observed)}
    found |= solved(wish, asked.far, float(np.max(left, initial=0.0)))
    return out.assign_attrs(notes(model, wish) | found)


def on_its_grid(model: Model, ds: xr.Dataset, wish: Wish) -> tuple[Model, Wish]:
    """The run, on the grid of ``ds`` where that is larger and tiles are wished for; its workers
    are at tiles, then."""
    if wish.tiles is None:
        return model, wish.by(model)
    wide = widened(model, ds, wish.tiles, wish.workers)
    if not isinstance(wide, Wide):
        return model, replace(wish, tiles=None).by(model)
    if wish.operator:
        raise UserError("points and means are of a run's own grid; tiles know cells alone")
    return wide, replace(wish, workers=1).by(model)


def _given(
    gaps: Gaps,
    numbers: NDArray[np.int64],
    error: Array,
    wish: Wish,
    told: Sequence[Besides],
    past: Array | None,
    precise: Precise,
) -> Given:
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
    if early := [times[n] for n in range(window.past) if len(told[numbers[n]])]:
        raise UserError(
            f"something was observed at {early[0]}, which the run takes as it is: what is told of "
            f"the first {window.past} of each stretch changes nothing; leave it out"
        )
    anomalies = model.normaliser.normalise(gaps.values[numbers], times)
    std = error[numbers] / model.normaliser.std.reshape(1, -1, *[1] * (error.ndim - 2))
    values, seen, errors = (
        torch.from_numpy(x).to(model.device)
        for x in (np.where(observed, anomalies, np.float32(0)), observed, std.astype(np.float32))
    )
    kind = GivenByTiles if isinstance(model, Wide) else Given
    return kind(
        model, precise, times, values, seen, errors,
        cast(Method, wish.method), wish.evaluations, wish.seed,
        [told[n] for n in numbers],
        None if past is None else torch.from_numpy(past).to(model.device),
        wish.tol,
    )  # fmt: skip


def _drawn(
    asked: Sequence[tuple[NDArray[np.int64], Given]], wish: Wish
) -> Iterator[tuple[float, tuple[NDArray[np.int64], int, Array]]]:
    """Of every series its micro-batches: the share that is done, and the series' numbers, the
    first member and the members (member, time, channel, *space), in anomalies; side by side, one
    thread each, are several series or, if there are fewer, parts of the micro-batches of one."""
    if not asked:
        return
    model = asked[0][1].model
    _ = model.latent_statics, model.residual, model.denoiser
    starts = range(0, wish.members, model.recipe.micro_batch)
    parts = min(-(-wish.workers // len(asked)), len(starts))
    jobs = [(*one, starts[part::parts]) for one in asked for part in range(parts)]
    with ThreadPoolExecutor(
        wish.workers, initializer=torch.set_num_threads, initargs=(THREADS,)
    ) as threads:
        # A larger grid has threads of its own; from this one it can be interrupted.
        side_by_side = map if isinstance(model, Wide) else threads.map
        states = side_by_side(lambda job: list(job[1].each(job[2])), jobs)
        for done, ((numbers, _given, firsts), each) in enumerate(
            zip(jobs, states, strict=True), start=1
        ):
            for first, drawn in zip(firsts, each, strict=True):
                yield done / len(jobs), (numbers, first, drawn[: wish.members - first])


def reduced(filled: dict[str, xr.DataArray], output: str) -> dict[str, xr.DataArray]:
    """Members, or what is asked of them."""
    if output == "members":
        return filled
    out = {}
    for name, array in filled.items():
        attrs = array.attrs
        if output == "quantiles":
            out[name] = array.quantile(QUANTILES, "member", keep_attrs=True)
            continue
        whole = array.astype(np.float64)  # of equal members the very value
        out[name] = whole.mean("member").astype(array.dtype).assign_attrs(attrs)
        units = {key: attrs[key] for key in ("units",) if key in attrs}
        about = {"long_name": f"standard deviation of {name} over members"}
        out[f"{name}_std"] = (
            whole.std("member", ddof=1).astype(array.dtype).assign_attrs(about | units)
        )
    return out


def _far(gaps: Gaps) -> int:
    """How many observations are worth a word; UserError for one that cannot be meant."""
    model, times = gaps.model, gaps.frames.times
    off = np.abs(model.normaliser.normalise(gaps.values, times))
    off = np.where(gaps.observed, off, 0)
    if (wild := off > ABSURD).any():
        at = tuple(np.argwhere(wild)[0])
        channel = model.fields.channels[at[1]]
        value, when = float(channel.inverse(gaps.values[at])), str(times[at[0]])[:19]
        raise UserError(
            f"{value:g} of {channel.name} at {when} is {off[at]:.0f} standard deviations from "
            f"climatology, and {wild.sum() - 1} more are beyond {ABSURD:g}; put NaN where there "
            "is no value"
        )
    if far := int((off > FAR).sum()):
        log.warning("%d observations are beyond %g standard deviations of climatology", far, FAR)
    return far


def notes(model: Model, wish: Wish) -> dict[str, Any]:
    """Which engine ran, and on what."""
    return {
        "synthetic": 1,
        "infill_method": wish.method,
        "infill_members": wish.members,
        "infill_evaluations": wish.evaluations,
        "infill_tol": ENOUGH[cast(Method, wish.method)] if wish.tol is None else wish.tol,
        "infill_seed": wish.seed,
        "infill_obs_error": _told_error(wish.obs_error),
        "infill_tiles": "none" if wish.tiles is None else str(wish.tiles),
        "infill_besides": ", ".join(type(one).__name__ for one in wish.operator),
        "infill_run": str(model.facts["model_hash"]),
        "infill_versions": json.dumps(versions(), sort_keys=True),
    }


def given_mark(values: Array, observed: NDArray[np.bool_]) -> str:
    """Hash of what was observed (time, channel, *space)."""
    digest = hashlib.sha256(np.packbits(observed).tobytes())
    digest.update(np.ascontiguousarray(values[observed], np.float32).tobytes())
    return digest.hexdigest()[:16]


def _told_error(error: Error) -> str:
    """As JSON; of errors that differ from cell to cell, that they do."""
    each = list(error.values()) if isinstance(error, Mapping) else [error]
    if not all(isinstance(one, int | float) for one in each):
        return json.dumps("per cell")
    return json.dumps(dict(error) if isinstance(error, Mapping) else error)


def solved(wish: Wish, far: int, most: float) -> dict[str, Any]:
    """What a user should know of the draws: ``far`` observations off, ``most`` left unsolved."""
    enough = 2 * ENOUGH[cast(Method, wish.method)] if wish.tol is None else wish.tol
    if not most <= enough:
        log.warning(
            "%.2g %% of the misfit to observations is left in one draw, and %.2g %% may be; more "
            "evaluations, or a larger obs_error, may do better", 100 * most, 100 * enough,
        )  # fmt: skip
    return {
        "infill_misfit_left": most,
        "infill_solved": int(most <= enough),
        "infill_observations_far_off": far,
    }
