"""Fields by wavenumber."""

import pytest
import torch

from sciladm.nn.waves import Waves

SHAPES = {
    ("pole", "periodic"): (4, 6),
    ("bounded", "bounded"): (3, 5),
    ("periodic", "periodic"): (4, 5),
    ("bounded", "pole", "periodic"): (2, 3, 7),
    ("periodic", "bounded"): (6, 4),
}


@pytest.mark.parametrize("ends", SHAPES, ids="-".join)
def test_rows_hold_all_of_a_field(ends):
    waves = Waves(SHAPES[ends], ends)
    x = torch.randn(3, 2, *SHAPES[ends], generator=torch.Generator().manual_seed(0)).double()
    rows = waves.rows(x)
    torch.testing.assert_close(waves.fields(rows), x)
    power = (rows.abs().square().sum(2) * waves.mirrored()).sum(1)
    torch.testing.assert_close(power, x.square().flatten(1).sum(1))
    assert rows.is_complex() == ("periodic" in ends)


@pytest.mark.parametrize("ends", [e for e in SHAPES if "periodic" in e], ids="-".join)
def test_what_is_turned_stays_in_its_wavenumber(ends):
    waves, dim = Waves(SHAPES[ends], ends), 2 + ends.index("periodic")
    x = torch.randn(2, 1, *SHAPES[ends], generator=torch.Generator().manual_seed(1))
    turned = waves.rows(x.roll(1, dim))
    torch.testing.assert_close(turned.abs(), waves.rows(x).abs())
    assert not torch.allclose(turned, waves.rows(x))
