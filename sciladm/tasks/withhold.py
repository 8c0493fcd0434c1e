"""Hide some of what was observed, to see whether it comes back."""

from zlib import crc32

import numpy as np
import xarray as xr

from sciladm.conventions import UserError
from sciladm.data.labels import get
from sciladm.data.store import read
from sciladm.model import Model

Withhold = float | xr.Dataset | xr.DataArray


def withheld(model: Model, ds: xr.Dataset, what: Withhold, seed: int) -> xr.Dataset:
    """``ds`` with NaN where ``what`` says: a share of all cells, drawn one by one; or masks, true
    where hidden, one for all variables or each by the variable's name."""
    if isinstance(what, int | float) and not 0 < what < 1:
        raise UserError(f"withhold {what:g}: a share of the cells between 0 and 1, or a mask")
    new = {}
    for name in model.fields.groups:
        array = get(ds, name)
        if isinstance(what, int | float):
            generator = np.random.default_rng([seed, crc32(name.encode())])
            hidden = xr.DataArray(generator.random(array.shape) < what, dims=array.dims)
        else:
            hidden = _mask(what, array)
        new[name] = array.where(~hidden)
        new[name].encoding = array.encoding
    return ds.assign(new)


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
