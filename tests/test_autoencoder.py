import numpy as np
import pytest
import torch

from sciladm.autoencoder.observed import Observed
from sciladm.autoencoder.patch import PatchAutoencoder
from sciladm.autoencoder.patches import Patches
from sciladm.autoencoder.residual import ResidualCovariance
from sciladm.grid import Axis, Grid

SPHERE = Grid.from_coords(
    {"latitude": (np.arange(8) + 0.5) * 22.5 - 90, "longitude": np.arange(16) * 22.5}
)
REGION = Grid.from_coords({"latitude": np.arange(75, 50, -3.0), "longitude": np.arange(11) * 2.5})
VOLUME = Grid(
    (
        Axis("z", np.arange(3.0), "bounded"),
        Axis("y", np.arange(4.0), "bounded"),
        Axis("x", np.arange(6.0), "periodic"),
    ),
    "plane",
)
GRIDS = {"sphere": SPHERE, "region": REGION, "volume": VOLUME}


def fields(grid, n=60, channels=3, seed=0):
    """Correlated fields: smooth in space, channels mixed, not of zero mean."""
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, *grid.shape, generator=gen)
    for dim in range(2, x.ndim):
        x = x + x.roll(1, dim) + 0.5 * x.roll(2, dim)
    mix = torch.randn(channels, channels, generator=torch.Generator().manual_seed(99))
    return torch.einsum("ij,bj...->bi...", mix, x) / 4 + 0.1


def make(grid, latents, **options):
    torch.manual_seed(0)
    patch = options.pop("patch", 2)
    auto = PatchAutoencoder(grid, 3, 1, latents, patch, width=16, blocks=1, **options)
    auto.fit_linear([fields(grid)[i : i + 20] for i in (0, 20, 40)], noise=1e-4)
    return auto, torch.randn(1, *grid.shape, generator=torch.Generator().manual_seed(5))


def wake(auto):
    """Give the networks something to say."""
    for module in (auto.encoder[-1], auto.decoder[-1]):
        torch.nn.init.normal_(module.weight, std=0.03)
    return auto


@pytest.mark.parametrize("patch", [1, 2, 3, 4])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_patches_come_back(grid, patch):
    patches = Patches(grid.shape, grid.boundaries, patch)
    x = fields(grid, n=2)
    cells = patches.split(x)
    assert cells.shape == (2, patches.size(3), *patches.cells)
    assert torch.equal(patches.join(cells), x)
    corner = x[(0, 1, *[slice(patch)] * len(grid.shape))]
    if corner.numel() == patches.size(1):
        first = cells[(0, slice(patches.size(1), 2 * patches.size(1)), *[0] * len(grid.shape))]
        assert torch.equal(first, corner.flatten())
    owner = patches.owner()
    assert owner.shape == grid.shape and owner.max() + 1 == np.prod(patches.cells)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_all_components_give_the_field_back(grid):
    auto, statics = make(grid, latents=3 * 2 ** len(grid.shape))
    x = fields(grid, seed=1)
    torch.testing.assert_close(auto.decode(auto.encode(x, statics), statics), x, atol=2e-4, rtol=0)


def test_linear_path_is_area_weighted_principal_components():
    """Against a plain loop over patches, in numpy; its error is the variance left out."""
    auto, statics = make(SPHERE, latents=5)
    x = fields(SPHERE)
    weight = auto.cell_area.numpy()
    assert weight.sum() == pytest.approx(1, abs=1e-6)
    covariance = np.zeros((12, 12))
    for sample in x.double().numpy():
        for i in range(4):
            for j in range(8):
                y = sample[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel()
                covariance += weight[i, j] * np.outer(y, y) / len(x)
    values = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(auto.scale**2, values[:5], rtol=1e-4)
    assert (auto.basis.gather(0, auto.basis.abs().argmax(0)[None]) > 0).all()
    y = auto.patches.split(x)
    back = auto.patches.split(auto.decode(auto.encode(x, statics), statics))
    alone = torch.einsum("bi...,ij,kj->bk...", y, auto.basis, auto.basis)
    lost, lost_alone = (
        float(((z - y).square().sum(1) * auto.cell_area).sum((1, 2)).mean().detach())
        for z in (back, alone)
    )
    assert lost_alone == pytest.approx(values[5:].sum(), rel=1e-3)
    assert lost < 0.7 * lost_alone  # neighbours know


def test_what_latents_decode_to_in_each_channel():
    """Of fields that are their leading components: their own mean squares in a patch."""
    auto, statics = make(SPHERE, latents=5, bound=1e6)
    auto.whiten([fields(SPHERE)], statics)
    z, other = torch.randn(2, 1, 5, *auto.patches.cells)
    u = auto.spread[:, None, None] * (z - other)
    patches = torch.einsum("bi...,ki->bk...", u, auto.basis * auto.scale)
    want = patches.unflatten(1, (3, 4)).square().mean(2)
    got = torch.einsum("bixy,cij,bjxy->bcxy", z - other, auto.decoded(), z - other)
    torch.testing.assert_close(got, want)
    shares = auto.decoded().diagonal(dim1=1, dim2=2).sum(0)
    torch.testing.assert_close(shares / shares.sum(), auto.importance())


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_latents_are_white_and_bounded(grid):
    auto, statics = make(grid, latents=6, bound=1e4)
    x = fields(grid)
    for _ in range(2):
        z = auto.encode(x, statics)
        mean = (z * auto.cell_area).sum(list(range(2, z.ndim))).mean(0)
        square = (z.square() * auto.cell_area).sum(list(range(2, z.ndim))).mean(0)
        torch.testing.assert_close(mean, torch.zeros(6), atol=1e-3, rtol=0)
        torch.testing.assert_close(square, torch.ones(6), atol=1e-3, rtol=0)
        wake(auto).whiten([x[:30], x[30:]], statics)
    auto.bound = 3.0
    wild = auto.encode(100 * x, statics)
    assert 2.9 < wild.detach().abs().max() <= 3.0
    assert torch.isfinite(auto.decode(5 * wild, statics)).all()


@pytest.mark.parametrize("trained", [False, True])
def test_moves_with_the_data_by_whole_patches(trained):
    auto, statics = make(SPHERE, latents=6)
    for knows in (auto.place, auto.alone.weight):  # a longitude; everything else moves
        knows.zero_()
    auto.usual.fill_(1)
    if trained:
        wake(auto)
    x = fields(SPHERE)[:2]
    z = auto.encode(x, statics)
    moved = auto.encode(x.roll(6, -1), statics.roll(6, -1))
    torch.testing.assert_close(moved, z.roll(3, -1), atol=1e-5, rtol=1e-5)
    back = auto.decode(z.roll(3, -1), statics.roll(6, -1))
    torch.testing.assert_close(back, auto.decode(z, statics).roll(6, -1), atol=1e-5, rtol=1e-5)
    by_half_a_patch = auto.encode(x.roll(1, -1), statics.roll(1, -1))
    assert (by_half_a_patch - z).abs().max() > 0.01  # what the others would look like


def test_small_differences_decode_along_the_linear_path():
    auto, statics = make(REGION, latents=6)
    auto.usual.mul_(torch.linspace(0.5, 1.5, 11))
    z = 0.05 * torch.randn(2, 6, *auto.patches.cells, generator=torch.Generator().manual_seed(3))
    one, two = (auto.decode(z[[i]], statics) for i in (0, 1))
    along = auto.along_linear(z)
    torch.testing.assert_close(one - two, along[[0]] - along[[1]], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("odd", [True, False])
def test_a_cell_that_is_not_like_its_row_has_its_own_way_back(odd):
    """Channels that go together, but for one cell where the last is upside down."""

    def seen(seed):
        x = fields(SPHERE, 400, seed=seed)
        x[:, 2] = x[:, 0] + 0.1 * x[:, 2]
        x[:, 2, 2:4, 4:6] *= -1 if odd else 1
        return x

    auto = PatchAutoencoder(SPHERE, 3, 1, 8, 2, blocks=0)
    auto.fit_linear([seen(0)], noise=1e-2)
    auto.keep([seen(1)])
    statics, x = torch.zeros(1, *SPHERE.shape), seen(2)
    whole = lambda: (auto.decode(auto.encode(x, statics), statics) - x).square().mean((0, 1))
    mine = whole()
    auto.alone.weight.zero_()
    without = whole()
    inside = torch.zeros(SPHERE.shape, dtype=bool)
    inside[2:4, 4:6] = True
    if odd:
        assert mine[inside].mean() < 0.9 * without[inside].mean()
    assert mine[~inside].mean() < 1.001 * without[~inside].mean()


def test_what_is_usual_is_told_by_cells_with_data():
    """Rows of cells that vary alike, three quarters of one of them land; then one cell twice."""
    x = torch.randn(4000, 1, *SPHERE.shape, generator=torch.Generator().manual_seed(0))
    x[:, :, 3, 4:] = 0
    x[:, :, 5, 7] *= 2
    auto = PatchAutoencoder(SPHERE, 1, 0, 3, 2, blocks=0)
    auto.fit_linear([x])
    want = torch.ones(SPHERE.shape)
    want[5] = (16 / 19) ** 0.5
    want[5, 7] *= 2
    torch.testing.assert_close(auto.usual[0], want, atol=0.06, rtol=0)


def test_loss_weights_areas_and_leaves_out_what_is_not_valid():
    auto, statics = make(SPHERE, latents=5)
    x = fields(SPHERE)[:8]
    none = torch.zeros(8, 5, 4, 8)
    left = auto.decode(auto.encode(x, statics), statics) - x
    want = (left.square().mean((0, 1)) * auto.area).sum()
    torch.testing.assert_close(auto.loss(x, statics, none), want, rtol=1e-3, atol=0)
    valid = torch.ones_like(x, dtype=torch.bool)
    valid[:, 1] = False
    want = (left[:, [0, 2]].square().mean((0, 1)) * auto.area).sum()
    torch.testing.assert_close(auto.loss(x, statics, none, valid), want, rtol=1e-3, atol=0)
    noise = 0.5 * torch.randn(none.shape, generator=torch.Generator().manual_seed(0))
    added = (auto.scale.square().sum() * 0.25) / 12
    got = auto.loss(x, statics, noise) - auto.loss(x, statics, none)
    torch.testing.assert_close(got, added, rtol=0.25, atol=0)


def test_training_beats_the_linear_path_on_a_nonlinear_field():
    auto, statics = make(SPHERE, latents=3)
    phase = 6.28 * torch.rand(64, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    wave = torch.arange(1, 4).view(3, 1, 1) * torch.arange(16.0) / 4
    x = torch.sin(phase + wave).expand(64, 3, 8, 16)
    auto.fit_linear([x])
    auto.alone.weight.zero_()  # cell by cell this world is linear
    noise = torch.zeros(64, 3, 4, 8)
    before = float(auto.loss(x, statics, noise).detach())
    optimiser = torch.optim.AdamW(auto.parameters(), lr=3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        auto.loss(x, statics, noise).backward()
        optimiser.step()
    auto.whiten([x], statics)
    after = (auto.decode(auto.encode(x, statics), statics) - x).square().mean((0, 1))
    assert float((after * auto.area).sum().detach()) < 0.5 * before


def residual_world(n, rows, seed=0):
    """Patches (12 numbers) of rank 3 plus diagonal, twice as large in row 1."""
    gen = torch.Generator().manual_seed(seed)
    low = torch.randn(12, 3, generator=torch.Generator().manual_seed(7))
    cells = torch.einsum("ij,bjyx->biyx", low, torch.randn(n, 3, 4, 8, generator=gen))
    cells += 0.3 * torch.randn(n, 12, 4, 8, generator=gen)
    cells[:, :, rows] *= 2
    return cells


def test_residual_draws_have_the_fitted_covariance():
    patches = Patches(SPHERE.shape, SPHERE.boundaries, 2)
    groups = torch.arange(4)[:, None].expand(4, 8)
    residual = ResidualCovariance(patches, 3, groups, rank=3)
    residual.fit(patches.join(part) for part in residual_world(400, [1]).split(100))
    gen = torch.Generator().manual_seed(3)
    drawn = residual.draw(torch.randn(2000, residual.numbers, 4, 8, generator=gen))
    assert drawn.shape == (2000, 3, 8, 16)
    want, got = patches.split(patches.join(residual_world(2000, [1], 1))), patches.split(drawn)

    def covariance(cells, row):
        flat = cells[:, :, row].transpose(1, 2).flatten(0, 1).double()
        return flat.T @ flat / len(flat)

    for row, size in ((0, 1.0), (1, 4.0)):
        a, b = covariance(want, row), covariance(got, row)
        # four standard errors of a sample covariance from 16 000 and 3200 patches
        error = (a.diagonal()[:, None] * a.diagonal()).sqrt() * 4 * (2 / 3200 + 2 / 16000) ** 0.5
        assert ((a - b).abs() < error).all()
        assert not ((a - size * torch.eye(12)).abs() < error).all()  # the negative control


@pytest.mark.parametrize(("states", "rtol"), [(4000, 0.1), (50, 0.5)])
def test_residual_is_as_large_in_each_cell_as_it_was_there(states, rtol):
    """One column of a group is lost three times as much; few states, and no variance is lost."""
    patches = Patches(SPHERE.shape, SPHERE.boundaries, 2)
    residual = ResidualCovariance(patches, 3, torch.arange(4)[:, None].expand(4, 8), rank=3)

    def lost(n, seed):
        cells = residual_world(n, [1], seed)
        cells[..., 5] *= 3
        return cells

    residual.fit([patches.join(lost(states, 0))])
    gen = torch.Generator().manual_seed(3)
    drawn = patches.split(residual.draw(torch.randn(4000, residual.numbers, 4, 8, generator=gen)))
    true = patches.split(patches.join(lost(4000, 1))).var((0, 1))
    assert (true[:, 5] / true[:, 4] > 6).all()
    torch.testing.assert_close(drawn.var((0, 1)), true, rtol=rtol, atol=0)
    given = patches.split(patches.join(lost(states, 0))).var((0, 1))
    torch.testing.assert_close(drawn.var((0, 1)).mean(1), given.mean(1), rtol=0.05, atol=0)


def test_residual_variances_are_exact_and_small_groups_are_pooled():
    patches = Patches(REGION.shape, REGION.boundaries, 4)
    groups = torch.zeros(patches.cells, dtype=torch.int64)
    groups[0] = 1
    residual = ResidualCovariance(patches, 3, groups, rank=5)
    x = fields(REGION, n=50)
    residual.fit([x])
    cells = patches.split(x).flatten(2).transpose(1, 2).flatten(0, 1)
    got = residual.low[1].square().sum(1) + residual.rest[1]
    torch.testing.assert_close(got, cells.square().mean(0), rtol=1e-4, atol=0)
    assert torch.equal(residual.low[0], residual.low[1])
    unfitted = ResidualCovariance(patches, 3, groups, rank=5)
    assert not unfitted.draw(torch.randn(2, unfitted.numbers, *patches.cells)).any()


def test_an_observed_cell_counts_once():
    """Where patches are carried on past an edge, a cell lies in them twice."""
    patches = Patches(REGION.shape, REGION.boundaries, 4)
    residual = ResidualCovariance(patches, 3, torch.zeros(patches.cells, dtype=torch.int64))
    x, y = fields(REGION, n=2).double()
    seen = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    std = 0.1 + torch.rand(x.shape, generator=torch.Generator().manual_seed(1)).double()
    observed = Observed.of(y, std, seen, residual.double())
    off = (observed.told(x[None]) - observed.wanted()).square().sum()
    torch.testing.assert_close(off, ((x - y) / std)[seen].square().sum())


def test_a_residual_given_observations_is_the_regression_on_them():
    """Against a dense solution, patch by patch, with neither a draw nor an error."""
    patches = Patches(SPHERE.shape, SPHERE.boundaries, 2)
    groups = torch.arange(4)[:, None].expand(4, 8)
    residual = ResidualCovariance(patches, 3, groups, rank=3)
    residual.fit([patches.join(residual_world(400, [1]))])
    y = patches.join(residual_world(1, [1], 5))[0].double()
    seen = torch.rand(y.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    std = torch.full_like(y, 0.3)
    observed = Observed.of(y, std, seen, residual.double())
    zero = torch.zeros_like(y)[None]
    got = patches.split(observed.residual(zero, zero, zero))[0].flatten(1).T
    rows = [patches.split(x[None].double())[0].flatten(1).T for x in (y, seen)]
    for cell, (own, mask) in enumerate(zip(*rows, strict=True)):
        at, c = mask.bool(), residual.covariance()[cell]
        noisy = c[at][:, at] + 0.09 * torch.eye(int(at.sum()))
        torch.testing.assert_close(got[cell], c[:, at] @ torch.linalg.solve(noisy, own[at]))
