import numpy as np
import pytest
import torch
from scipy import stats

from sciladm.diffusion.noise import Key, training_generator, training_sigma, unit_normal

KEY = Key(seed=7, valid_time=10**18, init_time=0, member=3)
GOLDEN = [0.156462, -0.0780676, 0.2861428, -1.0170485, -0.7107057, 0.3231252]
GOLDEN_KEY = 161351896254501567952439473329950043330


def test_golden_values():
    got = unit_normal([KEY], "sampler", 0, 2, (2, 3))[0]
    np.testing.assert_allclose(got[:, 0, :].numpy().ravel(), GOLDEN, atol=1e-6)
    later = Key(-1, -5, 2**62, 0)
    assert later.philox("residual", 4) == GOLDEN_KEY


def test_members_do_not_depend_on_the_batch():
    keys = [Key(7, 10**18, 0, member) for member in range(5)]
    together = unit_normal(keys, "sampler", 0, 3, (4, 6))
    assert together.shape == (5, 3, 4, 6) and together.dtype == torch.float32
    assert together.is_contiguous()
    for member, key in enumerate(keys):
        assert torch.equal(unit_normal([key], "sampler", 0, 3, (4, 6))[0], together[member])


@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ((6, 10), (slice(2, 5), slice(3, 8))),
        ((6, 10), (slice(1, 4), slice(None))),
        ((6, 10), (slice(None), slice(9, 10))),
        ((12,), (slice(5, 9),)),
        ((3, 4, 5), (slice(1, 3), slice(0, 2), slice(2, 5))),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_tile_is_a_part_of_the_whole(shape, tile, channels):
    whole = unit_normal([KEY], "sampler", 2, channels, shape)
    part = unit_normal([KEY], "sampler", 2, channels, shape, tile)
    assert torch.equal(part, whole[(slice(None), slice(None), *tile)])


def test_numbers_are_standard_normal_and_labels_independent():
    keys = [Key(s, t, i, m) for s in (0, 1) for t in (0, 1) for i in (0, 1) for m in range(4)]
    rows = torch.cat(
        [unit_normal(keys, stream, n, 4, (16, 32)) for stream in ("a", "b") for n in (0, 1)]
    )
    rows = rows.flatten(1).double().numpy()
    n = rows.shape[1]
    assert stats.kstest(rows.ravel(), "norm").pvalue > 0.01
    correlation = np.corrcoef(rows)[np.triu_indices(len(rows), 1)] * np.sqrt(n)
    assert np.abs(correlation).max() < 4.5 and correlation.std() == pytest.approx(1, abs=0.06)
    inside = unit_normal([KEY], "a", 0, 4, (64, 64))[0].double()
    for other in (inside.roll(1, 0), inside.roll(1, 1), inside.roll(1, 2)):
        assert abs(float((inside * other).mean())) < 4 / np.sqrt(inside.numel())


def test_training_levels_fill_every_band():
    sigma = training_sigma(0, 5, 64, mean=-0.4, std=1.2)
    assert torch.equal(sigma, training_sigma(0, 5, 64, mean=-0.4, std=1.2))
    assert not torch.equal(sigma, training_sigma(0, 6, 64, mean=-0.4, std=1.2))
    assert not torch.equal(sigma, training_sigma(1, 5, 64, mean=-0.4, std=1.2))
    band = torch.special.ndtr((sigma.double().log() + 0.4) / 1.2) * 64
    assert sorted(band.int().tolist()) == list(range(64)) and not torch.equal(band, band.sort()[0])
    one = torch.randn(5, generator=training_generator(3, 4))
    assert torch.equal(one, torch.randn(5, generator=training_generator(3, 4)))
    assert not torch.equal(one, torch.randn(5, generator=training_generator(3, 4, "other")))
