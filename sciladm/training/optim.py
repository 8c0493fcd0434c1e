"""Optimiser, learning rate, average of the weights: all functions of the step."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate in step 0 … steps − 1: linear rise, cosine fall to zero."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Average:
    """Power-function average of the weights (Karras et al. 2024, arXiv:2312.02696, eq. 2).

    θ̂(t) = β θ̂(t − 1) + (1 − β) θ(t), β = (1 − 1/t)^{γ+1}: its profile grows with training, and
    `width` is its standard deviation as a share of the steps so far (eq. 123 gives γ).
    """

    def __init__(self, module: nn.Module, width: float = 0.05) -> None:
        if not 0 < width < 0.28:
            raise ValueError(f"the width of the average must lie in (0, 0.28); got {width:g}")
        self.module = module
        self.exponent = float(np.roots([1, 7, 16 - width**-2, 12 - width**-2]).real.max())
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` + 1 steps."""
        share = 1 - (1 - 1 / (step + 1)) ** (self.exponent + 1)
        names = list(self.weights)
        now = dict(self.module.named_parameters())
        torch._foreach_lerp_(
            [self.weights[name] for name in names], [now[name] for name in names], share
        )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module carries the averaged weights."""
        own = {name: p.detach().clone() for name, p in self.module.named_parameters()}
        self.module.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            self.module.load_state_dict(own, strict=False)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimiser as tensors by name."""
    state = optimiser.state_dict()["state"]
    return {f"{index}/{key}": value for index, own in state.items() for key, value in own.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimiser_tensors`, into an optimiser built in the same way."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
