import json

import numpy as np
import pytest
import torch

from sciladm.conventions import UserError
from sciladm.grid import Axis, Grid, pad


def sphere(n_lat=8, n_lon=16, descending=False):
    lat = (np.arange(n_lat) + 0.5) * 180 / n_lat - 90
    return Grid.from_coords(
        {"latitude": lat[::-1] if descending else lat, "longitude": np.arange(n_lon) * 360 / n_lon}
    )


def brute_pad(x, width, boundaries):
    """Value at every padded cell, cell by cell, from the meaning of the boundaries."""
    n, m = x.shape
    out = np.empty((n + 2 * width, m + 2 * width), x.dtype)
    for i in range(-width, n + width):
        for j in range(-width, m + width):
            a, b = i, j
            if boundaries[0] == "pole" and not 0 <= a < n:
                a, b = (-1 - a if a < 0 else 2 * n - 1 - a), b - m // 2
            a = a % n if boundaries[0] == "periodic" else min(max(a, 0), n - 1)
            b = b % m if boundaries[1] == "periodic" else min(max(b, 0), m - 1)
            out[i + width, j + width] = x[a, b]
    return out


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (1, 4), (3, 1), (8, 16)])
@pytest.mark.parametrize("width", [0, 1, 2, 5])
@pytest.mark.parametrize(
    "boundaries",
    [
        ("pole", "periodic"),
        ("bounded", "bounded"),
        ("periodic", "periodic"),
        ("bounded", "periodic"),
        ("periodic", "bounded"),
    ],
)
def test_pad_is_what_its_boundaries_mean(shape, width, boundaries):
    x = np.random.default_rng(0).normal(size=shape)
    if boundaries[0] == "pole" and width > shape[0]:
        with pytest.raises(ValueError, match="beyond the pole"):
            pad(torch.as_tensor(x), width, boundaries)
        return
    got = pad(torch.as_tensor(x).expand(2, 3, *shape), width, boundaries)
    assert got.shape == (2, 3, shape[0] + 2 * width, shape[1] + 2 * width)
    np.testing.assert_array_equal(got[1, 2].numpy(), brute_pad(x, width, boundaries))


def test_pad_carries_a_smooth_field_over_the_pole():
    grid = sphere(32, 64)
    up, east, north = grid.features()
    smooth = torch.as_tensor(up + east + east * north)

    def bend(boundaries):  # second difference across the first row
        rows = pad(smooth, 1, boundaries)[:3, 1:-1]
        return (rows[0] - 2 * rows[1] + rows[2]).abs().max()

    assert bend(grid.boundaries) < 0.03 < 0.08 < bend(("bounded", "periodic"))


def test_pad_other_dimensions():
    x = torch.arange(5.0)
    assert pad(x, 1, ("periodic",)).tolist() == [4, 0, 1, 2, 3, 4, 0]
    cube = torch.rand(2, 3, 4, 6)
    assert pad(cube, 1, ("bounded", "pole", "periodic")).shape == (2, 5, 6, 8)


@pytest.mark.parametrize("descending", [False, True])
def test_area_of_the_sphere(descending):
    grid = sphere(32, 64, descending)
    assert grid.boundaries == ("pole", "periodic")
    assert grid.area.shape == (32, 64) and grid.area.dtype == np.float64
    assert grid.area.sum() == pytest.approx(1, abs=1e-14)
    edges = np.sin(np.deg2rad(np.linspace(-90, 90, 33)))
    np.testing.assert_allclose(grid.area[:, 0] * 64, np.diff(edges) / 2, rtol=1e-12)


def test_area_with_rows_on_the_poles_and_of_a_region():
    grid = Grid.from_coords({"latitude": np.linspace(90, -90, 5), "longitude": [0, 120, 240]})
    assert grid.boundaries == ("pole", "periodic")
    edges = np.sin(np.deg2rad([90, 67.5, 22.5, -22.5, -67.5, -90]))
    np.testing.assert_allclose(grid.area[:, 1] * 3, -np.diff(edges) / 2, rtol=1e-12)
    region = Grid.from_coords(
        {"latitude": np.arange(75, 14, -2.5), "longitude": np.arange(200, 331, 2.5)}
    )
    assert region.shape == (25, 53) and region.boundaries == ("bounded", "bounded")
    cosine = np.cos(np.deg2rad(region.axes[0].values))
    np.testing.assert_allclose(region.area[:, 0] * 53, cosine / cosine.sum(), rtol=1e-10)


def test_area_of_a_plane_with_uneven_cells():
    grid = Grid.from_coords({"y": [0.0, 1.0, 3.0], "x": [0.0, 1.0]})
    assert grid.geometry == "plane"
    np.testing.assert_allclose(grid.area[:, 0], np.array([1, 1.5, 2]) / 9)


@pytest.mark.parametrize(
    ("coords", "boundaries"),
    [
        ({"latitude": [-60, 0, 60], "longitude": np.arange(0, 360, 30)}, ("pole", "periodic")),
        ({"latitude": [-30, 0, 30], "longitude": np.arange(0, 360, 30)}, ("bounded", "periodic")),
        ({"latitude": [-60, 0, 60], "longitude": np.arange(0, 330, 30)}, ("bounded", "bounded")),
        (
            {"longitude": np.arange(-180, 180, 30), "latitude": [60, 0, -60]},
            ("periodic", "pole"),
        ),
        ({"z": [1, 2], "y": [1, 2], "x": [1, 2]}, ("bounded",) * 3),
        ({"x": [3]}, ("bounded",)),
    ],
)
def test_boundaries_follow_from_coordinates(coords, boundaries):
    assert Grid.from_coords(coords).boundaries == boundaries


def test_a_plane_begins_again_where_it_says_so():
    plane = {"y": np.arange(4.0), "x": 10.0 * np.arange(6)}
    assert Grid.from_coords(plane, {"y": 4, "x": 60.0}).boundaries == ("periodic", "periodic")
    part = plane | {"x": plane["x"][:5]}
    assert Grid.from_coords(part, {"x": 60.0}).boundaries == ("bounded", "bounded")
    globe = {"latitude": [-45.0, 45.0], "longitude": [0.0, 90.0, 180.0, 270.0]}
    assert Grid.from_coords(globe, {"longitude": 360.0}).boundaries == ("pole", "periodic")


def test_wrong_coordinates_say_the_remedy():
    with pytest.raises(UserError, match="sortby"):
        Grid.from_coords({"latitude": [0, 1], "longitude": [0, 90, 180, -90]})
    with pytest.raises(UserError, match="Drop one"):
        Grid.from_coords({"latitude": [0, 1], "longitude": np.arange(0, 361, 30)})
    with pytest.raises(UserError, match="closes the circle"):
        Grid((Axis("latitude", np.array([-60, 0, 60.0]), "pole"),), "sphere")


def test_features():
    unit = sphere().features()
    assert unit.shape == (3, 8, 16) and unit.dtype == np.float32
    np.testing.assert_allclose((unit**2).sum(0), 1, atol=1e-6)
    region = Grid.from_coords({"latitude": [10, 20, 30], "longitude": [0, 10, 20]}).features()
    assert region.shape == (5, 3, 3)
    assert region[3, :, 0].tolist() == [-1, 0, 1] and region[4, 0].tolist() == [-1, 0, 1]


def test_coarsen_and_dict():
    grid = sphere(32, 64)
    coarse = grid.coarsen(4)
    assert coarse.shape == (8, 16) and coarse.boundaries == grid.boundaries
    np.testing.assert_allclose(coarse.area, grid.area.reshape(8, 4, 16, 4).sum((1, 3)), rtol=1e-12)
    odd = Grid.from_coords(
        {"latitude": np.arange(75, 14, -2.5), "longitude": np.arange(200, 331, 2.5)}
    ).coarsen(4)
    assert odd.shape == (7, 14) and odd.boundaries == ("bounded", "bounded")
    assert odd.area.min() > 0
    assert Grid.from_dict(json.loads(json.dumps(odd.as_dict()))) == odd
    assert odd != grid


def test_rows_share_statistics():
    assert sphere(4, 6).rows().tolist() == [[0] * 6, [1] * 6, [2] * 6, [3] * 6]
    assert not Grid.from_coords({"y": [1, 2], "x": [1, 2, 3]}).rows().any()
