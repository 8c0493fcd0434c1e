"""Which cells might be observed: masks to train with, of every kind that questions have."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Mask = NDArray[np.bool_]
"""True = observed (frame, channel, *space)."""
ERRORS = (0.01, 0.5)
"""Standard errors, from and to, in that of a field."""


def mask(rng: np.random.Generator, shape: Sequence[int]) -> tuple[Mask, float]:
    """A mask (frame, channel, *space), and the standard error of what is observed, in that of a
    field: for half of them the smallest there is."""
    frames, channels, *space = shape
    kind = KINDS[rng.integers(len(KINDS))]
    still = rng.random() < 0.5  # the same in every frame and of every variable
    one = kind(rng, space)
    seen = np.stack([one if still else kind(rng, space) for _ in range(frames * channels)])
    seen = seen.reshape(shape)
    for axis, count in enumerate((frames, channels)):  # some of several are not observed at all
        if count > 1 and rng.random() < 0.25:
            lost = rng.permutation(count)[: rng.integers(1, count)]
            seen[(slice(None),) * axis + (lost,)] = False
    low, high = np.log(ERRORS)
    return seen, float(np.exp(rng.uniform(low, high))) if rng.random() < 0.5 else ERRORS[0]


def scattered(rng: np.random.Generator, space: Sequence[int]) -> Mask:
    """Cells at random: from one in fifty to nearly all."""
    return np.asarray(rng.random(space) < np.exp(rng.uniform(np.log(0.02), np.log(0.9))))


def block(rng: np.random.Generator, space: Sequence[int]) -> Mask:
    """All but a box of a fifth to four fifths of each axis."""
    seen = np.ones(space, bool)
    sides = [max(1, round(n * rng.uniform(0.2, 0.8))) for n in space]
    first = [rng.integers(n - side + 1) for n, side in zip(space, sides, strict=True)]
    seen[tuple(slice(a, a + n) for a, n in zip(first, sides, strict=True))] = False
    return seen


def clouds(rng: np.random.Generator, space: Sequence[int]) -> Mask:
    """All but blobs that cover a fifth to nine tenths."""
    size = rng.uniform(0.03, 0.12) * max(space)
    field = gaussian_filter(rng.standard_normal(space), size, mode="wrap")
    return np.asarray(field > np.quantile(field, rng.uniform(0.2, 0.9)))


def stripes(rng: np.random.Generator, space: Sequence[int]) -> Mask:
    """Tracks of a cell or swaths of several across the field, some cells apart."""
    across = rng.standard_normal(len(space))
    across /= np.linalg.norm(across)
    place = np.tensordot(across, np.indices(space), 1)
    width = 1.0 if rng.random() < 0.5 else rng.uniform(2, 0.2 * max(space) + 2)
    spacing = width * rng.uniform(1.5, 10)
    return np.asarray((place + rng.uniform(0, spacing)) % spacing < width)


KINDS = scattered, block, clouds, stripes
