"""Cards: what a data set is, where it is to be had, how it is split. YAML in ``datasets/``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Missing = Literal["none", "static", "moving"]


class Part(BaseModel):
    """A part of a card: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Variable(Part):
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
