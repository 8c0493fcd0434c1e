"""What people call first: a data set to look at, a recipe to train."""

from pathlib import Path
from typing import Any

import xarray as xr

from sciladm import recipe as recipes
from sciladm.conventions import rename_in
from sciladm.data.catalog import open_card
from sciladm.data.dataset import open_dataset as open_recipe
from sciladm.data.store import open_store
from sciladm.tasks.fit import fit as train
from sciladm.tasks.run import run_path
from sciladm.tasks.trained import TrainedModel
from sciladm.tasks.voice import Silent, Voice


def fit(
    recipe: str | Path,
    source: str | None = None,
    run_dir: str | Path | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    changes: dict[str, Any] | None = None,
    voice: Voice | None = None,
) -> TrainedModel:
    """Train what a recipe describes, or go on with it; what ``sciladm.train`` does but scores."""
    read = recipes.load(recipe, changes)
    data = open_recipe(read, source)
    path = Path(run_dir) if run_dir else run_path(read, data)
    return TrainedModel(train(read, data, path, device, overwrite, voice or Silent()))


def open_dataset(card_or_path: str | Path, source: str | None = None) -> xr.Dataset:
    """A data set by its card's name, or files by their path, lazily, with canonical names."""
    if Path(card_or_path).suffix in ("", ".yaml") and not Path(card_or_path).is_dir():
        return open_card(card_or_path, source).dataset
    return rename_in(open_store(card_or_path))
