"""What the doors share: options, exit codes, progress, and the console script ``sciladm``.

A door is a function with typer annotations; ``main = door(function)`` makes it a program:

    0 done · 2 the user's mistake, one message · 1 our fault, a traceback · 130 interrupted
"""

import ast
import difflib
import functools
import importlib
import importlib.util
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sciladm import schema
from sciladm.conventions import UserError, format_duration, parse_duration

if TYPE_CHECKING:
    import torch

DOORS = {
    "train": "sciladm.train",
    "forecast": "sciladm.forecast",
    "infill": "sciladm.infill",
    "generate": "sciladm.generate",
    "augment": "sciladm.augment",
    "check": "sciladm.check",
    "simulate": "sciladm.simulate.__main__",
    "evaluate": "sciladm.evaluate",
}

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the recipe, such as sampler.steps=24; once it is trained, of "
        "sampler, output and evaluation alone. May be repeated.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option(metavar="auto|cpu|cuda[:n]", help="Where to compute; auto: a GPU if any.")
]
SeedOption = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Of all that is random; absent: the recipe's."),
]
BatchOption = Annotated[
    str, typer.Option(metavar="N|auto", help="Members in memory at once; never changes a bit.")
]
OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace what is there, if this program made it."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Only warnings and errors.")]


def door(function: Callable[..., None]) -> Callable[..., NoReturn]:
    """The program of a task: ``main(arguments=None, name=None)`` parses, runs and exits.

    ``arguments`` default to the command line's; ``name`` is what help calls the program.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    # Inside typer, so that it does not interpret what the function raises.
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> int:
        with _terminable():
            return _exit_code(lambda: function(*args, **kwargs))

    app.command()(guarded)

    def main(arguments: Sequence[str] | None = None, name: str | None = None) -> NoReturn:
        command = typer.main.get_command(app)
        given = None if arguments is None else list(arguments)
        try:
            code = command.main(given, prog_name=name, standalone_mode=False)
        except Exception as error:
            # typer's own exceptions; their classes have moved between its versions
            if not hasattr(error, "format_message"):
                raise
            _complain(f"{error.format_message()} (--help lists the options)")
            code = 2
        sys.exit(code or 0)

    return main


def _exit_code(action: Callable[[], None]) -> int:
    """Run and translate what is raised into an exit code and words on stderr."""
    try:
        action()
    except UserError as error:
        _complain(str(error))
        return 2
    except PermissionError as error:
        _complain(f"{error.filename}: permission denied; mend it, or give another path")
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; what is finished is kept: run the same command again to resume",
            file=sys.stderr,
        )
        return 130
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that batch systems leave a resumable state."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Screen(logging.Handler):
    """What a door tells people while it works, on stderr; plain lines where that is no terminal.

    Messages of the package's loggers come out here too.
    """

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(logging.WARNING if quiet else logging.INFO)
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)
        logger = logging.getLogger("sciladm")
        logger.handlers = [handler for handler in logger.handlers if type(handler) is not Screen]
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Print one log record."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self.console.print(prefix + record.getMessage(), markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line, unless quiet."""
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[..., None]]:
        """Show how far a task is: yields ``report(fraction, note="")``, fraction in [0, 1]."""
        if self.quiet:
            yield lambda fraction, note="": None
        elif self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
                TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
            )  # fmt: skip
            with Progress(*columns, console=self.console) as bars:
                task = bars.add_task(title, total=1.0, note="")
                yield lambda fraction, note="": bars.update(task, completed=fraction, note=note)
        else:
            yield self._tenths(title)

    def _tenths(self, title: str) -> Callable[..., None]:
        """One line for each tenth that is done."""
        told = 0

        def report(fraction: float, note: str = "") -> None:
            nonlocal told
            if int(fraction * 10 + 1e-9) > told:
                told = int(fraction * 10 + 1e-9)
                self.say(f"{title}: {10 * told} % {note}".rstrip())

        return report


def parse_settings(settings: Sequence[str] | None) -> dict[str, Any]:
    """``["a.b=1", …]`` → ``{"a.b": 1, …}``: dotted keys, YAML values."""
    changes = {}
    for text in settings or ():
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key or not all(key.split(".")):
            raise UserError(f"--set {text}: write KEY=VALUE, such as --set sampler.steps=24")
        changes[key] = schema.read_yaml(value, f"--set {key}")
    return changes


def parse_lead(text: str, step: np.timedelta64) -> np.ndarray:
    """Leads to write, timedelta64[ns] (lead_time,): step, 2·step, … up to ``text``.

    ``text`` is a duration (``5d``, ``36h``) or a number of steps (``1step``).
    """
    every = np.timedelta64(step, "ns")
    number = text.strip().removesuffix("s").removesuffix("step").strip()
    if "step" in text and number.isdigit() and int(number) > 0:
        last = int(number) * every
    elif "step" in text:
        raise UserError(f"--lead {text}: write a number of steps such as 1step, or 5d, 36h")
    else:
        try:
            last = parse_duration(text)
        except UserError as error:
            raise UserError(f"--lead {text}: {error}, or a number of steps: 3step") from None
    if last % every:
        nearest = max(1, int(last // every)) * every
        raise UserError(
            f"--lead {text} is not a multiple of the step {format_duration(every)}; "
            f"try {format_duration(nearest)}"
        )
    return np.arange(1, last // every + 1) * every


def parse_batch(text: str) -> int | None:
    """Members resident in memory; None is `auto`."""
    if text == "auto":
        return None
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise UserError(f"--batch {text}: write a number of members, at least 1, or auto")


def workers(batch: int | None = None, micro_batch: int = 1) -> int:
    """How many micro-batches are drawn at once: those of ``batch`` members, else one per core."""
    if batch is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    return -(-batch // micro_batch)


def device(name: str) -> "torch.device":
    """``auto`` is the GPU if there is one; of several, each process of torchrun takes its own."""
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return torch.device(choose_device(name, there, os.environ.get("LOCAL_RANK")))


def choose_device(name: str, there: int, rank: str | None = None) -> str:
    """Of ``there`` GPUs; ``rank``: the process of this machine, where torchrun started several."""
    if name == "cpu" or (name == "auto" and not there):
        return "cpu"
    kind, _, number = ("cuda" if name == "auto" else name).partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise UserError(f"--device {name}: write auto, cpu, cuda or cuda:N")
    own = number or rank or ""
    if int(own or 0) >= there:
        remedy = f"torchrun --nproc-per-node {there}" if there and not number and rank else "auto"
        raise UserError(f"--device {name}: cuda:{own or 0} is wanted, and this machine has "
                        f"{there} CUDA devices; try {remedy}")  # fmt: skip
    return f"cuda:{own}" if own else "cuda"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: ``sciladm TASK …`` opens the task's door, and imports only that."""
    task, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if task in ("", "-h", "--help"):
        print("Usage: sciladm TASK [OPTIONS]   (sciladm TASK --help says more)\n")
        for name, module in DOORS.items():
            print(f"  {name:<10}{_summary(module)}")
        sys.exit(0 if task else 2)
    if task == "--version":
        print(version("sciladm"))
        sys.exit(0)
    if task not in DOORS:
        near = difflib.get_close_matches(task, DOORS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(DOORS)}"
        _complain(f"no task {task!r}; {hint}")
        sys.exit(2)
    importlib.import_module(DOORS[task]).main(rest[:-1], name=f"sciladm {task}")
    raise AssertionError("a door exits")


def _summary(module: str) -> str:
    """First line of a door's docstring, read without importing it (torch takes seconds)."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
