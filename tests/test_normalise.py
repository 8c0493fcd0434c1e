import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from sciladm.conventions import UserError
from sciladm.data.climatology import basis
from sciladm.data.fields import Fields
from sciladm.data.frames import Frames
from sciladm.data.normalise import Normaliser
from sciladm.data.splits import Splits

AREA = np.random.default_rng(9).random((2, 3))
AREA /= AREA.sum()
DAY = np.timedelta64(1, "D")


def series(years=3, hours=12, seed=0, channels=2):
    """Times every ``hours``, with season, day and noise; values (n, channel, 2, 3)."""
    times = np.arange("2001-01-01", f"{2001 + years}-01-01", hours, dtype="M8[h]").astype("M8[ns]")
    random = np.random.default_rng(seed)
    wave = basis(times, 5) @ random.normal(size=(5, channels * 6))
    day = (np.arange(len(times)) % (24 // hours))[:, None] * random.normal(size=channels * 6)
    values = 300 + 10 * wave + 5 * day + random.normal(size=wave.shape)
    return times, values.reshape(-1, channels, 2, 3).astype("f4")


def cut(times, values, size=97):
    return [(times[i : i + size], values[i : i + size]) for i in range(0, len(times), size)]


def fit(times, values, size=97, **more):
    names = [f"channel{i}" for i in range(values.shape[1])]
    return Normaliser.fit(times, cut(times, values, size), names, AREA, **more)


def lstsq(times, values, size=5):
    """Brute force: per hour of day, numpy's least squares on all values at once."""
    hour = times.astype("M8[h]").astype(int) % 24
    out = np.empty(values.shape)
    for h in np.unique(hour):
        φ, y = basis(times[hour == h], size), values[hour == h].reshape((hour == h).sum(), -1)
        out[hour == h] = (φ @ np.linalg.lstsq(φ, y.astype("f8"), rcond=None)[0]).reshape(
            -1, *values.shape[1:]
        )
    return out


def test_climatology_is_least_squares():
    times, values = series()
    centre = fit(times, values).centre(times)
    assert np.abs(centre - lstsq(times, values)).max() < 1e-4


def test_std_is_the_mean_over_seasons_and_area():
    times, values = series()
    anomaly = values - lstsq(times, values)
    season = times.astype("M8[M]").astype(int) % 12
    season = (season + 1) % 12 // 3
    sd = np.stack([np.sqrt((anomaly[season == s] ** 2).mean(0)) for s in range(4)])
    expected = (sd.mean(0) * AREA).sum((-1, -2))
    assert np.allclose(fit(times, values).std, expected, rtol=1e-5)


def test_monthly_data_have_one_climatology_for_all_hours():
    times = np.arange("2001-01", "2011-01", dtype="M8[M]").astype("M8[ns]")
    values = np.random.default_rng(0).normal(size=(120, 1, 2, 3)).astype("f4")
    normaliser = Normaliser.fit(times, cut(times, values), ["a"], AREA)
    assert normaliser.coefficients.shape[:2] == (1, 5)


def test_standardised():
    times, values = series()
    normaliser = fit(times, values)
    z = normaliser.normalise(values, times)
    assert z.dtype == np.float32 and np.abs(z.mean(0)).max() < 0.01
    assert np.allclose(normaliser.denormalise(z, times), values, atol=1e-3)


@settings(deadline=None, max_examples=15)
@given(st.integers(5, 500))
def test_block_size_does_not_matter(size):
    times, values = series(2)
    a, b = fit(times, values, size), fit(times, values, len(times))
    assert np.allclose(a.centre(times[:9]), b.centre(times[:9]), atol=1e-4)
    assert np.allclose(a.std, b.std, rtol=1e-6)


def test_bits_do_not_depend_on_how_many_times():
    times, values = series(2)
    normaliser = fit(times, values)
    one = np.concatenate([normaliser.centre(times[i : i + 1]) for i in range(20)])
    assert np.array_equal(one, normaliser.centre(times[:20]))


def test_short_training_gets_a_mean_per_hour():
    times, values = series(1)
    normaliser = fit(times, values)
    assert normaliser.coefficients.shape[:2] == (2, 1)
    assert np.abs(normaliser.centre(times) - lstsq(times, values, 1)).max() < 1e-4
    few = fit(times[:5], values[:5])
    assert few.coefficients.shape[:2] == (1, 1)


def test_seasons_need_all_months():
    times, values = series(3)
    winter = times.astype("M8[M]").astype(int) % 12 < 4
    assert fit(times[winter], values[winter]).coefficients.shape[1] == 1
    assert fit(times, values).coefficients.shape[1] == 5


def test_static_gaps_are_left_out():
    times, values = series()
    values[:, 0, 0, 1] = np.nan
    normaliser = fit(times, values)
    full = fit(*series())
    assert not normaliser.valid[0, 0, 1] and normaliser.valid.sum() == 11
    there = normaliser.valid
    assert np.array_equal(normaliser.centre(times)[:, there], full.centre(times)[:, there])
    assert np.array_equal(normaliser.std[1], full.std[1])
    assert np.isfinite(normaliser.coefficients).all()


def test_moving_gaps():
    times, values = series()
    random = np.random.default_rng(1)
    full = values.copy()
    values[random.random(values.shape) < 0.3] = np.nan
    values[:, 1] = full[:, 1]
    with pytest.raises(UserError, match=r"channel0: 6 cells .*missing: moving"):
        fit(times, values)
    normaliser = fit(times, values, moving=[True, False])
    expected = np.empty_like(full)
    hour = times.astype("M8[h]").astype(int) % 24
    for h in np.unique(hour):
        for cell in np.ndindex(2, 3):
            pick = (hour == h) & np.isfinite(values[(slice(None), 0, *cell)])
            φ = basis(times[pick], 5)
            normal = φ.T @ φ + np.diag([0, 10, 10, 10, 10])
            y = values[(pick, 0, *cell)].astype("f8")
            # relative to the first block's mean, which the leaning towards 0 does not touch
            β = np.linalg.solve(normal, φ.T @ y)
            expected[(hour == h, 0, *cell)] = basis(times[hour == h], 5) @ β
    assert np.abs(normaliser.centre(times)[:, 0] - expected[:, 0]).max() < 1e-3
    assert np.array_equal(normaliser.centre(times)[:, 1], fit(times, full).centre(times)[:, 1])


def test_no_leak():
    times, values = series(4)
    training = np.flatnonzero(times < np.datetime64("2004"))
    noise = values.copy()
    noise[training[-1] + 1 :] = np.random.default_rng(5).normal(
        size=noise[training[-1] + 1 :].shape
    )
    a, b = (fit(times[training], v[training]).state() for v in (values, noise))
    assert all(a[k].tobytes() == b[k].tobytes() for k in a)
    noise[training[3]] += 1  # the control: a training value does count
    assert fit(times[training], noise[training]).std[0] != a["std"][0]


def test_no_leak_from_a_data_set():
    times, values = series(4)
    dims = ("time", "latitude", "longitude")
    coords = {"time": times, "latitude": [0.0, 1.0], "longitude": [0.0, 1.0, 2.0]}
    ds = xr.Dataset({"a": (dims, values[:, 0]), "b": (dims, values[:, 1])}, coords)
    rule = {"test": {"every": "90d", "first": "3d", "length": "10d"},
            "validation": {"every": "90d", "first": "40d", "length": "10d"},
            "train": "rest", "gap": "2d"}  # fmt: skip
    splits = Splits.resolve(rule, times)
    training = splits.mask("train", times)
    noise = np.random.default_rng(6).normal(0, 1e4, ds.a.shape)
    planted = ds.where(xr.DataArray(training, dims="time"), xr.DataArray(noise, dims=dims))
    states = []
    for data in (ds, planted.astype("f4")):
        frames = Frames(data, Fields.from_dataset(data, {"a": None, "b": None}))
        index = np.flatnonzero(training)
        fitted = Normaliser.fit(times[index], frames.blocks(index), ["a", "b"], AREA)
        states.append(fitted.state())
    assert all(states[0][k].tobytes() == states[1][k].tobytes() for k in states[0])


def test_state_round_trip():
    times, values = series(2)
    normaliser = fit(times, values)
    again = Normaliser.from_state(normaliser.state())
    assert np.array_equal(again.normalise(values, times), normaliser.normalise(values, times))


def test_refusals():
    times, values = series(1)
    constant = values.copy()
    constant[:, 1] = 4.0
    with pytest.raises(UserError, match="channel1: constant"):
        fit(times, constant)
    empty = values.copy()
    empty[:, 0] = np.nan
    with pytest.raises(UserError, match="channel0: not one value"):
        fit(times, empty)
    with pytest.raises(UserError, match="no times"):
        Normaliser.fit(times[:0], [], ["a"], AREA)
    with pytest.raises(TypeError, match="twice"):
        Normaliser.fit(times, iter(cut(times, values)), ["a"], AREA)
