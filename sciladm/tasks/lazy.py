"""Gaps of data that are read when they are asked for: each series is filled by itself, then."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import dask.array
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from sciladm.model import Model
from sciladm.observe.rows import frames_of
from sciladm.tasks.gaps import Gaps, drawn_as, packing
from sciladm.tasks.infill import QUANTILES, Wish, infill, notes, on_its_grid


def is_lazy(ds: xr.Dataset) -> bool:
    """Whether anything of it has still to be read."""
    return any(variable.chunks is not None for variable in ds.variables.values())


def infill_lazily(model: Model, ds: xr.Dataset, wish: Wish) -> xr.Dataset:
    """`infill`, one block of the answer a series; its attributes lack what draws alone tell."""
    model, wish = on_its_grid(model, ds, wish)
    gaps = Gaps.of(model, ds)
    numbers, names = list(gaps.series()), list(model.fields.groups)
    for one in wish.operator:
        frames_of(one.times, gaps.frames.times, model.step, "observations", once=False)
    parts = [
        delayed(_series, pure=False)(model, gaps.frames.ds[names].isel(time=n), wish)
        for n in numbers
    ]
    new: dict[str, xr.DataArray] = {}
    for given in model.fields.groups:
        for name, ahead, kind in variables_of(given, gaps, wish):
            new[name] = _joined(name, given, ahead, kind, gaps, numbers, parts)
            new[name].attrs = attributes_of(name, given, gaps)
            if name == given:
                new[name].encoding = packing(gaps.frames.ds[given], None)
    return gaps.returned(new).assign_attrs(notes(model, wish))


def _series(model: Model, ds: xr.Dataset, wish: Wish) -> xr.Dataset:
    """What is told of a series, told of it alone."""
    times = np.asarray(ds["time"].values)
    told = tuple(one.at(times, model.step) for one in wish.operator)
    return infill(model, ds.load(), replace(wish, operator=told))


def variables_of(given: str, gaps: Gaps, wish: Wish) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Variables of the answer to one of the question: name, dimensions that come first with their
    coordinates, and dtype."""
    kind = drawn_as(gaps.frames.ds[given])
    if wish.output == "members":
        yield given, {"member": np.arange(wish.members)}, kind
    elif wish.output == "quantiles":
        yield given, {"quantile": np.array(QUANTILES)}, np.dtype(np.float64)
    else:
        yield given, {}, kind
        yield f"{given}_std", {}, kind
    yield f"{given}_observed", {}, np.dtype(bool)


def _joined(
    name: str,
    given: str,
    ahead: dict[str, Any],
    kind: Any,
    gaps: Gaps,
    numbers: list[NDArray[np.int64]],
    parts: list[Any],
) -> xr.DataArray:
    """One variable, a block a series."""
    asked = gaps.frames.ds[given]
    dims = (*ahead, *asked.dims)
    first = tuple(len(values) for values in ahead.values())
    pick = delayed(lambda out: out[name].transpose(*dims).values, pure=False)
    block, joined = cast(Any, dask.array.from_delayed), cast(Any, dask.array.concatenate)
    blocks = [
        block(pick(part), (*first, *(asked.isel(time=n).shape)), dtype=kind)
        for n, part in zip(numbers, parts, strict=True)
    ]
    data = joined(blocks, axis=dims.index("time"))
    order = np.argsort(np.concatenate(numbers), kind="stable")
    if (np.diff(order) != 1).any():
        data = dask.array.take(data, order, axis=dims.index("time"))
    return xr.DataArray(data, {**asked.coords, **ahead}, dims, name)


def attributes_of(name: str, given: str, gaps: Gaps) -> dict[str, Any]:
    """What `infill` gives a variable."""
    attrs = gaps.frames.ds[given].attrs
    if name == given:
        return dict(attrs)
    if name == f"{given}_observed":
        return {"long_name": f"whether {given} was observed"}
    units = {key: attrs[key] for key in ("units",) if key in attrs}
    return {"long_name": f"standard deviation of {given} over members"} | units
