"""Hide some of what was observed, to see whether it comes back."""

from numbers import Real
from zlib import crc32

import numpy as np
import xarray as xr

from sciladm.conventions import UserError
from sciladm.data.labels import get
from sciladm.data.store import read
from sciladm.data.times import ticks
from sciladm.model import Model
from sciladm.tasks.gaps import Gaps

Withhold = float | xr.Dataset | xr.DataArray


def withheld(model: Model, ds: xr.Dataset, what: Withhold, seed: int) -> xr.Dataset:
    """``ds`` with NaN where ``what`` says: a share of all cells, drawn one by one, but of the
    frames that a run with a past begins from; or masks, true where hidden, one for all variables
    or each by the variable's name."""
    if isinstance(what, xr.Dataset | xr.DataArray):
        new = {name: _without(get(ds, name), _mask(what, get(ds, name)))
               for name in model.fields.groups}  # fmt: skip
        return ds.assign(new)
    if not isinstance(what, Real) or not 0 < what < 1:
        raise UserError(
            f"withhold {what!r}: a share of the cells between 0 and 1, or masks in a Dataset or a "
            "DataArray"
        )
    gaps = Gaps.of(model, ds)
    known = {int(n) for numbers in gaps.series() for n in numbers[: model.recipe.window.past]}
    new = {}
    for name in model.fields.groups:
        array = gaps.frames.ds[name]
        layer = array.isel(time=0, drop=True)
        hidden = np.empty((len(gaps.frames.times), *layer.shape), bool)
        for number, tick in enumerate(ticks(gaps.frames.times).tolist()):
            generator = np.random.default_rng([seed, crc32(name.encode()), tick % 2**64])
            hidden[number] = generator.random(layer.shape, np.float32) < what
            hidden[number] &= number not in known
        mask = xr.DataArray(hidden, dims=("time", *layer.dims))
        new[name] = _without(array, mask.transpose(*array.dims))
    return gaps.returned(new)


def _without(array: xr.DataArray, hidden: xr.DataArray) -> xr.DataArray:
    out = array.where(~hidden)
    out.encoding = array.encoding
    return out


def _mask(what: xr.Dataset | xr.DataArray, array: xr.DataArray) -> xr.DataArray:
    """Where ``array`` is to be hidden, of its dimensions or fewer."""
    name = str(array.name)
    if isinstance(what, xr.Dataset):
        if name not in what and len(what.data_vars) != 1:
            there = ", ".join(map(str, what.data_vars)) or "nothing"
            raise UserError(f"the mask of what to withhold has no {name}; there is {there}")
        what = what[name] if name in what else next(iter(what.data_vars.values()))
    if odd := [str(dim) for dim in what.dims if dim not in array.dims]:
        raise UserError(f"the mask of what to withhold has {', '.join(odd)}, and {name} has not")
    values = read(what)
    if values.dtype.kind not in "biuf" or not np.isin(values[np.isfinite(values)], [0, 1]).all():
        raise UserError("the mask of what to withhold must be true or false, 1 or 0, everywhere")
    mask = what.copy(data=np.nan_to_num(values) == 1)
    try:
        return xr.align(array, mask, join="exact")[1]
    except ValueError:
        raise UserError(
            f"the mask of what to withhold has other labels than {name}; it needs its very "
            f"{', '.join(map(str, mask.dims))}"
        ) from None
