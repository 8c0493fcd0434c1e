"""What several test files share: the tiny world, simulated once."""

import fcntl
import gc
import os
import shutil
from collections.abc import Callable, Iterator
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
from sciladm.simulate import atmosphere
from sciladm.tasks import fit_rolled
from sciladm.tasks.fit import fit
from sciladm.tasks.trained import TrainedModel

gc.disable()  # until all tests are imported, a third of the time of which it would take


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """From here on there is garbage; what is imported by now stays, and need not be searched."""
    gc.freeze()
    gc.enable()


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` fills for all of pytest's workers: the first that needs it does so,
    and the others wait. Whoever writes to it takes a copy."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path, done = shared / f"once-{name}", shared / f"once-{name}.done"
    with (shared / f"once-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            path.mkdir(exist_ok=True)
            make(path)
            done.touch()
    return path


@dataclass(frozen=True)
class Tiny:
    """The recipe of a test, its data, and the cache that holds them."""

    recipe: Recipe
    data: DataSet
    cache: Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny card's record in a cache of its own: four winters of 120 days on 32 × 16 cells."""
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
    cache = once(tmp_path_factory, "tiny", lambda path: simulate(path, recipe))
    return Tiny(recipe, open_in(cache, recipe), cache)


def simulate(cache: Path, recipe: Recipe) -> None:
    """The data of a recipe into a cache, by this process: others would load all that it has."""
    write = atmosphere.write_record
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atmosphere, "write_record", lambda *told: write(*told[:-1], 1))
        open_in(cache, recipe)


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
    name = "tiny-simulated"
    recipe = recipes.load(Path(__file__).parents[1] / "recipes" / "tiny.yaml", QUICK)
    there = once(
        tmp_path_factory, "run", lambda path: fit(recipe, open_in(tiny.cache, recipe), path / name)
    )
    return shutil.copytree(there / name, tmp_path_factory.mktemp("runs") / name)


SMALL = {
    "window.past": 0, "autoencoder.channels": 10, "denoiser.widths": [8], "denoiser.steps": 20,
    "denoiser.batch": 8, "micro_batch": 8, "evaluation.validation_inits": 1,
}  # fmt: skip
"""What makes recipes/gaussian.yaml, without a past, a matter of seconds on 8 × 16 cells."""


MASKED = {"denoiser.masks": 6}


def small_recipe(folder: Path, **changes: object) -> Recipe:
    """The recipe of a run of the small world, whose card lies in a folder."""
    told = SMALL | {"data.card": str(folder / "small.yaml")} | changes
    return recipes.load(Path(__file__).parents[1] / "recipes" / "gaussian.yaml", told)


def small_world(folder: Path) -> None:
    """The small world's card, and its data in a cache beside it."""
    text = (Path(__file__).parents[1] / "datasets" / "gaussian.yaml").read_text()
    world = "    world: gaussian\n"
    text = text.replace(world, world + "    parameters: {shape: [8, 16]}\n")
    (folder / "small.yaml").write_text(text)
    open_in(folder / "cache", small_recipe(folder))


@pytest.fixture(scope="session")
def gaussian_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the small Gaussian world's card and cache lie, for all of pytest's workers."""
    return once(tmp_path_factory, "gaussian", small_world)


SmallRun = Callable[..., tuple[TrainedModel, xr.Dataset]]


@pytest.fixture(scope="session")
def small_run(gaussian_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Makes a run of the small world by its name and changes, and its test states."""

    def make(name: str, **changes: object) -> tuple[TrainedModel, xr.Dataset]:
        recipe = small_recipe(gaussian_folder, **changes)
        data = open_in(gaussian_folder / "cache", recipe)
        there = once(tmp_path_factory, name, lambda path: fit(recipe, data, path / name))
        run = shutil.copytree(there / name, tmp_path_factory.mktemp("runs") / name)
        return sciladm.load(run), data.frames.ds.isel(time=data.indices("test")).load()

    return make


@pytest.fixture(scope="session")
def stills(small_run: SmallRun) -> tuple[TrainedModel, xr.Dataset]:
    """One frame at a time, and the days it is asked about."""
    return small_run("stills")


@pytest.fixture(scope="session")
def films(small_run: SmallRun) -> tuple[TrainedModel, xr.Dataset]:
    """Three frames at once."""
    return small_run("films", **{"window.future": 3})


@pytest.fixture(scope="session")
def masked(small_run: SmallRun) -> tuple[TrainedModel, xr.Dataset]:
    """One frame at a time, by a denoiser that was trained with masks."""
    return small_run("masked", **MASKED)


def open_in(cache: Path, recipe: Recipe) -> DataSet:
    """The data of a recipe, simulated into a cache if need be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCILADM_CACHE", str(cache))
        return open_dataset(recipe)


DAY = np.timedelta64(86_400_000_000_000, "ns")
