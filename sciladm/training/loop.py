"""The one training loop. It takes a loss and knows nothing of what it trains.

A run is a function of its settings alone: the loss of step n comes from n, never from a clock or a
generator that remembers. Killed at any moment and started again, it ends in the same bytes.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from sciladm.conventions import UserError
from sciladm.training.average import Average, moments
from sciladm.training.checkpoint import keep_lines, read_tensors, write_tensors
from sciladm.training.muon import Muon
from sciladm.training.optim import optimiser_tensors, restore_optimisers, schedule, shares

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": partial(torch.optim.AdamW, betas=(0.9, 0.99)),
    "muon": Muon,
}


class Loop:
    """Steps `module` along the gradient of `step_loss` and keeps what it needs to go on.

    step_loss: (step, part) → scalar loss, a pure function of these and the weights. The loss of a
    step is the mean over `parts`; each is computed by one thread of its own, so that the bits do
    not depend on how many cores there are, and two cores train twice as fast. run: folder;
    writes `<name>.checkpoint.safetensors` (weights, average, optimiser, step) and to
    `metrics.jsonl` (stage, step, loss, lr; after a validation also its numbers). ema_widths: of
    the averages of the weights; the first is what training ends in. snapshots: keep them all at
    a few moments, for a choice of width afterwards (`training.average`).
    """

    def __init__(
        self,
        module: nn.Module,
        step_loss: Callable[[int, int], Tensor],
        run: Path,
        name: str,
        *,
        steps: int,
        parts: int = 1,
        optimiser: str = "adamw",
        learning_rate: float = 2e-3,
        warmup: int = 50,
        weight_decay: float = 0.01,
        clip: float = 1.0,
        ema_widths: Sequence[float] = (0.05,),
        snapshots: bool = False,
        save_every: int = 200,
        validate: Callable[[int], Mapping[str, float]] | None = None,
        validate_every: int = 0,
        progress: Callable[[int, float], None] | None = None,
    ) -> None:
        self.module, self.step_loss, self.name = module, step_loss, name
        self.checkpoint = run / f"{name}.checkpoint.safetensors"
        self.metrics = run / "metrics.jsonl"
        self.steps, self.parts = steps, parts
        self.learning_rate, self.warmup = learning_rate, warmup
        self.clip, self.save_every = clip, save_every
        self.validate, self.validate_every = validate, validate_every
        self.progress = progress
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimisers = [
            OPTIMISERS[optimiser](share, lr=learning_rate, weight_decay=weight_decay)
            for share in shares(self.parameters, parts)
        ]
        self.average = Average(module, ema_widths)
        self.moments = moments(steps) if snapshots else set()
        self._lines: list[tuple[int, Tensor, float]] = []

    def run(self) -> dict[str, Tensor]:
        """Train to the end, from the checkpoint if there is one; → the averaged weights."""
        first, usual = self._restore(), torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(
                self.parts, initializer=torch.set_num_threads, initargs=(1,)
            ) as threads:
                self._steps(first, threads)
        finally:
            torch.set_num_threads(usual)
        return self.average.weights

    def _steps(self, first: int, threads: ThreadPoolExecutor) -> None:
        for step in range(first, self.steps):
            self._advance(step, threads)
            done = step + 1
            last = done == self.steps
            if self.validate and self.validate_every and (done % self.validate_every == 0 or last):
                self._flush()
                with self.average.applied():
                    self._write({"step": step, "validation": dict(self.validate(step))})
            if done in self.moments:
                self._flush()
                self.average.keep(self.checkpoint.parent, self.name, done)
            if done % self.save_every == 0 or last:
                self._flush()
                self._save(done)

    def _advance(self, step: int, threads: ThreadPoolExecutor) -> None:
        rate = self.learning_rate * schedule(step, self.steps, self.warmup)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        results = list(threads.map(lambda part: self._gradient(step, part), range(self.parts)))
        loss = torch.stack([one for one, _ in results]).mean()
        for parameter, *parts in zip(self.parameters, *(own for _, own in results), strict=True):
            parameter.grad = sum(parts[1:], parts[0]) / self.parts
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        list(threads.map(lambda optimiser: optimiser.step(), self.optimisers))
        self.average.update(step)
        self._lines.append((step, loss, rate))
        if len(self._lines) == 20:  # the device is waited for now and then only
            self._flush()

    def _gradient(self, step: int, part: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = self.step_loss(step, part)
        return loss.detach(), torch.autograd.grad(loss, self.parameters, materialize_grads=True)

    def _flush(self) -> None:
        for step, loss, rate in self._lines:
            value = float(loss)
            if not torch.isfinite(loss):
                raise UserError(
                    f"The loss of {self.name!r} became {value} in step {step}. The last good "
                    f"state is kept in {self.checkpoint.name}. Lower the learning rate (now "
                    f"{self.learning_rate:g}), or look for values far out of range in the data."
                )
            self._write({"step": step, "loss": value, "lr": rate})
        if self.progress and self._lines:
            self.progress(self._lines[-1][0] + 1, float(self._lines[-1][1]))
        self._lines.clear()

    def _write(self, line: Mapping[str, object]) -> None:
        with self.metrics.open("a") as file:
            file.write(json.dumps({"stage": self.name, **line}) + "\n")

    def _save(self, done: int) -> None:
        with self.metrics.open("a") as file:  # what led to a checkpoint lasts as long as it does
            os.fsync(file.fileno())
        parts = {
            "weights": self.module.state_dict(),
            "average": self.average.tensors(),
            "optimiser": optimiser_tensors(self.optimisers),
        }
        tensors = {f"{part}:{key}": t for part, own in parts.items() for key, t in own.items()}
        write_tensors(self.checkpoint, tensors, {"step": done})

    def _restore(self) -> int:
        if not self.checkpoint.exists():
            keep_lines(self.metrics, self.name, -1)
            return 0
        tensors, facts = read_tensors(self.checkpoint)
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, key = name.split(":", 1)
            parts[part][key] = tensor
        try:
            self.module.load_state_dict(parts["weights"])
        except RuntimeError as error:
            raise UserError(
                f"{self.checkpoint} holds another network than this recipe asks for ({error}). "
                "Train into another folder with --run-dir, or start anew with --overwrite."
            ) from error
        for name, weight in self.average.tensors().items():
            weight.copy_(parts["average"][name])
        restore_optimisers(self.optimisers, parts["optimiser"])
        keep_lines(self.metrics, self.name, int(facts["step"]) - 1)
        return int(facts["step"])
