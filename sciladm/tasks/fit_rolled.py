"""Ensembles rolled out from the training split, until they are as wide as they are wrong."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add

import torch
from torch import Tensor

from sciladm.data.dataset import DataSet
from sciladm.diffusion.noise import training_generator
from sciladm.diffusion.rolled import Tally
from sciladm.model import ROLLED, Model
from sciladm.recipe import Recipe
from sciladm.tasks.fit_denoiser import Report, missing, parts
from sciladm.tasks.run import THREADS
from sciladm.tasks.windows import Batch, Windows

ROUNDS, MEMBERS = (100, 100, 200, 400), 4
"""Ensembles of each round, spread over the split; a round corrects what the one before did, and
the first ones need not be exact."""
HELD = 96
"""Ensembles from the validation split."""
FREELY = 5
"""Windows that an ensemble is rolled out, if the split has stretches of as many."""
TOGETHER = 16
"""Ensembles at once."""


def rolled_steps(recipe: Recipe) -> float:
    """How many steps of training, forwards and backwards, roll-outs take as long as."""
    if not recipe.window.past:
        return 0.0
    return (sum(ROUNDS) + HELD) * MEMBERS * FREELY / recipe.denoiser.batch / 3


def fit_rolled(model: Model, data: DataSet, report: Report) -> None:
    """How much of the mean to keep, and how far frames depart from it, where an ensemble goes on
    from its own draws. Draws are white ones: they have the second moments that the sampler's have,
    and no others are asked for here."""
    if found := _starts(model, data, "train"):
        windows, starts = found
        frames = starts.spread(10 * max(ROUNDS))
        model.rolled.measure(
            future.to(model.device).chunk(windows, 1)[0] for _, _, future in frames
        )
        with ThreadPoolExecutor(
            parts(model.device), initializer=torch.set_num_threads, initargs=(THREADS,)
        ) as threads:
            for number, ensembles in enumerate(ROUNDS):
                told = threads.map(
                    lambda item: _tally(model, windows, *item),
                    enumerate(starts.spread(ensembles, TOGETHER)),
                )
                model.rolled.improve(reduce(add, told), windows / 2)
                report((number + 1) / len(ROUNDS))
            model.rolled.size.mul_(_missing(model, data, threads))
    model.save_part(ROLLED, rolled=model.rolled)


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


def _tally(model: Model, windows: int, number: int, batch: Batch) -> Tally:
    """Of one batch of ensembles, all windows but the first."""
    drawn = _rolled_out(model, windows, number, batch)
    return reduce(add, (model.rolled.tally(members, came) for members, came in drawn))


def _missing(model: Model, data: DataSet, threads: ThreadPoolExecutor) -> float:
    """√(error² there is / spread² drawn) on validation, latents counting as they decode, drawn to
    1: networks know their training data, and ensembles are as wrong as they are wide there."""
    found = _starts(model, data, "validation")
    if found is None:
        return 1.0
    windows, starts = found
    decoded = model.autoencoder.importance().repeat(model.recipe.window.future)
    area = torch.tensor(model.grid.area.ravel(), dtype=torch.float32).to(model.device)

    def size(x: Tensor) -> Tensor:
        return torch.einsum("bcn,c,n->b", x.flatten(2).square(), decoded, area)

    def sums(item: tuple[int, Batch]) -> Tensor:
        total = torch.zeros(2, len(item[1][0]), dtype=torch.float64)
        for members, came in _rolled_out(model, windows, *item):
            mean = members.mean(1)
            apart = (members - mean[:, None]).flatten(0, 1)
            spread = size(apart).view(-1, MEMBERS).sum(1) / (MEMBERS - 1)
            total += torch.stack([size(came - mean) - spread / MEMBERS, spread]).cpu()
        return total

    each = threads.map(sums, enumerate(starts.spread(HELD, TOGETHER)))
    there, spread = torch.cat(list(each), dim=1)
    return missing(there, spread)


@torch.inference_mode()
def _rolled_out(
    model: Model, windows: int, number: int, batch: Batch
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ensembles (batch, member, channel, *space) and what came (batch, …), of each window but the
    first."""
    past, forcings, future = (x.to(model.device) for x in batch)
    known = past.repeat_interleave(MEMBERS, 0)
    each = zip(forcings.chunk(windows, 1), future.chunk(windows, 1), strict=True)
    for lead, (forced, came) in enumerate(each):
        forced = forced.repeat_interleave(MEMBERS, 0)
        context = model.denoiser.context(known, forced, model.latent_statics)
        generator = training_generator(model.recipe.seed, number, f"roll-out {lead}")
        white = torch.randn(context.mean.shape, generator=generator).to(model.device)
        z = model.denoiser.clean(white, context)
        if lead:
            z = model.rolled(context.mean, z)
            yield z.view(len(came), MEMBERS, *came.shape[1:]), came
        known = torch.cat([known, z], dim=1)[:, z.shape[1] :]
