"""Recipes that are too large to run here: built and stepped at toy size."""

import numpy as np
import pytest
import xarray as xr

from sciladm import recipe as recipes
from sciladm.conventions import UserError
from sciladm.data.cards import folder
from sciladm.data.dataset import check_trainable, open_dataset
from sciladm.data.plan import Block
from sciladm.model import Model
from sciladm.tasks.fit import fit
from sciladm.tasks.forecast import from_states

HERE = folder().parent / "recipes"
LEVELS = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]
TOY = {
    "data.card": None,
    "data.splits": {
        "train": [["2001-01-01", "2001-02-09"]],
        "validation": [["2001-02-10", "2001-02-20"]],
    },
    "autoencoder.channels": 8,
    "autoencoder.width": 8,
    "autoencoder.steps": 2,
    "autoencoder.batch": 4,
    "denoiser.widths": [8, 8],
    "denoiser.mean_steps": 2,
    "denoiser.steps": 2,
    "denoiser.batch": 4,
    "sampler.steps": 4,
    "micro_batch": 2,
}


def store(path, recipe):
    """All variables of a recipe on 16 × 8 cells, 51 days every six hours, like WeatherBench2."""
    random = np.random.default_rng(0)
    times = np.datetime64("2001-01-01", "ns") + np.arange(4 * 51) * np.timedelta64(6, "h")
    space = {"longitude": np.arange(16) * 22.5, "latitude": np.arange(8) * 22.5 - 78.75}
    ds = xr.Dataset(coords={"time": times, "level": LEVELS, **space})
    for name, levels in recipe.data.variables.items():
        dims = ("time", *(["level"] if levels else []), "longitude", "latitude")
        shape = [ds.sizes[dim] for dim in dims]
        ds[name] = (dims, random.standard_normal(shape, dtype=np.float32))
    for name in recipe.data.static:
        ds[name] = (("longitude", "latitude"), random.random((16, 8), dtype=np.float32))
    ds.to_zarr(path, zarr_format=2, consolidated=True)
    return path


def test_era5_full_is_built_and_stepped(tmp_path):
    recipe = recipes.load(HERE / "era5-full.yaml")
    there = store(tmp_path / "era5.zarr", recipe)
    toy = recipes.load(HERE / "era5-full.yaml", TOY | {"data.path": str(there)})
    data = open_dataset(toy)
    check_trainable(toy, data)
    assert len(data.fields.channels) == 69 == 5 * 13 + 4
    assert data.fields.names[0] == "geopotential_50" and len(data.fields.statics) == 2
    model = fit(toy, data, tmp_path / "run")
    assert model.facts["model_hash"]
    leads = np.array([24, 48], "timedelta64[h]").astype("timedelta64[ns]")
    start = data.indices("validation")[:1]
    forecast = from_states(Model.load(tmp_path / "run"), data.frames, start, leads, 0)
    states = forecast.states(Block(0, 0, range(2)))
    assert states.shape == (2, 2, 69, 8, 16) and np.isfinite(states).all()


def test_era5_full_says_its_channels():
    recipe = recipes.load(HERE / "era5-full.yaml")
    levels = [levels for levels in recipe.data.variables.values() if levels]
    assert levels == [LEVELS] * 5
    assert recipe.autoencoder.channels <= 69 * recipe.autoencoder.patch**2


@pytest.mark.parametrize("path", sorted(HERE.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_complete(path):
    recipe = recipes.load(path)
    assert recipe.name == path.stem
    assert recipes.parse(recipe.tree(), {}, "again") == recipe


def test_more_latents_than_numbers(tmp_path):
    recipe = recipes.load(HERE / "era5-full.yaml")
    there = store(tmp_path / "era5.zarr", recipe)
    changes = TOY | {"data.path": str(there), "data.variables": {"2m_temperature": None}}
    changes |= {"evaluation.headline": []}
    toy = recipes.load(HERE / "era5-full.yaml", changes | {"autoencoder.channels": 17})
    with pytest.raises(UserError, match=r"17, but a patch of 4 .* has 16 numbers"):
        check_trainable(toy, open_dataset(toy))


def test_too_short(tmp_path):
    recipe = recipes.load(HERE / "era5-full.yaml")
    there = store(tmp_path / "era5.zarr", recipe)
    short = {"train": [["2001-01-01", "2001-01-03"]], "validation": [["2001-02-10", "2001-02-20"]]}
    changes = TOY | {"data.path": str(there), "data.splits": short}
    toy = recipes.load(HERE / "era5-full.yaml", changes)
    with pytest.raises(UserError, match=r"train has 12 .* 8 windows of 1 \+ 1 .* 24h"):
        check_trainable(toy, open_dataset(toy))
