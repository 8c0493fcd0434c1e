"""The last word on an ensemble's spread."""

import pytest
import torch

from sciladm.model import Model
from sciladm.tasks.fit_denoiser import _missing_spread
from sciladm.tasks.windows import Windows


@pytest.mark.parametrize("narrow", [0.25, 4.0])
def test_missing_spread_is_found_in_draws(tiny_run, tiny, tiny_cache, narrow):
    model = Model.load(tiny_run)
    held = Windows.of(model, tiny.data.splits, "validation")
    model.denoiser.departure.std.mul_(narrow)
    found = _missing_spread(model, held)
    model.denoiser.departure.std.mul_(found)
    again = _missing_spread(model, held)
    assert abs(found * narrow - 1) < 0.5 and abs(again - 1) < 0.25
    assert torch.isfinite(model.denoiser.departure.std).all()
