"""The `denoiser` section of a recipe: networks, what they start from, and their training."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sciladm.schema import Positive, Rate, Section


class Denoiser(Section):
    """The network that draws frames, given the frames before."""

    widths: list[Positive] = Field(
        default=[64, 96], min_length=1, description="channels per resolution"
    )
    blocks: Positive = Field(default=2, description="residual blocks per resolution")
    attention: bool = Field(default=True, description="attention at the coarsest resolution")
    gains: bool = Field(
        default=False,
        description="the network that draws is told how large a state is, and may multiply it: "
        "where there are several regimes, calm days and rough ones; of runs without a past",
    )
    local: int = Field(
        default=0, ge=0, description="samples' worth by which cells share a linear map; 0: wholly"
    )
    ridge: float = Field(
        default=0.02,
        gt=0,
        description="noise that the linear forecast is to bear, of its predictors' variance: with "
        "less it sees more of one step, and a roll-out, fed its own draws, may grow",
    )
    mean_steps: int = Field(
        default=800,
        ge=0,
        description="optimiser steps of the network that says what is expected and how far frames "
        "may depart from it; 0: linear, and as far as the season says",
    )
    scale: bool = Field(
        default=True,
        description="that network says how far, too, and learns by the CRPS of a normal "
        "distribution; false where departures are of several kinds: it learns the mean by least "
        "squares, and all else is diffusion's",
    )
    patterns: int = Field(
        default=4096,
        ge=0,
        description="patterns per wavenumber by which departures are white before training: they "
        "correlate distant cells; fewer leave small scales too rough; 0: each cell by itself",
    )
    steps: Positive = Field(default=800, description="optimiser steps")
    batch: Positive = Field(default=48, description="windows per step")
    optimiser: Literal["adamw", "muon"] = Field(default="muon", description="muon: larger rates")
    learning_rate: Rate = Field(default=1e-2, description="peak learning rate")
    parametrisation: Literal["edm", "flow", "v", "noise"] = Field(
        default="edm",
        description="what the network is trained to say; edm and v start at white Gaussian "
        "departures and learn the rest, flow and noise have that to learn too",
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of training windows whose context is hidden, so that draws can be "
        "guided by what it says (sampler.guidance)",
    )
    masks: int = Field(
        default=0,
        ge=0,
        description="masks through which frames are seen in training, so that runs fill gaps by "
        "the network alone (infill: amortised); 0: none, and runs are guided by what was observed",
    )
    sigma_centre: float | Literal["auto"] = Field(
        default="auto", description="centre of ln σ in training; auto: from the data's spectrum"
    )
    sigma_spread: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        default="auto", description="standard deviation of ln σ in training; auto: the same"
    )
    ema: float = Field(
        default=0.05,
        gt=0,
        lt=0.28,
        description="width of the weight average, of training; `training.average` makes "
        "any other afterwards",
    )

    @model_validator(mode="after")
    def _masked_alike(self) -> Self:
        if self.masks and ((self.scale and self.mean_steps) or self.parametrisation != "edm"):
            raise ValueError(
                "masks needs parametrisation: edm, and mean_steps: 0 or scale: false, too: what "
                "masks tell is worked out for a time of the year, not for each state"
            )
        return self
