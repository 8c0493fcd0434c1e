"""What instruments read of a state, by a function of its fields."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciladm.calendar import find
from sciladm.conventions import UserError
from sciladm.data.channels import Channel
from sciladm.data.fields import Fields
from sciladm.data.times import Times
from sciladm.observe.rows import Floats, Ints, Mask, Readings, frames_of

MOST = 1024
"""Readings of one frame at most: their covariance is made anew at every step of every member."""
State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Derived:
    """What an instrument reads of a state: wind speed, a flux, the optical depth along a path.

    ``function``: a state, as variable → torch tensor ([level,] *space), float64, in physical
    units, levels and cells in the run's order and NaN where there is never data, → a tensor of any
    shape, by torch's operations, so that it can be differentiated, twice. ``values`` over time and
    the dimensions of a reading, NaN where there is none; ``error``: standard, one number or over
    some of these dimensions.
    """

    function: Callable[[State], Tensor]
    values: xr.DataArray
    error: Any

    @property
    def times(self) -> Times:
        """Times at which something was observed."""
        return np.sort(np.asarray(self._values["time"].values))

    def at(self, times: Times, step: np.timedelta64) -> "Derived":
        """See `Operator`."""
        inside = np.flatnonzero(find(times, np.asarray(self._values["time"].values), step) >= 0)
        error = self.error
        if isinstance(error, xr.DataArray) and "time" in error.dims:
            error = error.isel(time=inside)
        return replace(self, values=self._values.isel(time=inside), error=error)

    def rows(
        self, fields: Fields, valid: Mask, times: Times, step: np.timedelta64
    ) -> list[Readings]:
        """See `Operator`."""
        told = self._values
        std = self._std(told)
        found = frames_of(told["time"].values, times, step, "derived")
        out = []
        for number, time in enumerate(times):
            values, error = (x[found == number].reshape(-1) for x in (told.values, std))
            at = np.flatnonzero(np.isfinite(values))
            if len(at) > MOST:
                raise UserError(
                    f"derived: {len(at)} readings at {time}; {MOST} of one time at most: thin "
                    "them out, or take means of them"
                )
            read = _Read(self.function, fields, valid, told.shape[1:], at)
            out.append(Readings(read, values[at].astype(np.float64), error[at]))
        return out

    @property
    def _values(self) -> xr.DataArray:
        """Over time first; UserError where there is none."""
        if "time" not in self.values.dims:
            raise UserError(
                "derived: values over `time` and the dimensions of a reading; got "
                f"{', '.join(map(str, self.values.dims)) or 'one number'}"
            )
        return self.values.transpose("time", ...)

    def _std(self, told: xr.DataArray) -> Floats:
        """Standard errors, shaped as what is told."""
        error = self.error
        try:
            if isinstance(error, xr.DataArray):
                error = xr.align(told, error, join="left")[1].broadcast_like(told)
                error = error.transpose(*told.dims).values
            std = np.broadcast_to(np.asarray(error, np.float64), told.shape)
        except ValueError as wrong:
            raise UserError(f"derived: error and values do not fit together: {wrong}") from None
        bad = std[np.isfinite(told.values) & ~((std > 0) & (std < np.inf))]
        if bad.size:
            raise UserError(f"derived: an error of {bad[0]:g}; it is a standard one, above 0")
        return std


@dataclass(frozen=True, eq=False)
class _Read:
    """``function`` of a state (channel, *space): of its result, of the ``shape`` of a reading, the
    numbers ``at``."""

    function: Callable[[State], Tensor]
    fields: Fields
    valid: Mask
    shape: tuple[int, ...]
    at: Ints

    def __call__(self, state: Tensor) -> Tensor:
        named = self._named(state)
        try:
            got = self.function(named)
        except Exception as error:
            given = ", ".join(f"{name} {tuple(x.shape)}" for name, x in named.items())
            raise UserError(
                f"derived: the function fails on a state: {type(error).__name__}: {error}. It is "
                f"given {given}"
            ) from error
        if not isinstance(got, Tensor):
            raise UserError(
                f"derived: the function gives {type(got).__name__}, not a torch tensor; without "
                "torch's operations it has no derivative"
            )
        if got.shape != self.shape:
            raise UserError(
                f"derived: the function gives {_told(got.shape)}, and each time has values of "
                f"{_told(self.shape)}"
            )
        read = got.double().reshape(-1)[torch.from_numpy(self.at).to(got.device)]
        if (odd := ~read.isfinite()).any():
            raise UserError(
                f"derived: the function gives {read[odd][0]:g} for {int(odd.sum())} of "
                f"{len(read)} values, of a state that may be; cells that never hold data are NaN, "
                "and logarithms and roots want torch.clamp"
            )
        return read

    def _named(self, state: Tensor) -> dict[str, Tensor]:
        state = state.where(torch.from_numpy(self.valid).to(state.device), float("nan"))
        out = {}
        for name, numbers in self.fields.groups.items():
            parts = [_inverse(self.fields.channels[n], state[n]) for n in numbers]
            leveled = self.fields.channels[numbers[0]].level is not None
            out[name] = torch.stack(parts) if leveled else parts[0]
        return out


def _inverse(channel: Channel, values: Tensor) -> Tensor:
    """`Channel.inverse` of a tensor."""
    if channel.transform == "none":
        return values
    return values.expm1() * float(channel.transform.removeprefix("log1p:"))


def _told(shape: Sequence[int]) -> str:
    return f"shape {tuple(shape)}" if len(shape) else "a single number"


def refuse_rigid(read: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    """UserError where what is read of anomalies (channel, *space) has no derivative near 0."""
    with torch.inference_mode(False), torch.enable_grad():
        near = 0.1 * torch.arange(float(np.prod(shape)), dtype=torch.float64).cos().view(shape)
        for at in (torch.zeros_like(near), near):
            slope = _slope(read, at.requires_grad_())
            if not slope.isfinite().all():
                raise UserError(
                    "derived: the function's derivative is not finite at the climatology, as that "
                    "of a root is at 0; add something small under it"
                )
    if not slope.any():
        raise UserError("derived: the function's derivative is 0 everywhere; rounding has none")


def _slope(read: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The derivative of the sum of what is read."""
    there = read(at)
    if not there.requires_grad:
        raise UserError(
            "derived: what the function gives cannot be differentiated by the state; use torch's "
            "operations, without detach, numpy or comparisons"
        )
    dual = torch.ones_like(there, requires_grad=True)
    try:
        (pulled,) = torch.autograd.grad(there, at, dual, create_graph=True)
        if pulled.requires_grad:
            torch.autograd.grad(pulled, dual, torch.ones_like(pulled), allow_unused=True)
    except RuntimeError as error:
        raise UserError(f"derived: the function cannot be differentiated: {error}") from error
    return pulled.detach()
