"""All the noise there is, and where it comes from.

Two kinds. Noise of a *draw* belongs to a label (which seed, time, member, purpose) and to a place
(global cell and channel): whoever asks, on whatever tile or in whatever batch, gets the same
number. Noise of *training* belongs to (seed, step), so that a resumed run goes on as if it had
never stopped.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor


@dataclass(frozen=True)
class Key:
    """Whose noise it is. Times are int64, microseconds since 1970 (`data.times.ticks`) in a
    forecast; `init_time` is 0 where a draw belongs to no forecast. `member` counts from 0."""

    seed: int
    valid_time: int
    init_time: int
    member: int

    def philox(self, stream: str, draw: int) -> int:
        """The 128-bit key of one stream of numbers: BLAKE2b of the labels."""
        labels = (
            struct.pack("<5q", self.seed, self.valid_time, self.init_time, self.member, draw)
            + stream.encode()
        )
        return int.from_bytes(blake2b(labels, digest_size=16).digest(), "little")


def unit_normal(
    keys: Sequence[Key],
    stream: str,
    draw: int,
    channels: int,
    shape: Sequence[int],
    tile: Sequence[slice] | None = None,
) -> Tensor:
    """Standard normal numbers (len(keys), channels, *space), float32, on the CPU.

    Number `channel + channels · cell` of the key's Philox-4x64 counter sequence, through the
    inverse normal: a pure function of (key, stream, draw, cell, channel). `shape` is the global
    grid; `tile`, slices of it, draws that part alone.
    """
    tile = [slice(*part.indices(n)) for part, n in zip(tile or _whole(shape), shape, strict=True)]
    sizes = [part.stop - part.start for part in tile]
    outer = np.indices([*sizes[:-1], 1]).reshape(len(sizes), -1).T + [p.start for p in tile]
    starts = np.ravel_multi_index(tuple(outer.T), tuple(shape)) * channels
    run = sizes[-1] * channels
    if sizes[1:] == list(shape)[1:]:  # rows follow each other without a gap
        starts, run = starts[:1], run * len(starts)
    bits = np.stack(
        [
            np.concatenate([_philox(key.philox(stream, draw), int(s), run) for s in starts])
            for key in keys
        ]
    )
    # 52 bits, centred: (k + ½)/2⁵² is exact and never 0 or 1.
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    normal = ndtri(uniform).astype(np.float32).reshape(len(keys), *sizes, channels)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(normal, -1, 1)))


def fresh_normal(
    keys: Sequence[Key], stream: str, channels: int, shape: Sequence[int], device: torch.device
) -> Callable[[int], Tensor]:
    """`unit_normal` by the number of the draw, on a device: what samplers ask for."""
    return lambda draw: unit_normal(keys, stream, draw, channels, shape).to(device)


def _whole(shape: Sequence[int]) -> list[slice]:
    return [slice(None) for _ in shape]


def _philox(key: int, start: int, count: int) -> NDArray[np.uint64]:
    """Numbers `start` … `start + count` of a key's sequence; a counter holds four of them."""
    generator = np.random.Philox(key=key)
    generator.advance(start // 4)
    return generator.random_raw(start % 4 + count)[start % 4 :]


def training_generator(seed: int, step: int, stream: str = "noise") -> torch.Generator:
    """Generator on the CPU for everything random in one training step."""
    label = struct.pack("<2q", seed, step) + stream.encode()
    state = int.from_bytes(blake2b(label, digest_size=8).digest(), "little") >> 1
    return torch.Generator().manual_seed(state)


def training_sigma(seed: int, step: int, batch: int, mean: float, std: float) -> Tensor:
    """Noise levels (batch,), ln σ ~ N(mean, std²), one in each of `batch` equally likely bands
    (Kingma et al. 2021, arXiv:2107.00630, section I.1), in random order."""
    generator = training_generator(seed, step, "sigma")
    within = torch.rand(batch, generator=generator, dtype=torch.float64)
    band = torch.randperm(batch, generator=generator)
    level = torch.special.ndtri(((band + within) / batch).clamp(1e-9, 1 - 1e-9))
    sigma: Tensor = (mean + std * level).exp().float()
    return sigma
