"""Exit codes, messages, options: what a user meets at every door."""

import logging
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from sciladm import cli, recipe
from sciladm.conventions import UserError


@cli.door
def program(
    what: str,
    settings: cli.SetOption = None,
    device: cli.DeviceOption = "auto",
    seed: cli.SeedOption = None,
    batch: cli.BatchOption = "auto",
    overwrite: cli.OverwriteOption = False,
    quiet: cli.QuietOption = False,
) -> None:
    """Do something."""
    screen = cli.Screen(quiet)
    screen.say(f"doing {what} {cli.parse_settings(settings)} [bold]")
    with screen.progress("work") as report:
        for done in range(100):
            report((done + 1) / 100, "loss 0.1")
    if what == "mistake":
        raise UserError("no file x.nc; give a path that exists")
    if what == "bug":
        raise RuntimeError("impossible")
    if what == "end":
        raise EOFError("a bug too")
    if what == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if what == "interrupt":
        raise KeyboardInterrupt
    print("result")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        program(arguments, name="sciladm test")
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    return caught.value.code, out, err


def test_done_is_zero(capsys):
    code, out, err = run(capsys, "x", "--set", "a.b=[1, 2]", "--set", "c=1e-3")
    assert (code, out) == (0, "result\n")
    assert err.splitlines()[0] == "doing x {'a.b': [1, 2], 'c': 0.001} [bold]"
    assert err.splitlines()[1:] == [f"work: {n}0 % loss 0.1" for n in range(1, 11)]


def test_quiet_says_nothing(capsys):
    assert run(capsys, "x", "--quiet") == (0, "result\n", "")


def test_a_mistake_is_two_with_one_message(capsys):
    code, out, err = run(capsys, "mistake", "--quiet")
    assert (code, out) == (2, "")
    assert err == "error: no file x.nc; give a path that exists\n"


@pytest.mark.parametrize("what", ["bug", "end"])
def test_our_fault_is_one_with_a_traceback(capsys, what):
    code, _, err = run(capsys, what, "--quiet")
    assert code == 1
    assert err.startswith("Traceback") and "test_cli.py" in err


@pytest.mark.parametrize("what", ["term", "interrupt"])
def test_interrupted_is_130_and_resumable(capsys, what):
    before = signal.getsignal(signal.SIGTERM)
    code, out, err = run(capsys, what, "--quiet")
    assert (code, out) == (130, "")
    assert "resume" in err and len(err.splitlines()) == 1
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "arguments", [[], ["x", "--seed", "one"], ["x", "--seed", "-1"], ["x", "--sead", "1"]]
)
def test_usage_is_two_with_one_message(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and "--help" in err and len(err.splitlines()) == 1


def test_help_lists_the_shared_options(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "sciladm test" in out
    for option in ("--set", "--device", "--seed", "--batch", "--overwrite", "--quiet", "--help"):
        assert option in out


def test_as_a_module_of_a_package(tmp_path):
    """`python -m package` runs package/__main__.py, as simulate's door does."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "__init__.py").touch()
    (tmp_path / "there" / "__main__.py").write_text(
        textwrap.dedent("""
        from sciladm.cli import door
        from sciladm.conventions import UserError

        def there(n: int) -> None:
            "Fail."
            raise UserError(f"got {n}")

        main = door(there)
        if __name__ == "__main__":
            main()
        """)
    )
    command = [sys.executable, "-m", "there", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: got 3\n")


def test_console_script_opens_doors_lazily(capsys, monkeypatch):
    module = type(sys)("sciladm_a_door")
    module.main = program
    monkeypatch.setitem(sys.modules, "sciladm_a_door", module)
    monkeypatch.setitem(cli.DOORS, "other", "sciladm_a_door")
    with pytest.raises(SystemExit) as caught:
        cli.main(["other", "mistake", "--quiet"])
    assert caught.value.code == 2
    assert "x.nc" in capsys.readouterr().err


def test_console_script_lists_tasks_and_names_the_nearest(capsys, monkeypatch):
    with pytest.raises(SystemExit) as caught:
        cli.main(["forcast"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: no task 'forcast'; did you mean forecast?\n"
    monkeypatch.setattr(cli, "DOORS", {"blocks": "sciladm.data.blocks"})
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    assert "The ensemble-forecast store" in capsys.readouterr().out


def test_importing_the_shared_part_does_not_import_torch():
    code = "import sys, sciladm.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1", ".a=1", "a=[1"])
def test_bad_settings_are_refused(text):
    with pytest.raises(UserError, match="--set"):
        cli.parse_settings([text])


def test_settings_keep_dates_and_equals_signs():
    assert cli.parse_settings(["a=b=c", "t=2020-01-01", "e=", "e=null", "n=-2"]) == {
        "a": "b=c",
        "t": "2020-01-01",
        "e": None,
        "n": -2,
    }
    assert cli.parse_settings(None) == {}


def test_settings_after_training_reach_three_sections_only():
    made = recipe.parse({"schema": 1, "name": "x", "data": {"path": "a.nc"}}, {}, "here")
    changed = recipe.after_training(made, {"sampler.steps": 24, "evaluation.lead": "3d"})
    assert (changed.sampler.steps, changed.evaluation.lead) == (24, "3d")
    assert changed.fingerprint() == made.fingerprint()
    with pytest.raises(UserError, match=r"denoiser.steps.*sampler\.\*"):
        recipe.after_training(made, {"denoiser.steps": 24})
    with pytest.raises(UserError, match="steps"):
        recipe.after_training(made, {"sampler.stepz": 24})


def test_lead():
    day = np.timedelta64(24, "h")
    hours = cli.parse_lead("5d", day) / np.timedelta64(1, "h")
    assert hours.tolist() == [24, 48, 72, 96, 120]
    assert cli.parse_lead("36h", np.timedelta64(6, "h")).size == 6
    assert cli.parse_lead("1step", day).tolist() == [86400 * 10**9]
    assert cli.parse_lead("3steps", day).dtype == "timedelta64[ns]"
    for text, words in {"36h": "multiple of the step 24h; try 24h", "12h": "try 24h"}.items():
        with pytest.raises(UserError, match=words):
            cli.parse_lead(text, day)
    for text in ("0step", "step", "-1d", "5", "1.5steps", "x"):
        with pytest.raises(UserError):
            cli.parse_lead(text, day)


def test_each_process_of_torchrun_takes_a_gpu_of_its_own():
    assert [cli.choose_device("auto", 4, rank) for rank in (None, "0", "3")] == [
        "cuda", "cuda:0", "cuda:3",
    ]  # fmt: skip
    assert cli.choose_device("cuda", 4, "2") == "cuda:2"
    assert cli.choose_device("cuda:1", 4, "2") == "cuda:1"
    assert cli.choose_device("auto", 0, "2") == cli.choose_device("cpu", 4, "2") == "cpu"
    with pytest.raises(UserError, match=r"cuda:4 is wanted.* has 4 .*--nproc-per-node 4"):
        cli.choose_device("auto", 4, "4")
    for name in ("auto:1", "cuda:x", "gpu"):
        with pytest.raises(UserError, match="write auto, cpu, cuda or cuda:N"):
            cli.choose_device(name, 4)


def test_batch_and_device():
    assert cli.parse_batch("auto") is None
    assert cli.parse_batch("12") == 12
    for text in ("0", "-1", "x", "1.5"):
        with pytest.raises(UserError, match="--batch"):
            cli.parse_batch(text)
    assert cli.device("cpu") == torch.device("cpu")
    assert cli.device("auto").type in ("cpu", "cuda")
    for text in ("gpu", "cuda:x", "cuda:99", "cpu:0", ""):
        with pytest.raises(UserError, match="--device"):
            cli.device(text)


def test_warnings_of_the_package_reach_people(capsys):
    cli.Screen(quiet=True)
    logging.getLogger("sciladm.somewhere").info("hidden")
    logging.getLogger("sciladm.somewhere").warning("made with torch 2.12")
    assert capsys.readouterr().err == "warning: made with torch 2.12\n"


def test_on_a_terminal_there_is_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    screen = cli.Screen()
    with screen.progress("work") as report:
        report(0.5)
        report(1.0)
    assert "100%" in capsys.readouterr().err
