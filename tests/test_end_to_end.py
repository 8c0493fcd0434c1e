"""From a recipe to scores as people run it, and what is left when it is killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from sciladm import forecast, train
from sciladm.model import Model
from sciladm.tasks.augment import training
from sciladm.training.average import at_width
from tests.conftest import FEW, QUICK

ROOT = Path(__file__).parents[1]
SETTINGS = [part for key, value in QUICK.items() for part in ("--set", f"{key}={value}")]
KILLER = """
import json, os, signal, sys
from importlib import import_module
import sciladm.tasks.fit, sciladm.tasks.fit_rolled, sciladm.tasks.validate, sciladm.tasks.write
import sciladm.tasks.generate
import torch._dynamo  # which optimisers load, in seconds

def deadly(function, left):
    def call(*args, **kwargs):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

few, doors = json.loads(sys.argv[1])
for name, value in few.items():
    setattr(sciladm.tasks.fit_rolled, name, value)
for door, (cache, calls, arguments) in doors.items():
    os.environ["SCILADM_CACHE"] = cache
    for number in calls:
        child = os.fork()
        if child == 0:
            if number:
                left = iter(range(number))
                for name in ("open", "fsync", "replace", "rename", "unlink", "mkdir"):
                    setattr(os, name, deadly(getattr(os, name), left))
            import_module(f"sciladm.{door}").main(arguments)
        print(door, os.waitpid(child, 0)[1], flush=True)
"""
"""Doors in processes that kill themselves at their n-th call that changes the disk; 0: never."""


def contents(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def python(*arguments, cache):
    """A Python process with the tiny world at hand."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=ROOT, text=True,
        env=os.environ | {"SCILADM_CACHE": str(cache)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def done(process, code=0):
    out, err = process.communicate()
    assert process.returncode == code, err
    return out, err


def asked(run, out, members=10):
    return (
        run,
        "--init",
        "test:0:2",
        "--lead",
        "2d",
        "--members",
        members,
        "--out",
        out,
        "--quiet",
    )


@pytest.fixture(scope="module")
def small(stills, gaussian_folder, tmp_path_factory):
    """A run that draws states by themselves, its cache, and a file of two training states."""
    cache, days = gaussian_folder / "cache", tmp_path_factory.mktemp("days") / "days.nc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCILADM_CACHE", str(cache))
        data = training(stills[0].model)
    data.frames.ds.isel(time=data.indices("train")[:2]).to_netcdf(days)
    return stills[0].model.path, cache, days


def drawn(small, folder):
    """Doors whose stores are several micro-batches of copies, and of draws of the climate."""
    run, _, days = small
    own = {"augment": (days, "--members", "9"), "generate": ("--n", "19")}
    return {door: (run, *some, "--out", folder / f"{door}.zarr", "--batch", 8, "--quiet")
            for door, some in own.items()}  # fmt: skip


KILLS = {
    "forecast": np.random.default_rng(0).integers(1, 60, size=4).tolist(),
    "train": np.random.default_rng(1).integers(20, 160, size=2).tolist(),
    "augment": np.random.default_rng(2).integers(20, 140, size=3).tolist(),
    "generate": np.random.default_rng(3).integers(20, 140, size=3).tolist(),
}
"""Calls at which doors are killed."""


def ended(cache, lines):
    """Runs doors, killed at `KILLS` and then not, and says how often each was."""
    doors = {door: (str(cache), [*KILLS[door], 0], [*map(str, line)])
             for door, line in lines.items()}  # fmt: skip
    process = python("-c", KILLER, json.dumps((FEW, doors)), cache=cache)
    ends = [line.split() for line in done(process)[0].splitlines()]
    count = {}
    for door in doors:
        own = [int(end) for name, end in ends if name == door]
        assert set(own) <= {0, signal.SIGKILL} and own[-1] == 0, ends
        count[door] = own.count(signal.SIGKILL)
    return count


@pytest.fixture(scope="module")
def killed(tiny_run, tiny, tmp_path_factory):
    """A folder of what doors made that were killed on their way, and how often each was."""
    folder = tmp_path_factory.mktemp("killed")
    lines = {
        "forecast": asked(tiny_run, folder / "F.zarr"),
        "train": (ROOT / "recipes/tiny.yaml", "--run-dir", folder / "run", *SETTINGS, "--quiet"),
    }
    return folder, ended(tiny.cache, lines)


@pytest.fixture(scope="module")
def killed_while_drawing(small, tmp_path_factory):
    """The same of copies and draws."""
    folder = tmp_path_factory.mktemp("killed")
    return folder, ended(small[1], drawn(small, folder))


def test_the_run_folder(tiny_run):
    assert {p.name for p in tiny_run.iterdir()} >= {
        "recipe.yaml", "facts.json", "statistics.safetensors", "autoencoder.safetensors",
        "denoiser.safetensors", "rolled.safetensors", "latents.zarr", "metrics.jsonl",
    }  # fmt: skip
    assert not list(tiny_run.glob("*.checkpoint.*")) and not list(tiny_run.glob("*.partial"))
    lines = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    assert stages[0] == "autoencoder" and stages[-1] == "denoiser"
    counts = {stage: sum(line["stage"] == stage for line in lines) for stage in stages}
    assert counts["autoencoder"] == 5 and counts["denoiser"] == 20
    steps = [(line["stage"], line["step"]) for line in lines]
    assert steps == [(stage, n) for stage in stages for n in range(counts[stage])]


def test_what_training_leaves_for_later(tiny_run):
    """Noise levels as resolved, and weights averaged with another width that fit the network."""
    facts = json.loads((tiny_run / "facts.json").read_text())
    assert abs(facts["sigma_centre"]) < 0.5 and 1.3 < facts["sigma_spread"] < 2
    backbone = Model.load(tiny_run).denoiser.backbone
    for width, alike in ((0.05, True), (0.2, False)):
        weights = at_width(tiny_run, width)
        assert set(weights) == {name for name, _ in backbone.named_parameters()}
        same = [torch.allclose(weights[name], p, rtol=2e-3, atol=1e-4)
                for name, p in backbone.named_parameters()]  # fmt: skip
        assert all(same) == alike


def test_forecast_killed_at_many_calls(killed, tiny_run, tiny_cache, tmp_path):
    folder, count = killed
    assert count["forecast"] >= 3
    for _ in range(2):  # the second time there is nothing left to draw
        with pytest.raises(SystemExit):
            forecast.main([str(one) for one in asked(tiny_run, tmp_path / "whole.zarr")])
    assert contents(folder / "F.zarr") == contents(tmp_path / "whole.zarr")
    lines = (tiny_run / "test_reads.jsonl").read_text().splitlines()
    told = [(line["task"], line["store"], line["inits"]) for line in map(json.loads, lines)]
    assert told.count(("forecast", "F.zarr", 2)) == told.count(("forecast", "whole.zarr", 2)) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["F.zarr", "run"]


@pytest.mark.slow
@pytest.mark.parametrize("door", ["augment", "generate"])
def test_copies_and_draws_killed_at_many_calls(
    killed_while_drawing, small, tmp_path, monkeypatch, door
):
    folder, count = killed_while_drawing
    assert count[door] == 3
    assert sorted(p.name for p in folder.iterdir()) == ["augment.zarr", "generate.zarr"]
    monkeypatch.setenv("SCILADM_CACHE", str(small[1]))
    with pytest.raises(SystemExit):
        import_module(f"sciladm.{door}").main([*map(str, drawn(small, tmp_path)[door])])
    name = f"{door}.zarr"
    assert contents(folder / name) == contents(tmp_path / name)


def test_training_killed_at_many_calls(killed, tiny_run):
    folder, count = killed
    assert count["train"] == 2
    ours, theirs = contents(folder / "run"), contents(tiny_run)
    for name in theirs.keys() - {"facts.json", "test_reads.jsonl"}:
        assert ours[name] == theirs[name], name


def test_training_again_only_scores_again(tiny_run, tiny_cache, capsys):
    before = contents(tiny_run)
    arguments = [str(ROOT / "recipes/tiny.yaml"), "--run-dir", str(tiny_run), *SETTINGS]
    with pytest.raises(SystemExit) as end:
        train.main([*arguments, "--quiet"])
    assert end.value.code == 0
    after = contents(tiny_run)
    assert {name: after[name] for name in before} == before
    with pytest.raises(SystemExit) as end:
        train.main([*arguments, "--set", "denoiser.steps=21"])
    assert end.value.code == 2
    assert "denoiser.steps is 20 there, 21 now" in capsys.readouterr().err
    assert contents(tiny_run) == after


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_interrupted(kind, tiny_run, tiny_cache, tmp_path):
    out = tmp_path / "F.zarr"
    process = python("-m", "sciladm.forecast", *asked(tiny_run, out, 400), cache=tiny_cache.cache)
    records = out / ".sciladm" / "done"
    while process.poll() is None and not any(records.glob("c.*")):
        time.sleep(0.01)
    process.send_signal(kind)
    assert "same command again to resume" in done(process, 130)[1]


@pytest.mark.slow
def test_every_bit_under_every_way_to_run(tiny_run, tiny_cache):
    """Ten kills at random moments of forecast and of training, two workers, every --batch."""
    script = (ROOT / "benchmarks/member_identity.py", ROOT / "recipes/tiny.yaml", tiny_run)
    done(python(*script, *SETTINGS, cache=tiny_cache.cache))


@pytest.mark.slow
def test_memory_does_not_grow_with_members(tiny_run, tiny_cache):
    done(python(ROOT / "benchmarks/memory.py", tiny_run, cache=tiny_cache.cache))


def test_a_dry_run_says_what_training_costs_once_the_data_are_here(tiny_cache, tmp_path, capsys):
    words = [str(ROOT / "recipes/tiny.yaml"), *SETTINGS, "--dry-run", "--run-dir", tmp_path / "r"]
    with pytest.raises(SystemExit) as end:
        train.main([str(word) for word in words])
    said = capsys.readouterr().err
    assert end.value.code == 0 and not (tmp_path / "r").exists()
    for told in ("simulated already", "reads ", "computes ", "makes ", " MB, in about", "widths:"):
        assert told in said, said
