"""What a recipe may say: one YAML file, complete, read from top to bottom.

A recipe is data, never code. Every key is declared here with its meaning, unit and default; an
unknown key is an error that names the nearest known one. The resolved recipe is stored in the run.
"""

import difflib
import hashlib
import re
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from sciladm.conventions import UserError, parse_duration
from sciladm.recipe_denoiser import Denoiser
from sciladm.recipe_sampler import Sampler
from sciladm.schema import Positive, Rate, Section, explain, read_yaml

AFTER_TRAINING = ("sampler", "output", "evaluation")
"""Sections that ``--set`` may still change once a run is trained."""

Baseline = Literal[
    "climatology", "persistence", "damped_persistence", "linear_inverse_model",
    "dressed_regression",
]  # fmt: skip
_STEPS = re.compile(r"\s*[1-9]\d*\s*steps?\s*")


def _duration(text: str) -> str:
    """A duration's text as it is; ValueError, as pydantic wants it, for one that is none."""
    try:
        parse_duration(text)
    except UserError as error:
        raise ValueError(str(error)) from None
    return text


class Data(Section):
    """Which data, and which of their variables."""

    card: str | None = Field(default=None, description="a card: a name in datasets/, or a path")
    path: str | list[str] | None = Field(
        default=None, description="files or stores of your own, instead of a card"
    )
    variables: dict[str, list[int] | None] | None = Field(
        default=None, description="variable: levels, or null for one without; absent: all that fit"
    )
    static: list[str] = Field(
        default=[], description="fields fixed in time, given to the networks"
    )
    dims: dict[str, str] = Field(
        default={}, description="your name of a dimension: ours (own data)"
    )
    missing: dict[str, Literal["none", "static", "moving"]] = Field(
        default={},
        description="where NaN may be, per variable: none, static (land) or moving (own data)",
    )
    splits: dict[str, list[list[str]]] | None = Field(
        default=None,
        description="train, validation, test: lists of [first, last]; absent: the card's",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.card is None) == (self.path is None):
            raise ValueError("give either `card` or `path` (or `--data PATH`), not both or none")
        return self


class Window(Section):
    """What one draw of the denoiser sees and makes."""

    past: int = Field(
        default=1, ge=0, description="known frames before the forecast; 0: draws of the climate"
    )
    future: Positive = Field(default=1, description="frames drawn at once")
    step: str = Field(
        default="24h", description="time between frames: auto, or a multiple of the data's own"
    )

    @field_validator("step")
    @classmethod
    def _a_duration(cls, step: str) -> str:
        return step if step == "auto" else _duration(step)


class Autoencoder(Section):
    """Compression of one state to latents."""

    patch: Positive = Field(default=4, description="cells per latent cell along each axis")
    channels: Positive = Field(default=32, description="latent channels")
    width: Positive = Field(default=128, description="channels of the residual network")
    blocks: int = Field(
        default=2, ge=0, description="residual blocks; 0 leaves the linear path alone"
    )
    bound: float = Field(
        default=8.0, gt=3, description="latents lie in ±bound, in standard deviations"
    )
    latent_noise: float = Field(
        default=0.05, ge=0, description="noise on latents that the decoder is to bear"
    )
    steps: int = Field(default=200, ge=0, description="optimiser steps")
    batch: Positive = Field(default=32, description="states per step")
    learning_rate: Rate = Field(default=1e-3, description="peak learning rate")
    residual_rank: Positive = Field(
        default=24, description="rank of what decoding adds: the lost scales"
    )


class Output(Section):
    """How forecasts are written."""

    layout: Literal["sciladm", "weatherbench2"] = Field(
        default="sciladm", description="names and order"
    )
    format: Literal[2, 3] = Field(default=3, description="zarr format (weatherbench2 is always 2)")
    simulated_as_weatherbench2: bool = Field(
        default=False,
        description="say true to write simulated data in WeatherBench2's layout after all",
    )


class Evaluation(Section):
    """What is forecast and scored when nothing else is said."""

    init: str = Field(default="test:0:48", description="initial times, as --init takes them")
    lead: str = Field(default="5d", description="last lead time")
    members: Positive = Field(default=16, description="ensemble size")
    headline: list[str] = Field(
        default=[], description="variables that make up `all`; absent: every variable"
    )
    validation_inits: Positive = Field(
        default=24, description="free-running forecasts after training"
    )
    baselines: list[Baseline] = Field(
        default=list(get_args(Baseline)), description="what the model is held against"
    )
    seed: int = Field(
        default=0, ge=0, description="of a forecast's draws and of sampled baselines"
    )

    @field_validator("lead")
    @classmethod
    def _a_lead(cls, lead: str) -> str:
        return lead if _STEPS.fullmatch(lead) else _duration(lead)


class Recipe(Section):
    """A whole recipe."""

    schema_version: Literal[1] = Field(
        default=1, alias="schema", description="of this file's form"
    )
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run's folder")
    seed: int = Field(default=0, ge=0, description="of everything random in training")
    data: Data
    window: Window = Window()
    autoencoder: Autoencoder = Autoencoder()
    denoiser: Denoiser = Denoiser()
    checkpoint_every: Positive = Field(default=100, description="steps between checkpoints")
    micro_batch: Positive = Field(
        default=8, description="members that go through the network together"
    )
    sampler: Sampler = Sampler()
    output: Output = Output()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _guided_by_what_it_can_lack(self) -> Self:
        if self.sampler.guidance is not None and not self.denoiser.dropout:
            raise ValueError(
                "sampler.guidance needs a network that was trained without its context, too: "
                "denoiser.dropout above 0 (0.1, say) from the start"
            )
        return self

    @model_validator(mode="after")
    def _gains_of_states_alone(self) -> Self:
        if self.denoiser.gains and self.window.past:
            raise ValueError(
                "denoiser.gains needs window.past: 0; with a past to multiply, too, single "
                "members of forecasts leave the climate"
            )
        return self

    def tree(self) -> dict[str, Any]:
        """The resolved recipe as plain values."""
        return self.model_dump(by_alias=True, mode="json", exclude_none=True)

    def text(self) -> str:
        """The resolved recipe as YAML."""
        return yaml.safe_dump(self.tree(), sort_keys=False, allow_unicode=True, width=99)

    def fingerprint(self) -> str:
        """Hash of what decides the weights: all but the sections that may change afterwards."""
        tree = self.model_dump(by_alias=True, mode="json", exclude=set(AFTER_TRAINING))
        return hashlib.sha256(yaml.safe_dump(tree).encode()).hexdigest()[:16]


def load(path: str | Path, changes: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe and apply dotted ``changes`` such as ``{"denoiser.steps": 10}``."""
    path = Path(path)
    if path.is_dir() or not path.exists():
        known = sorted(p.name for p in path.parent.glob("*.yaml"))
        near = difflib.get_close_matches(path.name, known, n=5, cutoff=0.3) or known[:5]
        raise UserError(
            f"no recipe at {path}; in that folder: {', '.join(near) or 'no file *.yaml'}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from None
    return parse(read_yaml(text, str(path)), changes or {}, str(path))


def after_training(trained: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe of a trained run with ``changes``: only what training did not depend on."""
    for key in changes:
        if key.split(".")[0] not in AFTER_TRAINING:
            allowed = ", ".join(f"{section}.*" for section in AFTER_TRAINING)
            raise UserError(
                f"--set {key}: this run is trained; only {allowed} can change now. "
                "To train another, give it its own recipe and run folder"
            )
    return parse(trained.tree(), changes, "--set")


def parse(tree: Any, changes: dict[str, Any], where: str) -> Recipe:
    """A recipe from its parsed YAML ``tree``; UserError for whatever it may not say."""
    if not isinstance(tree, dict):
        got = "an empty file" if tree is None else type(tree).__name__
        raise UserError(f"{where}: a recipe is a mapping of sections, got {got}")
    for key, value in changes.items():
        _put(tree, key.split("."), value, key)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, _keys_at)}") from None


def _put(tree: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise UserError(f"--set {key}: `{part}` is a value, not a section")
    tree[path[-1]] = value


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return [field.alias or name for name, field in model.model_fields.items()]
