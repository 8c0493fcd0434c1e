"""Latent diffusion for gridded scientific data: ensemble forecasts in xarray and zarr."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("sciladm")
__all__ = [
    "AreaMean", "AugmentedDataset", "Derived", "Points", "Weighted", "__version__",
    "check_augmentation", "fit", "load", "open_dataset",
]  # fmt: skip

_WHERE = {
    "AreaMean": ("sciladm.observe", "AreaMean"),
    "AugmentedDataset": ("sciladm.tasks.augmented", "AugmentedDataset"),
    "Derived": ("sciladm.observe", "Derived"),
    "Points": ("sciladm.observe", "Points"),
    "Weighted": ("sciladm.observe", "Weighted"),
    "check_augmentation": ("sciladm.tasks.check", "check_augmentation"),
    "load": ("sciladm.tasks.trained", "load"),
    "fit": ("sciladm.tasks.entry", "fit"),
    "open_dataset": ("sciladm.tasks.entry", "open_dataset"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module 'sciladm' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)
