"""Latent diffusion for gridded scientific data: ensemble forecasts in xarray and zarr."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("sciladm")
__all__ = ["AugmentedDataset", "__version__", "fit", "load", "open_dataset"]

_WHERE = {
    "AugmentedDataset": ("sciladm.tasks.augmented", "AugmentedDataset"),
    "load": ("sciladm.tasks.trained", "load"),
    "fit": ("sciladm.tasks.trained", "fit"),
    "open_dataset": ("sciladm.tasks.trained", "open_dataset"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module 'sciladm' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)
