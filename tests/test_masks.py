"""Masks to train with: of every kind, some of each size, the same for the same key."""

import numpy as np
import pytest

from sciladm.observe.masks import ERRORS, KINDS, block, clouds, mask, scattered, stripes

SPACE = (24, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_observes_some_and_hides_some(kind):
    """In one, two and three dimensions; shares that differ widely."""
    for space in ((40,), SPACE, (8, 10, 12)):
        shares = []
        for number in range(60):
            seen = kind(np.random.default_rng(number), space)
            assert seen.shape == space and seen.dtype == bool
            shares.append(seen.mean())
        assert 0 < np.mean(shares) < 1
        assert np.quantile(shares, 0.9) - np.quantile(shares, 0.1) > 0.15


def runs(seen):
    """Mean length of what is observed at a stretch, along the last axis."""
    return seen.sum() / max(1, (seen & ~np.roll(seen, 1, -1)).sum())


def test_kinds_differ():
    """Scattered cells are alone, of clouds the gaps are patches, a block is one box."""
    rng = np.random.default_rng
    lone = np.mean([runs(scattered(rng(n), SPACE)) * (1 - scattered(rng(n), SPACE).mean())
                    for n in range(20)])  # fmt: skip
    assert 0.8 < lone < 1.2  # a run of independent cells is 1 / (1 − share) long
    assert np.mean([runs(clouds(rng(n), SPACE)) for n in range(20)]) > 3
    for number in range(20):
        rows, columns = np.nonzero(~block(rng(number), SPACE))
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    thin = [stripes(rng(n), (200,)) for n in range(40)]
    assert {True, False} == {runs(one) < 1.6 for one in thin}


def test_masks_belong_to_their_key():
    seen, error = mask(np.random.default_rng([5, 1]), (3, 2, *SPACE))
    again, same = mask(np.random.default_rng([5, 1]), (3, 2, *SPACE))
    other, _ = mask(np.random.default_rng([5, 2]), (3, 2, *SPACE))
    assert (seen == again).all() and error == same
    assert (seen != other).any()


def test_frames_and_variables_are_lost_as_wholes_and_errors_differ():
    many = [mask(np.random.default_rng([0, n]), (3, 2, *SPACE)) for n in range(200)]
    whole = np.array([~seen.any(axis=(2, 3)) for seen, _ in many])
    frames, variables = whole.all(2).any(1).mean(), whole.all(1).any(1).mean()
    assert 0.15 < frames < 0.4 and 0.15 < variables < 0.4
    still = np.array([(seen == seen[:1, :1]).all() for seen, _ in many])
    assert 0.2 < still.mean() < 0.6
    errors = np.array([error for _, error in many])
    assert 0.35 < (errors == ERRORS[0]).mean() < 0.65
    assert errors.max() > 0.3 and errors.max() <= ERRORS[1]
