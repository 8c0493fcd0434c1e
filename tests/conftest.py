"""What several test files share: the tiny world, simulated once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sciladm import recipe as recipes
from sciladm.data.dataset import DataSet, open_dataset
from sciladm.recipe import Recipe


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCILADM_CACHE", str(cache))
        data = open_dataset(recipe)
    return Tiny(recipe, data, cache)


@pytest.fixture
def tiny_cache(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The same, with its cache in the environment, as commands look for it."""
    monkeypatch.setenv("SCILADM_CACHE", str(tiny.cache))
    return tiny


DAY = np.timedelta64(86_400_000_000_000, "ns")
