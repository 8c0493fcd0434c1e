"""A small world whose answers are known: Gaussian fields that obey linear stochastic dynamics.

x(t + 6 h) = A x(t) + noise on a few smooth patterns, so that the forecast from a perfectly known
state is Gaussian with mean A^n x and a known covariance. A year in it on request.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sciladm.baselines.series import Series
from sciladm.grid import Grid

STEP = np.timedelta64(6, "h")


def sphere(n: int = 16) -> Grid:
    half = 90.0 / n
    return Grid.from_coords(
        {
            "latitude": -90.0 + half + 2 * half * np.arange(n),
            "longitude": 360.0 / (2 * n) * np.arange(2 * n),
        }
    )


@dataclass
class LinearWorld:
    """channels 2: `first`, `second` with sd 1 and 10; `patterns` smooth modes of equal kind."""

    grid: Grid
    patterns: int = 24
    damping_days: float = 4.0
    annual: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        k, cells = self.patterns, int(np.prod(self.grid.shape))
        place = self.grid.features()[:3].reshape(3, -1).astype(np.float64)
        waves = rng.standard_normal((2 * k, 3)) * 2.0
        phase = rng.uniform(0, 2 * np.pi, (2 * k, 1))
        smooth = np.cos(waves @ place + phase).reshape(k, 2 * cells) * np.sqrt(2.0 / k)
        self.shape = (2, *self.grid.shape)
        self.scale = np.array([1.0, 10.0])
        self.maps = (smooth.reshape(k, 2, cells) * self.scale[:, None]).reshape(k, -1)
        turn = np.linalg.qr(rng.standard_normal((k, k)))[0]
        decay = np.exp(-0.25 / (self.damping_days * rng.uniform(0.3, 2.0, k)))
        spin = rng.uniform(0.0, 0.5, k // 2)
        core = np.zeros((k, k))
        for i, angle in enumerate(spin):
            c, s = np.cos(angle), np.sin(angle)
            d = np.sqrt(decay[2 * i] * decay[2 * i + 1])
            core[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = d * np.array([[c, -s], [s, c]])
        self.step = turn @ core @ turn.T
        self.noise = np.eye(k) - self.step @ self.step.T  # stationary covariance 1
        self.root = np.linalg.cholesky(self.noise)

    def states(self, n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, seed])
        out = np.empty((n, self.patterns))
        out[0] = rng.standard_normal(self.patterns)
        for i in range(1, n):
            out[i] = self.step @ out[i - 1] + self.root @ rng.standard_normal(self.patterns)
        return out

    def mean(self, times: np.ndarray) -> np.ndarray:
        day = (times - times.astype("datetime64[Y]")) / np.timedelta64(1, "D")
        wave = self.annual * np.cos(2 * np.pi * day / 365.2425)
        return wave[:, None] * np.repeat(self.scale, self.maps.shape[1] // 2)

    def fields(self, states: np.ndarray, times: np.ndarray) -> np.ndarray:
        flat = states @ self.maps
        flat = flat + (self.mean(times) if flat.ndim == 2 else self.mean(times)[None])
        return flat.astype(np.float32).reshape(*states.shape[:-1], *self.shape)

    def series(self, start: str, days: int, seed: int) -> tuple[Series, np.ndarray]:
        times = np.datetime64(start, "ns") + np.arange(days * 4) * STEP
        states = self.states(len(times), seed)
        values = self.fields(states, times)
        return Series(times, lambda index: values[index]), states

    def exact(
        self, state: np.ndarray, init: np.datetime64, leads: np.ndarray, members: int, seed: int
    ) -> np.ndarray:
        """Draws from the truth's own distribution given its state: (member, lead, 2, *space)."""
        rng = np.random.default_rng([self.seed, seed, 7])
        x = np.repeat(state[None], members, axis=0)
        steps = (leads / STEP).astype(int)
        kept = []
        for i in range(1, steps.max() + 1):
            x = x @ self.step.T + rng.standard_normal(x.shape) @ self.root.T
            if i in steps:
                kept.append(x)
        return self.fields(np.stack(kept, axis=1), init + leads)

    def normaliser(self) -> np.ndarray:
        variance = (self.maps**2).sum(axis=0).reshape(2, *self.grid.shape)
        return np.sqrt((variance * self.grid.area).sum(axis=(1, 2)))
