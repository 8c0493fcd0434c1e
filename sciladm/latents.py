"""Encode a data set once; train on what is small.

A latent store is an ordinary zarr that xarray opens: ``latent(time, channel, *space)`` with the
times that were encoded and the space of the latent grid. It is written beside its final name and
moved there when it is whole, so that a store that exists is complete.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from sciladm.data.durable import publish
from sciladm.grid import Grid

CHUNK = 512
"""States per chunk of a latent store."""
Block = tuple[NDArray[np.datetime64], NDArray[np.float32]]
"""Times (n,) and their values (n, channel, *space)."""


def encode_once(
    path: Path,
    blocks: Iterable[Block],
    encode: Callable[[NDArray[np.float32], NDArray[np.datetime64]], NDArray[np.float32]],
    grid: Grid,
    attributes: dict[str, Any],
) -> None:
    """Write the latents of all ``blocks`` to ``path``, unless they are there already.

    Args:
        path: Folder of the store.
        blocks: States in physical units, in the order of time.
        encode: States and times → latents (n, channel, *latent space).
        grid: Latent grid.
        attributes: What the latents depend on; a store with other attributes is written anew.
    """
    if path.exists():
        if dict(zarr.open_group(path, mode="r").attrs) == attributes:
            return
        shutil.rmtree(path)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for times, latents in _in_chunks((t, encode(values, t)) for t, values in blocks):
        latent = xr.Dataset(
            {"latent": (("time", "channel", *grid.names), latents)},
            coords={"time": times} | {axis.name: axis.values for axis in grid.axes},
            attrs=attributes,
        )
        if partial.exists():
            latent.to_zarr(partial, append_dim="time", consolidated=False)
        else:
            chunks = (CHUNK, *latent["latent"].shape[1:])
            encoding = {
                "latent": {"chunks": chunks, "compressors": None},
                "time": {"units": "seconds since 1970-01-01", "dtype": "int64", "chunks": (4096,)},
            }
            latent.to_zarr(partial, encoding=encoding, consolidated=False)
    publish(partial, path)


def _in_chunks(blocks: Iterable[Block]) -> Iterator[Block]:
    """The same rows, ``CHUNK`` at a time but for the last: a chunk in parts is written in full for
    each of them."""
    waiting: list[Block] = []
    for block in blocks:
        waiting.append(block)
        if sum(len(times) for times, _ in waiting) < CHUNK:
            continue
        times, values = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        whole = len(times) - len(times) % CHUNK
        yield times[:whole], values[:whole]
        waiting = [(times[whole:], values[whole:])]
    if sum(len(times) for times, _ in waiting):
        times, values = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        yield times, values


def open_latents(path: Path) -> xr.Dataset:
    """The latents as a Dataset, lazily."""
    opened: xr.Dataset = xr.open_zarr(path, consolidated=False)
    return opened
