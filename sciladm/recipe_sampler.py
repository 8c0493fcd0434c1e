"""The `sampler` section of a recipe: which sampler, and what each one may be told."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sciladm.schema import Section

Name = Literal[
    "multistep", "heun", "euler", "ddim", "ancestral", "dpm_solver", "dpm_solver_sde", "langevin"
]
OWN_KEYS = {
    "order": ("multistep",),
    "corrector": ("multistep",),
    "churn": ("euler", "heun"),
    "eta": ("ddim",),
    "corrections": ("langevin",),
}
"""Keys that not every sampler has, and whose they are."""


class Sampler(Section):
    """How noise becomes a draw. Keys below `guidance_interval` belong to some samplers alone; one
    that is absent means that sampler's own default."""

    name: Name = Field(default="multistep", description="exponential multistep, or another")
    steps: int = Field(
        default=18,
        ge=4,
        description="noise levels per draw, one network evaluation each; heun takes two, langevin "
        "corrections + 1",
    )
    sigma_max: float | Literal["auto"] = Field(
        default="auto", description="first σ; auto: 30 √λ_max of the training departures"
    )
    sigma_min: float = Field(
        default=0.02,
        gt=0,
        description="last σ, in standard deviations; multistep goes on from it to 0, the others "
        "stop and want a tenth of it",
    )
    guidance: float | None = Field(
        default=None,
        ge=0,
        description="how much a draw follows its context: 1 as it should, which costs no second "
        "evaluation when left out; more makes it sharper and its spread too small; needs "
        "denoiser.dropout",
    )
    guidance_interval: tuple[float, float] | None = Field(
        default=None, description="σ above and up to which guidance works; absent: at all"
    )
    order: Literal[1, 2, 3] | None = Field(
        default=None, description="multistep: order of the predictor (3)"
    )
    corrector: bool | None = Field(
        default=None, description="multistep: correct each step with its evaluation, free (true)"
    )
    churn: float | None = Field(
        default=None, ge=0, description="euler, heun: fresh noise, in all the steps together (0)"
    )
    eta: float | None = Field(
        default=None, ge=0, le=1, description="ddim: share of fresh noise; 1 is ancestral (0)"
    )
    corrections: int | None = Field(
        default=None, ge=0, description="langevin: Markov chain steps at each σ (1)"
    )

    @model_validator(mode="after")
    def _downwards(self) -> Self:
        if self.sigma_max != "auto" and self.sigma_max <= self.sigma_min:
            raise ValueError(f"sigma_max must be above sigma_min, {self.sigma_min:g}; or auto")
        return self

    @model_validator(mode="after")
    def _an_interval(self) -> Self:
        if self.guidance_interval is None:
            return self
        if self.guidance is None:
            raise ValueError("guidance_interval says where guidance works; give guidance, too")
        low, high = self.guidance_interval
        if not 0 <= low < high:
            raise ValueError(f"guidance_interval: two σ, 0 ≤ low < high; got {low:g}, {high:g}")
        return self

    @model_validator(mode="after")
    def _keys_of_this_sampler(self) -> Self:
        for key, owners in OWN_KEYS.items():
            if self.name not in owners and getattr(self, key) is not None:
                raise ValueError(
                    f"sampler {self.name} has no use for `{key}`, which {' and '.join(owners)} "
                    "may be told; leave it out, or set it to null"
                )
        return self

    def own_keys(self) -> dict[str, Any]:
        """What this sampler was told beyond its steps and range."""
        told = {key: getattr(self, key) for key in OWN_KEYS}
        return {key: value for key, value in told.items() if value is not None}
