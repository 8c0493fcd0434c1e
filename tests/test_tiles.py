"""Larger fields by tiles: what is kept covers them once, and draws of Gaussian fields have no
seams, by the exact covariance of what comes out: the affine map, propagated."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from sciladm.diffusion.sampler import Multistep
from sciladm.diffusion.tiles import Tiled, tiles

WIDE, OWN, REACH = 160, 64, 6.0
LINES = torch.arange(WIDE)


def covariance(n, slope, reach=REACH):
    """Of a line whose spectrum falls as k^−slope (2 or 4)."""
    apart = (torch.arange(n)[:, None] - torch.arange(n)).abs().double() / reach
    return (-apart).exp() * (1 if slope == 2 else 1 + apart)


def power(matrix, exponent):
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=1e-12) ** exponent) @ vectors.T


def believed(matrix):
    """E[x₀ | x₀ + σ n] for x₀ ~ N(0, matrix)."""
    values, vectors = torch.linalg.eigh(matrix)
    return lambda x, sigma: ((x @ vectors) * (values / (values + sigma**2))) @ vectors.T


def sampler(matrix):
    top = 30 * float(torch.linalg.eigvalsh(matrix).max()) ** 0.5
    return Multistep(24, top, 0.005, corrector=False)


def noise(parts, white, whitening):
    """As draws depart from their mean, by tiles: what makes white noise of every tile."""
    own = believed(whitening)
    return sampler(whitening).sample(Tiled(parts, lambda _: own), white)


def whitened(truth, whitening):
    """A perfect network that sees what S⁻¹ makes of a tile, S Sᵀ the whitening."""
    root, inverse = power(whitening, 0.5), power(whitening, -0.5)
    network = believed(inverse @ truth @ inverse)
    return lambda z, sigma: network(z @ inverse, sigma) @ root


def quality(columns, slope, parts):
    """Smallest variance, largest jump at a border over what it should be; columns: what each
    white number does to the draw."""
    found, exact = columns.T @ columns, covariance(WIDE, slope)
    borders = [tile.kept[0].start for tile in parts[1:]]
    jump = lambda c, at: float(c[at, at] + c[at - 1, at - 1] - 2 * c[at, at - 1])
    most = max(jump(found, at) / jump(exact, at) for at in borders) ** 0.5
    return float(found.diagonal().min()), most


def independent(parts, truth):
    """Tiles drawn apart and blended along ramps."""
    own = power(truth, 0.5)
    out = torch.zeros(len(parts) * OWN, WIDE, dtype=torch.float64)
    ramp = torch.minimum(torch.arange(OWN) + 1, OWN - torch.arange(OWN)).double()
    weight = torch.zeros(WIDE, dtype=torch.float64)
    for tile in parts:
        weight[tile.whole[0]] += ramp
    for n, tile in enumerate(parts):
        place = torch.arange(n * OWN, (n + 1) * OWN)
        out[place, tile.whole[0]] = own * (ramp / weight[tile.whole[0]])
    return out


def averaged(parts, truth):
    """All tiles averaged at every step."""
    own, count = believed(truth), torch.zeros(WIDE, dtype=torch.float64)
    for tile in parts:
        count[tile.whole[0]] += 1

    def denoise(x, sigma):
        out = torch.zeros_like(x)
        for tile in parts:
            out[..., tile.whole[0]] += own(x[..., tile.whole[0]], sigma)
        return out / count

    return sampler(truth).sample(denoise, torch.eye(WIDE, dtype=torch.float64)[:, None])[:, 0]


@pytest.mark.parametrize("whitening", ["none", "right", "too short"])
@pytest.mark.parametrize("halo", [16, 8])
@pytest.mark.parametrize("slope", [2, 4])
def test_draws_have_no_seams_however_tiles_are_whitened(slope, halo, whitening):
    truth, parts = covariance(OWN, slope), tiles((WIDE,), (OWN,), (halo,))
    assert len(parts) == {16: 4, 8: 3}[halo]
    known = {"none": torch.eye(OWN, dtype=torch.float64), "right": truth}.get(
        whitening, covariance(OWN, slope, REACH / 2)
    )
    white = torch.eye(WIDE, dtype=torch.float64)[:, None]
    network = whitened(truth, known)
    top = sampler(power(known, -0.5) @ truth @ power(known, -0.5))
    drawn = top.sample(Tiled(parts, lambda _: network), noise(parts, white, known))[:, 0]
    least, most = quality(drawn, slope, parts)
    assert least >= 0.97 and most <= 1.05
    assert float((drawn.T @ drawn).diagonal().max()) < 1.03


@pytest.mark.parametrize("slope", [2, 4])
def test_what_does_not_work_is_seen_not_to(slope):
    """Tiles drawn apart lose half of the variance; averages lose some, and leave seams; noise
    coloured tile by tile at one go leaves seams, where fields are smooth."""
    truth, parts = covariance(OWN, slope), tiles((WIDE,), (OWN,), (8,))
    assert quality(independent(parts, truth), slope, parts)[0] < 0.6
    flat = averaged(parts, truth)
    assert float((flat.T @ flat).diagonal().min()) < 0.92
    steps = flat.diff(dim=1).square().sum(0)
    usual = 2 * float(covariance(2, slope)[0, 0] - covariance(2, slope)[0, 1])
    assert float(steps.max() / usual) ** 0.5 > 1.2
    root = power(truth, 0.5)
    coloured = Tiled(parts, lambda _: lambda x, _sigma: x @ root)(
        torch.eye(WIDE, dtype=torch.float64)[:, None], 1.0
    )
    assert (quality(coloured[:, 0], slope, parts)[1] > 1.5) == (slope == 4)


@pytest.mark.parametrize("halo", [16, 8])
@pytest.mark.parametrize("slope", [2, 4])
@pytest.mark.parametrize("gap", ["across a border", "nearly all"])
def test_what_is_observed_in_a_tile_is_nearly_all_that_matters(slope, halo, gap):
    """Exactly conditional tiles against the exact posterior, on average over what was observed:
    CRPS at most 1.01 times the exact one's, spread within 3 % of it."""
    whole, truth = covariance(WIDE, slope), covariance(OWN, slope)
    parts, error = tiles((WIDE,), (OWN,), (halo,)), 0.1
    border = parts[0].kept[0].stop
    seen = (border - 20 > LINES) | (border + 20 <= LINES) if gap[0] == "a" else LINES % 24 == 3
    root, inverse = power(truth, 0.5), power(truth, -0.5)
    state = torch.Generator().manual_seed(0)
    y = power(whole, 0.5) @ torch.randn(WIDE, 64, generator=state).double()
    y = y + error * torch.randn(WIDE, 64, generator=state)
    of = lambda c, a, b: c[a][:, b]
    gain = lambda c, at, spread: (
        c[:, at] @ torch.linalg.inv(of(c, at, at) + spread**2 * torch.eye(int(at.sum())))
    )
    kalman = gain(whole, seen, error)
    mean, spread = kalman @ y[seen], (whole - kalman @ whole[seen]).diagonal().sqrt()

    def told(values):
        def each(tile):
            at = seen[tile.whole[0]]
            here = values[..., tile.whole[0]][..., at]

            def denoise(z, sigma):  # white r, of variance 1 and σ²/(1 + σ²) once x is known
                expected = (z @ inverse) / (1 + sigma**2) @ root
                left = truth * sigma**2 / (1 + sigma**2)
                return expected + (here - expected[..., at]) @ gain(left, at, error).T

            return denoise

        return Tiled(parts, each)

    white = torch.eye(WIDE, dtype=torch.float64)[:, None]
    steps, blank = Multistep(24, 80.0, 0.02, corrector=False), torch.zeros(64, 1, WIDE).double()
    drawn = steps.sample(told(torch.zeros(1, 1, WIDE).double()), noise(parts, white, truth))[:, 0]
    centre = steps.sample(told(y.T[:, None]), blank)[:, 0].T
    size = drawn.square().sum(0).sqrt()
    assert (size / spread)[~seen].sub(1).abs().max() < 0.03
    expected = _apart(centre - mean, (size**2 + spread**2).sqrt()[:, None])
    crps = expected - _apart(torch.zeros_like(centre), 2**0.5 * size[:, None]) / 2
    exact = spread[:, None] * np.pi**-0.5
    assert float(crps[~seen].mean() / exact[~seen].mean()) < 1.01


def _apart(middle, spread):
    """Mean of |N(middle, spread²)|."""
    z = middle / spread
    density = (-(z**2) / 2).exp() * (2 / np.pi) ** 0.5
    return spread * (z * torch.erf(z / 2**0.5) + density)


@pytest.mark.parametrize(
    ("shape", "size", "halo"),
    [((64, 64), (32, 32), (8, 8)), ((67, 33), (16, 33), (5, 0)), ((16,), (16,), (4,)),
     ((100, 9, 23), (30, 9, 22), (14, 0, 2))],
)  # fmt: skip
def test_what_is_kept_covers_all_once_and_is_a_halo_away_from_cuts(shape, size, halo):
    count, parts = np.zeros(shape, int), tiles(shape, size, halo)
    for number, tile in enumerate(parts):
        assert tile.number == number
        count[tile.kept] += 1
        for n, own, around, whole, kept, inner in zip(
            shape, size, halo, tile.whole, tile.kept, tile.inner, strict=True
        ):
            assert whole.start >= 0 and whole.stop <= n and whole.stop - whole.start == own
            assert (inner.start, inner.stop) == (kept.start - whole.start, kept.stop - whole.start)
            assert kept.start - whole.start >= around or whole.start == 0 == kept.start
            assert whole.stop - kept.stop >= around or whole.stop == n == kept.stop
    assert (count == 1).all()


def test_sizes_that_leave_nothing_are_refused():
    for shape, size, halo in ((20, 16, 8), (12, 16, 0)):
        with pytest.raises(ValueError, match=f"{shape} cells by tiles of {size}"):
            tiles((shape,), (size,), (halo,))


def test_tiles_side_by_side_are_the_same():
    parts = tiles((40, 40), (16, 16), (4, 4))
    x = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    each = lambda tile: lambda part, sigma: part.roll(1, -1) * (1 + tile.number) + sigma
    with ThreadPoolExecutor(3) as threads:
        assert torch.equal(Tiled(parts, each)(x, 2.0), Tiled(parts, each, threads)(x, 2.0))
