"""Standard errors of what was observed, as people tell them: by name, for each cell."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from sciladm.conventions import UserError, rename_in
from sciladm.tasks.gaps import Array, Gaps

Std = float | xr.DataArray
Error = Std | Mapping[Any, Std]
"""Of all variables, if there is one, or by name; a DataArray has the dimensions of its variable,
or some of them."""


def errors(gaps: Gaps, told: Error) -> Array:
    """Standard errors (time, channel, *space), in the units of the channels, 0 where there is no
    observation."""
    fields = gaps.model.fields
    out = np.zeros_like(gaps.values)
    for name, std in _named(list(fields.groups), told).items():
        numbers = fields.groups[name]
        each = _each(gaps, name, std) if isinstance(std, xr.DataArray) else [std] * len(numbers)
        for n, own in zip(numbers, each, strict=True):
            channel, value = fields.channels[n], gaps.values[:, n]
            at = gaps.observed[:, n]
            here = np.broadcast_to(np.asarray(own, np.float32), value.shape)
            if (wrong := at & ~((here >= 0) & (here < np.inf))).any():
                raise UserError(
                    f"obs_error of {name} is {here[wrong][0]:g} where there is an observation; it "
                    "is a standard deviation"
                )
            here = np.where(at, here, np.float32(0))
            if channel.transform != "none":  # where it bends, an error depends on the value
                here = channel.forward(channel.inverse(value) + here) - value
            out[:, n] = np.where(at, here, 0)
    return out


def _named(names: list[str], told: Error) -> Mapping[Any, Std]:
    """By name; UserError for one that there is not."""
    if not isinstance(told, Mapping):
        if len(names) > 1 and (isinstance(told, xr.DataArray) or told):
            raise UserError(
                f"obs_error {told if isinstance(told, float | int) else 'of one array'}: of which "
                f"variable? Say {{name: error, …}}; there are {', '.join(names)}"
            )
        return dict.fromkeys(names, told)
    if unknown := [name for name in told if name not in names]:
        raise UserError(f"obs_error: no variable {unknown[0]}; there are {', '.join(names)}")
    return told


def _each(gaps: Gaps, name: str, std: xr.DataArray) -> list[Array]:
    """Of each level of a variable (time, *space), found by label."""
    given, fields = gaps.frames.ds[name], gaps.model.fields
    error = rename_in(std.rename(name).to_dataset())[name]
    if foreign := [dim for dim in error.dims if dim not in given.dims]:
        raise UserError(
            f"obs_error of {name} has a dimension {foreign[0]} that the variable has not; it has "
            f"{', '.join(map(str, given.dims))}"
        )
    for dim in (dim for dim in given.dims if dim not in error.dims):
        error = error.expand_dims({dim: given[dim] if dim in given.coords else given.sizes[dim]})
    if "time" in given.dims:
        error = error.reindex(time=given["time"])
    found = fields.layers(error.to_dataset(name=name), error.rename(name), name)
    return [found[:, n] for n in range(found.shape[1])]
