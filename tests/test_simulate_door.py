"""The perfect-model ensemble as a store: right channels, same bits, simulated sources alone."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from sciladm.conventions import UserError
from sciladm.simulate import Atmosphere
from sciladm.simulate.__main__ import main
from sciladm.simulate.channels import CHANNELS
from sciladm.tasks.perfect import perfect

DAY = np.timedelta64(86_400_000_000_000, "ns")


def files(path):
    return {
        str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()
    }


def test_channels_are_found_by_their_labels(tiny_cache, tmp_path):
    tiny, out = tiny_cache, tmp_path / "p.zarr"
    perfect(tiny.recipe, tiny.data, out, np.array([DAY]), init="test:3", members=3, processes=1)
    ds = xr.open_zarr(out)
    init = ds["init_time"].values
    drawn = Atmosphere.tiny().perfect(tiny.data.path, init, 3, [DAY], tiny.recipe.seed)
    ((_, exact),) = drawn
    for variable, level in [("geopotential", 500), ("temperature", 850), ("2m_temperature", None)]:
        there = ds[variable].isel(init_time=0)
        there = there if level is None else there.sel(level=level)
        expected = exact[:, :, CHANNELS.index((variable, level))]
        np.testing.assert_array_equal(there.transpose("member", "lead_time", ...), expected)
    assert ds.attrs["forecast"] == "perfect"
    assert ds.attrs["source_kind"] == "simulated"


def test_bits_depend_on_no_process_and_survive_a_stop(tiny_cache, tmp_path):
    tiny, leads = tiny_cache, np.array([DAY])
    wish = {"init": "test:0:4", "members": 2}
    whole, stopped = tmp_path / "whole.zarr", tmp_path / "stopped.zarr"
    perfect(tiny.recipe, tiny.data, whole, leads, **wish, processes=2)

    class Stop(Exception):
        pass

    class Impatient:
        def say(self, text):
            pass

        def progress(self, title):
            from contextlib import nullcontext

            def report(fraction, note=""):
                if fraction >= 0.5:
                    raise Stop

            return nullcontext(report)

    with pytest.raises(Stop):
        perfect(tiny.recipe, tiny.data, stopped, leads, **wish, voice=Impatient(), processes=1)
    perfect(tiny.recipe, tiny.data, stopped, leads, **wish, processes=1)
    assert files(stopped) == files(whole)


def test_only_a_simulated_world_has_one(tiny_cache, tmp_path):
    real = replace(tiny_cache.data, kind="zarr-https", source="weatherbench2")
    with pytest.raises(UserError, match=r"needs a simulated world.*weatherbench2"):
        perfect(tiny_cache.recipe, real, tmp_path / "p.zarr", np.array([DAY]))
    assert not (tmp_path / "p.zarr").exists()


def test_the_door(tiny_cache, tmp_path, capsys):
    recipe = tmp_path / "tiny-test.yaml"
    recipe.write_text(tiny_cache.recipe.text())

    def run(*more):
        with pytest.raises(SystemExit) as ended:
            main([str(recipe), "--out", str(tmp_path / "p.zarr"), "--quiet", *more])
        return ended.value.code, capsys.readouterr().err

    asked = ("--init", "test:0:2", "--lead", "1d", "--members", "2")
    assert run(*asked) == (0, "")
    assert xr.open_zarr(tmp_path / "p.zarr").sizes["member"] == 2
    assert run(*asked) == (0, "")
    code, said = run("--init", "test:0:2", "--lead", "2d", "--members", "2")
    assert code == 2
    assert "another configuration" in said
    code, said = run(*asked, "--overwrite", "--set", "output.layout=weatherbench2")
    assert code == 2
    assert "simulated_as_weatherbench2" in said
    code, said = run(*asked, "--source", "weatherbench2")
    assert code == 2
    assert "no source weatherbench2" in said
