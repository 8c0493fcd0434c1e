"""Learning rate and state of an optimiser: functions of the step."""

import math

import torch
from torch import Tensor


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate in step 0 … steps − 1: linear rise, cosine fall to zero."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


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
