"""The check of synthetic fields: honest samples pass, each planted fault fails its own check."""

from functools import cache

import numpy as np
import pytest
import scipy.fft
import xarray as xr

import sciladm
from sciladm.conventions import UserError
from sciladm.metrics.copying import nearest, nearest_shifted
from sciladm.metrics.faithfulness import mmd2, recall
from sciladm.tasks.check import (
    copying,
    fitted_mean,
    fitted_power,
    kernels,
    marginals,
    months,
    shifted_copying,
    spectrum,
)  # fmt: skip
from sciladm.tasks.judge import Judge
from sciladm.tasks.states import read_trio

SHAPE = (16, 24)


def world(first: int, years: int, seed: int, per_year: int = 24) -> xr.Dataset:
    """Gaussian fields of spectrum (1 + k²)^-2 on a regional grid, with a season, two variables."""
    rng = np.random.default_rng(seed)
    days = 365.25 / per_year * np.arange(years * per_year)
    times = np.datetime64(f"{first}-01-05", "ns") + (days * 86400e9).astype("m8[ns]")
    wide = tuple(2 * n for n in SHAPE)
    k2 = sum(k**2 for k in np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in wide), indexing="ij"))
    noise = rng.standard_normal((2, len(times), *wide))
    fields = np.fft.ifft2(np.fft.fft2(noise) / (2 + k2) ** 0.9).real[..., : SHAPE[0], : SHAPE[1]]
    fields /= fields.std()
    season = (
        np.cos(2 * np.pi * days / 365.25)[:, None, None] * np.linspace(1, 3, SHAPE[0])[:, None]
    )
    a, b = fields[0], 0.6 * fields[0] + 0.8 * fields[1]
    dims = ("time", "latitude", "longitude")
    return xr.Dataset(
        {"a": (dims, 280 + a + season), "b": (dims, 5 * b)},
        {
            "time": times,
            "latitude": np.linspace(30, 45, SHAPE[0]),
            "longitude": np.arange(SHAPE[1]) * 1.0,
        },
    )


@pytest.fixture(scope="module")
def real():
    """Twenty years to train on and ten held out."""
    return world(1980, 20, 1), world(2000, 10, 2)


@cache
def sampled(seed: int = 3) -> xr.Dataset:
    """600 honest samples; they are changed in copies."""
    return as_samples(world(1980, 25, seed))


def as_samples(ds: xr.Dataset) -> xr.Dataset:
    """Times as a coordinate of ``sample``."""
    times = ds["time"].values
    return ds.drop_vars("time").rename(time="sample").assign_coords(time=("sample", times))


def changed(field_of, samples: xr.Dataset | None = None) -> xr.Dataset:
    """Samples whose variables are ``field_of(name, values)``."""
    ds = sampled() if samples is None else samples
    return ds.assign({name: (ds[name].dims, field_of(name, ds[name].values)) for name in ds})


def copied(train: xr.Dataset, number: int, shift: tuple[int, int]) -> xr.Dataset:
    """Samples of which the first ``number`` are training fields, moved and with a little noise,
    at the training fields' own times."""
    ds, rng = sampled(), np.random.default_rng(0)
    rows = rng.choice(train.sizes["time"], number, replace=False)
    times = ds["time"].values.copy()
    times[:number] = train["time"].values[rows]

    def one(name, values):
        climate = train[name].values.mean(axis=0)
        season = train[name].values[rows] - anomaly(train, name)[rows]
        moved = np.roll(anomaly(train, name)[rows], shift, axis=(1, 2))
        noise = 0.1 * (train[name].values - climate).std() * rng.standard_normal(moved.shape)
        return np.concatenate([season + moved + noise, values[number:]])

    return changed(one, ds).assign_coords(time=("sample", times))


def anomaly(ds: xr.Dataset, name: str) -> np.ndarray:
    """About the mean of the same part of all twenty years."""
    values = ds[name].values.reshape(20, -1, *SHAPE)
    return (values - values.mean(axis=0)).reshape(ds[name].shape)


def damped(name: str, values: np.ndarray) -> np.ndarray:
    """A tenth less power beyond a quarter of the cosine waves that the grid carries."""
    waves = scipy.fft.dctn(values, axes=(1, 2), norm="ortho")
    i, j = np.meshgrid(*(np.arange(n) / n for n in SHAPE), indexing="ij")
    waves[:, np.hypot(i, j) > 0.25] *= np.sqrt(0.9)
    return scipy.fft.idctn(waves, axes=(1, 2), norm="ortho")


def judge(synthetic: xr.Dataset, real: tuple[xr.Dataset, xr.Dataset]) -> Judge:
    return Judge(read_trio(synthetic, *real), np.random.default_rng(0), 2.0)


@pytest.mark.parametrize(
    "seed", [3, 4, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 6))]
)
def test_honest_samples_pass(seed, real):
    one = judge(sampled(seed), real)
    found = {"months": months(one), **kernels(one)}
    found |= {f"spectrum {n}": spectrum(one, n, "a") for n in (0, 1)}
    found |= {f"marginals {n}": marginals(one, n) for n in (0, 1)}
    found |= {f"mean {n}": fitted_mean(one, n) for n in (0, 1)}
    found |= {f"power {n}": fitted_power(one, n) for n in (0, 1)}
    assert not {name: score for name, score in found.items() if not score.passed}


def test_the_whole_passes_and_says_so(real):
    few = real[0].isel(time=slice(None, None, 3)), real[1].isel(time=slice(None, None, 2))
    scores = sciladm.check_augmentation(sampled().isel(sample=slice(None, None, 3)), *few)
    assert scores.attrs["verdict"] == "pass", scores.to_dataframe()
    few, shifted, samples = scores["usefulness"].values
    assert samples > shifted > few


def test_a_copy_in_fifty_is_caught(real):
    assert copying(judge(sampled(), real)).passed
    assert not copying(judge(copied(real[0], 12, (0, 0)), real)).passed


def test_shifted_copies_are_caught(real):
    few = real[0].isel(time=slice(None, None, 3)), real[1].isel(time=slice(None, None, 2))
    one = judge(copied(few[0], 60, (2, 5)).isel(sample=slice(None, None, 2)), few)
    assert copying(one).passed
    assert not shifted_copying(one).passed


def test_a_bias_is_caught(real):
    one = judge(changed(lambda name, v: v + 0.2 * {"a": 1, "b": 5}[name]), real)
    assert not marginals(one, 0).passed
    assert not marginals(one, 1).passed
    assert not fitted_mean(one, 0).passed and not fitted_mean(one, 1).passed
    assert fitted_power(one, 0).passed
    assert not kernels(one)["mmd", "all"].passed


def test_damping_is_caught(real):
    one = judge(changed(damped), real)
    assert not spectrum(one, 0, "a").passed
    assert not spectrum(one, 1, "b").passed
    assert not fitted_power(one, 0).passed and not fitted_power(one, 1).passed
    assert marginals(one, 0).passed and fitted_mean(one, 0).passed


def test_a_missing_season_is_caught(real):
    ds = sampled()
    assert not months(
        judge(ds.isel(sample=~ds.time.dt.month.isin([12, 1, 2]).values), real)
    ).passed


def test_frames_of_one_draw_count_once(real):
    """Their months are one month, so that those of few draws differ more by chance."""
    few = sampled().isel(sample=slice(None, None, 25))
    frames = few.expand_dims(frame=6, axis=1)
    one = judge(frames.assign_coords(time=few.time.expand_dims(frame=6, axis=1)), real)
    alone = judge(xr.concat([few] * 6, "sample"), real)
    assert len(one.synthetic) == len(alone.synthetic)
    assert months(one).value == months(alone).value
    assert months(one).bound > 2 * months(alone).bound


def test_seasons_under_wrong_labels_are_caught(real):
    ds = sampled()
    turned = ds.assign_coords(time=("sample", np.roll(ds.time.values, 12)))
    one = judge(turned, real)
    assert months(one).passed
    assert not kernels(one)["mmd", "all"].passed


def test_a_season_too_weak_is_caught(real):
    def weak(name, values):
        season = np.repeat(values.reshape(-1, 24, *SHAPE).mean(axis=0)[None], 25, axis=0)
        mean = values.mean(axis=0)
        return values - 0.5 * (season.reshape(values.shape) - mean)

    assert not kernels(judge(changed(weak), real))["mmd_season", "all"].passed


def test_narrow_samples_cover_too_little(real):
    def narrow(name, values):
        return values.mean(axis=0) + 0.7 * (values - values.mean(axis=0))

    assert not kernels(judge(changed(narrow), real))["coverage", "all"].passed


def test_frames_and_members_are_samples_too(real):
    ds = sampled()
    frames = ds.isel(sample=slice(0, 600, 2)).drop_vars("time").expand_dims(frame=2, axis=1)
    frames = frames.assign_coords(time=(("sample", "frame"), ds.time.values.reshape(300, 2)))
    assert read_trio(frames, *real).synthetic.values.shape == (600, 2, *SHAPE)
    years = world(1980, 10, 3)
    members = xr.concat([years, years + 1], "member").transpose("latitude", "time", "member", ...)
    both = read_trio(members, *real).synthetic
    assert len(both.times) == 480
    for row in (0, 7, 300):
        there = years.sel(time=both.times[row])["a"].values
        extra = both.values[row, 0] - there
        assert np.allclose(extra, np.rint(extra[0, 0]), atol=1e-3)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda ds: ds.drop_vars("b"), "synthetic has the variables a, train a, b"),
        (lambda ds: ds.isel(latitude=slice(8)), "synthetic is on the grid"),
        (lambda ds: ds.assign_coords(longitude=ds.longitude + 0.5), "longitude"),
        (lambda ds: ds.isel(sample=slice(99)), "synthetic has 99 samples"),
        (lambda ds: ds.drop_vars("time"), "synthetic has no `time`"),
        (lambda ds: ds.where(ds.latitude > 31), "samples must be whole"),
    ],
)
def test_what_does_not_fit_is_refused(spoil, words, real):
    with pytest.raises(UserError, match=words):
        read_trio(spoil(sampled()), *real)


def test_too_few_years_are_refused(real):
    short = world(1980, 3, 1, 48)
    with pytest.raises(UserError, match="4 or more"):
        read_trio(sampled(), short, real[1])


def test_cells_without_values_are_left_out(real):
    """Land in all three: scores are those of the other cells, and finite."""
    sea = [ds.where(ds.latitude > 33) for ds in (sampled(), *real)]
    one = judge(sea[0], (sea[1], sea[2]))
    assert not one.weight[:, 0].any()
    found = {**kernels(one), "spectrum": spectrum(one, 0, "a"), "marginals": marginals(one, 0)}
    assert all(score.passed for score in found.values())


def test_nearest_is_brute_force():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((7, 5)), rng.standard_normal((9, 5))
    apart = rng.random((7, 9)) > 0.5
    pairs = np.linalg.norm(a[:, None] - b, axis=-1)
    assert np.allclose(nearest(a, b), pairs.min(axis=1))
    assert np.allclose(nearest(a, b, apart), np.where(apart, pairs, np.inf).min(axis=1))


def test_a_shift_that_wraps_is_no_distance():
    rng = np.random.default_rng(0)
    train = rng.standard_normal((20, 2, 6, 8)).astype(np.float32)
    moved, whole = np.roll(train[:3], 3, axis=3), np.ones((2, 6, 8), bool)
    around, ended = ("bounded", "periodic"), ("bounded", "bounded")
    assert np.allclose(nearest_shifted(moved, train, whole, around), 0, atol=1e-4)
    assert (nearest_shifted(-moved, train, whole, around) > 0.1).all()
    assert np.allclose(nearest_shifted(moved, train, whole, ended), 0, atol=1e-4)
    far = np.roll(moved, (3, 1), axis=(2, 3))
    assert (nearest_shifted(far, train, whole, ended) > 0.05).all()


def test_shifted_correlations_are_brute_force():
    """Land and an edge: over shared cells alone, at least half of them."""
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 5, 4)).astype(np.float32) + 3
    valid = rng.random((5, 4)) > 0.2
    best = -1.0
    for i in range(-4, 5):
        for j in range(4):
            x, y = [], []
            for p, q in np.argwhere(valid):
                r, s = p + i, (q + j) % 4
                if 0 <= r < 5 and valid[r, s]:
                    x.append(a[r, s])
                    y.append(b[p, q])
            if len(x) >= valid.sum() / 2:
                best = max(best, np.corrcoef(x, y)[0, 1])
    found = nearest_shifted(a[None, None], b[None, None], valid[None], ("bounded", "periodic"))
    assert np.allclose(found, 1 - best, atol=1e-3)


def test_mmd_without_bias_and_in_closed_form():
    """Unit Gaussians in d dimensions, kernel exp(−|x − y|²/w), means m apart."""
    rng = np.random.default_rng(0)
    d, w, m = 3, 6.0, 0.7
    scale = (w / (w + 4)) ** (d / 2)
    exact = 2 * scale * (1 - np.exp(-(m**2) / (w + 4)))
    a, b = rng.standard_normal((2, 40, 100, d))
    b[..., 0] += m
    drawn = [mmd2(x, y, w) for x, y in zip(a, b, strict=True)]
    assert abs(np.mean(drawn) - exact) < 3 * np.std(drawn) / np.sqrt(40)


def test_recall_of_what_is_there_and_what_is_not():
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((200, 2))
    assert recall(samples, samples) == 1
    assert recall(samples + 100, samples) == 0


def test_the_door_writes_a_page_and_says_its_verdict(real, tmp_path, capsys):
    from sciladm.check import main

    few = [ds.isel(time=slice(None, None, 4)) for ds in real]
    sampled().isel(sample=slice(None, None, 4)).to_zarr(
        tmp_path / "drawn.zarr", consolidated=False
    )
    few[0].to_netcdf(tmp_path / "train.nc")
    few[1].isel(time=slice(40)).to_netcdf(tmp_path / "short.nc")
    world(2000, 10, 2, 12).to_netcdf(tmp_path / "test.nc")
    drawn, train, test, short = (
        str(tmp_path / name) for name in ("drawn.zarr", "train.nc", "test.nc", "short.nc")
    )
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        main([drawn, "--train", train, "--test", test, "--out", str(out)])
    assert end.value.code == 0
    assert "verdict: " in capsys.readouterr().out
    assert "<svg" in (out / "index.html").read_text()
    assert (out / "scores.csv").read_text().startswith("check,variable,value,sense,bound,passed")
    with pytest.raises(SystemExit) as end:
        main([drawn, "--train", train, "--test", short, "--out", str(tmp_path / "no")])
    assert end.value.code == 2
    assert not (tmp_path / "no").exists()
