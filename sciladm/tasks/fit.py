"""From a recipe to a trained run: statistics, autoencoder, latents, mean, denoiser, roll-outs.

Every stage leaves one file that appears whole when it is done; running the same recipe again goes
on where it stopped and ends in the same bytes.
"""

import hashlib
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sciladm import latents
from sciladm.data.dataset import DataSet
from sciladm.data.normalise import Normaliser
from sciladm.data.windows import batch_indices
from sciladm.diffusion.noise import training_generator
from sciladm.model import AUTOENCODER, DENOISER, MEAN, ROLLED, STATISTICS, WEIGHTS, Model
from sciladm.recipe import Recipe
from sciladm.tasks.complete import complete, gappy
from sciladm.tasks.fit_denoiser import fit_denoiser, fit_mean, parts
from sciladm.tasks.fit_rolled import fit_rolled
from sciladm.tasks.run import COMPLETED, claim, machine, whole
from sciladm.tasks.voice import Silent, Voice
from sciladm.training.loop import Loop

Report = Callable[..., None]
LATENTS = "latents.zarr"
SAMPLES = 1200
"""States that the linear parts are fitted on, spread over the training split."""


def fit(
    recipe: Recipe,
    data: DataSet,
    path: Path,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    voice: Voice | None = None,
) -> Model:
    """Train what is not trained yet of the run at ``path``; → the run."""
    voice, device = voice or Silent(), torch.device(device)
    claim(path, recipe, data, device, overwrite)
    if gappy(data):
        if not (path / COMPLETED).exists():
            with voice.progress("gaps") as report:
                complete(recipe, data, path, report)
        data = whole(data, path)
    if not (path / STATISTICS).exists():
        with voice.progress("statistics") as report:
            _statistics(recipe, data, path, device, report)
    model = Model.start(path, recipe, device)
    if not (path / AUTOENCODER).exists():
        with voice.progress("autoencoder") as report:
            _autoencoder(model, data, report)
    model.load_part(AUTOENCODER, autoencoder=model.autoencoder, residual=model.residual)
    _encode(model, data, voice)
    if not (path / MEAN).exists():
        with voice.progress("mean") as report:
            fit_mean(model, data, report)
    model.load_part(MEAN, mean=model.denoiser.base)
    if not (path / DENOISER).exists():
        with voice.progress("denoiser") as report:
            fit_denoiser(model, data, report)
    model.load_part(DENOISER, denoiser=model.denoiser)
    if not (path / ROLLED).exists():
        with voice.progress("roll-out") as report:
            fit_rolled(model, data, report)
    model.load_part(ROLLED, rolled=model.rolled)
    for done in path.glob("*.checkpoint.safetensors"):
        done.unlink()
    weights = b"".join((path / name).read_bytes() for name in WEIGHTS)
    model.save_facts(model_hash=hashlib.sha256(weights).hexdigest()[:16])
    return model


def provenance(data: DataSet, device: torch.device) -> dict[str, object]:
    """What a run and its forecasts say of their origin."""
    return {
        "source": data.source,
        "source_kind": data.kind,
        "title": data.title,
        "data_fingerprint": data.fingerprint,
        **machine(device),
        "python": platform.python_version(),
        "splits": {name: len(data.indices(name)) for name in data.splits.ranges},
    }


def _statistics(
    recipe: Recipe, data: DataSet, path: Path, device: torch.device, report: Report
) -> None:
    train = data.indices("train")
    fields = data.fields
    normaliser = Normaliser.fit(
        data.frames.times[train],
        data.frames.blocks(train),
        fields.names,
        fields.grid.area,
    )
    model = Model(path, recipe, fields, normaliser)
    model.save_facts(**provenance(data, device))
    model.save_statistics()


def _stretches(model: Model, data: DataSet, split: str, count: int) -> list[Tensor]:
    """Normalised anomalies of about ``count`` states of a split, a few days from all through it:
    what follows in time is read together."""
    numbers = data.indices(split)
    pieces = np.array_split(numbers, max(1, len(numbers) // 64))
    wanted = max(1, round(2 * count / 64))
    chosen = np.unique(np.linspace(0, len(pieces) - 1, min(wanted, len(pieces))).astype(int))
    thin = 2 if len(chosen) < len(pieces) else max(1, len(numbers) // count)
    out = []
    for piece in (pieces[i][::thin] for i in chosen):
        times = data.frames.times[piece]
        out.append(model.anomalies(data.frames.read(piece), times))
    return out


def _autoencoder(model: Model, data: DataSet, report: Report) -> None:
    """The linear path in closed form, the networks by training, then what both lose."""
    own, seed, auto = model.recipe.autoencoder, model.recipe.seed, model.autoencoder
    states = _stretches(model, data, "train", SAMPLES)
    report(0.1, "linear path")
    auto.fit_linear(states, own.latent_noise)
    held = _stretches(model, data, "validation", SAMPLES // 2)
    auto.keep(held)
    if own.blocks and own.steps:
        pool = torch.cat(states)
        count = parts(model.device)

        def step_loss(step: int, part: int) -> Tensor:
            x = pool[batch_indices(len(pool), own.batch, seed, step)[part::count]]
            generator = training_generator(seed, step, f"latent noise {part}")
            shape = (len(x), own.channels, *model.grid.shape)
            noise = own.latent_noise * torch.randn(shape, generator=generator)
            return auto.loss(x, model.statics, noise.to(x.device), model.valid)

        loop = Loop(
            auto, step_loss, model.path, "autoencoder", steps=own.steps, parts=count,
            learning_rate=own.learning_rate, save_every=model.recipe.checkpoint_every,
            progress=lambda step, loss: report(0.1 + 0.8 * step / own.steps, f"loss {loss:.4f}"),
        )  # fmt: skip
        auto.load_state_dict(loop.run(), strict=False)
        auto.whiten(states, model.statics)
    with torch.no_grad():
        given = [auto.decode(auto.encode(x, model.statics), model.statics) for x in held]
        lost = [(x - back).where(model.valid, 0.0) for x, back in zip(held, given, strict=True)]
        model.residual.fit(lost)
    left = sum(float(r.square().sum()) for r in lost) / sum(float(x.square().sum()) for x in held)
    model.save_facts(autoencoder_lost_variance=left)
    model.save_part(AUTOENCODER, autoencoder=auto, residual=model.residual)


def _encode(model: Model, data: DataSet, voice: Voice) -> None:
    """Latents of training and validation; test stays unread."""
    seen = np.sort(np.concatenate([data.indices("train"), data.indices("validation")]))
    with voice.progress("latents") as report:
        blocks = data.frames.blocks(seen)

        def told() -> Iterator[latents.Block]:
            done = 0
            for block in blocks:
                yield block
                done += len(block[0])
                report(done / len(seen))

        latents.encode_once(
            model.path / LATENTS,
            told(),
            lambda values, times: model.encode(values, times).cpu().numpy(),
            model.grid,
            {"data_fingerprint": data.fingerprint, "recipe": model.recipe.fingerprint()},
        )
