"""Training on data that are never whole: what is learnt is what whole data would have taught."""

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import sciladm
from sciladm import evaluate as evaluation
from sciladm import infill as filling
from sciladm import recipe as recipes
from sciladm import train as training
from sciladm.baselines.filling import gaussian_crps
from sciladm.conventions import UserError
from sciladm.data.dataset import check_trainable, open_dataset
from sciladm.diffusion.stationary import Dense, Stationary
from sciladm.metrics.ensemble import fair_crps
from sciladm.tasks.complete import complete
from sciladm.tasks.fit import fit
from sciladm.tasks.run import COMPLETED
from sciladm.training.checkpoint import read_tensors
from tests.oracles import periodic_covariance
from tests.test_fills import door

SHAPE, DAYS, HIDDEN = (8, 16), 700, 0.6
TREE = {
    "schema": 1,
    "name": "gappy",
    "window": {"past": 0, "step": "24h"},
    "autoencoder": {"channels": 14, "blocks": 0, "steps": 0},
    "denoiser": {"widths": [8], "blocks": 1, "attention": False, "mean_steps": 0, "steps": 20,
                 "batch": 8},
    "evaluation": {"validation_inits": 1, "members": 8},
}  # fmt: skip


def exact():
    """The covariance (cells, cells) of the fields here."""
    return periodic_covariance(SHAPE, 2.0, 2.0)


def fields(days=DAYS, seed=0):
    """Independent draws (day, *space) about a mean of 20, a day apart, on a torus."""
    root = np.linalg.cholesky(exact() + 1e-9 * np.eye(128))
    drawn = np.random.default_rng(seed).standard_normal((days, 128)) @ root.T
    y, x = (np.arange(n) * 1.0 for n in SHAPE)
    around = {"modulo": 1}
    return xr.Dataset(
        {"t": (("time", "y", "x"), (20 + drawn).reshape(days, *SHAPE).astype("f4"))},
        {"time": np.datetime64("2001-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D"),
         "y": ("y", y, around | {"period": 8.0}), "x": ("x", x, around | {"period": 16.0})},
    )  # fmt: skip


def holes(ds, share=HIDDEN, seed=1):
    """Where clouds lie: clumps of some cells, and single ones."""
    noise = np.random.default_rng(seed).standard_normal(ds.t.shape)
    clumps = noise + 2 * sum(np.roll(noise, s, a) for a in (1, 2) for s in (-1, 1))
    return xr.DataArray(clumps < np.quantile(clumps, share), ds.t.coords, ds.t.dims)


def card(path, source, **variable):
    """A card beside ``path`` for one file."""
    head = dict.fromkeys(("title", "description", "licence", "citation"), "made up")
    dates = fields(1).time.values[0] + np.array([0, 499, 500, 599, 600, 699]) * np.timedelta64(
        1, "D"
    )
    dates = [str(d)[:10] for d in dates]
    splits = {name: [[dates[2 * n], dates[2 * n + 1]]]
              for n, name in enumerate(("train", "validation", "test"))}  # fmt: skip
    told = {"name": "local", "kind": "local", "path": str(source), "splits": splits}
    tree = head | {"step": "24h", "sources": [told], "variables": {"t": variable}}
    path.write_text(yaml.safe_dump(tree))
    return path


def prepared(folder, ds, name, changes=None, **variable):
    """Recipe and data of a card for ``ds``."""
    ds.to_netcdf(folder / f"{name}.nc")
    about = card(folder / f"{name}.yaml", folder / f"{name}.nc", **variable)
    tree = TREE | {"data": {"card": str(about), "variables": {"t": None}}}
    recipe = recipes.parse(
        yaml.safe_load(yaml.safe_dump(tree)), changes or {}, "the tests' recipe"
    )
    return recipe, open_dataset(recipe)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gappy")


def trained(folder, ds, name, missing):
    """A run of `TREE`."""
    recipe, opened = prepared(folder, ds, name, missing=missing)
    check_trainable(recipe, opened)
    fit(recipe, opened, folder / f"run-{name}")
    return sciladm.load(folder / f"run-{name}")


@pytest.fixture(scope="module")
def gappy(folder):
    """A run trained on days with gaps that move."""
    ds = fields()
    return trained(folder, ds.where(~holes(ds)), "gappy", "moving")


@pytest.fixture(scope="module")
def runs(gappy, folder):
    """Runs trained on the same days: whole, with gaps that move, with gaps called 20."""
    ds = fields()
    called = trained(folder, ds.where(~holes(ds), 20.0), "called 20", "none")
    return {"whole": trained(folder, ds, "whole", "none"), "gappy": gappy, "called 20": called}


def test_lags_tell_of_a_covariance_with_half_of_it_hidden():
    values = torch.from_numpy(fields(2000).t.values - 20)[:, None]
    gaps = torch.from_numpy(holes(fields(2000)).values)[:, None]
    off = lambda x: float(
        np.linalg.norm(Stationary.fit([x], ("periodic",) * 2).matrix().numpy() - exact())
        / np.linalg.norm(exact())
    )
    assert off(values.where(~gaps, torch.nan)) < 0.1 < 0.5 < off(values.where(~gaps, 0.0))


@pytest.mark.parametrize("ends", [("periodic", "periodic"), ("bounded", "bounded")])
def test_what_is_gained_without_a_matrix_is_what_is_gained_with_one(ends):
    values = torch.from_numpy(fields(200).t.values - 20)[:, None]
    law = Stationary.fit([values], ends)
    at, error = torch.arange(0, 128, 3), torch.full((43,), 0.1, dtype=torch.float64)
    misfit = values[0].flatten()[at].double()
    dense = Dense.of(law.matrix(), law.size.shape)
    assert torch.allclose(
        law.gained(at, misfit, error), dense.gained(at, misfit, error), atol=5e-3
    )
    drawn = [law.draw(np.random.default_rng(n)).flatten() for n in range(1000)]
    found = torch.stack(drawn).T.cov()
    assert float((found - law.matrix()).norm() / law.matrix().norm()) < 0.2


@pytest.mark.slow
def test_fills_are_nearly_exact_as_if_training_had_been_whole(runs):
    """60 % hidden in training and after: CRPS near the exact posterior's, spread that means what
    it says; with gaps taken for values neither is so."""
    truth = fields().isel(time=slice(600, 700, 4))
    where = holes(truth, seed=2)
    best, usual = posterior(truth.t.values, where.values)
    hidden = where.values
    scores = {}
    for name, model in runs.items():
        drawn = model.infill(truth.where(~where), 16, method="oi").t.values
        crps = fair_crps(drawn, truth.t.values)[hidden].mean()
        error = np.square(drawn.mean(0) - truth.t.values)[hidden].mean()
        own = 17 / 16 * drawn.var(0, ddof=1)[hidden].mean()
        scores[name] = crps / best, np.sqrt(own / error) / usual
    assert scores["whole"][0] < 1.06 and scores["gappy"][0] < 1.06 * scores["whole"][0]
    assert 0.95 < scores["gappy"][1] < 1.05
    assert scores["called 20"][0] > 1.15 and scores["called 20"][1] < 0.9


def posterior(truth, hidden):
    """CRPS of the exact posterior where it was hidden, and its spread–skill on these states."""
    covariance, scores, spread, error = exact(), [], 0.0, 0.0
    states = zip(truth.reshape(-1, 128) - 20.0, hidden.reshape(-1, 128), strict=True)
    for x, gap in states:
        gain = covariance[:, ~gap] @ np.linalg.inv(covariance[np.ix_(~gap, ~gap)])
        left = np.diag(covariance - gain @ covariance[~gap])[gap]
        mean = (gain @ x[~gap])[gap]
        scores.append(gaussian_crps(mean, np.sqrt(np.maximum(left, 0)), x[gap]))
        spread, error = spread + left.sum(), error + np.square(mean - x[gap]).sum()
    return np.concatenate(scores).mean(), np.sqrt(spread / error)


def test_completed_states_keep_what_was_seen_and_look_like_whole_ones(gappy, folder):
    held, _ = read_tensors(folder / "run-gappy" / COMPLETED)
    states, truth = held["states"].numpy()[:, 0], fields().t.values[:600]
    hidden = holes(fields()).values[:600]
    assert np.array_equal(states[~hidden], truth[~hidden]) and np.isfinite(states).all()
    assert abs(states[hidden].var() / truth[hidden].var() - 1) < 0.05
    steps = [np.diff(x, axis=2).var() for x in (states, truth)]
    assert abs(steps[0] / steps[1] - 1) < 0.1


def quick(folder, ds, name, changes=None, **variable):
    """States as `complete` makes them of the first days, of which 20 are validation."""
    splits = {
        split: [[str(ds.time.values[a])[:10], str(ds.time.values[b])[:10]]]
        for split, a, b in (("train", 0, 59), ("validation", 60, 79), ("test", 80, 89))
    }
    recipe, data = prepared(folder, ds, name, {"data.splits": splits, **(changes or {})},
                            missing="moving", **variable)  # fmt: skip
    path = folder / f"quick-{name}"
    path.mkdir(exist_ok=True)
    complete(recipe, data, path, lambda *_: None)
    return read_tensors(path / COMPLETED)[0]["states"].numpy()[:, 0]


@pytest.fixture(scope="module")
def days():
    """Ninety days with gaps, of which a corner is land."""
    ds = fields(90)
    land = xr.zeros_like(ds.t.isel(time=0), dtype=bool)
    land[:3, :5] = True
    return ds.where(~holes(ds) & ~land), land


def test_what_lies_under_the_mask_changes_no_bit(days, folder):
    ds, land = days
    masked = ds.assign(sea=(~land).astype("f4"))
    told = quick(folder, masked, "land", mask="sea")
    wild = masked.assign(t=masked.t.where(~land, 1e30))
    assert np.array_equal(told, quick(folder, wild, "wild", mask="sea"), equal_nan=True)
    assert np.array_equal(told, quick(folder, ds, "bare"), equal_nan=True)
    assert np.isnan(told[:, land.values]).all() and np.isfinite(told[:, ~land.values]).all()


def test_cells_never_observed_in_training_stay_without_value(days, folder):
    ds, _ = days
    late = ds.copy(deep=True)
    late.t[60:, 0, 0] = 21.0  # seen after training alone
    assert np.array_equal(quick(folder, late, "late"), quick(folder, ds, "bare"), equal_nan=True)


def test_windows_of_several_frames_are_filled_together(folder):
    """A field that hardly changes, seen on half of the days: three frames at once know it, one
    by itself does not."""
    ds = fields(90)
    root = np.linalg.cholesky(exact() + 1e-9 * np.eye(128))
    noise = np.random.default_rng(3).standard_normal((90, 128)) @ root.T
    slow = [noise[0]]
    for step in noise[1:]:
        slow.append(0.98 * slow[-1] + np.sqrt(1 - 0.98**2) * step)
    ds.t.values[:] = 20 + np.reshape(slow, ds.t.shape)
    random = np.random.default_rng(4)
    hidden = random.random(ds.t.shape) < 0.3
    hidden[random.random(90) < 0.5] = True
    gappy = ds.where(~hidden)
    off = {}
    for frames in (1, 3):
        states = quick(folder, gappy, f"frames{frames}", {"window.future": frames})
        off[frames] = np.square(states - ds.t.values[:80])[hidden[:80]].mean()
    assert off[3] < 0.5 * off[1]


def test_what_has_an_error_is_not_kept_as_it_is(days, folder):
    ds, _ = days
    seen = ds.t.notnull().values[:80]
    noisy = ds + 0.3 * np.random.default_rng(5).standard_normal(ds.t.shape)
    plain, told = quick(folder, noisy, "plain"), quick(folder, noisy, "noisy", error=0.3)
    given = noisy.t.values[:80].astype("f4")
    assert np.array_equal(plain[seen], given[seen])
    assert abs(np.std((told - given)[seen]) / 0.3 - 1) < 0.15


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_the_same_gaps_filled(gappy, folder):
    before = {p.name: p.read_bytes() for p in (folder / "run-gappy").glob("*.safetensors")}
    for name in (COMPLETED, "statistics.safetensors", "denoiser.safetensors"):
        (folder / "run-gappy" / name).unlink()
    recipe = recipes.load(folder / "run-gappy" / "recipe.yaml")
    fit(recipe, open_dataset(recipe), folder / "run-gappy")
    after = {p.name: p.read_bytes() for p in (folder / "run-gappy").glob("*.safetensors")}
    assert after == before and COMPLETED in after


def test_a_forecast_is_not_learnt_from_gaps_nor_a_climate_from_four_states(days, folder):
    for last, past, said in ((31, 1, "starts from whole fields"), (4, 0, "5 are needed")):
        splits = {"train": [["2001-01-01", f"2001-01-{last:02d}"]],
                  "validation": [["2001-02-01", "2001-02-04"]]}  # fmt: skip
        changes = {"data.splits": splits, "window.past": past}
        recipe, data = prepared(folder, days[0], f"refused{past}", changes, missing="moving")
        with pytest.raises(UserError, match=said):
            check_trainable(recipe, data)


def test_a_mask_that_moves_is_refused(days, folder):
    moving = days[0].assign(sea=days[0].t.notnull().astype("f4"))
    with pytest.raises(UserError, match=r"the mask of t, depends on time"):
        prepared(folder, moving, "moving-mask", missing="moving", mask="sea")


def test_the_doors_train_fill_and_score_what_is_never_whole(days, folder):
    ds, land = days
    own = folder / "own.nc"
    ds.to_netcdf(own)
    tree = TREE | {"data": {"path": str(own), "missing": {"t": "moving"}}}
    (folder / "own-recipe.yaml").write_text(yaml.safe_dump(tree))
    run, out = folder / "run-own", folder / "own-filled.zarr"
    assert door(training, folder / "own-recipe.yaml", "--run-dir", run) == 0
    ds.isel(time=slice(80, 83)).to_netcdf(folder / "some.nc")
    told = ("--members", 4, "--method", "oi", "--withhold", 0.3, "--out", out)
    assert door(filling, run, folder / "some.nc", *told) == 0
    filled = xr.open_zarr(out).t.isel(member=0)
    assert (filled.isnull() == land).all()
    asked = (out, "--truth", folder / "some.nc", "--run", run, "--out", folder / "report")
    assert door(evaluation, *asked) == 0
    scores = (folder / "report" / "scores.csv").read_text()
    assert all(name in scores for name in ("model", "optimal_interpolation", "eof", "linear"))
