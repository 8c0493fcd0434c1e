"""What several test files share: the tiny world, simulated once."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # for small matrices threads cost more than they bring

import numpy as np
import pytest
import xarray as xr

import sciladm
from sciladm import recipe as recipes
from sciladm.data.dataset import DataSet, open_dataset
from sciladm.recipe import Recipe
from sciladm.tasks import fit_rolled
from sciladm.tasks.fit import fit
from sciladm.tasks.trained import TrainedModel


@dataclass(frozen=True)
class Tiny:
    """The recipe of a test, its data, and the cache that holds them."""

    recipe: Recipe
    data: DataSet
    cache: Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny card's record in a cache of its own: four winters of 120 days on 32 × 16 cells."""
    cache = tmp_path_factory.mktemp("cache")
    tree = {
        "schema": 1,
        "name": "tiny-test",
        "data": {
            "card": "tiny",
            "variables": {"geopotential": [500], "temperature": [850], "2m_temperature": None},
            "static": ["land_sea_mask"],
        },
        "evaluation": {"init": "test:0:24", "lead": "2d", "members": 8},
    }
    recipe = recipes.parse(tree, {}, "the tests' recipe")
    return Tiny(recipe, open_in(cache, recipe), cache)


@pytest.fixture
def tiny_cache(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The same, with its cache in the environment, as commands look for it."""
    monkeypatch.setenv("SCILADM_CACHE", str(tiny.cache))
    return tiny


QUICK = {
    "autoencoder.steps": 5, "autoencoder.width": 8, "autoencoder.channels": 8,
    "denoiser.steps": 20, "denoiser.mean_steps": 4, "denoiser.widths": [8], "denoiser.batch": 8,
    "micro_batch": 4, "checkpoint_every": 3, "sampler.steps": 6, "evaluation.validation_inits": 1,
}  # fmt: skip
"""What makes recipes/tiny.yaml a matter of seconds; its draws are as bad as that."""

FEW = {
    "ROUNDS": (("alike", 48, 0),) * 3 + (("parted", 48, 0), ("decoded", 48, 48)),
    "HELD": 48,
    "FIRST": 256,
}
"""Ensembles that `fit_rolled` takes to say how wide they are; others take thousands."""


@pytest.fixture(scope="session", autouse=True)
def few_ensembles() -> Iterator[None]:
    """No run that a test trains in its own process takes more."""
    with pytest.MonkeyPatch.context() as patch:
        for name, few in FEW.items():
            patch.setattr(fit_rolled, name, few)
        yield


@pytest.fixture(scope="session")
def tiny_run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a trained run of recipes/tiny.yaml with `QUICK`; its data need `tiny_cache`."""
    path = tmp_path_factory.mktemp("runs") / "tiny-simulated"
    recipe = recipes.load(Path(__file__).parents[1] / "recipes" / "tiny.yaml", QUICK)
    fit(recipe, open_in(tiny.cache, recipe), path)
    return path


SMALL = {
    "window.past": 0, "autoencoder.channels": 10, "denoiser.widths": [8], "denoiser.steps": 20,
    "denoiser.batch": 8, "micro_batch": 8, "evaluation.validation_inits": 1,
}  # fmt: skip
"""What makes recipes/gaussian.yaml, without a past, a matter of seconds on 8 × 16 cells."""


MASKED = {"denoiser.masks": 6, "denoiser.scale": False}


@pytest.fixture(scope="session")
def gaussian_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the small Gaussian world's card, cache and runs lie."""
    return tmp_path_factory.mktemp("gaussian")


def small_run(folder: Path, name: str, **changes: object) -> tuple[TrainedModel, xr.Dataset]:
    """A run of the small world, and its test states."""
    root, card = Path(__file__).parents[1], folder / "small.yaml"
    world = "    world: gaussian\n"
    text = (root / "datasets" / "gaussian.yaml").read_text()
    card.write_text(text.replace(world, world + "    parameters: {shape: [8, 16]}\n"))
    told = SMALL | {"data.card": str(card)} | changes
    recipe = recipes.load(root / "recipes" / "gaussian.yaml", told)
    data = open_in(folder / "cache", recipe)
    fit(recipe, data, folder / name)
    return sciladm.load(folder / name), data.frames.ds.isel(time=data.indices("test")).load()


@pytest.fixture(scope="session")
def stills(gaussian_folder: Path) -> tuple[TrainedModel, xr.Dataset]:
    """One frame at a time, and the days it is asked about."""
    return small_run(gaussian_folder, "stills")


@pytest.fixture(scope="session")
def films(gaussian_folder: Path) -> tuple[TrainedModel, xr.Dataset]:
    """Three frames at once."""
    return small_run(gaussian_folder, "films", **{"window.future": 3})


@pytest.fixture(scope="session")
def masked(gaussian_folder: Path) -> tuple[TrainedModel, xr.Dataset]:
    """One frame at a time, by a denoiser that was trained with masks."""
    return small_run(gaussian_folder, "masked", **MASKED)


def open_in(cache: Path, recipe: Recipe) -> DataSet:
    """The data of a recipe, simulated into a cache if need be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCILADM_CACHE", str(cache))
        return open_dataset(recipe)


DAY = np.timedelta64(86_400_000_000_000, "ns")
