"""Ensembles rolled out from the training split, until they are as wide as they are wrong."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial, reduce
from operator import add

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciladm.conventions import UserError
from sciladm.data.dataset import DataSet
from sciladm.data.windows import window_starts
from sciladm.diffusion.denoiser import Context
from sciladm.diffusion.noise import training_generator
from sciladm.diffusion.rolled import Patterns, Tally
from sciladm.model import ROLLED, Model
from sciladm.nn.shrink import TINY, grown
from sciladm.recipe import Recipe
from sciladm.tasks.fit_denoiser import Report, decoded, missing, parts
from sciladm.tasks.run import THREADS
from sciladm.tasks.windows import Batch, Windows

ROUNDS = (("alike", 64, 0),) * 3 + (
    ("alike", 256, 0), ("parted", 128, 0), ("parted", 256, 0),
    ("decoded", 128, 0), ("decoded", 300, 2000),
)  # fmt: skip
"""Which patterns each round corrects, from how many ensembles that are rolled out and how many
that have a first window alone, spread over the split (a short one has the same days in both); the
first ones need not be exact. A first window costs less than others: its members have their mean in
common."""
MEMBERS = 4
"""Of an ensemble."""
FRAMES = 3000
"""Of the training split, whose patterns are taken."""
HELD, FIRST = 96, 1024
"""Ensembles from the validation split that are rolled out, and that have a first window alone."""
FREELY = 5
"""Windows that an ensemble is rolled out, if the split has stretches of as many."""
TOGETHER = 16
"""Ensembles at once."""
LEAST = 0.01
"""Of the variance that decoding loses, what it adds at least to a forecast's error."""


def rolled_steps(recipe: Recipe) -> float:
    """How many steps of training, forwards and backwards, roll-outs take as long as."""
    if not recipe.window.past:
        return 0.0
    rolled = sum(ensembles for _, ensembles, _ in ROUNDS) + 2 * HELD
    windows = rolled * FREELY + (sum(alone for *_, alone in ROUNDS) + FIRST) / 2
    return windows * MEMBERS / recipe.denoiser.batch / 3


def fit_rolled(model: Model, data: DataSet, report: Report) -> None:
    """How much of the mean to keep, and how far frames depart from it, in first windows and where
    an ensemble goes on from its own draws. Draws are white ones, which take no network; the
    sampler's are narrower, and less wrong, by what the network knows of a state."""
    if found := _starts(model, data, "train"):
        windows, starts = found
        rolled = model.rolled
        alike, leading = _worth(model)
        for patterns, worth, apart in (
            (rolled.alike, alike, None),
            (rolled.parted, alike, model.denoiser.base),
            (rolled.decoded, leading, None),
        ):
            frames = (future.chunk(windows, 1)[0] for _, _, future in starts.spread(FRAMES))
            patterns.measure((frame.to(model.device) for frame in frames), worth, apart)
        inside = window_starts(starts.times, model.recipe.window, data.splits["train"])
        singles = replace(starts, frames=inside)
        with ThreadPoolExecutor(
            parts(model.device), initializer=torch.set_num_threads, initargs=(THREADS,)
        ) as threads:
            for number, (name, ensembles, alone) in enumerate(ROUNDS):
                own = getattr(rolled, name)
                if not own.kept.numel():
                    continue
                tell = partial(_tallied, model, own, threads)
                asked = list(starts.chosen(ensembles, TOGETHER))
                told = tell(starts, windows, enumerate(asked))
                first, later = (reduce(add, some) for some in zip(*told, strict=True))
                more = tell(singles, 1, enumerate(singles.chosen(alone, TOGETHER), len(asked)))
                own.improve(reduce(add, (tally for (tally,) in more), first), later, windows / 2)
                if own is rolled.parted:
                    parted = later
                report((number + 1) / len(ROUNDS))
            _as_validation_says(model, data, threads, parted, windows / 2)
        for patterns in rolled.kinds:
            patterns.bound()
            if not (patterns.kept.isfinite().all() and patterns.size.isfinite().all()):
                raise UserError(
                    "ensembles rolled out from the training split left the finite numbers: the "
                    "networks have not learnt; a smaller denoiser.learning_rate may do"
                )
        rolled.lost.copy_(_lost(model, data))
    model.save_part(ROLLED, rolled=model.rolled)


def _as_validation_says(
    model: Model, data: DataSet, threads: ThreadPoolExecutor, parted: Tally, windows: float
) -> None:
    """Networks know their training data. Of parts, in later windows, as much of the mean is kept
    as that leaves in common with what comes, ``parted`` being training's last tally and
    ``windows`` how often, on average, its means had been kept: parts have patterns of every scale.
    Then ensembles are made as wide as they are wrong."""
    rolled, found = model.rolled, _starts(model, data, "validation")
    longest = found[0] if found else 2
    _, lacks = _missing(model, data, threads, longest, HELD)
    rolled.parted.doubt(parted, max(lacks**2, 1.0), windows)
    first = _missing(model, data, threads, 1, FIRST)
    later = _missing(model, data, threads, longest, HELD)
    beyond, whole = torch.tensor([first, later], device=model.device).T[..., None, None]
    if not rolled.decoded.size.numel():
        beyond = whole
    rolled.alike.size.mul_(beyond * model.facts["white_width"])
    rolled.decoded.size.mul_(whole / beyond)


def _worth(model: Model) -> Tensor:
    """What each channel's variance counts for either kind of patterns (2, channel)."""
    carried = model.autoencoder.importance().repeat(model.recipe.window.future)
    return torch.stack([torch.full_like(carried, 1 / len(carried)), carried / carried.sum()])


def _starts(model: Model, data: DataSet, split: str) -> tuple[int, Windows] | None:
    """How many windows are rolled out, and from where; None where there is nothing to go on from,
    or no stretch of two windows."""
    if not model.recipe.window.past:
        return None
    for windows in range(FREELY, 1, -1):
        starts = Windows.of(model, data.splits, split, windows)
        if len(starts):
            return windows, starts
    return None


def _tallied(
    model: Model,
    patterns: Patterns,
    threads: ThreadPoolExecutor,
    of: Windows,
    windows: int,
    asked: Iterable[tuple[int, NDArray[np.int64]]],
) -> Iterator[list[Tally]]:
    """Of batches of ensembles, numbered for their noise: the first window, and all that follow it,
    if there are any. A round has the noise of the one before, so that what it changes is seen."""

    def tell(item: tuple[int, NDArray[np.int64]]) -> list[Tally]:
        number, chosen = item
        drawn = _rolled_out(model, windows, number, of.at(chosen))
        first, *others = (patterns.tally(members, came) for members, came in drawn)
        return [first, reduce(add, others)] if others else [first]

    return threads.map(tell, asked)


def _missing(
    model: Model, data: DataSet, threads: ThreadPoolExecutor, windows: int, ensembles: int
) -> tuple[float, float]:
    """√(error² there is / spread² drawn) on validation, drawn to 1, of what is beyond the leading
    patterns and of all as decoded: of first windows or, of more windows, of all that follow."""
    starts = Windows.of(model, data.splits, "validation", windows)
    if not len(starts):
        return 1.0, 1.0
    told = threads.map(
        lambda item: _sums(model, windows, *item),
        enumerate(starts.spread(ensembles, TOGETHER)),
    )
    beyond, whole = torch.cat(list(told), dim=2)
    return missing(*beyond), missing(*whole)


@torch.inference_mode()
def _lost(model: Model, data: DataSet) -> Tensor:
    """√(variance that what decoding loses adds to the error of a forecast / its variance), of the
    first windows of validation (number of a patch, cell): E[r² + 2 r e] / E[r²], r what is lost of
    a state and e what else is wrong in the fields of its mean."""
    held, residual = Windows.of(model, data.splits, "validation"), model.residual
    if not len(held):
        return torch.ones_like(residual.stretch)
    ours = np.searchsorted(data.frames.times, held.times)
    cells: list[Tensor] = []
    read = 0
    for numbers in held.chosen(FIRST, 4 * TOGETHER):
        past, forcings, future = (x.to(model.device) for x in held.at(numbers))
        mean = model.denoiser.context(past, forcings, model.latent_statics).mean
        said, there = (_fields(model, z) for z in (mean, future))
        frames = held.frames[numbers, held.past :].ravel()
        read += len(frames)
        came = model.anomalies(data.frames.read(ours[frames]), held.times[frames])
        r = (came - there).where(model.valid, 0.0)
        both = torch.stack([r.square(), r * (r + 2 * (there - said))])
        cells.append(torch.stack([residual.patches.split(x).sum(0) for x in both]))
    before, added = torch.stack(cells).sum(0).flatten(2).mT.double().cpu()
    before = before.clamp(min=TINY)
    ratio = grown(added.clamp(min=LEAST * before), before, residual.groups.flatten().cpu(), read)
    return ratio.sqrt().T


def _fields(model: Model, z: Tensor) -> Tensor:
    """Frames (batch, frame · k, *cells) → their fields (batch · frame, channel, *space)."""
    frames = z.reshape(len(z) * model.recipe.window.future, -1, *z.shape[2:])
    fields: Tensor = model.autoencoder.decode(frames, model.statics)
    return fields


def _sums(model: Model, windows: int, number: int, batch: Batch) -> Tensor:
    """Error² there is and spread² (kind, of what, case) of a first window alone, or of all that
    follow it."""
    first, *later = (_wide(model, *both) for both in _rolled_out(model, windows, number, batch))
    return torch.stack(later).sum(0) if later else first


def _wide(model: Model, members: Tensor, came: Tensor) -> Tensor:
    """The same of ensembles (case, member, …) and what came (case, …): of what is beyond the
    leading patterns, and of fields."""
    count = members.shape[1]
    fields, true = decoded(model, members.flatten(0, 1)), decoded(model, came)
    power: Callable[[Tensor], Tensor] = lambda x: x.square().sum(1)
    found = []
    for size, drawn, there in (
        (model.rolled.alike.beyond, members, came),
        (power, fields.view(-1, count, true.shape[1]), true),
    ):
        mean = drawn.mean(1)
        apart = (drawn - mean[:, None]).flatten(0, 1)
        spread = size(apart).view(-1, count).sum(1) / (count - 1)
        found.append(torch.stack([size(there - mean) - spread / count, spread]))
    return torch.stack(found).double().cpu()


@torch.inference_mode()
def _rolled_out(
    model: Model, windows: int, number: int, batch: Batch
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ensembles (batch, member, channel, *space) and what came (batch, …), of each window."""
    past, forcings, future = (x.to(model.device) for x in batch)
    each = zip(forcings.chunk(windows, 1), future.chunk(windows, 1), strict=True)
    several: Callable[[Tensor], Tensor] = lambda x: x.repeat_interleave(MEMBERS, 0)
    known = past
    for lead, (forced, came) in enumerate(each):
        if lead:
            context = model.denoiser.context(known, several(forced), model.latent_statics)
        else:  # members have their past in common
            one = model.denoiser.context(known, forced, model.latent_statics)
            context = Context(*map(several, (one.mean, one.scale, one.features)))
            known = several(known)
        generator = training_generator(model.recipe.seed, number, f"roll-out {lead}")
        white = torch.randn(context.mean.shape, generator=generator).to(model.device)
        z = model.rolled(context.mean, model.denoiser.clean(white, context), later=lead > 0)
        yield z.view(len(came), MEMBERS, *came.shape[1:]), came
        known = torch.cat([known, z], dim=1)[:, z.shape[1] :]
