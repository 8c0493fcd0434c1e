"""What is expected, then how frames depart from it: the two networks of a forecast."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciladm.data.dataset import DataSet
from sciladm.diffusion.departure import Departure
from sciladm.diffusion.known import Informed
from sciladm.diffusion.levels import training_levels
from sciladm.diffusion.mean import MeanForecast
from sciladm.diffusion.noise import training_generator, training_sigma
from sciladm.model import DENOISER, MEAN, Model
from sciladm.nn.linear import borne_out
from sciladm.tasks.known import Masks
from sciladm.tasks.windows import Batch, Windows
from sciladm.training import average
from sciladm.training.loop import Loop

T = TypeVar("T")
Report = Callable[..., None]
EXACT = 1e-5
"""Of the map of what the network leaves, which is to be least squares."""
WINDOWS = 4800
"""Windows that closed forms are fitted on, spread over the split."""
HELD = 1 << 30
"""Bytes of departures that are kept rather than computed for each pass over them."""
DRAWN = 256
"""Windows that ensembles are drawn from to see whether they spread enough."""


def parts(device: torch.device) -> int:
    """Into how many parts a training batch falls: two threads on a CPU, whole on a GPU."""
    return 2 if device.type == "cpu" else 1


def fit_mean(model: Model, data: DataSet, report: Report) -> None:
    """The mean that draws depart from, and how far they may."""
    mean = model.denoiser.base
    train_mean(model, mean, data, model.recipe.denoiser.mean_steps, "mean", report)
    model.save_part(MEAN, mean=mean)


def train_mean(
    model: Model, mean: MeanForecast, data: DataSet, steps: int, name: str, report: Report
) -> None:
    """The linear part in closed form, then ``steps`` of the network, if it has one, then what is
    linear in what it leaves."""
    windows = Windows.of(model, data.splits, "train")
    mean.linear.fit(_moved(model, windows, WINDOWS), model.recipe.denoiser.ridge)
    left, cells = mean.linear.left(), model.denoiser.cells
    departures = (
        (future - mean.linear(past, forcings)) / left
        for past, forcings, future in _moved(model, windows, WINDOWS)
    )
    mean.parts.fit(departures, left, cells, model.decoded())
    if mean.season is not None:
        mean.season.fit(
            (forcings, mean.apart(future - mean.linear(past, forcings)))
            for past, forcings, future in _moved(model, windows, WINDOWS)
        )
    count = parts(model.device)
    weight, statics = mean.parts.weight(cells), model.latent_statics

    def step_loss(step: int, part: int) -> Tensor:
        past, forcings, future = _placed(model, windows.at(_numbers(model, windows, step, part)))
        placed = statics.expand(len(past), *statics.shape)
        return (mean.loss(past, forcings, placed, future) * weight).mean()

    if mean.network is not None:
        told = lambda step, loss: report(step / steps, f"loss {loss:.3f}")
        widths = (model.recipe.denoiser.ema,)
        loop = _loop(model, mean.network, step_loss, name, steps, count, told, widths)
        mean.network.load_state_dict(loop.run(), strict=False)
        mean.network.eval().requires_grad_(False)
        _fit_after(model, mean, windows, Windows.of(model, data.splits, "validation"))


@torch.no_grad()
def _fit_after(model: Model, mean: MeanForecast, windows: Windows, held: Windows) -> None:
    """What is linear in what the network leaves, as far as validation bears it out: a network
    knows the windows it was trained on."""
    statics, cells = model.latent_statics, model.denoiser.cells

    def left(of: Windows, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        for past, forcings, future in _moved(model, of, count):
            placed = statics.expand(len(past), *statics.shape)
            said, _ = mean.said(past, forcings, placed)
            yield torch.cat([said, past], dim=1), future - said

    numbers = (mean.linear.inputs + 2 * len(model.denoiser.weight)) * cells.numel()
    known = _kept(partial(left, windows, WINDOWS), WINDOWS * numbers)
    for after in mean.after:
        after.weight.zero_()
    for after in mean.after:
        after.fit(((seen, None, rest - mean.added(seen)) for seen, rest in known()), EXACT)
    others = left(held, WINDOWS // 2)
    share = borne_out(((mean.added(seen), rest) for seen, rest in others), cells)
    for after in mean.after:
        after.weight.mul_(share)


def fit_denoiser(model: Model, data: DataSet, report: Report) -> None:
    """The network that draws departures. It learns from those of training, as white as new ones
    are. Where a mean knows its answers they are a little small even so: then their size is taken
    from validation, where a network that knows its training data too well leaves something out.
    Of a run without a past nothing is expected but the season, and its patterns, many more than
    validation has independent days, fit each other only as they were found together."""
    own, seed, denoiser = model.recipe.denoiser, model.recipe.seed, model.denoiser
    windows = Windows.of(model, data.splits, "train")
    samples = partial(_departures, model, windows, WINDOWS)
    departures = _kept(samples, WINDOWS * denoiser.weight.numel())
    denoiser.departure.measure(departures)
    unseen = denoiser.departure.without(departures)
    count = parts(model.device)
    _fit_levels(model, windows)
    centre, spread = model.facts["sigma_centre"], model.facts["sigma_spread"]
    masks = Masks.of(model, windows) if own.masks else None

    def step_loss(step: int, part: int) -> Tensor:
        numbers = _numbers(model, windows, step, part)
        past, forcings, future = _placed(model, windows.at(numbers))
        context = denoiser.context(past, forcings, model.latent_statics)
        stretch = numbers * len(unseen) // len(windows)
        r = _whitened(unseen, denoiser.departed(future, context), stretch)
        if own.dropout:
            told = _told(seed, step, own.batch, own.dropout)
            context = denoiser.told(context, told[part::count])
        generator = training_generator(seed, step, f"noise {part}")
        noise = torch.randn(r.shape, generator=generator).to(r.device)
        sigma = training_sigma(seed, step, own.batch, centre, spread)
        level = sigma[part::count].to(r.device)
        if masks is None:
            return denoiser.loss(r, context, level, noise)
        assert isinstance(denoiser, Informed)
        return denoiser.loss(r, context, level, noise, masks.known(r, step, part))

    say = lambda step, loss: report(step / own.steps, f"loss {loss:.3f}")
    widths = average.pair(own.ema)
    loop = _loop(model, denoiser.backbone, step_loss, "denoiser", own.steps, count, say, widths)
    denoiser.backbone.load_state_dict(loop.run(), strict=False)
    if model.recipe.window.past:
        _fit_size(model, Windows.of(model, data.splits, "validation"))
    model.save_part(DENOISER, denoiser=denoiser)


def _fit_size(model: Model, held: Windows) -> None:
    """Of departures in the years ``held``, where the mean has not learnt its answers."""
    departure = model.denoiser.departure
    departure.rescale(partial(_departures, model, held, WINDOWS // 2))
    drawn, white = _spread(model, held)
    departure.std.mul_(missing(*drawn))
    model.save_facts(white_width=_wider(drawn, white))


def _whitened(laws: Sequence[Departure], d: Tensor, which: NDArray[np.int64]) -> Tensor:
    """Departures (batch, channel, *space), each by the law of that number."""
    r = torch.empty_like(d)
    for number in np.unique(which):
        own = torch.from_numpy(which == number).to(d.device)
        r[own] = laws[number].whiten(d[own])
    return r


def _loop(
    model: Model,
    network: nn.Module,
    step_loss: Callable[[int, int], Tensor],
    name: str,
    steps: int,
    count: int,
    told: Callable[[int, float], None],
    widths: tuple[float, ...],
) -> Loop:
    own = model.recipe.denoiser
    return Loop(
        network, step_loss, model.path, name, steps=steps, parts=count, optimiser=own.optimiser,
        learning_rate=own.learning_rate, ema_widths=widths, snapshots=len(widths) > 1,
        save_every=model.recipe.checkpoint_every, progress=told,
    )  # fmt: skip


def _told(seed: int, step: int, batch: int, dropout: float) -> Tensor:
    """Which windows of a step have a context (batch,): 1, and 0 for a share of ``dropout``."""
    generator = training_generator(seed, step, "dropout")
    return (torch.rand(batch, generator=generator) >= dropout).float()


def _numbers(model: Model, windows: Windows, step: int, part: int) -> NDArray[np.int64]:
    """Which windows part of a training batch has."""
    share = slice(part, None, parts(model.device))
    return windows.numbers(model.recipe.denoiser.batch, model.recipe.seed, step, share)


def _placed(model: Model, batch: Batch) -> Batch:
    """On the device of the model."""
    past, forcings, future = (x.to(model.device) for x in batch)
    return past, forcings, future


def _moved(model: Model, windows: Windows, count: int, size: int = 256) -> Iterator[Batch]:
    for batch in windows.spread(count, size):
        yield _placed(model, batch)


def _kept(again: Callable[[], Iterable[T]], numbers: int) -> Callable[[], Iterable[T]]:
    """What ``again`` gives, so many ``numbers`` of it, as often as wanted: a pass through the
    networks each time only where they are too many to be kept."""
    if 4 * numbers > HELD:
        return again
    kept = list(again())
    return lambda: kept


@torch.no_grad()
def _departures(model: Model, windows: Windows, count: int) -> Iterator[Tensor]:
    """How far frames depart from what is expected, as a share of how far they may this time
    (batch, channel, *space)."""
    for past, forcings, future in _moved(model, windows, count):
        context = model.denoiser.context(past, forcings, model.latent_statics)
        yield model.denoiser.departed(future, context)


@torch.inference_mode()
def _spread(model: Model, windows: Windows) -> Tensor:
    """Error² there is and spread² drawn, as decoded, from pairs for these windows, by the sampler
    and of white r: (by whom, of what, case)."""
    denoiser, found = model.denoiser, []
    for number, (past, forcings, future) in enumerate(_moved(model, windows, DRAWN, DRAWN // 8)):
        context = denoiser.context(past, forcings, model.latent_statics)
        generator = training_generator(model.recipe.seed, number, "spread")
        white = torch.randn(2, *future.shape, generator=generator).to(model.device)
        denoise = partial(denoiser, context=context)
        drawn = torch.stack([model.sampler.sample(denoise, r) for r in white])
        came, kinds = decoded(model, future), []
        for pair in (drawn, white):
            one, two = (decoded(model, denoiser.clean(r, context)) for r in pair)
            half = ((one - two) / 2).square().sum(1)  # of the variance, in the error too
            kinds.append(torch.stack([((one + two) / 2 - came).square().sum(1) - half, 2 * half]))
        found.append(torch.stack(kinds).cpu())
    return torch.cat(found, dim=2).double()


def decoded(model: Model, z: Tensor) -> Tensor:
    """Frames (batch, frame · k, *cells) → their fields in one row (batch, number), each number
    times the root of what it counts: its area, 0 where there never are data. Along the linear
    path: elsewhere a few draws near the bounds of latents outweigh all others."""
    frames = z.reshape(len(z) * model.recipe.window.future, -1, *z.shape[2:])
    area = torch.tensor(model.fields.grid.area, dtype=z.dtype).to(z.device)
    fields = model.autoencoder.along_linear(frames) * (area * model.valid).sqrt()
    return fields.reshape(len(z), -1)


def _wider(drawn: Tensor, white: Tensor) -> float:
    """How many times as wide, beside their error, white draws are as the sampler's (of what,
    case): more than 1 where the network knows of a state what no Gaussian of all states does."""
    squares = [float(spread / there) for there, spread in (white.sum(1), drawn.sum(1))]
    return float(f"{math.sqrt(squares[0] / squares[1]):.4g}") if min(squares) > 0 else 1.0


def missing(there: Tensor, spread: Tensor) -> float:
    """√(variance ``there`` is / variance drawn, ``spread``) from cases that are independent
    (case,), drawn to 1; 1 of fewer than two cases, or where nothing is drawn."""
    count = len(spread)
    if count < 2 or spread.sum() == 0:
        return 1.0
    ratio = (there.sum() / spread.sum()).clamp(min=1e-2)
    uncertain = (there - ratio * spread).square().sum() / spread.sum() ** 2
    kept = (1 - uncertain / (ratio - 1).square().clamp(min=1e-12)).clamp(min=0)
    return math.sqrt(1 + float(kept * (ratio - 1)))


@torch.no_grad()
def _fit_levels(model: Model, windows: Windows) -> None:
    """Noise levels, of training and of the sampler, become facts of the run: once, so that a
    resumed run has the very same.

    The sampler starts at 30 √λ, λ the variance of the largest pattern that whitening has left:
    from there on noise drowns it. The pattern is found in half of the windows and measured in the
    others. Two digits, so that the last bits of an eigenvalue do not matter."""
    if "sigma_spread" in model.facts:
        return
    departures = _departures(model, windows, WINDOWS // 8)
    r = torch.cat([model.denoiser.departure.whiten(d).cpu() for d in departures])
    seen, other = r.flatten(1).chunk(2)
    u = torch.linalg.eigh(seen @ seen.T)[1][:, -1]
    pattern = torch.nn.functional.normalize(seen.T @ u, dim=0)
    largest = max(1.0, float((other @ pattern).square().mean()))
    own = model.recipe.denoiser
    centre, spread = training_levels(r)
    model.save_facts(
        sigma_max=float(f"{30 * math.sqrt(largest):.2g}"),
        sigma_centre=centre if own.sigma_centre == "auto" else own.sigma_centre,
        sigma_spread=spread if own.sigma_spread == "auto" else own.sigma_spread,
    )
