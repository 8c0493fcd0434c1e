"""The forecast store: same bytes after any kill, no race, refusals, and what readers see."""

import errno
import json
import multiprocessing
import os
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path

import cftime
import numpy as np
import pytest
import xarray as xr

from sciladm.conventions import UserError
from sciladm.data import blocks, durable
from sciladm.data.blocks import ForecastStore
from sciladm.data.plan import Block, ForecastPlan

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["sciladm.data.blocks", "zarr.codecs"])


def a_plan(members=5, inits=3, layout="sciladm", zarr_format=3, **config):
    latitude = np.array([60.0, 20.0, -20.0, -60.0])  # north to south, as many files have it
    longitude = np.array([-180.0, -90.0, 0.0, 90.0])
    state = xr.Dataset(
        {
            "geopotential": (
                ("level", "latitude", "longitude"),
                np.zeros((2, 4, 4), np.float32),
                {"standard_name": "geopotential", "units": "m2 s-2"},
            ),
            "2m_temperature": (
                ("latitude", "longitude"),
                np.zeros((4, 4), np.float32),
                {"standard_name": "air_temperature", "units": "K"},
            ),
        },
        {
            "level": ("level", np.array([500, 850]), {"units": "hPa"}),
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
    )
    return ForecastPlan(
        state=state,
        init_times=np.datetime64("2201-03-01T06", "ns")
        + np.arange(inits) * np.timedelta64(5, "D"),
        leads=np.array([24, 48], "timedelta64[h]").astype("timedelta64[ns]"),
        members=members,
        micro_batch=2,
        attributes={"forecast": "model", "source": "simulated", "seed": 3},
        config={"recipe": {"steps": 18}, **config},
        layout=layout,
        zarr_format=zarr_format,
    )


def values(plan: ForecastPlan, block: Block) -> dict[str, np.ndarray]:
    """A pure function of init, member, lead and cell."""
    out = {}
    for k, (name, v) in enumerate(plan.state.data_vars.items()):
        shape = (len(block.members), len(plan.leads), *v.shape)
        cell = np.arange(np.prod(v.shape)).reshape(v.shape) / 64
        lead = np.arange(len(plan.leads)).reshape(-1, *(1,) * v.ndim)
        member = np.array(block.members).reshape(-1, 1, *(1,) * v.ndim)
        field = 1000 * k + 100 * block.init + 10 * member + 2 * lead + cell
        out[str(name)] = np.broadcast_to(field, shape).astype(np.float32)
    return out


def fill(path, plan, rank=0, world=1, finalise=True, overwrite=False):
    with ForecastStore.create_or_resume(path, plan, overwrite) as store:
        for block in store.pending(rank, world):
            store.write(block, values(plan, block))
        if finalise:
            store.finalise()


def contents(path: Path) -> dict[str, bytes]:
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def fill_and_die(path, plan, calls, fill=fill):
    """Kill this process, as `kill -9` does, at a given call that changes the disk."""
    left = iter(range(calls))

    def deadly(function):
        def call(*args, **kwargs):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ("open", "fsync", "replace", "rename", "unlink", "mkdir"):
        setattr(os, name, deadly(getattr(os, name)))
    fill(path, plan)


def in_child(target, *args, kill_after=None) -> int:
    child = context.Process(target=target, args=args)
    child.start()
    if kill_after is not None:
        time.sleep(kill_after)
        child.kill()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


@pytest.fixture
def whole(tmp_path):
    """An uninterrupted store's plan and bytes."""
    plan = a_plan()
    fill(tmp_path / "whole.zarr", plan)
    return plan, contents(tmp_path / "whole.zarr")


def test_killed_and_resumed_store_is_the_same_file_for_file(tmp_path, whole):
    plan, expected = whole
    path, kills = tmp_path / "deep" / "F.zarr", 0
    for calls in np.random.default_rng(0).integers(0, 90, size=10):
        code = in_child(fill_and_die, path, plan, int(calls))
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        if path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with xr.open_zarr(path) as ds:
                    ds.load()
    fill(path, plan)
    assert kills >= 5
    assert contents(path) == expected
    assert [p.name for p in path.parent.iterdir()] == ["F.zarr"]


@pytest.mark.slow
def test_killed_at_any_moment_of_wall_time(tmp_path):
    plan = a_plan(members=9, inits=60)
    fill(tmp_path / "whole.zarr", plan)
    path, codes = tmp_path / "F.zarr", []
    for pause in np.random.default_rng(1).uniform(0.05, 0.6, size=30):
        codes.append(in_child(fill, path, plan, kill_after=pause))
    fill(path, plan)
    assert codes.count(-signal.SIGKILL) >= 5
    assert contents(path) == contents(tmp_path / "whole.zarr")


def test_two_workers_write_the_same_bytes_as_one(tmp_path, whole):
    plan, expected = whole
    path = tmp_path / "F.zarr"
    with ForecastStore.create_or_resume(path, plan) as store:
        children = [
            context.Process(target=write_as_worker, args=(path, plan, rank, 2)) for rank in (0, 1)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
        assert store.pending() == []
        store.finalise()
    assert contents(path) == expected


def write_as_worker(path, plan, rank, world):
    store = ForecastStore.attach(path, plan)
    for block in store.pending(rank, world):
        store.write(block, values(plan, block))


def test_workers_own_disjoint_blocks_however_late_they_look(tmp_path):
    plan = a_plan()
    with ForecastStore.create_or_resume(tmp_path / "F.zarr", plan) as store:
        first = store.pending(0, 2)
        store.write(first[0], values(plan, first[0]))
        second = store.pending(1, 2)
    assert not set(first) & set(second)
    assert set(first) | set(second) == set(plan.blocks())


def test_damaged_chunk_of_an_unrecorded_block_is_written_anew(tmp_path, whole):
    plan, expected = whole
    path = tmp_path / "F.zarr"
    with ForecastStore.create_or_resume(path, plan) as store:
        last = plan.blocks()[-1]  # the last micro-batch is not full: zarr reads before it writes
        store.write(last, values(plan, last))
        store._record(last).unlink()
        for chunk in store._chunks(last):
            chunk.write_bytes(b"")
    (path / "geopotential" / "c.0.0.0.0.0.abc.partial").write_bytes(b"half")
    fill(path, plan)
    assert contents(path) == expected


def test_negative_control_a_record_before_its_data_is_caught(tmp_path, whole):
    """If records came first, the test of bytes would see it."""
    plan, expected = whole
    path = tmp_path / "F.zarr"
    with ForecastStore.create_or_resume(path, plan) as store:
        durable.write_durably(store._record(plan.blocks()[0]), b"\x01")
    fill(path, plan)
    assert contents(path) != expected


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_opens_in_xarray_without_a_warning(tmp_path, zarr_format):
    plan, path = a_plan(zarr_format=zarr_format), tmp_path / "F.zarr"
    first, *_ = plan.blocks()
    with ForecastStore.create_or_resume(path, plan) as store:
        store.write(first, values(plan, first))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for consolidated in (None, True, False):
            with xr.open_zarr(path, consolidated=consolidated) as ds:
                ds.load()
    assert dict(ds.sizes) == {
        "init_time": 3,
        "member": 5,
        "lead_time": 2,
        "level": 2,
        "latitude": 4,
        "longitude": 4,
    }
    assert ds["lead_time"].dtype == "timedelta64[ns]"
    assert ds["lead_time"].values.tolist() == plan.leads.tolist()
    assert (ds["init_time"].values == plan.init_times).all()
    assert ds["valid_time"].dims == ("init_time", "lead_time")
    assert ds["valid_time"].values[1, 1] == np.datetime64("2201-03-08T06")
    assert ds["member"].values.tolist() == [0, 1, 2, 3, 4]
    for name, field in values(plan, first).items():
        assert ds[name].dtype == np.float32
        np.testing.assert_array_equal(ds[name][0, :2].values, field)
        assert np.isnan(ds[name][0, 2:]).all() and np.isnan(ds[name][1:]).all()
    assert ds["geopotential"].attrs["standard_name"] == "geopotential"
    assert ds["init_time"].attrs["standard_name"] == "forecast_reference_time"
    assert ds.attrs["source"] == "simulated" and ds.attrs["seed"] == 3
    assert ds["geopotential"].encoding["chunks"] == (1, 2, 1, 2, 4, 4)


def test_members_that_do_not_fill_a_micro_batch(tmp_path):
    plan = a_plan(members=3, inits=1)
    assert [list(b.members) for b in plan.blocks()] == [[0, 1], [2]]
    fill(tmp_path / "F.zarr", plan)
    with xr.open_zarr(tmp_path / "F.zarr") as ds:
        assert ds.sizes["member"] == 3
        assert not any(np.isnan(v).any() for v in ds.values())


def test_weatherbench2_layout_point_for_point(tmp_path):
    plan, path = a_plan(layout="weatherbench2"), tmp_path / "F.zarr"
    fill(path, plan)
    assert (path / ".zmetadata").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_zarr(path) as ds:
            ds.load()
    dims = ("time", "number", "prediction_timedelta", "level", "latitude", "longitude")
    assert ds["geopotential"].dims == dims
    assert ds["2m_temperature"].dims == dims[:3] + dims[4:]
    assert "valid_time" not in ds.variables
    assert "prediction_timedelta" in ds.coords
    assert ds["prediction_timedelta"].dtype == "timedelta64[ns]"
    assert ds["time"].dtype == "datetime64[ns]"
    assert ds["number"].values.tolist() == [1, 2, 3, 4, 5]
    assert ds["level"].dtype.kind == "i"
    assert ds["latitude"].values.tolist() == [-60, -20, 20, 60]
    assert ds["longitude"].values.tolist() == [0, 90, 180, 270]
    assert ds["geopotential"].encoding["chunks"] == (1, 2, 1, 2, 4, 4)
    block = plan.blocks()[4]
    place = {"time": plan.init_times[block.init], "prediction_timedelta": plan.leads[1]}
    written = values(plan, block)["geopotential"][0, 1]
    got = ds["geopotential"].sel(place | {"number": 3})
    assert got.sel(level=850, latitude=60, longitude=180) == written[1, 0, 0]
    assert got.sel(level=500, latitude=-20, longitude=90) == written[0, 2, 3]


def test_weatherbench2_layout_refuses_what_it_cannot_hold(tmp_path):
    plan = a_plan(layout="weatherbench2")
    with pytest.raises(UserError, match=r"ends in \.zarr"):
        ForecastStore.create_or_resume(tmp_path / "F", plan)
    plane = replace(plan, state=plan.state.rename(latitude="y", longitude="x"))
    with pytest.raises(UserError, match="latitude × longitude"):
        ForecastStore.create_or_resume(tmp_path / "F.zarr", plane)
    assert list(tmp_path.iterdir()) == []


def test_another_configuration_is_refused_and_named(tmp_path, whole):
    path, (plan, expected) = tmp_path / "whole.zarr", whole
    others = {
        r"members: 5 there, 6 now": replace(plan, members=6),
        r"config.recipe.steps: 18 there, 20 now": replace(plan, config={"recipe": {"steps": 20}}),
        r"leads: 2 values there, 1 now": replace(plan, leads=plan.leads[:1]),
        r"attributes.seed: 3 there, 4 now": replace(
            plan, attributes={**plan.attributes, "seed": 4}
        ),
        r"init_times: 3 values there, 2 now": replace(plan, init_times=plan.init_times[:2]),
        r"coordinates.longitude": replace(
            plan, state=plan.state.assign_coords(longitude=[0.0, 1.0, 2.0, 3.0])
        ),
    }
    for message, other in others.items():
        with pytest.raises(UserError, match=message) as caught:
            ForecastStore.create_or_resume(path, other)
        assert "--overwrite" in str(caught.value)
    assert contents(path) == expected
    fill(path, plan)  # the same one: nothing to do
    assert contents(path) == expected


def test_overwrite_replaces_a_forecast_store_and_nothing_else(tmp_path, whole):
    plan, expected = whole
    path = tmp_path / "F.zarr"
    fill(path, replace(plan, members=1))
    fill(path, plan, overwrite=True)
    assert contents(path) == expected
    for name in ("folder", "file", "data.zarr"):
        theirs = tmp_path / name
        if name == "file":
            theirs.write_text("precious")
        elif name == "folder":
            theirs.mkdir()
        else:
            plan.state.to_zarr(theirs, zarr_format=2)
        before = contents(tmp_path)
        for overwrite in (False, True):
            with pytest.raises(UserError, match="not a forecast store"):
                ForecastStore.create_or_resume(theirs, plan, overwrite)
        assert contents(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "F.zarr", "data.zarr", "file", "folder", "whole.zarr",
    ]  # fmt: skip


def test_a_second_program_is_refused(tmp_path):
    plan, path = a_plan(), tmp_path / "F.zarr"
    with ForecastStore.create_or_resume(path, plan):
        for overwrite in (False, True):
            with pytest.raises(UserError, match="another program is writing"):
                ForecastStore.create_or_resume(path, plan, overwrite)
    ForecastStore.create_or_resume(path, plan).close()


def test_disk_full_is_told_and_the_store_resumes(tmp_path, whole, monkeypatch):
    plan, expected = whole
    path = tmp_path / "F.zarr"
    real, writes = Path.replace, iter(range(60))

    def full(self, target):
        if next(writes, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=r"cannot write .*F\.zarr: No space left.*same command"):
        fill(path, plan)
    monkeypatch.undo()
    with ForecastStore.create_or_resume(path, plan) as store:
        assert 0 < len(store.pending()) < len(plan.blocks())
    fill(path, plan)
    assert contents(path) == expected


def test_disk_full_at_creation_leaves_no_store(tmp_path, monkeypatch):
    def full(path, plan):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(blocks, "write_template", full)
    with pytest.raises(UserError, match="No space left"):
        ForecastStore.create_or_resume(tmp_path / "F.zarr", a_plan())
    assert not (tmp_path / "F.zarr").exists()


def test_data_is_durable_before_its_record(tmp_path, monkeypatch):
    plan, synced = a_plan(), []
    with ForecastStore.create_or_resume(tmp_path / "F.zarr", plan) as store:
        block = plan.blocks()[0]
        monkeypatch.setattr(blocks, "sync", lambda *paths: synced.extend(paths))
        monkeypatch.setattr(blocks, "write_durably", lambda path, data: synced.append(path))
        store.write(block, values(plan, block))
        chunks = store._chunks(block)
        assert all(chunk.exists() for chunk in chunks)
        assert set(synced[: len(chunks)]) == set(chunks)
        assert set(synced[len(chunks) : -1]) == {chunk.parent for chunk in chunks}
        assert synced[-1] == store._record(block)


def test_finalise_refuses_an_unfinished_store_and_write_a_wrong_shape(tmp_path):
    plan = a_plan()
    with ForecastStore.create_or_resume(tmp_path / "F.zarr", plan) as store:
        with pytest.raises(ValueError, match="9 blocks are not written"):
            store.finalise()
        block = plan.blocks()[0]
        wrong = {name: field[:1] for name, field in values(plan, block).items()}
        with pytest.raises(ValueError, match="expected"):
            store.write(block, wrong)
        assert block in store.pending()


def test_nothing_to_write_and_twice_the_same_time_are_refused(tmp_path):
    plan = a_plan()
    with pytest.raises(UserError, match="at least 1"):
        ForecastStore.create_or_resume(tmp_path / "F.zarr", replace(plan, members=0))
    twice = replace(plan, init_times=plan.init_times[[0, 0]])
    with pytest.raises(UserError, match="more than once"):
        ForecastStore.create_or_resume(tmp_path / "F.zarr", twice)


def test_other_calendars(tmp_path):
    times = np.array([cftime.DatetimeNoLeap(2001, 2, 28), cftime.DatetimeNoLeap(2001, 3, 5)])
    plan = replace(a_plan(inits=2), init_times=times)
    fill(tmp_path / "F.zarr", plan)
    with xr.open_zarr(tmp_path / "F.zarr") as ds:
        assert ds["valid_time"].values[0, 0] == cftime.DatetimeNoLeap(2001, 3, 1)


def test_bytes_do_not_depend_on_the_place(tmp_path, whole):
    plan, expected = whole
    fill(tmp_path / "elsewhere" / "other name.zarr", plan)
    assert contents(tmp_path / "elsewhere" / "other name.zarr") == expected
    assert not any(str(tmp_path).encode() in data for data in expected.values())


def test_a_store_is_gone_on_with_on_another_machine_and_that_is_told(tmp_path, caplog):
    def on(device, torch="2.13.0", **more):
        told = {"device": device, "threads": 1, "versions": json.dumps({"torch": torch})}
        return replace(a_plan(), attributes=a_plan().attributes | told | more)

    path = tmp_path / "F.zarr"
    with ForecastStore.create_or_resume(path, on("cpu")) as store:
        blocks = len(store.pending())
    with ForecastStore.create_or_resume(path, on("cpu")):
        assert not caplog.text
    with ForecastStore.create_or_resume(path, on("cuda", "2.14.0")) as store:
        assert len(store.pending()) == blocks
    said = "device: cpu there, cuda now; versions.torch: 2.13.0 there, 2.14.0 now"
    assert said in caplog.text and len(caplog.records) == 1
    with pytest.raises(UserError, match="seed: 3 there, 4 now"):
        ForecastStore.create_or_resume(path, on("cuda", seed=4))
    assert len(caplog.records) == 1  # what is refused is not warned of too


def test_what_is_replaced_comes_back_where_that_fails(tmp_path, monkeypatch):
    new, path = tmp_path / "new", tmp_path / "store"
    for folder, text in ((new, "new"), (path, "old")):
        folder.mkdir()
        (folder / "file").write_text(text)
    rename = Path.replace

    def full(self, target):
        if self == new:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            durable.publish(new, path)
    assert (path / "file").read_text() == "old"
    durable.publish(new, path)
    assert (path / "file").read_text() == "new" and list(tmp_path.iterdir()) == [path]
