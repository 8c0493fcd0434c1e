"""What departures are, and the last word on an ensemble's spread."""

import shutil

import pytest
import torch

from sciladm.model import Model
from sciladm.tasks import fit_denoiser
from sciladm.tasks.fit_denoiser import _departures, _missing_spread
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


def test_departures_are_shares_of_the_scale_and_whiten(tiny_run, tiny, tiny_cache):
    model = Model.load(tiny_run)
    windows, denoiser = Windows.of(model, tiny.data.splits, "train"), model.denoiser
    for weights in denoiser.base.network.leave[-1].parameters():
        weights.mul_(200)  # so few steps of training have hardly moved them
    past, forcings, future = next(iter(windows.spread(256)))
    context = denoiser.context(past, forcings, model.latent_statics)
    assert (context.scale.std(0) / context.scale.mean(0)).mean() > 0.05
    (d,) = _departures(model, windows, 256)
    torch.testing.assert_close(context.mean + context.scale * d, future)
    denoiser.departure.measure(lambda: [d])
    assert abs(float(denoiser.white(future, context).square().mean()) - 1) < 0.2


def test_dropout_hides_contexts_in_training(tiny_run, tiny, tiny_cache, tmp_path, monkeypatch):
    """With nearly all of them hidden, what the first layer makes of features is not trained."""
    for constant in ("WINDOWS", "DRAWN"):
        monkeypatch.setattr(fit_denoiser, constant, 32)
    moved = {}
    for dropout in (0.0, 0.999):
        run = shutil.copytree(tiny_run, tmp_path / str(dropout))
        model = Model.load(run)
        own = model.recipe.denoiser.model_copy(update={"dropout": dropout, "steps": 3})
        model.recipe = model.recipe.model_copy(update={"denoiser": own})
        model.denoiser.backbone.requires_grad_(True)
        weight = model.denoiser.backbone.enter.weight
        drawn, before = len(model.denoiser.weight), weight.detach().clone()
        fit_denoiser.fit_denoiser(model, tiny.data, lambda *_: None)
        change = (weight.detach() - before)[:, drawn:]
        moved[dropout] = float(change.square().mean())
    assert moved[0.999] < 0.1 * moved[0.0]
