import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sciladm.conventions import UserError
from sciladm.diffusion.noise import training_generator
from sciladm.training.checkpoint import FORMAT_VERSION, keep_lines, read_tensors, write_tensors
from sciladm.training.loop import OPTIMISERS, Loop
from sciladm.training.optim import schedule, shares

CHECKPOINT, METRICS = "net.checkpoint.safetensors", "metrics.jsonl"


def small_run(folder, steps=60, before=lambda step: None, **options):
    """A few weights fitted to noisy targets; everything random belongs to the step."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 8, 4), nn.Flatten())
    net = nn.Sequential(first, nn.SiLU(), nn.Linear(8, 1))

    def step_loss(step, part):
        before(step)
        x = torch.randn(16, 4, generator=training_generator(3, step))
        return (net(x) - x[:, :1] * x[:, 1:2]).square().mean()

    options = {"learning_rate": 1e-2, "warmup": 5, "save_every": 7, "parts": 2} | options
    options = {"ema_widths": (0.05, 0.1), "snapshots": True} | options
    options = {"validate": lambda step: {"norm": float(first[1].weight.detach().norm())},
               "validate_every": 20} | options  # fmt: skip
    loop = Loop(net, step_loss, Path(folder), "net", steps=steps, **options)
    return loop.run(), net


def contents(folder):
    names = (
        CHECKPOINT,
        METRICS,
        *(f"averages/net-{n:07d}.safetensors" for n in range(10, 61, 10)),
    )
    return {name: (folder / name).read_bytes() for name in names}


KILLER = """
import os, random, signal, sys, threading, time
import torch._dynamo  # which optimisers load, in seconds
from tests.test_training import small_run

def kill(seconds):
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)

chance = random.Random(1)
for last in (3, 9, 15, 22, 28, 36, 43, 50, None):
    doomed = threading.Thread(target=kill, args=(chance.uniform(0, 0.02),), daemon=True)
    child = os.fork()
    if child == 0:
        small_run(sys.argv[1], before=lambda step: step == last and doomed.start())
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""
"""Runs of which each is killed some milliseconds after it began a step, wherever it is then."""


@pytest.mark.slow
def test_killed_and_resumed_ends_in_the_same_bytes(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    small_run(tmp_path / "whole")
    command = [sys.executable, "-c", KILLER, str(tmp_path / "killed")]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ends = [int(line) for line in done.stdout.split()]
    assert ends.count(signal.SIGKILL) >= 4 and ends[-1] == 0, ends
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_stopped_anywhere_ends_in_the_same_bytes(tmp_path, optimiser):
    """The same without processes: an exception at a step, at each phase of the intervals."""
    run = partial(small_run, optimiser=optimiser)
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    run(tmp_path / "whole")
    for stop in (3, 7, 8, 20, 41, 59):

        def halt(done, loss, stop=stop):
            if done > stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped", progress=halt)
    with (tmp_path / "stopped" / METRICS).open("a") as file:
        file.write('{"stage": "net", "step": 58, "lo')
    run(tmp_path / "stopped")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    run(tmp_path / "stopped")  # nothing left to do
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_stages_share_the_metrics_and_keep_their_own_lines(tmp_path):
    path = tmp_path / METRICS
    for stage in ("first", "second"):
        net = nn.Linear(1, 1)
        Loop(net, lambda *_, net=net: net.weight.sum() ** 2, tmp_path, stage, steps=5).run()
    expected = path.read_bytes()
    stages = [json.loads(line)["stage"] for line in expected.splitlines()]
    assert stages == 5 * ["first"] + 5 * ["second"]
    keep_lines(path, "second", -1)
    assert path.read_bytes().splitlines() == expected.splitlines()[:5]


def test_it_learns_and_writes_what_happened(tmp_path):
    average, net = small_run(tmp_path, steps=400, save_every=400)
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 400 and np.mean(losses[-50:]) < 0.5 * np.mean(losses[:20])
    assert [line["step"] for line in lines if "validation" in line] == list(range(19, 400, 20))
    assert set(average) == {name for name, _ in net.named_parameters()}


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path):
    net = nn.Linear(2, 1)
    lost = {9: float("nan")}

    def step_loss(step, part):
        return net(torch.ones(1, 2)).square().sum() + lost.get(step, 0.0)

    loop = Loop(net, step_loss, tmp_path, "net", steps=20, save_every=5)
    with pytest.raises(UserError, match=r"step 9.*learning rate"):
        loop.run()
    tensors, facts = read_tensors(tmp_path / CHECKPOINT)
    assert facts["step"] == 5 and all(torch.isfinite(t).all() for t in tensors.values())


def test_learning_rate():
    rates = [schedule(step, 100, 10) for step in range(100)]
    assert rates[0] < rates[5] < rates[10] == 1 and 0 < rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_damaged_or_foreign_checkpoints_say_so(tmp_path):
    path = tmp_path / CHECKPOINT
    write_tensors(path, {"weights:a": torch.ones(3)}, {"step": 1})
    assert read_tensors(path)[1] == {"step": 1, "format_version": FORMAT_VERSION}
    with pytest.raises(UserError, match="another network"):
        small_run(tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="damaged"):
        read_tensors(path)


def test_parts_make_the_step_of_the_whole(tmp_path):
    x = torch.randn(12, 4, generator=training_generator(0, 0))
    ends = []
    for parts in (1, 3):
        torch.manual_seed(0)
        net = nn.Linear(4, 1)

        def step_loss(step, part, net=net, size=12 // parts):
            own = x[part * size : (part + 1) * size]
            return (net(own) - own[:, :1] ** 2).square().mean()

        folder = tmp_path / str(parts)
        folder.mkdir()
        Loop(net, step_loss, folder, "net", steps=9, parts=parts).run()
        ends.append(nn.utils.parameters_to_vector(net.parameters()).detach())
    torch.testing.assert_close(*ends)


def test_weights_are_shared_out_evenly_and_once():
    sizes = (1000, 900, 300, 200, 100, 7)
    weights = [nn.Parameter(torch.zeros(n)) for n in sizes]
    one, two = shares(weights, 2)
    assert sorted(len(p) for p in [*one, *two]) == sorted(sizes)
    assert abs(sum(p.numel() for p in one) - sum(p.numel() for p in two)) < 100
    assert [len(own) for own in shares(weights[:1], 2)] == [1]
