"""Fields larger than a run's grid, as users hand them over: a run on 16 × 16 cells cut out of a
stationary Gaussian field, whose exact answers on any larger grid are known."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciladm
from sciladm import infill as program
from sciladm import recipe as recipes
from sciladm.conventions import UserError
from sciladm.grid import Axis, Grid
from sciladm.recipe import Autoencoder
from sciladm.tasks import tiled
from sciladm.tasks.fit import fit
from sciladm.tasks.wide import Wide, widened
from tests.conftest import open_in

TORUS, OWN, LARGE = 96, 16, (26, 22)
K = np.meshgrid(*[np.fft.fftfreq(TORUS, 1 / TORUS)] * 2, indexing="ij")
POWER = (64.0 + K[0] ** 2 + K[1] ** 2) ** -2.5
POWER = POWER / POWER.mean()
RECIPE = Path(__file__).parents[1] / "recipes" / "own-data.yaml"
QUICK = {
    "window.past": 0, "window.step": "24h", "autoencoder.channels": 8, "denoiser.local": 0,
    "denoiser.widths": [8], "denoiser.steps": 20, "denoiser.batch": 8, "micro_batch": 4,
    "evaluation.validation_inits": 1, "name": "plane",
}  # fmt: skip


def dataset(values, first="2001-01-01"):
    """Heights (time, y, x), 3 + 2 · values, on a plane that ends; cells 10 apart."""
    time = np.datetime64(first, "ns") + np.arange(len(values)) * np.timedelta64(1, "D")
    space = {n: 10.0 * np.arange(k) for n, k in zip("yx", values.shape[1:], strict=True)}
    told = (("time", "y", "x"), (3 + 2 * values).astype(np.float32), {"units": "m"})
    return xr.Dataset({"height": told}, {"time": time} | space)


def drawn(count, shape, seed):
    """Fields cut out of draws on a torus, far apart."""
    white = np.random.default_rng(seed).standard_normal((-(-count // 4), TORUS, TORUS))
    whole = np.fft.ifft2(np.fft.fft2(white) * POWER**0.5).real
    corners = [(0, 0), (0, 48), (48, 0), (48, 48)]
    cut = [whole[:, a : a + shape[0], b : b + shape[1]] for a, b in corners]
    return np.concatenate(cut)[:count]


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """The run."""
    folder = tmp_path_factory.mktemp("plane")
    dataset(drawn(800, (OWN, OWN), 0)).to_netcdf(folder / "own.nc")
    recipe = recipes.load(RECIPE, QUICK | {"data.path": [str(folder / "own.nc")]})
    fit(recipe, open_in(folder / "cache", recipe), folder / "run")
    return sciladm.load(folder / "run")


@pytest.fixture(scope="module")
def gappy():
    """Two days of a larger field, of which a block across tiles' borders is hidden."""
    ds = dataset(drawn(2, LARGE, 9), "2031-01-01")
    hidden = xr.zeros_like(ds.height.isel(time=0), dtype=bool)
    hidden[8:20, 6:18] = True
    return ds.assign(height=ds.height.where(~hidden))


def test_observed_cells_come_back_bit_for_bit_and_the_others_are_filled(plane, gappy):
    filled = plane.infill(gappy.isel(time=[0]), 2, tiles="auto", evaluations=12)
    gappy = gappy.isel(time=[0])
    assert filled.height.dims == ("member", "time", "y", "x")
    assert filled.height.notnull().all() and filled.height.attrs == {"units": "m"}
    seen = gappy.height.notnull()
    assert filled.height.where(seen).identical(gappy.height.expand_dims(member=[0, 1]).where(seen))
    assert (filled.height_observed == seen).all()
    assert filled.attrs["infill_tiles"] == "auto" and filled.attrs["infill_misfit_left"] < 0.2
    hidden = filled.height.where(~seen)
    assert 0.5 < float(hidden.std() / gappy.height.std()) < 1.5
    assert float(abs(hidden.isel(member=0) - hidden.isel(member=1)).max()) > 0.1


def test_members_do_not_depend_on_how_they_are_asked_for(plane, gappy):
    """Number of members, workers, other times, order of axes, lazy or not."""
    ask = lambda ds, members=5, workers=1: (
        plane.infill(
            ds, members, obs_error=0.1, tiles="auto", evaluations=12, workers=workers
        ).height
    )
    one = gappy.isel(time=[1])
    whole = ask(one, 5)
    assert ask(gappy, 2, workers=3).isel(time=[1]).equals(whole.isel(member=[0, 1]))
    turned = one.isel(y=slice(None, None, -1)).transpose("x", "y", "time")
    found = ask(turned, 1).transpose(*whole.dims).sortby("y")
    assert found.equals(whole.isel(member=[0]))
    lazy = ask(one.chunk(time=1, y=7, x=11), 2)
    assert lazy.chunks is not None
    assert lazy.compute().equals(whole.isel(member=[0, 1]))


def test_equations_without_room_have_nearly_the_same_answer(plane, gappy, monkeypatch):
    some = xr.DataArray(np.random.default_rng(2).random(LARGE) < 0.1, dims=("y", "x"))
    one = gappy.isel(time=[0]).where(some)
    ask = lambda: plane.infill(one, 1, obs_error=0.2, tiles="auto", evaluations=12).height
    usual = ask()
    monkeypatch.setattr(tiled, "ROOM", -1)
    assert 0 < float(abs(ask() - usual).max()) < 0.5 * float(usual.std())


def test_draws_of_nothing_have_the_climates_variance_and_no_seams(plane):
    """Steps across tiles' borders beside those across other patches' borders: what an autoencoder
    loses differs from patch to patch."""
    nothing = dataset(np.full((1, *LARGE), np.nan), "2031-01-01")
    ask = lambda ds: plane.infill(ds, 48, method="oi", tiles="auto", evaluations=12).height
    members, own = ask(nothing), ask(nothing.isel(y=slice(OWN), x=slice(OWN)))
    assert abs(float(members.var() / own.var()) - 1) < 0.08
    model = widened(plane.model, nothing, "auto", 1)
    for axis, dim in enumerate("yx"):
        other = "x" if dim == "y" else "y"
        steps = (members.diff(dim) ** 2).mean(["member", "time", other]).values ** 0.5
        borders = {4 * tile.kept[axis].start for tile in model.tiles} - {0}
        usual = [n for n in range(4, LARGE[axis], 4) if n not in borders]
        ratio = steps[[n - 1 for n in borders]].mean() / steps[[n - 1 for n in usual]].mean()
        assert borders and ratio < 1.05


@pytest.mark.slow
def test_a_larger_field_is_filled_as_well_as_one_of_the_runs_size(plane):
    """Mean and spread of members over those of kriging: a small run on few fields is not exact on
    its own grid either, and not worse beyond it."""
    random, error = np.random.default_rng(1), 0.2

    def quality(shape):
        ds = dataset(drawn(1, shape, 5), "2031-01-01")
        seen = xr.DataArray(random.random(shape) < 0.25, dims=("y", "x"))
        asked = ds.assign(height=ds.height.where(seen))
        filled = plane.infill(asked, 24, error, "oi", evaluations=12, tiles="auto").height
        table, at = 4 * np.fft.ifft2(POWER).real, seen.values.ravel()
        y, x = np.indices(shape).reshape(2, -1)
        whole = table[y[:, None] - y, x[:, None] - x]
        gain = np.linalg.solve(whole[at][:, at] + error**2 * np.eye(at.sum()), whole[at]).T
        mean = 3 + gain @ (ds.height.values[0].ravel()[at] - 3)
        variance = (whole - gain @ whole[at]).diagonal()[~at]
        members = filled.values[:, 0].reshape(24, -1)[:, ~at]
        off = (members.mean(0) - mean[~at]) ** 2
        assert variance.mean() < 0.5 * table[0, 0]  # it was no prior
        return np.mean(off) / variance.mean(), members.var(0).mean() / variance.mean()

    (off, spread), (off_larger, spread_larger) = quality((OWN, OWN)), quality(LARGE)
    assert off_larger < 1.3 * off and abs(spread_larger / spread - 1) < 0.15


def test_a_field_of_the_runs_own_size_needs_no_tiles(plane, gappy):
    own = gappy.isel(y=slice(OWN), x=slice(OWN))
    ask = lambda tiles: plane.infill(own, 1, tiles=tiles, evaluations=12).height
    assert ask("auto").identical(ask(None))


def test_the_door_writes_what_python_answers(plane, gappy, tmp_path):
    gappy = gappy.isel(time=[0])
    gappy.to_netcdf(tmp_path / "gappy.nc")
    options = ["--tiles", "4", "--members", "1", "--evaluations", "12", "--quiet", "--out"]
    words = [str(plane.model.path), str(tmp_path / "gappy.nc"), *options]
    with pytest.raises(SystemExit) as ended:
        program.main([*words, str(tmp_path / "filled.zarr")])
    assert ended.value.code == 0
    written = xr.open_zarr(tmp_path / "filled.zarr")
    assert written.height.equals(plane.infill(gappy, 1, tiles=4, evaluations=12).height)
    assert written.attrs["infill_tiles"] == "4"
    with pytest.raises(SystemExit) as ended:
        program.main([*words[:2], "--tiles", "many", "--out", str(tmp_path / "other.zarr")])
    assert ended.value.code == 2


def test_what_cannot_be_tiled_is_refused(plane, gappy):
    model = plane.model

    def refused(change, ds, says, tiles="auto"):
        with pytest.raises(UserError, match=says):
            widened(change(model), ds, tiles, 1)

    recipe = lambda **new: lambda m: replace(m, recipe=m.recipe.model_copy(update=new))
    fields = lambda **new: lambda m: replace(m, fields=replace(m.fields, **new))
    same = lambda m: m
    window = model.recipe.window
    assert isinstance(widened(model, gappy, "auto", 1), Wide)
    with pytest.raises(UserError, match="16 expected"):  # without tiles
        plane.infill(gappy.isel(y=slice(0, None, 2)), 1)
    refused(same, gappy.assign_coords(x=11.0 * np.arange(LARGE[1])), "x: cells 10 apart expected")
    refused(same, gappy, "nothing is left between two halos; at most 4", 8)
    refused(same, gappy, "tiles -1", -1)
    films = window.model_copy(update={"future": 2})
    refused(recipe(window=films), gappy, "draws 2 frames given 0")
    refused(recipe(autoencoder=Autoencoder(patch=3)), gappy, "patches of 3 do not divide")
    y, x = model.fields.grid.axes
    around = Grid((y, Axis("x", x.values, "periodic")), "plane")
    refused(fields(grid=around), gappy, "x of this run is periodic: nothing lies beyond")
    refused(fields(grid=Grid((y, x), "sphere")), gappy, "lies on the globe")
    depth = {"statics": np.zeros((1, OWN, OWN), np.float32), "static_names": ("depth",)}
    refused(fields(**depth), gappy, r"static fields \(depth\)")
    land = model.normaliser.valid.copy()
    land[0, 0, 0] = False
    refused(lambda m: replace(m, normaliser=replace(m.normaliser, valid=land)), gappy, "land")
    warm = model.normaliser.coefficients + np.arange(OWN, dtype=np.float32) / 4
    tilted = replace(model.normaliser, coefficients=warm)
    loaded = replace(model, normaliser=tilted)
    loaded.__dict__["denoiser"] = model.denoiser
    refused(lambda _: loaded, gappy, "differs from place to place by 0.")
    steep = deepcopy(model.autoencoder)
    steep.usual.mul_(torch.linspace(0.5, 1.5, OWN))
    rough = replace(model)
    rough.__dict__.update(denoiser=model.denoiser, residual=model.residual, autoencoder=steep)
    refused(lambda _: rough, gappy, "differs from place to place by 0.3")
    with pytest.raises(UserError, match="tiles know cells alone"):
        plane.infill(gappy, 1, tiles="auto", operator=sciladm.AreaMean(gappy.isel(time=[0])))
