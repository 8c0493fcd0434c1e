"""Averages of the weights over training, of whatever width; one can be chosen afterwards.

Karras et al. 2024 (arXiv:2312.02696, section 3): the average with power-function profile

    θ̂(t) = (γ + 1) t^{−γ−1} ∫₀ᵗ τ^γ θ(τ) dτ                                            (eq. 1)

spans a fixed share of training, however long that is. With m = γ + 1 its width, the standard
deviation of the profile over t, is √(m / (m + 2)) / (m + 1) (eq. 123). Two of them, kept at a few
moments, span nearly all others at the end (section 3.2).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciladm.conventions import UserError
from sciladm.training.checkpoint import read_tensors, write_tensors

WIDEST = 0.28
"""Every step counting the same has width 1/√12 = 0.289."""
FOLDER = "averages"
MOMENTS = 6
"""Snapshots of a training. In half precision, of two widths, they take six times the disk of the
network itself. Where the weights walk at random and end √n from their start, the error of the
average at widths 0.02, 0.03, 0.04 … 0.2, 0.25 is 2.6 %, 1.0 %, ≤ 0.4 %, 0.8 % of that way."""


def exponent(width: float) -> float:
    """m of the profile of this width: the largest root of (m + 1)² (m + 2) = m / width²."""
    if not 0 < width < WIDEST:
        raise ValueError(f"the width of an average must lie in (0, {WIDEST}); got {width:g}")
    return float(np.roots([1, 4, 5 - width**-2, 2]).real.max())


def pair(width: float) -> tuple[float, float]:
    """This width and another, an octave away: together they span the others."""
    return width, 2 * width if 2 * width < WIDEST else width / 2


class Average:
    """Averages of a module's weights, one for each of ``widths``; the first is *the* average.

    θ̂(t) = β θ̂(t − 1) + (1 − β) θ(t), β = (1 − 1/t)ᵐ (eq. 2), so that step s counts
    (s/t)ᵐ − ((s − 1)/t)ᵐ: the integral of the profile over it, exactly.
    """

    def __init__(self, module: nn.Module, widths: Sequence[float] = (0.05,)) -> None:
        self.module = module
        self.widths = {width: exponent(width) for width in widths}
        self.tracks = {
            width: {name: p.detach().clone() for name, p in module.named_parameters()}
            for width in widths
        }

    @property
    def weights(self) -> dict[str, Tensor]:
        """Of the first width."""
        return next(iter(self.tracks.values()))

    def tensors(self) -> dict[str, Tensor]:
        """All tracks, by ``width/name``."""
        return {
            f"{width:g}/{name}": weight
            for width, track in self.tracks.items()
            for name, weight in track.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` + 1 steps."""
        now = dict(self.module.named_parameters())
        for width, power in self.widths.items():
            share = 1 - (1 - 1 / (step + 1)) ** power
            track = self.tracks[width]
            torch._foreach_lerp_(list(track.values()), [now[name] for name in track], share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module carries the averaged weights."""
        own = {name: p.detach().clone() for name, p in self.module.named_parameters()}
        self.module.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            self.module.load_state_dict(own, strict=False)

    def keep(self, run: Path, name: str, done: int) -> None:
        """A snapshot after ``done`` steps, `<run>/averages/<name>-<done>.safetensors`."""
        half = {key: weight.half() for key, weight in self.tensors().items()}
        path = run / FOLDER / f"{name}-{done:07d}.safetensors"
        write_tensors(path, half, {"step": done, "widths": list(self.widths)})


def moments(steps: int) -> set[int]:
    """After how many steps snapshots are taken; the last after all of them."""
    return {max(1, steps * (n + 1) // MOMENTS) for n in range(MOMENTS)}


def combination(
    profiles: Sequence[tuple[float, int]], width: float, steps: int
) -> NDArray[np.float64]:
    """Coefficients (snapshot,) by which averages (width, step) make that of ``width`` at the end.

    With C(s) = min(s/t, 1)ᵐ, what the steps up to s count together, an average is
    θ(T) − Σ C(s) (θ(s + 1) − θ(s)). Weights walk more than they jitter, so the squares of what C
    lacks are made least, not of what the profile lacks (algorithm 3): the least error for weights
    that walk at random. The coefficients add up to 1, as all profiles do.
    """
    at = np.arange(steps, dtype=np.float64)
    shares = np.stack([np.minimum(at / t, 1) ** exponent(w) for w, t in profiles], axis=1)
    wanted = (at / steps) ** exponent(width)
    others = np.linalg.lstsq(shares[:, :-1] - shares[:, -1:], wanted - shares[:, -1], rcond=None)
    return np.append(others[0], 1 - others[0].sum())


def at_width(run: Path, width: float, name: str = "denoiser") -> dict[str, Tensor]:
    """Weights of a stage of a trained run, averaged with another ``width`` than its recipe's.

    `model.denoiser.backbone.load_state_dict(at_width(model.path, 0.1), strict=False)` puts them
    in place. UserError where the run kept no snapshots.
    """
    paths = sorted((run / FOLDER).glob(f"{name}-*.safetensors"))
    if not paths:
        raise UserError(
            f"{run} keeps no averages of {name!r}: nothing like {FOLDER}/{name}-*.safetensors. "
            "Train it again to have them"
        )
    profiles: list[tuple[float, int]] = []
    tracks: list[dict[str, Tensor]] = []
    for path in paths:
        tensors, facts = read_tensors(path)
        for own in facts["widths"]:
            start = f"{own:g}/"
            profiles.append((own, facts["step"]))
            tracks.append(
                {key.removeprefix(start): x for key, x in tensors.items() if key.startswith(start)}
            )
    shares = combination(profiles, width, profiles[-1][1])
    return {
        key: sum(
            (float(c) * track[key].double() for c, track in zip(shares, tracks, strict=True)),
            torch.zeros_like(tracks[0][key], dtype=torch.float64),
        ).float()
        for key in tracks[0]
    }
