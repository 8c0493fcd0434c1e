"""What a training run will read, compute and write, and how long that takes on this machine."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sciladm.data.dataset import DataSet
from sciladm.data.normalise import Normaliser
from sciladm.data.windows import window_starts
from sciladm.model import AUTOENCODER, DENOISER, MEAN, ROLLED, STATISTICS, Model
from sciladm.recipe import Recipe
from sciladm.tasks.complete import ROUNDS, gappy
from sciladm.tasks.fit import LATENTS
from sciladm.tasks.fit_denoiser import parts
from sciladm.tasks.fit_rolled import rolled_steps


def tell(recipe: Recipe, data: DataSet, path: Path, device: torch.device) -> str:
    """A few lines for people, from one block read and one step of each network tried here."""
    train = data.indices("train")
    counts = {name: len(data.indices(name)) for name in data.splits.ranges}
    frames, channels = data.frames, len(data.fields.channels)
    windows = window_starts(frames.times, recipe.window, data.splits["train"])
    # The statistics do not matter for how long a step takes.
    model = Model(path, recipe, data.fields, _blank(data), device=device)
    block = train[:64]
    reading = _seconds(lambda: frames.read(block), torch.device("cpu")) / len(block)
    step = _step(model)
    networks = {
        MEAN: 0.8 * step * recipe.denoiser.mean_steps,
        DENOISER: step * recipe.denoiser.steps,
        ROLLED: step * rolled_steps(recipe),
    }
    encoder = _autoencoder_step(model) * recipe.autoencoder.steps
    done = {STATISTICS: 2, AUTOENCODER: 0.5, LATENTS: 1}
    passes = sum(n for name, n in done.items() if not (path / name).exists())
    left = passes * reading * len(train)
    left += 0.0 if (path / AUTOENCODER).exists() else encoder
    left += sum(cost for name, cost in networks.items() if not (path / name).exists())
    latent = model.autoencoder.basis.shape[1] * int(np.prod(model.grid.shape))
    size = channels * int(np.prod(data.fields.grid.shape))
    weights = sum(p.numel() for p in model.denoiser.parameters())
    state = "goes on with" if path.exists() else "makes"
    why = "".join(f"  {line}\n" for line in data.why)
    if filled := ", ".join(gappy(data)):
        why += (
            f"  {filled}: gaps are filled by draws first, {ROUNDS + 1} times; that comes on top\n"
        )
    return (
        f"{data.title} (source: {data.source})\n{why}"
        f"reads {', '.join(f'{n} {name}' for name, n in counts.items() if name != 'test')} states "
        f"of {channels} channels on {' × '.join(map(str, data.fields.grid.shape))} cells; "
        f"{len(windows)} windows\n"
        f"computes {size} → {latent} numbers a state (compression {size / latent:.1f}), "
        f"networks of {weights / 1e6:.2f} M weights for {recipe.denoiser.mean_steps} (mean) and "
        f"{recipe.denoiser.steps} (denoiser) steps of {recipe.denoiser.batch}\n"
        f"{state} {path}, {4e-6 * latent * (counts['train'] + counts['validation']):.0f} MB, in "
        f"about {_minutes(1.2 * left)} on this {device.type}, and scores on validation"
    )


def _blank(data: DataSet) -> Normaliser:
    channels, space = len(data.fields.channels), data.fields.grid.shape
    return Normaliser(
        np.zeros(1, np.int64),
        np.zeros((1, 1, channels, *space), np.float32),
        np.ones(channels),
        np.ones((channels, *space), bool),
    )


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    """Of the second time, until the device has done it: the first one warms up."""

    def done() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    action()
    start = done()
    action()
    return done() - start


def _step(model: Model) -> float:
    """Seconds of one step of the denoiser: a part of a batch, forwards and backwards; through the
    mean, which is trained by then, forwards alone."""
    model.denoiser.base.requires_grad_(False)
    recipe, cells = model.recipe, model.grid.shape
    size = -(-recipe.denoiser.batch // parts(model.device))
    k, window = recipe.autoencoder.channels, recipe.window
    past = torch.randn(size, window.past * k, *cells, device=model.device)
    r = torch.randn(size, window.future * k, *cells, device=model.device)
    times = np.repeat(np.datetime64("2001-01-01", "ns"), window.future)
    forcings = model.forcings(times).expand(size, -1, *cells)

    def step() -> None:
        context = model.denoiser.context(past, forcings, model.latent_statics)
        sigma = torch.ones(size, device=model.device)
        model.denoiser.loss(r, context, sigma, r).backward()  # type: ignore[no-untyped-call]

    return _on_one_thread(step, model.device)


def _autoencoder_step(model: Model) -> float:
    own = model.recipe.autoencoder
    if not own.blocks or not own.steps:
        return 0.0
    size = -(-own.batch // parts(model.device))
    x = torch.randn(
        size, len(model.fields.channels), *model.fields.grid.shape, device=model.device
    )
    noise = torch.zeros(size, own.channels, *model.grid.shape, device=model.device)

    def step() -> None:
        model.autoencoder.loss(x, model.statics, noise).backward()  # type: ignore[no-untyped-call]

    return _on_one_thread(step, model.device)


def _on_one_thread(step: Callable[[], None], device: torch.device) -> float:
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _seconds(step, device)
    finally:
        torch.set_num_threads(usual)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
