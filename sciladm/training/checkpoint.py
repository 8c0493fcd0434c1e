"""Files that survive a kill at any moment and execute nothing: safetensors and JSON.

A file is written beside its place, flushed to the disk and renamed, so that a reader finds either
the old one or the new one, whole.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sciladm.conventions import UserError
from sciladm.data.durable import write_durably

FORMAT_VERSION = 7


def refuse_unfinished(path: Path, files: Sequence[str]) -> None:
    """UserError for a folder that lacks one of the files of a trained run."""
    for needed in files:
        if not (path / needed).is_file():
            lacks = f"lacks {needed}" if path.is_dir() else "does not exist"
            raise UserError(
                f"{path} is not a trained run: it {lacks}. "
                "`python -m sciladm.train RECIPE` makes one, or finishes one that was stopped"
            )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Tensors by name, with `facts` (anything JSON can say) in the header."""
    header = json.dumps({"format_version": FORMAT_VERSION, **facts}, sort_keys=True)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_durably(path, safetensors.torch.save(whole, {"sciladm": header}))


def read_json(path: Path) -> Any:
    """A JSON file of a run; UserError for one that was damaged."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(
            f"{path} is not whole JSON ({error}). It was damaged after it was written: restore "
            "it, or train again"
        ) from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote: tensors on the CPU, and the facts."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("sciladm", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}). It was damaged after it was "
            "written: restore it, or remove it and run the command that made it again."
        ) from error
    version = facts.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}; this sciladm reads {FORMAT_VERSION}. "
            "Install the version that wrote it (see the run's recipe.yaml), or train again."
        )
    return tensors, facts


def write_modules(path: Path, modules: Mapping[str, nn.Module]) -> None:
    """The tensors of modules as one file."""
    tensors = {
        f"{name}.{key}": tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    write_tensors(path, tensors, {})


def read_modules(path: Path, modules: Mapping[str, nn.Module]) -> None:
    """The inverse of `write_modules`; modules are ready for use. UserError where one does not fit
    what is in the file."""
    tensors, _ = read_tensors(path)
    for name, module in modules.items():
        start = f"{name}."
        own = {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            first = str(error).splitlines()[1:2] or [str(error)]
            raise UserError(
                f"{path} does not fit the run's recipe.yaml ({first[0].strip()}); "
                "one of them was changed after training: restore it, or train anew"
            ) from None
        module.eval().requires_grad_(False)


def keep_lines(path: Path, stage: str, last_step: int) -> None:
    """Cut what `stage` wrote to a JSON-lines file after `last_step`: it will be written again.

    Lines of other stages stay; a line that a kill cut short goes.
    """
    kept = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        if not line.endswith(b"\n"):
            continue
        told = json.loads(line)
        if told["stage"] != stage or told["step"] <= last_step:
            kept.append(line)
    write_durably(path, b"".join(kept))
