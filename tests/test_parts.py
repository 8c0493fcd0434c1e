"""Departures taken apart: axes that forms share, and parts that decode to one variable each."""

import numpy as np
import pytest
import torch

from sciladm.diffusion.parts import Parts
from sciladm.nn.joint import joint_axes


def rotation(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def off(forms):
    """Sum of squares off the diagonals."""
    return (forms**2).sum() - (np.diagonal(forms, axis1=1, axis2=2) ** 2).sum()


@pytest.mark.parametrize("n", [2, 3, 12])
def test_axes_that_forms_share_are_found(n):
    axes = rotation(n, n)
    values = np.random.default_rng(1).random((5, n))
    found = joint_axes(np.einsum("ip,fp,jp->fij", axes, values, axes))
    agree = np.abs(axes.T @ found)
    np.testing.assert_allclose(np.sort(agree.ravel())[-n:], 1, atol=1e-6)
    assert (np.abs(found).max(0) == found.max(0)).all()


def test_axes_of_one_form_are_its_eigenvectors():
    form = np.random.default_rng(0).normal(size=(1, 6, 6))
    form = form + form.transpose(0, 2, 1)
    axes = joint_axes(form)
    np.testing.assert_allclose(
        np.sort(np.diag(axes.T @ form[0] @ axes)), np.linalg.eigvalsh(form[0]), atol=1e-6
    )


@pytest.mark.parametrize("across", [0.5, -0.5])
def test_a_form_of_equal_diagonals_is_turned_too(across):
    """Where every small turn changes nothing to first order."""
    form = np.array([[[1.0, across], [across, 1.0]]])
    axes = joint_axes(form)
    np.testing.assert_allclose(off(axes.T @ form @ axes), 0, atol=1e-12)


def test_no_turn_of_a_plane_makes_forms_more_diagonal():
    """Forms that share no axes: where every small turn of two axes makes it worse."""
    forms = np.random.default_rng(3).normal(size=(4, 5, 5))
    forms = forms + forms.transpose(0, 2, 1)
    axes = joint_axes(forms)
    best = off(axes.T @ forms @ axes)
    assert best < 0.8 * off(forms)
    for p, q in zip(*np.triu_indices(5, 1), strict=True):
        for angle in (-0.02, 0.02):
            turn = np.eye(5)
            turn[[p, q], [p, q]] = np.cos(angle)
            turn[p, q], turn[q, p] = -np.sin(angle), np.sin(angle)
            assert off((axes @ turn).T @ forms @ (axes @ turn)) > best


SHAPE = (3, 4)
AREA = torch.tensor([1.0, 3.0, 0.0])[:, None].expand(SHAPE)


@pytest.fixture
def mixed():
    """Two variables, of three independent patterns and of one, mixed in four channels; the cells
    that count nothing hold noise. → parts, departures, decoded."""
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(2000, 4, *SHAPE, generator=generator)
    mix = torch.from_numpy(rotation(4, 5) * [1.0, 0.6, 0.5, 2.0]).float()
    departures = torch.einsum("cp,bp...->bc...", mix, own)
    departures[..., 2, :] = 9 * torch.randn(2000, 4, 4, generator=generator)
    reads = torch.linalg.inv(mix)  # channels → patterns
    size = torch.tensor([3.0, 1.0, 1.0, 1.0])
    decoded = torch.stack(
        [(size[:3, None] * reads[:3]).T @ (size[:3, None] * reads[:3]),
         (size[3:, None] * reads[3:]).T @ (size[3:, None] * reads[3:])]
    )  # fmt: skip
    parts = Parts(4)
    parts.fit(departures.split(500), torch.ones(4, *SHAPE), AREA, decoded)
    return parts, departures, decoded


def test_parts_are_white_and_each_decodes_to_one_variable(mixed):
    parts, departures, decoded = mixed
    apart = parts.apart(departures)
    torch.testing.assert_close(parts.joined(apart), departures, atol=1e-4, rtol=1e-4)
    share = AREA / AREA.sum()
    covariance = torch.einsum("bpij,bqij,ij->pq", apart, apart, share) / len(apart)
    torch.testing.assert_close(covariance, torch.eye(4), atol=1e-4, rtol=0)
    of_each = torch.einsum("cp,vcd,dp->vp", parts.back, decoded, parts.back)
    assert (of_each.max(0).values / of_each.sum(0) > 0.99).all()
    mixed_before = decoded.diagonal(dim1=1, dim2=2)
    assert (mixed_before.max(0).values / mixed_before.sum(0) < 0.96).any()


def test_a_part_counts_the_spread_that_it_has_decoded(mixed):
    parts, _, _ = mixed
    want = torch.tensor([3.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(
        parts.counts.sort().values, (want / want.mean()).sort().values, atol=0.05, rtol=0.05
    )


def test_cells_in_other_units_have_the_same_parts(mixed):
    parts, departures, decoded = mixed
    unit = torch.tensor([0.1, 1.0, 3.0, 0.5])[:, None, None].expand(4, *SHAPE)
    other = Parts(4)
    other.fit([departures / unit], unit, AREA, decoded)
    got, want = other.apart(departures / unit), parts.apart(departures)
    share = AREA / AREA.sum() / len(got)
    agree = torch.einsum("bpij,bqij,ij->pq", got, want, share).abs()
    torch.testing.assert_close(agree.max(0).values, torch.ones(4), atol=2e-2, rtol=0)


def test_variables_count_alike_whatever_their_unit(mixed):
    parts, departures, decoded = mixed
    other = Parts(4)
    heavy = decoded * torch.tensor([1e4, 1.0])[:, None, None]
    other.fit(departures.split(500), torch.ones(4, *SHAPE), AREA, heavy)
    torch.testing.assert_close(other.turn.abs(), parts.turn.abs(), atol=1e-3, rtol=1e-3)


def test_log_det(mixed):
    parts, _, _ = mixed
    want = torch.linalg.slogdet(parts.joined(torch.eye(4)[..., None, None])[..., 0, 0].double())[1]
    assert parts.log_det() == pytest.approx(float(want), abs=1e-5)
