"""Text that people write: safe YAML, sections closed to unknown keys, mistakes told in a line."""

import copy
import difflib
import re
from collections.abc import Callable
from functools import reduce
from operator import getitem
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sciladm.conventions import UserError

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A part of a recipe: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Loader(yaml.SafeLoader):
    """Safe YAML: no timestamps (dates stay text), no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            line = node.start_mark.line + 1
            raise UserError(
                f"key `{twice[0]}` stands twice in the mapping at line {line}; keep one"
            )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 reads 1e-3 as text; people mean the number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML safely; a mistake in it is told with its line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def known_part(tree: Any, error: ValidationError) -> tuple[Any, list[str]]:
    """``tree`` without the keys that are unknown by ``error``, and what these are called."""
    tree, gone = copy.deepcopy(tree), []
    for *path, key in [e["loc"] for e in error.errors() if e["type"] == "extra_forbidden"]:
        del reduce(getitem, path, tree)[key]
        gone.append(".".join(map(str, [*path, key])))
    return tree, gone


def explain(error: ValidationError, keys_at: Callable[[tuple[int | str, ...]], list[str]]) -> str:
    """One line per mistake: where, what was got, what was expected. ``keys_at`` gives the keys
    that are known at a place, so that an unknown one is told with the nearest."""
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"] if part not in ("function-after",))
        if item["type"] == "extra_forbidden":
            known = keys_at(item["loc"][:-1])
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.4)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
            lines.append(f"unknown key `{place}`; {hint}")
        elif item["type"] == "missing":
            lines.append(f"key `{place}` is missing")
        else:
            got = "" if isinstance(item["input"], dict) else f" (got {item['input']!r:.60})"
            at = f"`{place}`: " if place else ""  # a rule between sections has no place
            lines.append(f"{at}{item['msg'].removeprefix('Value error, ')}{got}")
    return "; ".join(dict.fromkeys(lines))
