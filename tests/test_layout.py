"""The house keeps its order: imports go one way, files stay small, the README tells the truth."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sciladm"
ORDER = [
    "conventions", "calendar", "schema", "grid", "recipe_denoiser", "recipe_sampler",
    "recipe", "simulate", "metrics",
    "baselines", "data", "observe", "nn", "autoencoder", "diffusion", "latents", "training",
    "model", "report", "tasks", "cli", "train", "forecast", "infill",
    "generate", "augment", "check", "evaluate",
]  # fmt: skip
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The part of the map that a file belongs to; a package's ``__main__`` is a door."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "forecast" if parts[-1] == "__main__" else parts[0]


def imports(path: Path) -> set[str]:
    """Modules of sciladm that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("sciladm.")}


def upward(path: Path) -> set[str]:
    """Imports that go up the map."""
    place = ORDER.index(room(path))
    return {name for name in imports(path) if name in ORDER and ORDER.index(name) > place}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_the_map(path):
    if path.relative_to(PACKAGE) == Path("__init__.py"):
        return
    assert room(path) in ORDER, f"{path.name} is not on the map"
    assert not upward(path)


def test_the_order_itself_is_checked(tmp_path, monkeypatch):
    intruder = PACKAGE / "grid.py"
    monkeypatch.setattr(Path, "read_text", lambda self: "from sciladm.model import Model")
    assert upward(intruder) == {"model"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 320
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documentation = len((ast.get_docstring(node) or "").splitlines())
            length = node.end_lineno - node.lineno + 1 - documentation
            assert length <= 60, f"{node.name} has {length} lines"


def test_importing_the_package_is_light():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    top = {n.names[0].name for n in tree.body if isinstance(n, ast.Import)}
    top |= {n.module for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert not top & {"torch", "xarray", "zarr", "dask", "matplotlib"}


def test_readme_names_what_exists():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for path in re.findall(r"(?:recipes|datasets|docs|benchmarks|tests)/[\w./-]+\w", text):
        assert (ROOT / path).exists(), f"README names {path}"
    for door in re.findall(r"sciladm\.(\w+) ", text):
        assert (PACKAGE / f"{door}.py").exists() or (PACKAGE / door / "__main__.py").exists(), door
