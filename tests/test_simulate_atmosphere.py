"""The record, its restart states, the perfect-model ensemble."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from sciladm.conventions import UserError
from sciladm.simulate import WORLDS, Atmosphere, Plan, Realisation
from sciladm.simulate.channels import CHANNELS, VARIABLES
from sciladm.simulate.record import Restart
from sciladm.simulate.weather import BEGIN, PERFECT, TRUTH, Noise, State, hours_since_epoch

PLAN = replace(
    Plan((
        Realisation(0, "2201-01-01", 6, "train"),
        Realisation(1, "2205-01-01", 6, "validation"),
        Realisation(2, "2209-06-01", 6, "test"),
    )),
    latitudes=16, longitudes=32, spin_up_days=15, batch=2,
)  # fmt: skip
DAY = np.timedelta64(1, "D")


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("world") / "tiny.zarr"
    Atmosphere.tiny().run(path, PLAN, processes=1)
    return path


def channels(ds: xr.Dataset) -> np.ndarray:
    """(time, channel, latitude, longitude)."""
    one = lambda name, level: ds[name] if level is None else ds[name].sel(level=level)
    return np.stack([one(name, level).values for name, level in CHANNELS], axis=1)


def test_record_is_an_ordinary_labelled_store(record):
    ds = xr.open_zarr(record)
    assert ds.attrs["source"] == "simulated" and ds.attrs["simulator_version"] == 2
    assert set(ds.data_vars) == {*VARIABLES, "land_sea_mask", "geopotential_at_surface"}
    assert ds["geopotential"].dims == ("time", "level", "latitude", "longitude")
    assert ds["2m_temperature"].dims == ("time", "latitude", "longitude")
    assert all(
        v.dtype == np.float32 and "units" in v.attrs and "standard_name" in v.attrs
        for v in ds.data_vars.values()
    )
    assert ds.latitude.values[0] == -84.375 and np.diff(ds.latitude).min() > 0
    np.testing.assert_array_equal(ds.longitude, np.arange(32) * 11.25)
    assert not any(bool(v.isnull().any()) for v in ds.data_vars.values())
    np.testing.assert_array_equal(ds.time, PLAN.times)
    assert (np.diff(ds.time) > 30 * DAY).sum() == 2
    assert ds.time.values[0] >= np.datetime64("2201-01-01")
    text = "".join(f.read_text() for f in record.rglob("zarr.json"))
    assert str(record.parent) not in text
    assert 4.5e4 < float(ds["geopotential"].sel(level=500).mean()) < 6e4
    assert (
        9e4
        < float(ds["mean_sea_level_pressure"].min())
        < float(ds["mean_sea_level_pressure"].max())
        < 1.1e5
    )


SCRIPT = """
import json, sys
sys.path.append({root!r})
from pathlib import Path
from sciladm.simulate import Atmosphere
from sciladm.simulate.ensemble import Ensemble
from tests.test_simulate_atmosphere import DAY, PLAN

done, here = [], __file__
Atmosphere.tiny().run({path!r}, PLAN, done.append, processes=2)
few = PLAN.realisations[2].times[10:14]
drawn = list(Ensemble(Atmosphere.tiny(), Path({path!r}), 1, (DAY,), 0).draw_all(few, 2))
print(json.dumps([done, len(drawn), __file__ == here == sys.argv[0]]))
"""
"""Of somebody who has not heard of `if __name__ == "__main__"`."""
OWN = """
import sys
sys.path.append({root!r})
from sciladm.simulate import Atmosphere
from tests.test_simulate_atmosphere import PLAN

class Mine(Atmosphere):
    pass

if __name__ == "__main__":
    Mine.tiny().run({path!r}, PLAN, processes=2)
"""
"""Of somebody with a world of their own."""


def ran(text, folder, path):
    script = folder / "script.py"
    script.write_text(text.format(root=str(Path(__file__).parents[1]), path=str(path)))
    said = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return said.stdout


@pytest.mark.slow
def test_a_script_of_the_users_is_not_run_again_by_processes(record, tmp_path):
    again = tmp_path / "again.zarr"
    done, drawn, as_before = json.loads(ran(SCRIPT, tmp_path, again))
    assert drawn == 4 and as_before and done[-1] == 1.0
    xr.testing.assert_identical(xr.open_zarr(record).load(), xr.open_zarr(again).load())


def test_record_is_reproducible_bit_for_bit_from_any_number_of_processes(record, tmp_path):
    again, done = tmp_path / "again.zarr", []
    Atmosphere.tiny().run(again, PLAN, done.append, processes=2)
    xr.testing.assert_identical(xr.open_zarr(record).load(), xr.open_zarr(again).load())
    assert done[-1] == 1.0 and sorted(done) == done
    assert not again.with_name("again.zarr.partial").exists()
    other = tmp_path / "other.zarr"
    Atmosphere.tiny().run(other, replace(PLAN, seed=1), processes=1)
    assert not np.array_equal(
        xr.open_zarr(other)["2m_temperature"], xr.open_zarr(record)["2m_temperature"]
    )


@pytest.mark.slow
def test_a_world_of_the_users_own_script_is_simulated(record, tmp_path):
    ran(OWN, tmp_path, tmp_path / "mine.zarr")
    ours, theirs = (xr.open_zarr(path).load() for path in (record, tmp_path / "mine.zarr"))
    xr.testing.assert_equal(ours, theirs)


def test_nothing_is_overwritten(record):
    with pytest.raises(UserError, match="exists already"):
        Atmosphere.tiny().run(record, PLAN)


def test_restart_states_repeat_the_truth_exactly(record):
    weather, ds = Atmosphere.tiny().on(16, 32), xr.open_zarr(record)
    times = PLAN.realisations[2].times[[10, 11, 14]]
    psi, slab = Restart(record).state(times[0])
    state = State(psi[..., None], slab[..., None], hours_since_epoch(times[:1]))
    fields = weather.forecast(state, Noise(TRUTH, PLAN.seed, (2,)), [0, 1, 4])[0]
    np.testing.assert_array_equal(fields, channels(ds.sel(time=times)))


def test_no_hidden_state(record):
    """ψ and the slab read off the written channels give the truth's next steps under the truth's
    noise.
    """
    weather, ds = Atmosphere.tiny().on(16, 32), xr.open_zarr(record)
    times = PLAN.realisations[2].times[[5, 6, 9]]
    truth = channels(ds.sel(time=times))
    hours = hours_since_epoch(times[:1])
    psi, slab = weather.channels.read(truth[:1], hours)
    fields = weather.forecast(State(psi, slab, hours), Noise(TRUTH, PLAN.seed, (2,)), [0, 1, 4])[0]
    scale = truth.std(axis=(0, 2, 3))[:, None, None]
    assert np.abs((fields - truth) / scale).max() < 1e-4
    other = weather.forecast(State(psi, slab, hours), Noise(TRUTH, 9, (2,)), [4])[0]
    assert np.abs((other - truth[2:]) / scale).max() > 1e-2


def test_perfect_members_do_not_depend_on_how_many_are_asked(record):
    init = PLAN.realisations[2].times[4]
    leads = [np.timedelta64(h, "h") for h in (0, 6, 24)]
    few = dict(Atmosphere.tiny().perfect(record, [init], 3, leads, seed=5))[init]
    assert few.shape == (3, 3, 16, 16, 32) and few.dtype == np.float32
    later = PLAN.realisations[2].times[8]
    many = dict(Atmosphere.tiny().perfect(record, [later, init], 18, leads, seed=5))
    np.testing.assert_array_equal(many[init][:3], few)
    truth = channels(xr.open_zarr(record).sel(time=[init]))[0]
    np.testing.assert_allclose(
        few[:, 0], np.broadcast_to(truth, few[:, 0].shape), rtol=1e-6, atol=1e-4
    )
    spread = few[:, 2].std(axis=0).mean(axis=(1, 2))
    assert (spread > 0).all()
    assert np.abs(few[0, 2] - few[1, 2]).max() > 0
    reseeded = dict(Atmosphere.tiny().perfect(record, [init], 1, leads, seed=6))[init]
    assert not np.array_equal(reseeded[0, 2], few[0, 2])


def test_perfect_may_start_from_given_fields(record):
    init = PLAN.realisations[1].times[4]
    truth = channels(xr.open_zarr(record).sel(time=[init]))
    given = np.repeat(truth, 2, axis=0)
    given[1, 12] += 3.0
    fields = dict(
        Atmosphere.tiny().perfect(record, [init], 2, [0 * DAY, DAY], 0, start=lambda _: given)
    )[init]
    np.testing.assert_allclose(fields[1, 0, 12], truth[0, 12] + 3.0, atol=1e-3)
    np.testing.assert_allclose(fields[0, 0, 6:12], truth[0, 6:12], atol=1e-3)


def test_white_noise_is_a_function_of_its_labels():
    both = Noise(TRUTH, 3, (4, 5)).draw(np.array([12, 18]), (50, 40))
    np.testing.assert_array_equal(both[1:], Noise(TRUTH, 3, (5,)).draw(np.array([18]), (50, 40)))
    for other in (Noise(TRUTH, 3, (4,)), Noise(TRUTH, 2, (5,)), Noise(BEGIN, 3, (5,))):
        assert (
            abs(np.corrcoef(both[1].ravel(), other.draw(np.array([18]), (50, 40)).ravel())[0, 1])
            < 0.1
        )
    assert (
        abs(
            np.corrcoef(
                both[1].ravel(), Noise(TRUTH, 3, (5,)).draw(np.array([24]), (50, 40)).ravel()
            )[0, 1]
        )
        < 0.1
    )


def test_runaway_wind_is_stopped_with_a_remedy():
    world = Atmosphere.tiny()
    weather = replace(world, flow=replace(world.flow, fastest=20.0)).on(16, 32)
    hours = np.zeros(1, np.int64)
    state = weather.begin(hours, Noise(BEGIN, 0, (0,)))
    with pytest.raises(FloatingPointError, match=r"2201-01-01.*raise Flow\.steps"):
        weather.advance(state, Noise(TRUTH, 0, (0,)))
    state.psi[:] = np.nan
    with pytest.raises(FloatingPointError, match="nan"):
        weather.advance(state, Noise(TRUTH, 0, (0,)))


def test_plans_refuse_what_a_calendar_cannot_hold():
    with pytest.raises(UserError, match="keep within"):
        Plan((Realisation(0, "2262-01-01", 10, "train"),))
    with pytest.raises(UserError, match="30 days between"):
        Plan((Realisation(0, "2201-01-01", 10, "train"), Realisation(1, "2201-01-20", 10, "test")))


def test_the_default_plan():
    plan = Plan.years()
    assert [len(plan.splits[s]) for s in ("train", "validation", "test")] == [10, 1, 2]
    assert (
        plan.times.size == 13 * 1460
        and plan.chunk == 73
        and plan.times[-1] < np.datetime64("2262-01-01")
    )
    assert [len(g) for g in plan.groups] == [7, 6]
    assert [len(g) for g in Plan.years(train=27).groups] == [8, 8, 7, 7]
    together = replace(Plan.years(train=27), batch=16)
    assert [len(g) for g in together.groups] == [15, 15]
    assert Plan.years(train=1, validation=0, test=0).groups == [[0]]


def test_questions_about_other_stores_are_answered(record, tmp_path):
    with pytest.raises(UserError, match="no simulated record"):
        Restart(tmp_path / "none.zarr")
    zarr.create_group(tmp_path / "empty.zarr")
    with pytest.raises(UserError, match="no restart states"):
        Restart(tmp_path / "empty.zarr")
    with pytest.raises(UserError, match="no restart state at 2201"):
        Restart(record).state(np.datetime64("2201-01-01"))
    with pytest.raises(UserError, match="multiples of 6 h"):
        list(Atmosphere.tiny().perfect(record, [], 1, [np.timedelta64(5, "h")], 0))


def test_worlds_are_listed():
    assert WORLDS["atmosphere"] is Atmosphere


def test_parameters_are_the_frozen_ones():
    """The page that carries the fairness table lists the defaults, all of them."""
    page = Path(__file__).parents[1] / "docs" / "simulated-atmosphere.md"
    rows = [line.split("|")[1:3] for line in page.read_text().splitlines()]
    listed = {row[0].strip(): float(row[1]) for row in rows if len(row) == 2 and "." in row[0]
              and row[0].strip().split(".")[0] in ("flow", "ground")}  # fmt: skip
    parameters = Atmosphere().parameters()
    actual = {f"{k}.{n}": v for k in ("flow", "ground") for n, v in parameters[k].items()}
    assert listed == pytest.approx(actual) and parameters["version"] == 2


@pytest.mark.slow
def test_perfect_members_are_exchangeable_with_the_truth():
    """Spread–skill near 1 and flat ranks at five days; members pulled apart by 1.3 fail both."""
    weather, members, days = Atmosphere.tiny().on(16, 32), 15, 5
    who = tuple(range(8))
    state = weather.begin(np.arange(8) * 45 * 24, Noise(BEGIN, 2, who))
    spread = error = wide_spread = 0.0
    ranks, wide_ranks = np.zeros(members + 1), np.zeros(members + 1)
    for round_ in range(6):
        for _ in range(4 * 30):
            state = weather.advance(state, Noise(TRUTH, 2, who))
        for one in range(8):
            repeat = lambda x, one=one: np.repeat(x[..., one : one + 1], members + 1, axis=-1)
            start = State(repeat(state.psi), repeat(state.slab), repeat(state.hours))
            noise = Noise(PERFECT, 10 * round_ + one, tuple(range(members + 1)))
            everyone = weather.forecast(start, noise, [4 * days])[:, 0, [1, 5, 11]].astype(float)
            everyone /= everyone.std(axis=(0, 2, 3))[:, None, None]
            truth, ensemble = everyone[0], everyone[1:]
            wide = ensemble.mean(0) + 1.3 * (ensemble - ensemble.mean(0))
            spread += ensemble.var(axis=0, ddof=1).mean()
            wide_spread += wide.var(axis=0, ddof=1).mean()
            error += ((ensemble.mean(0) - truth) ** 2).mean()
            for count, cast in ((ranks, ensemble), (wide_ranks, wide)):
                count += np.bincount((cast < truth).sum(0).ravel(), minlength=members + 1)
    factor = (members + 1) / members
    assert np.sqrt(factor * spread / error) == pytest.approx(1.0, abs=0.06)
    assert np.sqrt(factor * wide_spread / error) > 1.15
    unevenness = lambda count: np.abs(count / count.mean() - 1).mean()
    assert unevenness(ranks) < 0.07 < unevenness(wide_ranks)
