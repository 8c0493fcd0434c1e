"""Learning rate, shares of the work and state of optimisers: functions of the step."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate in step 0 … steps − 1: linear rise, cosine fall to zero."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def shares(parameters: Iterable[nn.Parameter], count: int) -> list[list[nn.Parameter]]:
    """The parameters in up to ``count`` lists of about as many numbers, the same every time."""
    found: list[list[nn.Parameter]] = [[] for _ in range(count)]
    for parameter in sorted(parameters, key=lambda p: -p.numel()):
        min(found, key=lambda own: sum(p.numel() for p in own)).append(parameter)
    return [own for own in found if own]


def optimiser_tensors(optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """State of optimisers as tensors by name."""
    return {
        f"{number}/{index}/{key}": value
        for number, optimiser in enumerate(optimisers)
        for index, own in optimiser.state_dict()["state"].items()
        for key, value in own.items()
    }


def restore_optimisers(
    optimisers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    """The inverse of `optimiser_tensors`, into optimisers built in the same way."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimisers]
    for name, value in tensors.items():
        number, index, key = name.split("/")
        states[int(number)].setdefault(int(index), {})[key] = value
    for optimiser, state in zip(optimisers, states, strict=True):
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": state, "param_groups": groups})
