import numpy as np
from fields_oracle import sphere

from sciladm.grid import Grid
from sciladm.metrics.regions import in_season, regions


def test_bands_of_the_sphere_in_the_datas_own_order():
    grid = sphere(18)
    found = regions(grid, land=np.full(grid.shape, 0.5))
    assert list(found) == ["global", "tropics", "nh", "sh", "land"]  # no sea: left out
    latitude = grid.axes[0].values
    np.testing.assert_array_equal(found["nh"][:, 0], latitude >= 20)
    np.testing.assert_array_equal(found["tropics"][:, 5], np.abs(latitude) < 20)
    assert (found["nh"].astype(int) + found["sh"] + found["tropics"] == 1).all()


def test_a_bounded_grid_has_an_inside_if_it_is_large_enough():
    large = Grid.from_coords({"latitude": np.arange(25.0), "longitude": np.arange(53.0)})
    assert list(regions(large)) == ["global", "inner"]
    assert regions(large)["inner"].sum() == 9 * 37
    small = Grid.from_coords({"y": np.arange(15.0), "x": np.arange(53.0)})
    assert list(regions(small)) == ["global"]


def test_seasons_by_month():
    months = np.array([f"2201-{m:02d}-15" for m in range(1, 13)], "datetime64[ns]")
    np.testing.assert_array_equal(np.flatnonzero(in_season(months, "djf")) + 1, [1, 2, 12])
    np.testing.assert_array_equal(np.flatnonzero(in_season(months, "mam")) + 1, [3, 4, 5])
    np.testing.assert_array_equal(np.flatnonzero(in_season(months, "jja")) + 1, [6, 7, 8])
    np.testing.assert_array_equal(np.flatnonzero(in_season(months, "son")) + 1, [9, 10, 11])
    assert in_season(months, "all").all()
