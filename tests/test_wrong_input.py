"""What people get wrong, at every door: exit code 2, one message that helps, nothing lost."""

import errno
import os
import resource
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from sciladm import evaluate, forecast, infill, train
from sciladm.data.blocks import ForecastStore
from sciladm.simulate import __main__ as simulate
from tests.conftest import QUICK, Tiny

ROOT = Path(__file__).parents[1]
OPEN = (train, forecast, infill, evaluate, simulate)
DOORS = {door.__name__.split(".")[1]: door for door in OPEN}
OWN = {
    "schema": 1,
    "name": "own",
    "data": {"path": "fields.nc"},
    "window": {"step": "24h"},
    "autoencoder": {"patch": 2, "channels": 2, "blocks": 0},
    "denoiser": {"widths": [4], "blocks": 1, "attention": False, "mean_steps": 0, "steps": 2},
    "evaluation": {"init": "test:0:2", "lead": "1step", "members": 2, "validation_inits": 1},
}
"""A recipe that would train in a moment, if what it is given were right."""


def own(**changes):
    """Text of `OWN` with sections changed key by key."""
    tree = {**OWN, **{k: {**OWN.get(k, {}), **v} if isinstance(v, dict) else v
                      for k, v in changes.items()}}  # fmt: skip
    return yaml.safe_dump(tree, sort_keys=False)


def card(*sources):
    """Text of a card with these sources."""
    head = dict.fromkeys(("title", "description", "licence", "citation"), "made up")
    return yaml.safe_dump({**head, "step": "24h", "variables": {"t": {}}, "sources": sources})


REMOTE = {"kind": "zarr-https", "url": "http://127.0.0.1:9/none.zarr", "splits": {}}
SPLITS = {
    "train": [["2001-01-01", "2001-03-01"]],
    "validation": [["2001-03-02", "2001-03-20"]],
    "test": [["2001-03-21", "2001-04-30"]],
}

# name of the recipe: its text, words of the message
RECIPES = {
    "unknown key": (own(denoiser={"stepz": 3}), "unknown key `denoiser.stepz` did you mean"),
    "unknown section": (own(denosier={}), "unknown key `denosier` did you mean `denoiser`?"),
    "wrong type": (own(denoiser={"steps": "many"}), "`denoiser.steps` integer 'many'"),
    "too small": (own(denoiser={"steps": 0}), "`denoiser.steps` greater than 0 got 0"),
    "no such choice": (own(output={"layout": "grib"}), "`output.layout` 'sciladm' 'grib'"),
    "negative seed": (own(seed=-1), "`seed` greater than or equal to 0 got -1"),
    "missing name": ("schema: 1\ndata: {path: fields.nc}\n", "key `name` is missing"),
    "name of a path": (own(name="a/b"), "`name` 'a/b'"),
    "future schema": (own(schema=2), "`schema` 1 got 2"),
    "key twice": ("schema: 1\nname: a\nname: b\n", "`name` stands twice line 1"),
    "tabs": ("schema: 1\n\tname: a\n", "not valid YAML line 2"),
    "code": ("!!python/object/apply:os.system ['touch harm']\n", "not valid YAML"),
    "a list": ("- a\n- b\n", "mapping of sections got list"),
    "empty": ("", "mapping of sections got"),
    "number of a section": (own(window=3), "`window` got 3"),
    "both origins": (own(data={"card": "tiny"}), "either `card` or `path`"),
    "no origin": (own(data={"path": None}), "either `card` or `path`"),
    "no duration": (own(window={"step": "1 fortnight"}), "`window.step` '1 fortnight' 6h or 5d"),
    "lead no duration": (own(evaluation={"lead": "soon"}), "`evaluation.lead` 'soon' 5d"),
    "unknown card": (own(data={"path": None, "card": "tyni"}), "no card tyni there are: tiny"),
    "card absent": (own(data={"path": None, "card": "gone.yaml"}), "gone.yaml No such file"),
    "card not YAML": (own(data={"path": None, "card": "noise.yaml"}), "noise.yaml"),
    "card unknown key": (own(data={"path": None, "card": "odd.yaml"}), "sources url known"),
    "card offline": (own(data={"path": None, "card": "remote.yaml"}), "far out of reach"),
    "card no local": (own(data={"path": None, "card": "local.yaml"}), "gone.nc is absent"),
    "missing variable": (own(data={"variables": {"u": None}}), "no variable u there are: t"),
    "missing level": (own(data={"path": "levels.nc", "variables": {"z": [700]}}), "z 700 500 850"),
    "levels of none": (own(data={"variables": {"t": [500]}}), "t level"),
    "missing static": (own(data={"static": ["height"]}), "no variable height there are: t"),
    "static in time": (own(data={"static": ["t"]}), "static t depends on time variables"),
    "dims unknown": (own(data={"dims": {"lat": "north"}}), "north latitude"),
    "split overlap": (own(data={"splits": {**SPLITS, "test": [["2001-03-10", "2001-04-30"]]}}),
                      "validation and test overlap 2001-03-10"),
    "empty split": (own(data={"splits": {**SPLITS, "test": [["2017", "2018"]]}}),
                    "split test holds none 2001-01-01"),
    "split backwards": (own(data={"splits": {**SPLITS, "test": [["2002", "2001"]]}}),
                        "2002 comes after 2001"),
    "split no date": (own(data={"splits": {**SPLITS, "test": [["spring", "2001"]]}}), "spring"),
    "split missing": (own(data={"splits": {"train": [["2001-01-01", "2001-03-01"]]}}),
                      "validation"),
    "few times": (own(window={"step": "60d"}), "windows 30 needed window.step"),
    "step between": (own(window={"step": "36h"}), "36h 24h"),
    "too many channels": (own(autoencoder={"channels": 99}), "autoencoder.channels 99 at most"),
    "headline unknown": (own(evaluation={"headline": ["u"]}), "evaluation.headline: u t"),
    "sigma backwards": (own(sampler={"sigma_max": 0.01}), "sigma_max sigma_min"),
}  # fmt: skip

# what --data is given: words of the message
FILES = {
    "gone.nc": "no such file: gone.nc; in that folder",
    "gone*.nc": "no file matches gone*.nc",
    "empty": "empty folder without a zarr store or netCDF files",
    "noise.nc": "noise.nc no netCDF damaged converted",
    "nothing.nc": "nothing.nc no netCDF damaged",
    "notes.txt": "notes.txt no netCDF converted",
    "cut4.nc": "cut4.nc cut short or damaged",
    "cut3.nc": "cut3.nc cut short or damaged",
    "chunk.zarr": "chunk.zarr, variable t cut short or damaged",
    "lost.zarr": "t: missing 2001-01-21 the file has lost data",
    "array.zarr": "array.zarr",
    "metadata.zarr": "metadata.zarr",
    "nan.nc": "t: 1 missing 2001-02-20 `missing: static`",
    "infinite.nc": "t: 1 not finite 2001-02-20",
    "once.nc": "single time",
    "still.nc": "time",
    "cells.nc": "no grid of two axes remapbil",
    "irregular.nc": "time",
    "twice.nc": "times do not increase drop_duplicates",
    "groups.nc": "no variables at the top groups inner",
    "text.nc": "t: its values are no numbers",
}

# command: words of the message
COMMANDS = {
    # train
    "train": "Missing argument RECIPE --help",
    "train own.yaml --sead 1": "No such option --sead --help",
    "train own.yaml --seed -1": "--seed greater than or equal to 0",
    "train own.yaml --seed x": "--seed valid integer",
    "train owm.yaml": "no recipe at owm.yaml own.yaml",
    "train empty": "no recipe at empty",
    "train noise.yaml": "noise.yaml cannot be read as text",
    "train own.yaml --set denoiser.steps": "--set denoiser.steps KEY=VALUE",
    "train own.yaml --set denoiser.stepz=3": "unknown key `denoiser.stepz` did you mean",
    "train own.yaml --set name.first=a": "`name` is a value, not a section",
    "train own.yaml --set seed=[1": "--set seed not valid YAML",
    "train own.yaml --device gpu": "--device gpu auto cpu cuda",
    "train own.yaml --device cuda:99": "--device cuda:99 CUDA devices",
    "train own.yaml --source tape": "--source tape own",
    "train {tiny} --source tape": "card tiny has no source tape simulated",
    "train card-offline.yaml --source far": "far out of reach",
    "train own.yaml --data fields.nc --data smaller.nc": "2 files do not fit together same grid",
    "train own.yaml --run-dir notes.txt": "notes.txt is not a run --run-dir",
    "train own.yaml --run-dir theirs": "theirs is not a run --run-dir",
    "train own.yaml --run-dir theirs --overwrite": "theirs is not a run --run-dir",
    "train own.yaml --run-dir notes.txt/run": "cannot write notes.txt/run: Not a directory",
    "train own.yaml --run-dir run": "another recipe name is --run-dir --overwrite",
    "train {quick} --set seed=5 --run-dir run": "another recipe seed is 0 there, 5 now",
    "train own.yaml --set seed=1 --run-dir mine": "another recipe seed is 0 there, 1 now",
    "train own.yaml --data warmer.nc --run-dir mine": "data.path fields.nc warmer.nc --run-dir",
    "train own.yaml --set data.path=[]": "no file is named data.path --data",
    "train own.yaml --set data.dims.latitude=longitude": "longitude",
    "train own.yaml --set data.missing.t=some": "`data.missing.t` 'none', 'static' or 'moving'",
    "train own.yaml --set data.missing.t=moving": "t missing whole fields window.past: 0 trains",
    "train own.yaml --set data.splits.train=2001": "splits",
    "train own.yaml --set evaluation.lead=3": "`evaluation.lead`",
    "train own.yaml --set window.past=99": "needed window.step",
    "train own.yaml --set micro_batch=0": "`micro_batch` greater than 0",
    "train own.yaml --set denoiser.widths=[]": "`denoiser.widths` at least 1",
    "train own.yaml --set denoiser.learning_rate=nan": "`denoiser.learning_rate`",
    "train own.yaml --set autoencoder.patch=500": "autoencoder.patch",
    # forecast
    "forecast": "Missing argument RUN --help",
    "forecast run --lead 1d": "Missing option --out",
    "forecast gone --out new.zarr": "gone is not a trained run does not exist",
    "forecast own.yaml --out new.zarr": "own.yaml is not a trained run",
    "forecast theirs --out new.zarr": "theirs is not a trained run lacks recipe.yaml",
    "forecast half --out new.zarr": "half is not a trained run lacks denoiser.safetensors",
    "forecast damaged --out new.zarr": "denoiser.safetensors not a whole safetensors",
    "forecast statistics --out new.zarr": "statistics.safetensors not a whole safetensors",
    "forecast edited --out new.zarr": "does not fit the run's recipe",
    "forecast mistyped --out new.zarr": "recipe.yaml unknown key `denoiser.stepz`",
    "forecast facts --out new.zarr": "facts.json not whole JSON restore",
    "forecast run --lead 36h --out new.zarr": "--lead 36h multiple of the step 24h",
    "forecast run --lead 0d --out new.zarr": "--lead 0d",
    "forecast run --lead 0step --out new.zarr": "--lead 0step 1step",
    "forecast run --lead=-1d --out new.zarr": "-1d",
    "forecast run --lead soon --out new.zarr": "--lead soon",
    "forecast run --members 0 --out new.zarr": "--members greater than or equal to 1",
    "forecast run --members x --out new.zarr": "--members valid integer",
    "forecast run --batch 0 --out new.zarr": "--batch 0 at least 1 auto",
    "forecast run --seed -1 --out new.zarr": "--seed greater than or equal to 0",
    "forecast run --device tpu --out new.zarr": "--device tpu",
    "forecast run --init soon --out new.zarr": "--init soon 2020-01-31T06 test:0:48",
    "forecast run --init 1999-01-01 --out new.zarr": "--init 1999-01-01 not in the data",
    "forecast run --init 2201-13-01 --out new.zarr": "--init 2201-13-01",
    "forecast run --init winter:0 --out new.zarr": "--init winter:0 test:0:48",
    "forecast run --init test:a --out new.zarr": "--init test:a test:NUMBER",
    "forecast run --init test:99999 --out new.zarr": "--init test:99999",
    "forecast run --init test:0:0 --out new.zarr": "--init test:0:0",
    "forecast run --init 2241-01-01/2241-01-05/0d --out new.zarr": "--init 0d",
    "forecast run --init test:0 --lead 900d --out new.zarr": "shorter lead",
    "forecast run --set denoiser.steps=3 --out new.zarr": "only sampler.*, output.*",
    "forecast run --set sampler.stepz=3 --out new.zarr": "unknown key `sampler.stepz`",
    "forecast run {one} --data fields.nc --out new.zarr": "no variable geopotential",
    "forecast run {one} --data coarse.nc --out new.zarr": "latitude are not in the data",
    "forecast run {one} --data hours.nc --out new.zarr": "5h 24h",
    "forecast run {one} --data gone.nc --out new.zarr": "no such file gone.nc",
    "forecast run {one} --data gap.nc --out new.zarr": "geopotential no value",
    "forecast run {one} --data fields.nc --data gone.nc --out new.zarr": "no such file: gone.nc",
    "forecast run {one} --data cut4.nc --out new.zarr": "cut4.nc cut short or damaged",
    "forecast run --init , --out new.zarr": "--init ,",
    "forecast run --init 2213-01-05/2213-01-01/1d --out new.zarr": "--init 0 of 0",
    "forecast run --set sampler.steps=1 --out new.zarr": "`sampler.steps` 4",
    "forecast run --set sampler.sigma_max=0.001 --out new.zarr": "sigma_max above sigma_min",
    "forecast run --set output.format=1 --out new.zarr": "`output.format` 2 or 3",
    "forecast run {one} --out notes.txt": "notes.txt not a forecast store --out",
    "forecast run {one} --out theirs": "theirs not a forecast store --out",
    "forecast run {one} --out theirs --overwrite": "theirs not a forecast store --out",
    "forecast run {one} --out run": "run not a forecast store --out",
    "forecast run {one} --out notes.txt/new.zarr": "notes.txt",
    "forecast run --init test:1 --lead 1d --members 2 --out F.zarr": "another configuration",
    "forecast run {one} --members 3 --out F.zarr": "another configuration --overwrite",
    "forecast run {one} --set output.layout=weatherbench2 --out new.zarr": "simulated",
    # infill
    "infill": "Missing argument RUN",
    "infill run gap.nc": "Missing option --out",
    "infill run gone.nc --out new.zarr": "no such file gone.nc",
    "infill theirs gap.nc --out new.zarr": "theirs is not a trained run",
    "infill run fields.nc --out new.zarr": "no variable geopotential",
    "infill run coarse.nc --out new.zarr": "latitude are not in the data",
    "infill run gap.nc --out theirs": "theirs exists --overwrite --out",
    "infill run gap.nc --out theirs --overwrite": "theirs exists no filled store --out",
    "infill run gap.nc --method magic --out new.zarr": "method magic guided, oi",
    "infill run gap.nc --output map --out new.zarr": "output map members, mean_std, quantiles",
    "infill run gap.nc --obs-error x --out new.zarr": "--obs-error x NAME=NUMBER",
    "infill run gap.nc --obs-error 1 --out new.zarr": "obs_error of which variable",
    "infill run gap.nc --obs-error snow=1 --out new.zarr": "obs_error no variable snow",
    "infill run gap.nc --out new.zarr": "first 1 whole window.past: 0",
    # evaluate
    "evaluate": "Missing argument F.zarr",
    "evaluate F.zarr": "Missing option --out",
    "evaluate gone.zarr --out new": "no such file gone.zarr",
    "evaluate run --out new": "run is a folder without a zarr store",
    "evaluate fields.nc --out new": "fields.nc is no forecast store sciladm.forecast",
    "evaluate noise.nc --out new": "noise.nc no netCDF",
    "evaluate F.zarr --out notes.txt": "notes.txt is a file --out",
    "evaluate F.zarr --out notes.txt/report": "notes.txt is a file",
    "evaluate F.zarr --out theirs": "theirs is not a report --out",
    "evaluate F.zarr --out theirs --overwrite": "theirs is not a report --out",
    "evaluate F.zarr --run gone --out new": "--run gone no run",
    "evaluate F.zarr --run mine --out new": "other data --truth --run",
    "evaluate F.zarr --truth fields.nc --out new": "the truth 2001-01-01 2001-04-30 --truth",
    "evaluate F.zarr --truth coarse.nc --out new": "latitude are not in the data",
    "evaluate F.zarr --truth earlier.nc --out new": "holds none of the --truth",
    "evaluate F.zarr F.zarr --out new": "two stores are called F",
    "evaluate unwritten.zarr --out new": "unwritten.zarr is not finished, 2 blocks again",
    "evaluate F.zarr --set denoiser.steps=3 --out new": "only sampler.*",
    "evaluate F.zarr --set evaluation.baselines=[luck] --out new": "baselines luck",
    "evaluate F.zarr --set evaluation.headline=[snow] --out new": "evaluation.headline: snow",
    "evaluate F.zarr --seed -1 --out new": "--seed greater than or equal to 0",
    "evaluate F.zarr --batch x --out new": "--batch x",
    # simulate
    "simulate": "Missing argument RUN|RECIPE --help",
    "simulate theirs --out new.zarr": "theirs is no run recipe.yaml",
    "simulate gone --out new.zarr": "gone",
    "simulate own.yaml --lead 1d --out new.zarr": "simulated world",
    "simulate {tiny} --source tape --out new.zarr": "no source tape simulated",
    "simulate {tiny} --device cuda --out new.zarr": "--device cuda cpu",
    "simulate {tiny} --lead 36h --out new.zarr": "--lead 36h 24h",
    "simulate {tiny} --members 0 --out new.zarr": "--members greater than or equal to 1",
    "simulate {tiny} --init 1999-01-01 --out new.zarr": "not in the data",
    "simulate run --set denoiser.steps=3 --out new.zarr": "only sampler.*",
    "simulate run {one} --out F.zarr": "another configuration",
    "simulate run {one} --out theirs": "theirs not a forecast store",
}
ALIASES = {
    "{one}": "--init test:0 --lead 1d --members 2",
    "{tiny}": str(ROOT / "recipes/tiny.yaml"),
    "{quick}": " ".join(
        [str(ROOT / "recipes/tiny.yaml"), *(f"'--set={k}={v}'" for k, v in QUICK.items())]
    ),
}


def call(line, captured):
    """Exit code and stderr of a command line, in this process."""
    for short, long in ALIASES.items():
        line = line.replace(short, long)
    door, *arguments = shlex.split(line)
    captured.readouterr()
    with pytest.raises(SystemExit) as end:
        DOORS[door].main([*arguments, "--quiet"], name=f"sciladm {door}")
    return end.value.code, captured.readouterr().err


def contents(folder):
    """Bytes of every file, and the folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@cache
def at_first(place):
    """`contents` before any command; each leaves them as they were."""
    return contents(place)


def not_read(place, before):
    """The run forgets again that commands which ended well have read its test split."""
    name = "run/test_reads.jsonl"
    assert (place / name).read_bytes().startswith(before[name])
    (place / name).write_bytes(before[name])


def refused(line, words, place, capfd):
    """The command ends with 2 and one line that has these words; nothing changes."""
    before = at_first(place)
    code, told = call(line, capfd)
    assert code == 2, told
    assert told.startswith("error: ") and told.count("\n") == 1, told
    assert not [word for word in words.split() if word not in told], told
    after = contents(place)
    assert after.keys() == before.keys()
    assert after == before


def plain(**coordinates):
    """Daily fields of one variable on 8 × 12 cells, from 2001 on."""
    shape = (120, 8, 12)
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    axes = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(120) * np.timedelta64(1, "D"),
        "latitude": ("latitude", 40.0 + np.arange(8), {"units": "degrees_north"}),
        "longitude": ("longitude", 10.0 + np.arange(12), {"units": "degrees_east"}),
    }
    return xr.Dataset(
        {"t": (("time", "latitude", "longitude"), values, {"units": "K"})}, axes | coordinates
    )


def make_files(place):
    """Fields of people's own, right and wrong."""
    ds = plain()
    ds.to_netcdf(place / "fields.nc")
    (ds + 1).to_netcdf(place / "warmer.nc")
    ds.isel(latitude=slice(5)).to_netcdf(place / "smaller.nc")
    both = xr.concat([ds, ds], xr.DataArray([500, 850], dims="level", name="level"))
    both.rename(t="z").to_netcdf(place / "levels.nc")
    ds.to_netcdf(place / "whole3.nc", format="NETCDF3_64BIT")
    for new, old in (("cut4.nc", "fields.nc"), ("cut3.nc", "whole3.nc")):
        whole = (place / old).read_bytes()
        (place / new).write_bytes(whole[: len(whole) // 2])
    for name, value in (("nan", np.nan), ("infinite", np.inf)):
        bad = ds.copy(deep=True)
        bad["t"][50, 3, 4] = value
        bad.to_netcdf(place / f"{name}.nc")
    ds.isel(time=[0]).to_netcdf(place / "once.nc")
    ds.isel(time=0, drop=True).to_netcdf(place / "still.nc")
    ds.isel(time=np.r_[0:40, 40:120:3]).to_netcdf(place / "irregular.nc")
    ds.isel(time=np.r_[0:40, 39:119]).to_netcdf(place / "twice.nc")
    ds.to_netcdf(place / "groups.nc", group="inner")
    xr.Dataset({"t": ("time", np.array(["a", "b"]))}, {"time": ds.time[:2]}).to_netcdf(
        place / "text.nc"
    )
    cells = ds.stack(cell=["latitude", "longitude"]).reset_index("cell")
    cells.to_netcdf(place / "cells.nc")
    for name in ("chunk", "array", "metadata"):
        ds.chunk(time=10).to_zarr(place / f"{name}.zarr", consolidated=False, zarr_format=3)
    ds.chunk(time=10).to_zarr(place / "lost.zarr", consolidated=False, zarr_format=2)
    (place / "lost.zarr/t/2.0.0").unlink()
    chunk = sorted(p for p in (place / "chunk.zarr/t/c").rglob("*") if p.is_file())[3]
    chunk.write_bytes(chunk.read_bytes()[:100])
    shutil.rmtree(place / "array.zarr/t")
    (place / "metadata.zarr/t/zarr.json").write_text('{"zarr_format": 3')
    noise = np.random.default_rng(0).bytes(3000)
    for name in ("noise.nc", "noise.yaml"):
        (place / name).write_bytes(b"\xff\xfe" + noise)
    (place / "nothing.nc").touch()
    (place / "notes.txt").write_text("do not lose me\n")
    (place / "empty").mkdir()
    (place / "theirs").mkdir()
    (place / "theirs/thesis.tex").write_text("do not lose me\n")


def make_recipes(place):
    (place / "own.yaml").write_text(own())
    for name, (text, _) in RECIPES.items():
        (place / f"{name.replace(' ', '-')}.yaml").write_text(text)
    far = {**REMOTE, "name": "far"}
    (place / "remote.yaml").write_text(card(far))
    (place / "odd.yaml").write_text(card({**far, "ulr": "x"}))
    local = {"kind": "local", "name": "here", "path": "gone.nc", "splits": SPLITS}
    (place / "local.yaml").write_text(card(local))


def make_runs(place, tiny_run):
    for name in ("run", "half", "damaged", "statistics", "edited", "mistyped", "facts"):
        shutil.copytree(tiny_run, place / name, ignore=shutil.ignore_patterns("latents.zarr"))
    (place / "half/denoiser.safetensors").unlink()
    for name, file in (("damaged", "denoiser"), ("statistics", "statistics")):
        path = place / name / f"{file}.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
    (place / "facts/facts.json").write_text('{"source": ')
    for name, (old, new) in {
        "edited": ("widths:\n  - 8", "widths:\n  - 16"),
        "mistyped": ("denoiser:", "denoiser:\n  stepz: 3"),
    }.items():
        path = place / name / "recipe.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def make_world(place, tiny):
    """Fields of the tiny world that a run of it must not take."""
    record = xr.open_zarr(tiny.data.path, consolidated=False)
    test = tiny.data.indices("test")
    at = np.r_[test[:40]]
    names = ["geopotential", "temperature", "2m_temperature", "mean_sea_level_pressure"]
    ds = record[[*names, "land_sea_mask", "geopotential_at_surface"]].isel(time=at).load()
    ds = ds.drop_encoding()
    for name in list(ds.variables):
        ds[name].encoding = {}
    ds.assign_coords(latitude=ds["latitude"] + 1).to_netcdf(place / "coarse.nc")
    times = ds["time"].values[0] + np.arange(40) * np.timedelta64(5, "h")
    ds.assign_coords(time=times).to_netcdf(place / "hours.nc")
    gap = ds.copy(deep=True)
    gap["geopotential"][:, 1, 3, 4] = np.nan
    gap.to_netcdf(place / "gap.nc")
    early = ds.assign_coords(time=ds["time"] - np.timedelta64(3650, "D"))
    early.to_netcdf(place / "earlier.nc")


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def made(tiny: Tiny, tiny_run: Path, tmp_path_factory):
    """A folder of what people have: files, recipes, runs, stores, and things of their own."""
    place = tmp_path_factory.mktemp("place")
    make_files(place)
    make_recipes(place)
    make_runs(place, tiny_run)
    make_world(place, tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCILADM_CACHE", str(tiny.cache))
        patch.chdir(place)
        for door, line in (
            (train, "own.yaml --run-dir mine"),
            (forecast, "run --init test:0 --lead 1d --members 2 --out F.zarr"),
        ):
            with pytest.raises(SystemExit) as end:
                door.main([*line.split(), "--quiet"])
            assert end.value.code == 0
        patch.setattr(ForecastStore, "write", interrupted)
        with pytest.raises(SystemExit):
            words = "run --init test:0 --lead 1d --out unwritten.zarr --quiet"
            forecast.main(words.split())
    return place


@pytest.fixture
def place(made, tiny_cache, monkeypatch):
    """The same as the working directory."""
    monkeypatch.chdir(made)
    yield made
    for wrong in made.glob("new*"):
        shutil.rmtree(wrong)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name, place, capfd):
    line = f"train {name.replace(' ', '-')}.yaml --run-dir new"
    refused(line, RECIPES[name][1], place, capfd)


@pytest.mark.parametrize("name", FILES)
def test_files(name, place, capfd):
    refused(f"train own.yaml --data '{name}' --run-dir new", FILES[name], place, capfd)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(line, place, capfd):
    refused(line, COMMANDS[line], place, capfd)


@contextmanager
def small_disk(size):
    """No file longer than so many bytes, as on a disk that is full; over before a failure is
    told, for pytest writes to files too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_small_disk_is_small_for_no_longer_than_it_should(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError, match="File too large"), small_disk(10):
        (tmp_path / "new").write_bytes(bytes(11))
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before


FULL = {
    "train own.yaml --run-dir new-run": (0, 300, 3000, 10_000),
    "forecast run {one} --out new.zarr": (0, 2000, 3000),
    "simulate run {one} --out new.zarr": (0, 2000, 3000),
}
"""Commands, and sizes of the longest file that the disk takes."""


@pytest.mark.parametrize("line", FULL)
def test_a_full_disk(line, place, capsys):
    """What is there stays; with room again the same command ends in the same bytes."""
    before = at_first(place)
    for size in FULL[line]:
        with small_disk(size):
            code, told = call(line, capsys)
        assert code == 2, (size, told)
        assert told.startswith("error: cannot write") and told.count("\n") == 1, told
        assert "same command again" in told
        after = contents(place)
        assert {name: after[name] for name in before} == before
    code, told = call(line, capsys)
    assert code == 0, told
    out = place / line.split()[-1]
    resumed = contents(out)
    shutil.rmtree(out)
    assert call(line, capsys)[0] == 0
    assert contents(out) == resumed
    not_read(place, before)


def test_a_full_disk_under_a_report(place, capsys):
    before = at_first(place)
    few = "--set evaluation.baselines=[climatology] --set evaluation.headline=[2m_temperature]"
    line = f"evaluate F.zarr {few} --out new-report"
    with small_disk(5000):
        code, told = call(line, capsys)
    assert code == 2 and told.startswith("error: cannot write new-report: File too large"), told
    not_read(place, before)  # what was read for the report is noted
    after = contents(place)
    assert {name: after[name] for name in before} == before
    assert "new-report/index.html" not in after


@pytest.mark.parametrize("cache", ["notes.txt", "new-cache"])
def test_a_cache_that_takes_nothing(cache, place, capsys, monkeypatch):
    monkeypatch.setenv("SCILADM_CACHE", str(place / cache))
    with small_disk(1000):
        code, told = call("train {quick} --run-dir new-run", capsys)
    assert code == 2 and told.count("error:") == 1 and "error: cannot write" in told, told
    assert cache in told.splitlines()[-1]


def test_a_folder_that_is_closed(place, capfd, monkeypatch):
    """As `stat` has it below a folder that may not be searched, whoever runs this test."""

    def denied(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", denied)
    refused("train own.yaml", "own.yaml: permission denied another path", place, capfd)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may everything")
def test_permission_denied(place, capfd):
    closed = place / "empty"
    closed.chmod(0o500)
    try:
        for line in (
            "train own.yaml --run-dir empty/run",
            "forecast run {one} --out empty/new.zarr",
            "evaluate F.zarr --out empty/report",
        ):
            refused(line, "cannot write empty Permission denied same command", place, capfd)
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param("sciladm.train gone.yaml", "no recipe at gone.yaml", marks=pytest.mark.slow),
        ("sciladm.evaluate noise.nc --out new", "noise.nc is no netCDF file"),
    ],
)
def test_as_programs(line, words, place):
    """Nothing else on stderr either, where libraries print for themselves."""
    before = at_first(place)
    command = [sys.executable, "-m", *line.split(), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and words in done.stderr
    assert done.stderr.count("\n") == 1
    assert contents(place) == before
