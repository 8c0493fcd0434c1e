"""Do samples help to learn from few real fields? The middle of one, told from its surroundings.

Ridge regression of a central block on the cells around it, trained on few real fields alone, with
noised and shifted copies of these, and with samples, as many; scored on held-out fields.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

FEW = 40
_PENALTIES = 10.0 ** np.arange(-4, 3)
_NOISE = 0.1


def usefulness(
    train: Floats,
    samples: Floats,
    test: Floats,
    valid: NDArray[np.bool_],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Share of the block's variance explained in ``test`` (n, channel, *space), by what was
    trained on: mean of three draws of FEW of the ``train`` fields. NaN where the middle of the
    grid holds no valid cell."""  # fmt: skip
    block, around = regions(valid)
    if not block.any() or not around.any():
        return dict.fromkeys(("few", "few_and_shifted", "few_and_samples"), float("nan"))
    found = []
    for _ in range(3):
        order = rng.permutation(len(train))
        few, rest = train[order[:FEW]], train[order[FEW : FEW + 200]]
        copies = noise_and_shift(few, len(samples), rng)
        found.append([
            explained(np.concatenate([few, extra]), rest, test, block, around)
            for extra in (few[:0], copies, samples)
        ])  # fmt: skip
    means = np.mean(found, axis=0)
    return dict(zip(("few", "few_and_shifted", "few_and_samples"), map(float, means), strict=True))


def regions(valid: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The central quarter of each axis of ``valid`` (channel, *space), and what lies beyond."""
    middle = np.ones(valid.shape[1:], bool)
    for axis, n in enumerate(valid.shape[1:]):
        width = max(1, n // 4)
        inside = np.zeros(n, bool)
        inside[(n - width) // 2 : (n - width) // 2 + width] = True
        middle &= inside.reshape([-1 if i == axis else 1 for i in range(middle.ndim)])
    return valid & middle, valid & ~middle


def noise_and_shift(fields: Floats, n: int, rng: np.random.Generator) -> Floats:
    """``n`` copies of fields, rolled by up to a cell along every axis, with a tenth of noise."""
    out = fields[rng.integers(len(fields), size=n)].copy()
    axes = tuple(range(1, out.ndim - 1))
    for i, one in enumerate(out):
        out[i] = np.roll(one, rng.integers(-1, 2, len(axes)), axes)
    return np.asarray(out + _NOISE * rng.standard_normal(out.shape), out.dtype)


def explained(
    train: Floats, rest: Floats, test: Floats, block: NDArray[np.bool_], around: NDArray[np.bool_]
) -> float:
    """1 − error/variance in ``test``, the penalty chosen on ``rest``."""
    x, y = train[:, around].astype(float), train[:, block].astype(float)
    values, vectors = np.linalg.eigh(x @ x.T)
    seen = vectors.T @ y

    def skill(fields: Floats, penalty: float) -> float:
        weights = vectors @ (seen / (np.maximum(values, 0) + penalty * values.max())[:, None])
        truth = fields[:, block]
        told = fields[:, around] @ (x.T @ weights)
        return float(1 - ((told - truth) ** 2).mean() / (truth**2).mean())

    best = max(_PENALTIES, key=lambda penalty: skill(rest, penalty))
    return skill(test, best)
