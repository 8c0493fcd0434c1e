"""What departures are, and the last word on an ensemble's spread."""

import shutil
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch

from sciladm.model import Model
from sciladm.tasks import fit_denoiser
from sciladm.tasks.fit_denoiser import _departures, _kept, _spread, _whitened, _wider, missing
from sciladm.tasks.windows import Windows


@pytest.mark.parametrize("narrow", [0.25, 4.0])
def test_missing_spread_is_found_in_draws(tiny_run, tiny, tiny_cache, narrow):
    model = Model.load(tiny_run)
    held = Windows.of(model, tiny.data.splits, "validation")
    model.denoiser.departure.std.mul_(narrow)
    found = missing(*_spread(model, held)[0])
    model.denoiser.departure.std.mul_(found)
    again = missing(*_spread(model, held)[0])
    assert abs(found * narrow - 1) < 0.5 and abs(again - 1) < 0.25
    assert torch.isfinite(model.denoiser.departure.std).all()


def test_white_draws_are_wider_by_what_the_sampler_knows(tiny_run, tiny, tiny_cache, monkeypatch):
    """A sampler that knows half of what comes and draws the other half as far: beside its error it
    is as wide as white draws are; and one that draws half as far and knows nothing."""
    model = Model.load(tiny_run)
    held = Windows.of(model, tiny.data.splits, "validation")
    assert 0.9 < _wider(*_spread(model, held)) < 1.3
    given = model.denoiser.context
    came = [future for _, _, future in held.spread(256, 32)]
    told = iter(range(10**6))

    def known(past, forcings, statics):  # the sampler is called twice in each of these
        context = given(past, forcings, statics)
        known.white = model.denoiser.white(came[next(told)], context)
        return context

    class Half:
        def __init__(self, knows):
            self.knows = knows

        def sample(self, denoise, noise):
            return 0.5 * (noise + self.knows * known.white)

    monkeypatch.setattr(model.denoiser, "context", known)
    found = {}
    for knows in (1, 0):
        told = iter(range(10**6))
        model.__dict__["sampler"] = Half(knows)
        drawn, white = _spread(model, held)
        ratios = [float((x[0].sum() / x[1].sum()).sqrt()) for x in (drawn, white)]
        found[knows] = _wider(drawn, white), ratios[0] / ratios[1]
    for got, want in found.values():
        assert got == pytest.approx(want, rel=1e-3)
    assert found[1][0] == pytest.approx(1, abs=0.05) and found[0][0] == pytest.approx(2, abs=0.05)


def test_departures_are_the_same_whether_kept_or_not(tiny_run, tiny, tiny_cache, monkeypatch):
    model = Model.load(tiny_run)
    windows = Windows.of(model, tiny.data.splits, "train")
    departures, numbers = (
        partial(_departures, model, windows, 300),
        300 * model.denoiser.weight.numel(),
    )
    kept = _kept(departures, numbers)
    monkeypatch.setattr(fit_denoiser, "HELD", 0)
    again = _kept(departures, numbers)
    assert kept() is kept()
    for _ in range(2):
        both = zip(kept(), again(), strict=True)
        assert all(torch.equal(a, b) for a, b in both)


def test_departures_are_shares_of_the_scale_and_whiten(tiny_run, tiny, tiny_cache):
    model = Model.load(tiny_run)
    windows, denoiser = Windows.of(model, tiny.data.splits, "train"), model.denoiser
    for weights in denoiser.base.network.leave[-1].parameters():
        weights.mul_(200)  # so few steps of training have hardly moved them
    past, forcings, future = next(iter(windows.spread(256)))
    context = denoiser.context(past, forcings, model.latent_statics)
    assert (context.scale.std(0) / context.scale.mean(0)).mean() > 0.05
    (d,) = _departures(model, windows, 256)
    joined = denoiser.base.joined(context.scale * d)
    torch.testing.assert_close(context.mean + joined, future, atol=1e-4, rtol=1e-4)
    denoiser.departure.measure(lambda: [d])
    assert abs(float(denoiser.white(future, context).square().mean()) - 1) < 0.2


def test_parts_of_a_run_are_white_and_few_variables_each(tiny_run, tiny, tiny_cache):
    model = Model.load(tiny_run)
    windows, base = Windows.of(model, tiny.data.splits, "train"), model.denoiser.base
    past, forcings, future = windows.at(np.arange(len(windows)))
    parts = base.apart(future - base.linear(past, forcings))
    share = model.denoiser.cells / model.denoiser.cells.sum()
    covariance = torch.einsum("bpij,bqij,ij->pq", parts, parts, share) / len(parts)
    torch.testing.assert_close(covariance, torch.eye(len(covariance)), atol=0.2, rtol=0)
    forms = model.decoded()
    of_each = torch.einsum("cp,vcd,dp->vp", base.parts.back, forms, base.parts.back)
    alone = forms.diagonal(dim1=1, dim2=2)
    few = lambda carried: float((carried / carried.sum(0)).square().sum(0).mean())
    assert few(of_each) > few(alone) + 0.05
    counts = base.parts.counts
    assert float(counts.mean()) == pytest.approx(1) and (counts > 0).all()


def test_what_drawn_frames_decode_to(tiny_run):
    """Two frames drawn at once decode apart from each other."""
    model = Model.load(tiny_run)
    one = model.decoded()
    window = model.recipe.window.model_copy(update={"future": 2})
    model.recipe = model.recipe.model_copy(update={"window": window})
    (channels, k, _), two = one.shape, model.decoded()
    assert two.shape == (2 * channels, 2 * k, 2 * k)
    torch.testing.assert_close(two[:channels, :k, :k], one)
    torch.testing.assert_close(two[channels:, k:, k:], one)
    assert not two[:channels, k:].any() and not two[channels:, :k].any()


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


def test_without_a_network_the_season_says_how_far(tiny_run, tiny, tiny_cache):
    """Of training departures each part has, on average, the size that is said of it."""
    model = Model.load(tiny_run)
    mean = model.mean_forecast(0, says_scale=True)
    fit_denoiser.train_mean(model, mean, tiny.data, 0, "season", lambda *_: None)
    windows = Windows.of(model, tiny.data.splits, "train")
    found, said = [], []
    for past, forcings, future in windows.spread(512, 128):
        centre, scale = mean(past, forcings, None)
        found.append((mean.apart(future - centre) / scale).square())
        said.append(scale)
    assert abs(torch.cat(found).mean() - 1) < 0.05
    scales = torch.cat(said)
    assert scales.std(0).mean() > 0.02 * scales.mean()
    alone = model.mean_forecast(0, says_scale=False)
    assert alone.season is None and (alone(past, forcings, None)[1] == 1).all()


def test_a_ridge_takes_from_the_linear_forecast_what_it_is_to_bear(tiny_run, tiny, tiny_cache):
    """Of windows it was fitted on it misses more, and less of it is left where they are noisy."""
    model, missed, noisy = Model.load(tiny_run), {}, {}
    windows = Windows.of(model, tiny.data.splits, "train")
    for ridge in (1e-6, 0.1):
        own = model.recipe.denoiser.model_copy(update={"ridge": ridge})
        model.recipe = model.recipe.model_copy(update={"denoiser": own})
        mean = model.mean_forecast(0, says_scale=False)
        fit_denoiser.train_mean(model, mean, tiny.data, 0, "ridge", lambda *_: None)
        torch.manual_seed(0)
        for found, size in ((missed, 0.0), (noisy, 0.1**0.5)):
            found[ridge] = sum(
                float(
                    (future - mean(past + size * torch.randn_like(past), f, None)[0])
                    .square()
                    .sum()
                )
                for past, f, future in windows.spread(512, 128)
            )
    assert missed[1e-6] < missed[0.1] and noisy[0.1] < 0.98 * noisy[1e-6]


def test_each_departure_is_white_by_the_law_of_its_stretch(tiny_run):
    """A batch may have none of some stretch."""
    departure = Model.load(tiny_run).denoiser.departure
    wide = deepcopy(departure)
    wide.std.mul_(2)
    d = torch.randn(3, *departure.std.T.shape).view(3, -1, *Model.load(tiny_run).grid.shape)
    found = _whitened([departure, departure, wide], d, np.array([2, 0, 2]))
    torch.testing.assert_close(found[1:2], departure.whiten(d[1:2]))
    torch.testing.assert_close(found[::2], wide.whiten(d[::2]))
    assert not torch.allclose(found[::2], departure.whiten(d[::2]))


def test_runs_without_a_past_keep_the_sizes_of_training(tiny_run, stills):
    """Taken from validation, number by number, patterns no longer fit each other."""
    without = stills[0].model
    assert without.recipe.window.past == 0 and "white_width" not in without.facts
    assert Model.load(tiny_run).facts["white_width"] > 0
