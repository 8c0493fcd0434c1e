"""Copies of training states and draws of the climate: what they keep, scale by scale, and how
users get them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch.utils.data import DataLoader

import sciladm
from sciladm import augment as augmenting
from sciladm import generate as generating
from sciladm.conventions import UserError
from sciladm.data.blocks import unfinished
from sciladm.diffusion.denoiser import Denoiser
from sciladm.metrics.spectrum import spectrum_for
from sciladm.tasks.augment import training
from sciladm.tasks.copies import Copies, cover
from sciladm.tasks.strength import Strength, shared
from tests.test_blocks import contents
from tests.test_infill import interrupted


@pytest.fixture
def cache(gaussian_folder, monkeypatch):
    monkeypatch.setenv("SCILADM_CACHE", str(gaussian_folder / "cache"))


def days(model, where=slice(0, 8)):
    """Training states."""
    data = training(model.model)
    return data.frames.ds.isel(time=data.indices("train")[where]).load()


@pytest.fixture
def still(stills, cache):
    return stills[0], days(stills[0])


@pytest.fixture
def film(films, cache):
    return films[0], days(films[0], slice(0, 7))


@pytest.fixture
def exact(monkeypatch):
    """A network that believes what whitening says."""
    told = lambda self, x, sigma, context: x / (1 + sigma**2)
    monkeypatch.setattr(Denoiser, "forward", told)


def quick(model):
    """The same run with half the evaluations."""
    return sciladm.load(model.model.path, **{"sampler.steps": 9})


def anomalies(model, ds):
    inner = model.model
    return inner.normaliser.normalise(inner.fields.to_array(ds), ds.time.values)


def compared(model, parents, copies):
    """1 − c², and of each wavenumber; variance of copies over that of parents, the same."""
    spectrum, area = spectrum_for(model.model.fields.grid), model.model.fields.grid.area
    a = anomalies(model, parents)
    pairs = [(a, anomalies(model, copies.isel(member=m))) for m in range(copies.sizes["member"])]
    ab, aa, bb = (sum((x * y * area).sum() for x, y in which) for which in (
        pairs, [(x, x) for x, _ in pairs], [(y, y) for _, y in pairs]))  # fmt: skip
    plus, minus, own, drawn = (sum(spectrum(f(x, y)).mean((0, 1)) for x, y in pairs) for f in (
        lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x, lambda x, y: y))  # fmt: skip
    return 1 - ab**2 / (aa * bb), 1 - (plus - minus) ** 2 / 16 / (own * drawn), drawn / own


@pytest.mark.parametrize(
    "strength",
    [pytest.param(0.1, marks=pytest.mark.slow), 0.5, pytest.param(0.9, marks=pytest.mark.slow)],
)
def test_every_scale_keeps_the_same_and_the_law_stays_what_it_was(still, exact, strength):
    """Parents from the fitted law itself: copies have its spectrum, and 1 − c² is the strength."""
    model, _ = still
    parents = model.generate(240, like=days(model, slice(0, 240)), seed=5)
    parents = parents.swap_dims(sample="time").drop_vars("sample").assign_attrs(synthetic=0)
    whole, each, ratio = compared(model, parents, model.augment(parents, 4, strength))
    assert abs(whole - strength) < 0.02
    assert np.abs(each - strength).max() < 0.05, each
    assert np.abs(ratio - 1).max() < 0.12, ratio


def test_small_scales_are_new_where_the_rest_is_drawn_afresh(still, exact):
    """The control of the test above: 1 − c² is off where most of a scale is what was lost."""
    model, _ = still
    states = days(model, slice(0, 64))
    inner, values = model.model, model.model.fields.to_array(states)
    right = Strength.of(inner, training(inner), 0.1)
    windows, seen = list(cover(states.time.values, inner)), []
    for strength in (right, replace(right, kept=0.0)):
        copies = Copies(inner, states.time.values, values, strength, 0)
        drawn = np.concatenate([x[:, 0] for *_, x in copies.draw(windows, 1, 1)])
        ds = inner.fields.to_dataset(drawn[None], ("member", "time"), {"time": states.time})
        seen.append(compared(model, states, ds)[1])
    assert np.abs(seen[0] - 0.1).max() < 0.05 and seen[1].max() > 0.3


@pytest.mark.parametrize(
    "strength",
    [pytest.param(0.1, marks=pytest.mark.slow), 0.4, pytest.param(0.8, marks=pytest.mark.slow)],
)
def test_a_trained_run_copies_as_far_as_it_was_told(still, strength):
    model = quick(still[0])
    states = days(model, slice(None, None, 73))
    assert len(states.time) == 120
    whole, _, _ = compared(model, states, model.augment(states, 4, strength))
    assert abs(whole - strength) < 0.03


def test_strength_0_gives_the_very_originals(still):
    model, ds = still
    odd = ds.isel(x=slice(None, None, -1), time=[3, 1, 2]).astype("f8").transpose("x", "time", "y")
    same = model.augment(odd, 3, strength=0)
    assert same.tracer.dims == ("member", "x", "time", "y")
    assert same.tracer.drop_vars("member").equals(odd.tracer.expand_dims(member=3))
    assert same.time.equals(odd.time) and same.tracer.attrs == odd.tracer.attrs


def test_strength_1_is_generate(still):
    model, ds = still
    copies, drawn = model.augment(ds, 2, strength=1), model.generate(16, like=ds)
    for member in range(2):
        want = drawn.tracer.isel(sample=slice(8 * member, 8 * member + 8))
        np.testing.assert_allclose(copies.tracer[member], want, atol=1e-4)
    assert (drawn.time.values == np.tile(ds.time.values, 2)).all()


def test_a_copy_is_the_same_whoever_else_is_asked(still):
    model, ds = still
    many, few = model.augment(ds, 11), model.augment(ds.isel(time=[6, 2]), 3, workers=1)
    assert few.tracer.equals(many.tracer.isel(time=[6, 2], member=slice(3)))
    other = model.augment(ds, 1, seed=1)
    assert not np.isclose(other.tracer, many.tracer[:1]).any()
    different = np.diff(many.tracer, axis=0)
    assert (np.abs(different) > 0).all()


def test_origin_is_told(still):
    model, ds = still
    copies, drawn = model.augment(ds, 1), model.generate(2)
    for made in (copies, drawn):
        assert made.attrs["synthetic"] == 1
        assert made.attrs["model_hash"] == model.model.facts["model_hash"]
    assert copies.attrs["parent_split"] == "train" and copies.attrs["parent_time"] == "time"
    assert drawn.attrs["parent_split"] == "none"
    with pytest.raises(UserError, match="synthetic themselves"):
        model.augment(copies.isel(member=0), 1)


def test_only_whole_training_states_are_copied(still, stills):
    model, ds = still
    mixed = xr.concat([ds, stills[1].isel(time=[4])], "time")
    for strength in (0, 0.4):
        with pytest.raises(UserError, match=r"1 of 9 states .* \(test\)"):
            model.augment(mixed, 1, strength)
        with pytest.raises(UserError, match=r"model\.infill"):
            model.augment(ds.where(ds.x > 3), 1, strength)
    for strength in (-0.1, 1.1):
        with pytest.raises(UserError, match="from 0, the originals, to 1"):
            model.augment(ds, 1, strength)


def test_samples_of_the_climate(still):
    model, _ = still
    drawn = model.generate(203)
    assert drawn.tracer.sizes == {"sample": 203, "y": 8, "x": 16}
    assert training(model.model).splits.mask("train", drawn.time.values).all()
    assert len(np.unique(drawn.time)) > 150
    world = days(model, slice(None, None, 40))
    assert abs(float(drawn.tracer.std() / world.tracer.std()) - 1) < 0.05
    few = model.generate(5, workers=1)
    assert few.tracer.equals(drawn.tracer[:5]) and few.time.equals(drawn.time[:5])
    assert not np.isclose(model.generate(5, seed=1).tracer, few.tracer).any()
    with pytest.raises(UserError, match="at least 1"):
        model.generate(0)


def test_several_frames_are_copied_together(film, caplog):
    """Windows lie side by side, the last one reaches back; of two days alone there are none."""
    model, ds = film
    apart = xr.concat([ds, days(model, slice(20, 22))], "time")
    copies = model.augment(apart, 2, 0.3)
    assert copies.time.equals(ds.time) and "2 of 9 states" in caplog.text
    assert copies.tracer[:, :6].equals(model.augment(ds.isel(time=slice(0, 6)), 2, 0.3).tracer)
    *_, last = cover(ds.time.values, model.model)
    assert last.numbers.tolist() == [4, 5, 6] and last.new.tolist() == [False, False, True]
    mixed = apart.isel(time=[8, 2, 0, 5, 3, 7, 1, 4, 6])
    assert model.augment(mixed, 2, 0.3).equals(copies.isel(time=[2, 0, 5, 3, 1, 4, 6]))
    with pytest.raises(UserError, match=r"no stretch of 0 \+ 3 states"):
        model.augment(apart.isel(time=slice(7, 9)), 2, 0.3)
    drawn = model.generate(9, like=ds)
    assert drawn.tracer.sizes == {"sample": 9, "frame": 3, "y": 8, "x": 16}
    assert (drawn.time[0] == ds.time[:3].values).all() and drawn.time.dims == ("sample", "frame")


def test_copies_of_films_move_as_their_parents_do(film, exact):
    model, _ = film
    ds = days(model, slice(0, 180))
    copies = model.augment(ds, 2, 0.5)

    def lagged(states):
        a = anomalies(model, states)
        return (a[::3] * a[1::3]).mean() / (a**2).mean()

    assert abs(lagged(copies.isel(member=0)) - lagged(ds)) < 0.06
    assert abs(compared(model, ds, copies)[0] - 0.5) < 0.05


@pytest.mark.slow
def test_a_run_with_a_past_copies_as_far_as_that_lets_it(small_run, cache, caplog):
    model = quick(small_run("pairs", **{"window.past": 1})[0])
    first = np.arange(3, 8000, 40)
    states = days(model, np.sort([*first, *first + 1]))
    reach = 1 - shared(model.model, training(model.model)) ** 2
    assert 0.3 < reach < 0.9
    copies, parents = model.augment(states, 8, reach / 2), states.isel(time=slice(1, None, 2))
    assert copies.time.equals(parents.time) and "200 of 400 states" in caplog.text
    assert abs(compared(model, parents, copies)[0] - reach / 2) < 0.03
    for call in (lambda: model.augment(states, 2, 1), lambda: model.generate(2)):
        with pytest.raises(UserError, match=r"window\.past: 0"):
            call()


def test_items_for_a_training_loop(still):
    model, ds = still
    mixed = ds.isel(time=[3, 0, 5])
    items = sciladm.AugmentedDataset(mixed, model, members=2, strength=0.3, seed=4)
    copies = model.augment(mixed, 2, 0.3, seed=4)
    assert len(items) == 9
    seen = {}
    for state, parent, synthetic in DataLoader(items, batch_size=2, shuffle=True):
        for row, p, s in zip(state, parent.tolist(), synthetic.tolist(), strict=True):
            seen.setdefault((p, s), []).append(row[0].numpy())
    for p in range(3):
        assert (seen[p, 0][0] == mixed.tracer.values[p]).all() and len(seen[p, 0]) == 1
        got = sorted(row.tobytes() for row in seen[p, 1])
        assert got == sorted(row.tobytes() for row in copies.tracer.values[:, p])
    assert torch.equal(items[4].state, items[4].state) and (items[4].parent, len(items[4])) == (
        1,
        3,
    )
    with pytest.raises(IndexError):
        items[9]
    originals = sciladm.AugmentedDataset(mixed, model.model.path, members=1, strength=0)
    assert torch.equal(originals[0].state, originals[1].state)


def door(module, *arguments):
    with pytest.raises(SystemExit) as ended:
        module.main([*map(str, arguments), "--quiet"])
    return ended.value.code


def same(out, want):
    with xr.open_zarr(out) as got:
        xr.testing.assert_identical(got.load(), want)
        assert {name: v.dtype for name, v in got.items()} == {n: v.dtype for n, v in want.items()}


def test_the_doors_write_what_the_methods_give(still, stills, tmp_path, monkeypatch, capsys):
    """Of several files, with numbers and labels that the run knows nothing of."""
    model, ds = still
    place = (("y", "x"), np.arange(128.0).reshape(8, 16))
    ds = ds.assign(other=2 * ds.tracer).assign_coords(place=place)
    ds.isel(time=slice(0, 3)).to_netcdf(tmp_path / "early.nc")
    ds.isel(time=slice(3, 8)).to_netcdf(tmp_path / "late.nc")
    stills[1].isel(time=[0]).to_netcdf(tmp_path / "test.nc")
    monkeypatch.chdir(tmp_path)
    run, there = model.model.path, {p.name for p in tmp_path.iterdir()}
    asking = (run, "early.nc", "late.nc", "--members", 2, "--strength", 0.2, "--out", "made.zarr")
    assert door(augmenting, *asking, "--seed", 3) == 0
    same("made.zarr", model.augment(ds, 2, 0.2, seed=3))
    assert door(generating, run, "--n", 2, "--out", "made.zarr", "--overwrite") == 2
    assert "no generated store" in capsys.readouterr().err
    assert door(augmenting, run, "test.nc", "--out", "leak.zarr") == 2
    assert "not of the training split" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == there | {"made.zarr"}
    assert door(augmenting, *asking, "--seed", 4, "--overwrite", "--batch", 8) == 0
    same("made.zarr", model.augment(ds, 2, 0.2, seed=4))
    drawn = (run, "--n", 3, "--like", "early.nc", "--like", "late.nc", "--out", "drawn.zarr")
    assert door(generating, *drawn) == 0
    same("drawn.zarr", model.generate(3, like=ds))
    assert door(augmenting, *asking[:-1], "drawn.zarr", "--overwrite") == 2
    assert "no augmented store" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "asking", "blocks"),
    [
        (augmenting, ("days.nc", "--members", 9, "--strength", 0.3), 6),
        (augmenting, ("days.nc", "--members", 9, "--strength", 0), 18),
        (generating, ("--n", 19), 3),
    ],
)
def test_the_doors_go_on_where_they_were_stopped(
    film, tmp_path, monkeypatch, module, asking, blocks
):
    """Days in any order, two of them in no whole window; micro-batches that are not full."""
    model, ds = film
    mixed = xr.concat([ds, days(model, slice(20, 22))], "time").astype("f8")
    mixed = mixed.isel(time=[8, 2, 0, 5, 3, 7, 1, 4, 6]).transpose("x", "time", "y")
    mixed.to_netcdf(tmp_path / "days.nc")
    monkeypatch.chdir(tmp_path)
    asked = model.model.path, *asking, "--out"
    assert door(module, *asked, "whole.zarr") == 0
    same("whole.zarr", model.generate(19) if module is generating else model.augment(
        mixed, 9, asking[-1]))  # fmt: skip
    with monkeypatch.context() as patch:
        interrupted(patch, 2)
        assert door(module, *asked, "begun.zarr") == 130
    assert unfinished(tmp_path / "begun.zarr") == blocks - 2
    assert door(module, *asked, "begun.zarr") == 0
    assert contents(tmp_path / "begun.zarr") == contents(tmp_path / "whole.zarr")


def test_other_questions_are_refused(still, films, tmp_path, monkeypatch, capsys):
    """What is there stays; the same question is answered already."""
    model, ds = still
    ds, run, film = ds.isel(time=slice(0, 2)), model.model.path, films[0].model.path
    for name, states in {
        "days": ds, "more": days(model, slice(0, 3)), "later": days(model, slice(1, 3)),
        "listed": ds.drop_vars(ds.coords).assign_coords({k: ds[k] for k in [*ds.coords][::-1]}),
        "values": ds + 1e-3, "double": ds.astype("f8"), "turned": ds.isel(y=slice(None, None, -1)),
    }.items():  # fmt: skip
        states.to_netcdf(tmp_path / f"{name}.nc")
    monkeypatch.chdir(tmp_path)
    copies, draws = ("--members", 2), ("--n", 2, "--like")
    for module, asking in ((augmenting, (run, "days.nc", *copies)),
                           (generating, (run, *draws, "days.nc"))):  # fmt: skip
        assert door(module, *asking, "--out", f"{module.__name__}.zarr") == 0
    before = contents(tmp_path)
    for module, asking, told in (
        (augmenting, (run, "days.nc", *copies), None),
        (augmenting, (run, "listed.nc", *copies), None),
        (augmenting, (run, "days.nc", "--members", 3), "asked.members: 2 there, 3 now"),
        (augmenting, (run, "days.nc", *copies, "--seed", 1), "asked.seed: 0 there, 1 now"),
        (augmenting, (run, "days.nc", *copies, "--strength", 0), "asked.strength: 0.4 there"),
        (augmenting, (run, "days.nc", *copies, "--set", "sampler.steps=9"), "sampler.steps: 18"),
        (augmenting, (run, "values.nc", *copies), "given: "),
        (augmenting, (run, "later.nc", *copies), "given: "),
        (augmenting, (run, "more.nc", *copies), "given: "),
        (augmenting, (run, "turned.nc", *copies), "labels: "),
        (augmenting, (run, "double.nc", *copies), "layout.tracer[0]: float32 there, float64 now"),
        (generating, (run, *draws, "days.nc"), None),
        (generating, (run, "--n", 3, "--like", "days.nc"), "asked.n: 2 there, 3 now"),
        (generating, (run, *draws, "days.nc", "--seed", 1), "asked.seed: 0 there, 1 now"),
        (generating, (run, *draws, "days.nc", "--set", "sampler.steps=9"), "sampler.steps: 18"),
        (generating, (run, *draws, "later.nc"), "labels: "),
        (generating, (film, *draws, "days.nc"), "run: "),
    ):
        code = door(module, *asking, "--out", f"{module.__name__}.zarr")
        said = capsys.readouterr().err
        assert code == (2 if told else 0), (asking, said)
        assert not told or ("another configuration" in said and told in said), (asking, said)
        assert contents(tmp_path) == before
