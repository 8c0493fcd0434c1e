"""Cards: what a data set is, where it is to be had, how it is split. YAML in ``datasets/``."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

import sciladm
from sciladm.conventions import UserError
from sciladm.schema import Section, explain, read_yaml

Missing = Literal["none", "static", "moving"]
Rule = dict[str, Any]
"""Splits as `splits.Splits.resolve` takes them."""


class Variable(Section):
    """What is known of one variable."""

    units: str = Field(default="", description="of the values in the file")
    standard_name: str | None = Field(default=None, description="CF standard name")
    missing: Missing = Field(
        default="none", description="where NaN may be: nowhere, always the same cells, anywhere"
    )
    transform: str = Field(
        default="none", pattern=r"^(none|log1p:[0-9.eE+-]+)$", description="none, or log1p:SCALE"
    )
    error: float | None = Field(
        default=None, gt=0, description="standard deviation of a value's error, in its units"
    )
    mask: str | None = Field(
        default=None,
        description="a variable that is 1 where this one can have values; elsewhere nothing is "
        "looked at",
    )


class ZarrHttps(Section):
    """A public zarr 2 store with consolidated metadata; the part needed is kept in the cache."""

    name: str
    kind: Literal["zarr-https"]
    url: str = Field(pattern=r"^https?://")
    splits: Rule


class Local(Section):
    """Files here; the path may use ${SCILADM_DATA} and is relative to the card."""

    name: str
    kind: Literal["local"]
    path: str | list[str]
    splits: Rule


class XarrayTutorial(Section):
    """One of xarray's tutorial files, downloaded once by pooch."""

    name: str
    kind: Literal["xarray-tutorial"]
    dataset: str
    splits: Rule


class SimulatedYears(Section):
    """How much is simulated: years of each split, each a realisation of its own."""

    train: int = Field(default=10, gt=0)
    validation: int = Field(default=1, gt=0)
    test: int = Field(default=2, gt=0)
    days: int = Field(default=365, gt=0, description="per realisation")
    seed: int = Field(default=0, ge=0)
    latitudes: int = Field(default=32, gt=3)
    longitudes: int = Field(default=64, gt=7)


class Simulated(Section):
    """A simulated world, computed here once and kept in the cache; its plan holds its splits."""

    name: str
    kind: Literal["simulated"]
    world: str
    size: Literal["default", "tiny"] = "default"
    parameters: dict[str, str | float | int | list[int]] = Field(
        default={}, description="of the world, where others than its own are wanted"
    )
    plan: SimulatedYears = SimulatedYears()


Source = Annotated[ZarrHttps | Local | XarrayTutorial | Simulated, Field(discriminator="kind")]


class Card(Section):
    """A data set, as its card tells it."""

    title: str
    description: str
    licence: str
    citation: str
    step: str = Field(description="time between the data's own states, such as 6h")
    calendar: str = "standard"
    sources: list[Source] = Field(min_length=1)
    variables: dict[str, Variable]


def folder() -> Path:
    """Where the cards that come with the package are."""
    package = Path(str(sciladm.__file__)).parent
    installed = package / "_datasets"
    return installed if installed.is_dir() else package.parent / "datasets"


def load_card(name_or_path: str | Path) -> tuple[Card, Path]:
    """A card by its name in ``datasets/`` or by its path, and where it was."""
    path = Path(name_or_path)
    if not path.suffix:
        known = sorted(card.stem for card in folder().glob("*.yaml"))
        if str(name_or_path) not in known:
            near = difflib.get_close_matches(str(name_or_path), known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"no card {name_or_path}; {hint}there are: {', '.join(known)}")
        path = folder() / f"{name_or_path}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"card {path} cannot be read: {error}") from None
    try:
        return Card.model_validate(read_yaml(text, str(path))), path
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, _known)}") from None


def _known(where: tuple[int | str, ...]) -> list[str]:
    kinds: dict[str, type[BaseModel]] = {
        "zarr-https": ZarrHttps,
        "local": Local,
        "xarray-tutorial": XarrayTutorial,
        "simulated": Simulated,
    }
    model: type[BaseModel] = Card
    if where and where[0] == "variables":
        model = Variable
    elif where and where[-1] == "plan":
        model = SimulatedYears
    elif where:
        model = kinds[str(where[2])]
    return list(model.model_fields)
