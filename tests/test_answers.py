"""Stores of answers: same bytes after any kill, refusals, what readers see before the end."""

import signal
import warnings

import dask.array
import numpy as np
import pytest
import xarray as xr

from sciladm.conventions import UserError
from sciladm.data.answers import AnswerPlan, AnswerStore
from sciladm.data.blocks import unfinished
from tests.test_blocks import contents, fill_and_die, in_child

PARTS = [(times, range(m, min(m + 2, 5))) for times in ([3], [0, 2], [1]) for m in (0, 2, 4)]


def a_plan(**asked):
    """Five members of four times in micro-batches of two; times of a series lie apart."""
    blank = dask.array.full((5, 3, 4, 2), np.nan, dtype=np.float32, chunks=2)
    ds = xr.Dataset(
        {
            "t": (("member", "x", "time", "y"), blank, {"units": "K"}),
            "seen": (("x", "time", "y"), np.ones((3, 4, 2), bool)),
        },
        {"member": np.arange(5), "time": np.arange(4), "x": np.arange(3.0)},
        {"kept": 1},
    )
    machine = {"device": "cpu", "threads": 1, "versions": "{}"}
    return AnswerPlan(
        ds, {"member": 2, "time": 1}, len(PARTS), {"attributes": machine, "asked": asked}
    )


def values(number):
    times, members = PARTS[number]
    shape = np.arange(3.0)[:, None, None], np.array(times)[:, None], np.arange(2.0)
    cell = 100 * shape[1] + 10 * shape[0] + shape[2]
    whole = 1000 * np.array(members).reshape(-1, 1, 1, 1) + cell
    place = {"member": members, "time": times}
    part = xr.DataArray(whole.astype(np.float32), dims=("member", "x", "time", "y"))
    return place, xr.Dataset({"t": part.transpose("time", ...)})


def fill(path, plan, overwrite=False, most=99):
    with AnswerStore.create_or_resume(path, plan, overwrite) as store:
        for number in store.pending()[:most]:
            store.write(number, *values(number), told=number / 100)
        if not store.pending():
            store.finalise(largest=float(store.told().max()))


def test_killed_and_resumed_store_is_the_same_file_for_file(tmp_path):
    plan = a_plan()
    fill(tmp_path / "whole.zarr", plan)
    path, kills = tmp_path / "deep" / "F.zarr", 0
    for calls in np.random.default_rng(0).integers(0, 90, size=10):
        code = in_child(fill_and_die, path, plan, int(calls), fill)
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        if path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with xr.open_zarr(path) as ds:
                    ds.load()
    fill(path, plan)
    assert kills >= 5
    assert contents(path) == contents(tmp_path / "whole.zarr")
    assert [p.name for p in path.parent.iterdir()] == ["F.zarr"]


def test_what_readers_see_before_and_after_the_end(tmp_path):
    path, plan = tmp_path / "F.zarr", a_plan()
    fill(path, plan, most=4)
    assert unfinished(path) == 5
    with xr.open_zarr(path) as ds:
        there = np.isfinite(ds.t.load()).all(("x", "y"))
        assert there.values.T.tolist() == [  # time, member
            [True, True, False, False, False], [False] * 5, [True, True, False, False, False],
            [True] * 5,
        ]  # fmt: skip
        assert ds.seen.all() and "largest" not in ds.attrs
    fill(path, plan)
    assert unfinished(path) == 0
    with xr.open_zarr(path) as ds:
        member, x, time, y = np.indices((5, 3, 4, 2))
        assert (ds.t == 1000 * member + 100 * time + 10 * x + y).all()
        assert ds.attrs == {"kept": 1, "largest": 0.08} and ds.t.attrs == {"units": "K"}
        assert ds.t.encoding["chunks"] == (2, 3, 1, 2)


def test_damaged_chunk_of_an_unrecorded_block_is_written_anew(tmp_path):
    plan = a_plan()
    fill(tmp_path / "whole.zarr", plan)
    path = tmp_path / "F.zarr"
    fill(path, plan, most=3)  # the third is a micro-batch that is not full
    (path / ".sciladm" / "done" / "c.2").unlink()
    (path / "t" / "c.2.0.3.0").write_bytes(b"")
    (path / "t" / "c.0.0.0.0.abc.partial").write_bytes(b"half")
    fill(path, plan)
    assert contents(path) == contents(tmp_path / "whole.zarr")


def test_other_questions_are_refused_and_replaced_when_told(tmp_path):
    path = tmp_path / "F.zarr"
    fill(path, a_plan(seed=0), most=4)
    before = contents(path)
    with pytest.raises(UserError, match=r"another configuration: asked\.seed: 0 there, 1 now"):
        fill(path, a_plan(seed=1))
    assert contents(path) == before
    fill(path, a_plan(seed=1), overwrite=True, most=0)
    assert unfinished(path) == 9
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="was not begun by this command"):
        fill(tmp_path / "mine", a_plan())
    with (
        AnswerStore.create_or_resume(path, a_plan(seed=1), False),
        pytest.raises(UserError, match="another program"),
    ):
        fill(path, a_plan(seed=1))
