"""Scores of stores: exact members pass, shuffled ones fail, other data are refused."""

import errno
import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciladm import evaluate
from sciladm import recipe as recipes
from sciladm.conventions import UserError
from sciladm.data.blocks import ForecastStore
from sciladm.data.plan import ForecastPlan
from sciladm.model import Model
from sciladm.report.page import MARKER
from sciladm.tasks import truth
from sciladm.tasks.fit import fit
from sciladm.tasks.perfect import perfect
from sciladm.tasks.regression import RolledOut, train_regression
from sciladm.tasks.score import score
from sciladm.tasks.stores import told_recipe
from tests.conftest import once

LEADS = np.array([24, 48]) * np.timedelta64(3_600_000_000_000, "ns")
ONLY = {"evaluation.baselines": ["climatology"]}
SMALL = {
    "autoencoder": {"channels": 8, "blocks": 0, "steps": 2, "residual_rank": 4},
    "denoiser": {"widths": [8], "blocks": 1, "attention": False, "mean_steps": 4, "steps": 3,
                 "batch": 8},
}  # fmt: skip


@pytest.fixture(scope="session")
def drawn(tiny, tmp_path_factory):
    """Sixteen perfect members at eighteen initial times: (init, member, lead, channel, *space)."""

    def make(path):
        asked = {"init": "test:0:18", "members": 16, "processes": 1}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SCILADM_CACHE", str(tiny.cache))
            perfect(tiny.recipe, tiny.data, path / "all.zarr", LEADS, **asked)

    ds = xr.open_zarr(once(tmp_path_factory, "perfect", make) / "all.zarr")
    flat = ds.transpose("init_time", "lead_time", "member", ...)
    fields = tiny.data.fields
    values = [
        fields.to_array(flat.isel(init_time=i, lead_time=l, drop=True).rename(member="time"))
        for i in range(18)
        for l in range(2)
    ]
    together = np.stack(values).reshape(18, 2, 16, *values[0].shape[1:])
    return ds["init_time"].values, np.moveaxis(together, 2, 1)


@pytest.fixture(scope="session")
def small(tiny, tmp_path_factory):
    """A run of `SMALL`; tests copy it, for scores are kept beside it."""
    few = {"evaluation.validation_inits": 1, "sampler.steps": 6}
    recipe = recipes.parse(tiny.recipe.tree() | SMALL, few, "small")
    make = lambda path: fit(recipe, tiny.data, path / "small")
    return Model.load(once(tmp_path_factory, "small", make) / "small")


@pytest.fixture
def write(tiny_cache, tmp_path, drawn):
    """Write members (init, member, lead, channel, *space) as a store of ours."""
    tiny = tiny_cache

    def make(name, values, inits=None, layout="sciladm", **attributes):
        inits = drawn[0][: len(values)] if inits is None else inits
        fields = tiny.data.fields
        state = fields.to_dataset(values[0, 0, 0], (), {})
        told = {
            "forecast": "model",
            "recipe": tiny.recipe.text(),
            "source": tiny.data.source,
            "data_fingerprint": tiny.data.fingerprint,
        } | attributes
        told = {key: value for key, value in told.items() if value is not None}
        plan = ForecastPlan(state, inits, LEADS, values.shape[1], 8, told, {}, layout)
        path = tmp_path / f"{name}.zarr"
        with ForecastStore.create_or_resume(path, plan) as store:
            for block in store.pending():
                part = values[block.init, block.members[0] : block.members[-1] + 1]
                ds = fields.to_dataset(part, ("member", "lead_time"), {})
                store.write(block, {name: ds[name].values for name in ds.data_vars})
            store.finalise()
        return path

    return make


def value(scored, metric, forecast, lead=24.0, variable="all", region="global"):
    rows = scored.scores
    keep = (rows["metric"] == metric) & (rows["forecast"] == forecast)
    keep &= (rows["lead_hours"] == lead) & (rows["variable"] == variable)
    keep &= (rows["region"] == region) & (rows["season"] == "all")
    (found,) = rows.loc[keep, "value"]
    return found


def shuffled(values):
    """Each cell's members in an order of its own."""
    order = np.random.default_rng(0).random(values.shape).argsort(axis=1)
    return np.take_along_axis(values, order, axis=1)


def test_exact_members_pass_and_shuffled_ones_fail(write, drawn):
    exact, other = drawn[1][:, :8], drawn[1][:, 8:]
    paths = [
        write("model", exact),
        write("perfect", other, forecast="perfect"),
        write("shuffled", shuffled(exact), forecast="shuffled"),
    ]
    scored = score(paths, changes=ONLY)
    for lead in (24.0, 48.0):
        assert value(scored, "share_of_skill", "model", lead) == pytest.approx(1, abs=0.02)
        assert value(scored, "spread_skill", "model", lead) == pytest.approx(1, abs=0.06)
        own, torn = (value(scored, "fair_crps", name, lead) for name in ("model", "shuffled"))
        assert torn == pytest.approx(own, rel=1e-5)  # which is why cell scores are not enough
        whole, parts = (
            value(scored, "block_crps", name, lead, "2m_temperature")
            for name in ("model", "shuffled")
        )
        assert parts > 1.1 * whole
        assert value(scored, "energy_score", "model", lead) < value(
            scored, "energy_score", "shuffled", lead
        )
    scales = scored.spectra[scored.spectra["variable"] == "geopotential_500"]
    ratio = scales.query("wavenumber == 6 and lead_hours == 48").set_index("forecast")["ratio"]
    assert ratio["model"] == pytest.approx(1, abs=0.1)
    assert value(scored, "fair_crps", "model") < 0.2 * value(scored, "fair_crps", "climatology")
    assert any("too few for intervals" in note for note in scored.notes)
    assert set(scored.comparisons["reference"]) == {"model", "shuffled", "climatology"}


def test_scores_are_those_of_the_fields_by_brute_force(write, drawn, tiny):
    values = drawn[1][:4, :8]
    scored = score([write("model", values)], changes=ONLY)
    frames, fields = tiny.data.frames, tiny.data.fields
    at = np.searchsorted(frames.times, drawn[0][:4] + LEADS[1])
    truth = frames.read(at)[:, 0].astype(float)
    x = values[:, :, 1, 0].astype(float)
    error = np.abs(x - truth[:, None]).mean(axis=1)
    pairs = np.abs(x[:, :, None] - x[:, None]).sum(axis=(1, 2)) / (2 * 8 * 7)
    expected = ((error - pairs) * fields.grid.area).sum(axis=(1, 2)).mean()
    assert value(scored, "fair_crps", "model", 48.0, "geopotential_500") == pytest.approx(
        expected, rel=1e-4
    )


def test_layouts_and_orders_of_labels_change_no_score(write, drawn, tmp_path):
    values = drawn[1][:4, :8]
    ours = score([write("ours", values)], changes=ONLY)
    there = score([write("theirs", values, layout="weatherbench2")], changes=ONLY)
    turned = tmp_path / "turned.nc"
    ds = xr.open_zarr(write("again", values))
    ds = ds.isel(latitude=slice(None, None, -1)).roll(longitude=5, roll_coords=True)
    ds.assign_coords(longitude=(ds["longitude"] + 180) % 360 - 180).to_netcdf(turned)
    upside_down = score([turned], changes=ONLY)
    for metric in ("fair_crps", "spread_skill"):
        expected = value(ours, metric, "model")
        assert value(there, metric, "model") == pytest.approx(expected, rel=1e-6)
        assert value(upside_down, metric, "model") == pytest.approx(expected, rel=1e-6)


def test_all_baselines_stand_beside_the_model(write, drawn):
    scored = score([write("model", drawn[1][:3, :8])])
    names = set(scored.scores["forecast"])
    assert {"climatology", "persistence", "damped_persistence", "linear_inverse_model"} <= names
    assert any("dressed_regression is left out" in note for note in scored.notes)
    assert set(scored.scores["n_members"]) == {8}
    assert {"tropics", "nh", "sh", "land", "sea"} <= set(scored.scores["region"])


def test_stores_are_compared_on_what_they_share(write, drawn):
    inits = drawn[0]
    a = write("a", drawn[1][:6, :8], inits[:6])
    b = write("b", drawn[1][3:9], inits[3:9])
    scored = score([a, b], changes=ONLY)
    assert set(scored.scores["forecast"]) == {"a", "b", "climatology"}
    assert set(scored.scores["n_init"]) == {3}
    assert set(scored.scores["n_members"]) == {8}
    assert any("16 members" in note for note in scored.notes)
    apart = write("apart", drawn[1][9:12], inits[9:12])
    with pytest.raises(UserError, match="no initial time and lead in common"):
        score([a, apart], changes=ONLY)


def test_a_store_of_another_version_is_scored(write, drawn, tiny):
    values = drawn[1][:2, :8]
    old = tiny.recipe.text().replace("sampler:\n", "sampler:\n  memory: 0.12\n")
    assert old != tiny.recipe.text()
    results = score([write("old", values, recipe=old)], changes=ONLY)
    assert np.isfinite(results.scores.query("metric == 'fair_crps'").value).all()


def test_a_stores_recipe_may_have_keys_that_are_gone(caplog):
    least = {"schema": 1, "name": "small", "data": {"card": "tiny"}}
    told = least | {"sampler": {"steps": 7, "memory": 0.12}, "hindsight": {"depth": 2}}
    read = told_recipe(told, "old.zarr")
    assert read == recipes.parse(least | {"sampler": {"steps": 7}}, {}, "new")
    assert "`sampler.memory`" in caplog.text and "`hindsight`" in caplog.text
    with pytest.raises(UserError, match=r"old\.zarr: `sampler\.steps`"):
        told_recipe(least | {"sampler": {"steps": 0, "memory": 0.12}}, "old.zarr")
    with pytest.raises(UserError, match="a recipe is a mapping"):
        told_recipe(None, "empty.zarr")


def test_what_cannot_be_scored_is_refused(write, drawn, tiny, tmp_path):
    values = drawn[1][:2, :8]
    with pytest.raises(UserError, match=r"made from other data .* --truth"):
        score([write("other", values, data_fingerprint="0" * 64)], changes=ONLY)
    with pytest.raises(UserError, match="does not say its recipe"):
        score([write("foreign", values, recipe=None)], changes=ONLY)
    late = drawn[0][:2] + np.timedelta64(4000 * 86400 * 10**9, "ns")
    with pytest.raises(UserError, match=r"holds none of the 2 initial times"):
        score([write("late", values, late)], changes=ONLY)
    gap = values.copy()
    gap[1, 2, 1] = np.nan
    with pytest.raises(UserError, match="NaN or infinity"):
        score([write("gap", gap)], changes=ONLY)
    plain = tmp_path / "plain.nc"
    tiny.data.frames.ds[["2m_temperature"]].isel(time=slice(2)).to_netcdf(plain)
    with pytest.raises(UserError, match="is no forecast store"):
        score([plain], changes=ONLY)
    with pytest.raises(UserError, match=r"only .*evaluation"):
        score([write("model", values)], changes={"window.step": "12h"})


def test_another_truth_may_be_given(write, drawn, tiny, tmp_path):
    path = tmp_path / "truth.nc"
    own = tiny.data.frames.ds[["geopotential", "temperature", "2m_temperature"]]
    own = own.sel(time=slice("2213", "2214")).drop_encoding()
    own.to_netcdf(path)
    store = write("model", drawn[1][:2, :8])
    expected = value(score([store], changes=ONLY), "fair_crps", "model")
    assert value(score([store], path, changes=ONLY), "fair_crps", "model") == expected
    (own + 1.0).to_netcdf(tmp_path / "shifted.nc")
    biased = score([store], tmp_path / "shifted.nc", changes=ONLY)
    assert value(biased, "fair_crps", "model") > 1.2 * expected


def test_a_single_forecast_has_errors_and_no_spread(write, drawn):
    scored = score([write("model", drawn[1][:2, :1])], changes=ONLY)
    own = scored.scores[scored.scores["forecast"] == "model"]
    assert "rmse" in set(own["metric"])
    assert "fair_crps" not in set(own["metric"])
    assert math.isfinite(value(scored, "fair_crps", "climatology"))


def test_the_door_writes_a_report_and_counts_how_often_test_was_read(
    write, drawn, tiny, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "tiny-test"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(tiny.recipe.text())
    store = write("model", drawn[1][:2, :8], run="tiny-test")
    before = tmp_path / "report"
    before.mkdir()
    (before / MARKER).touch()  # a report that is there is replaced
    score([store], changes=ONLY)
    command = [
        str(store),
        "--out",
        "report",
        "--quiet",
        "--set",
        "evaluation.baselines=[climatology]",
        "--set",
        "evaluation.headline=[2m_temperature]",  # each has maps and curves of its own
    ]
    with pytest.raises(SystemExit) as ended:
        evaluate.main(command)
    assert ended.value.code == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in (run / "test_reads.jsonl").read_text().splitlines()]
    assert [line["inits"] for line in lines] == [2, 2]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "test split read 2 times" in page
    assert "Simulated data" in page
    assert "member 2" in page
    assert str(tmp_path) not in page
    assert "fair CRPS" in capsys.readouterr().out


def test_a_run_that_cannot_be_written_to_is_scored(write, drawn, small, tmp_path, monkeypatch):
    """As on a read-only disk, whoever runs this test."""
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(small.path, tmp_path / "runs" / "small")
    store = write("model", drawn[1][:2, :8], run="small", recipe=small.recipe.text())
    opened = Path.open

    def closed(path, mode="r", *args, **kwargs):
        if path.parent == run.relative_to(tmp_path) and set(mode) & set("wa+"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", closed)
    changes = {"evaluation.baselines": ["climatology", "dressed_regression"]}
    scored = score([store], changes=changes)
    assert {"model", "climatology", "autoencoder"} <= set(scored.scores["forecast"])
    assert scored.provenance["test_reads"] == 1
    said = "\n".join(scored.notes)
    assert "could not be recorded in the run (test_reads.jsonl: Read-only file system)" in said
    assert "dressed_regression is left out: cannot write" in said
    assert not (run / "test_reads.jsonl").exists() and str(tmp_path) not in said


def test_a_land_mask_on_another_grid_costs_land_and_sea_alone(write, drawn, tiny, monkeypatch):
    frames = tiny.data.frames
    mask = xr.DataArray(np.zeros((3, 4)), dims=("row", "column"))
    ds = frames.ds.drop_vars("land_sea_mask").assign(land_sea_mask=mask)
    other = replace(tiny.data, frames=replace(frames, ds=ds))
    monkeypatch.setattr(truth, "open_dataset", lambda *_: other)
    scored = score([write("model", drawn[1][:2, :8])], changes=ONLY)
    assert {"global", "tropics"} <= set(scored.scores["region"])
    assert not {"land", "sea"} & set(scored.scores["region"])
    assert any(note.startswith("Land and sea are not scored apart: ") for note in scored.notes)


def test_the_door_refuses_a_folder_of_others_before_it_scores(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("thesis")
    with pytest.raises(SystemExit) as ended:
        evaluate.main(["absent.zarr", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "not a report" in capsys.readouterr().err


class Heard:
    """A voice that remembers what was said."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    def progress(self, title):
        return nullcontext(lambda fraction, note="": None)


def test_a_run_brings_its_autoencoder_and_its_regression(
    write, drawn, tiny, small, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(small.path, tmp_path / "runs" / "small")
    model = Model.load(run)
    store = write("model", drawn[1][:3, :8], run="small", recipe=model.recipe.text())
    voice = Heard()
    changes = {"evaluation.baselines": ["climatology", "dressed_regression"]}
    scored = score([store], changes=changes, voice=voice)
    assert {"autoencoder", "dressed_regression"} <= set(scored.scores["forecast"])
    assert any(" 7 steps of 8 windows" in text for text in voice.said)
    assert value(scored, "fair_crps", "autoencoder") < value(scored, "fair_crps", "climatology")
    assert scored.provenance["test_reads"] == 1
    kept = (run / "regression.safetensors").read_bytes()
    again = Heard()
    pd.testing.assert_frame_equal(
        score([store], changes=changes, voice=again).scores, scored.scores
    )
    assert again.said == []
    assert (run / "regression.safetensors").read_bytes() == kept

    times, read = tiny.data.frames.times, tiny.data.frames.read
    network = train_regression(model, tiny.data, again)
    mean = RolledOut(model, network, lambda t: read(np.flatnonzero(times == t))[0])
    both, last = mean(drawn[0][0], LEADS), mean(drawn[0][0], LEADS[1:])
    np.testing.assert_allclose(both[1:], last, rtol=1e-5)
    with pytest.raises(UserError, match="every 24h"):
        mean(drawn[0][0], LEADS // 2)
