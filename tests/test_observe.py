"""Points, means and weighted sums as rows of a matrix, against fields known everywhere."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciladm import AreaMean, Points, Weighted
from sciladm.conventions import UserError
from sciladm.data.fields import Fields
from sciladm.observe import Rows

DAY = np.timedelta64(1, "D").astype("m8[ns]")
TIMES = np.datetime64("2250-01-01", "ns") + np.arange(3) * DAY
GLOBE = {"latitude": np.arange(-75.0, 90, 30), "longitude": np.arange(0.0, 360, 30)}
PLANE = {"y": np.arange(6.0)[::-1], "x": np.arange(8.0)}


def world(coords, names=("t",)):
    shape = (3, *(len(c) for c in coords.values()))
    random = np.random.default_rng(0)
    data = {name: (("time", *coords), random.standard_normal(shape, np.float32)) for name in names}
    ds = xr.Dataset(data, {"time": TIMES, **coords})
    return ds, Fields.from_dataset(ds, dict.fromkeys(names))


def every(fields):
    return np.ones((len(fields.channels), *fields.grid.shape), bool)


def said(rows, values):
    return rows.weights @ np.asarray(values, np.float64).ravel()


def table(**columns):
    size = max(np.size(c) for c in columns.values())
    made = {"time": TIMES[0], "value": 0.0, "error": 0.1} | columns
    return pd.DataFrame({name: np.broadcast_to(c, size) for name, c in made.items()})


def test_points_of_a_plane_are_exact_between_cells():
    """A linear field, axes in either direction."""
    _, fields = world(PLANE)
    y, x = np.meshgrid(PLANE["y"], PLANE["x"], indexing="ij")
    random = np.random.default_rng(1)
    at = {"y": random.uniform(0, 5, 40), "x": random.uniform(0, 7, 40)}
    rows = Points(table(**at)).rows(fields, every(fields), TIMES, DAY)
    assert [len(part) for part in rows] == [40, 0, 0]
    np.testing.assert_allclose(said(rows[0], 3 + 2 * y - x), 3 + 2 * at["y"] - at["x"])
    ends = Points(table(y=[-0.5, 5.5], x=[-0.5, 7.5])).rows(fields, every(fields), TIMES, DAY)
    np.testing.assert_allclose(said(ends[0], 10 * y + x), [0, 57])  # the outermost cells


def test_points_go_round_the_globe():
    _, fields = world(GLOBE)
    at = table(lat=[0.0, 0.0, 10.0, -88.0], lon=[345.0, -15.0, 705.0, 30.0])
    (rows, *_) = Points(at).rows(fields, every(fields), TIMES, DAY)
    longitude = np.broadcast_to(GLOBE["longitude"], fields.grid.shape)
    np.testing.assert_allclose(said(rows, longitude), [165, 165, 165, 30])
    latitude = np.broadcast_to(GLOBE["latitude"][:, None], fields.grid.shape)
    np.testing.assert_allclose(said(rows, latitude), [0, 0, 10, -75], atol=1e-9)


def test_points_take_nothing_from_cells_without_data():
    _, fields = world(PLANE)
    sea = every(fields)
    sea[0, :, 4:] = False
    (rows, *_) = Points(table(y=[2.0], x=[3.4])).rows(fields, sea, TIMES, DAY)
    assert said(rows, np.where(sea[0], 7.0, 1e30)) == pytest.approx(7.0)
    with pytest.raises(UserError, match="row 1 and 0 more lie among cells that never hold data"):
        Points(table(y=[2.0, 2.0], x=[3.4, 3.6])).rows(fields, sea, TIMES, DAY)


def test_points_tell_variables_and_times_apart():
    ds, fields = world(PLANE, ("t", "u"))
    at = table(y=1.0, x=2.0, variable=["u", "t", "u"], time=TIMES[[2, 0, 0]], value=[1, 2, 3])
    rows = Points(at).rows(fields, every(fields), TIMES, DAY)
    assert [list(part.values) for part in rows] == [[2, 3], [], [1]]
    here = ds.sel(y=1, x=2).isel(time=0)
    got = said(rows[0], fields.to_array(ds)[0])
    np.testing.assert_allclose(got, [here.t, here.u], rtol=1e-6)


def test_columns_of_points_come_in_any_order():
    """A column is known by its name alone, never by where it stands."""
    ds, _ = world(GLOBE, ("t", "u"))
    deep = ds.assign(u=ds.u.expand_dims(level=[500, 850]))
    fields = Fields.from_dataset(deep, {"t": None, "u": None})
    at = {"lat": 10.0, "lon": 20.0, "variable": "u", "level": 850, "value": 3.0, "error": 0.1}
    random = np.random.default_rng(2)
    for _ in range(20):
        names = random.permutation(["time", *at])
        (rows, *_) = Points(table(**at)[names]).rows(fields, every(fields), TIMES, DAY)
        assert list(rows.values) == [3] and rows.weights.indices.min() >= 2 * 72


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"y": 1.0}, "no column x"),
        ({"y": 1.0, "x": np.nan}, "lack a number"),
        ({"y": 1.0, "x": 1.0, "error": 0.0}, "above 0"),
        ({"y": 1.0, "x": 8.0}, "outside the grid: x 8, where it goes from -0.5 to 7.5"),
        ({"y": 9.0, "x": 1.0}, "outside the grid: y 9, where it goes from 5.5 to -0.5"),
        ({"y": 1.0, "x": 1.0, "time": TIMES[0] + DAY / 2}, "at none of the 3 times"),
    ],
)
def test_points_that_cannot_be(columns, message):
    _, fields = world(PLANE)
    with pytest.raises(UserError, match=message):
        Points(table(**columns)).rows(fields, every(fields), TIMES, DAY)
    _, two = world(PLANE, ("t", "u"))
    with pytest.raises(UserError, match="no salt in the run; there are t, u"):
        Points(table(y=1.0, x=1.0, variable="salt")).rows(two, every(two), TIMES, DAY)


def coarse(coords, ds, by):
    """Means of ``ds`` over blocks of cells, by hand; areas of the sphere where it is one."""
    area = np.ones(1)
    if "latitude" in coords:
        edges = np.sin(np.deg2rad([-90, -60, -30, 0, 30, 60, 90]))
        area = xr.DataArray(np.diff(edges), {"latitude": coords["latitude"]}, "latitude")
    sums = (ds * area).coarsen(by).sum()
    return sums / ((ds * 0 + 1) * area).coarsen(by).sum()


@pytest.mark.parametrize(
    ("coords", "by"), [(PLANE, {"y": 3, "x": 4}), (GLOBE, {"latitude": 2, "longitude": 3})]
)
def test_area_means_are_means_over_areas(coords, by):
    ds, fields = world(coords)
    means = coarse(coords, ds, by)
    if "latitude" in coords:  # bounds midway, and the poles
        means = means.assign_coords(latitude=[-60.0, 0.0, 60.0])
    rows = AreaMean(means, 0.2).rows(fields, every(fields), TIMES, DAY)
    for part, truth in zip(rows, ds.t.values, strict=True):
        np.testing.assert_allclose(said(part, truth), part.values, atol=1e-6)
        assert (part.std == 0.2).all() and len(part) == means.t[0].size
        np.testing.assert_allclose(part.weights.sum(axis=1), 1.0)


def test_area_means_may_lie_across_cells():
    """Cells a cell and a half wide, which share the one in the middle."""
    _, fields = world({"y": np.arange(2.0), "x": np.arange(3.0)})
    means = xr.Dataset(
        {"t": (("time", "y", "x"), np.zeros((1, 2, 2)))},
        {"time": TIMES[:1], "y": [0.0, 1.0], "x": [0.25, 1.75]},
    )
    wide = AreaMean(means).rows(fields, every(fields), TIMES, DAY)[0].weights.toarray()
    want = [[2 / 3, 1 / 3, 0, 0, 0, 0], [0, 1 / 3, 2 / 3, 0, 0, 0]]
    np.testing.assert_allclose(wide[:2], want, atol=1e-12)
    with pytest.raises(UserError, match="one cell along y, and how wide it is"):
        AreaMean(means.isel(y=[0])).rows(fields, every(fields), TIMES, DAY)
    with pytest.raises(UserError, match="comes twice"):
        AreaMean(means.isel(time=[0, 0])).rows(fields, every(fields), TIMES, DAY)


def test_area_means_know_gaps_and_land():
    ds, fields = world(PLANE)
    means = coarse(PLANE, ds, {"y": 3, "x": 4})
    means["t"][1, 0, 1] = np.nan
    assert [len(r) for r in AreaMean(means).rows(fields, every(fields), TIMES, DAY)] == [4, 3, 4]
    land = every(fields)
    land[0, 0, 0] = False
    with pytest.raises(UserError, match="1 cells with a value lie in part where"):
        AreaMean(means).rows(fields, land, TIMES, DAY)
    with pytest.raises(UserError, match="none of t among salt"):
        AreaMean(means.rename(t="salt")).rows(fields, every(fields), TIMES, DAY)
    with pytest.raises(UserError, match="it is a standard deviation"):
        AreaMean(means, {"t": -1}).rows(fields, every(fields), TIMES, DAY)
    bent = replace(fields, channels=(replace(fields.channels[0], transform="log1p:1"),))
    with pytest.raises(UserError, match="the run sees t transformed"):
        AreaMean(means).rows(bent, every(fields), TIMES, DAY)


def test_weighted_sums():
    ds, fields = world(PLANE, ("t", "u"))
    weights = xr.Dataset({"u": ds.u[:2].rename(time="observation").drop_vars("observation")})
    values = xr.DataArray(
        [[1.0, np.nan], [2, 3]], {"time": TIMES[[0, 2]]}, ("time", "observation")
    )
    first, none, last = Weighted(weights, values, [0.1, 0.2]).rows(
        fields, every(fields), TIMES, DAY
    )
    assert list(first.values) == [1] and len(none) == 0 and list(last.std) == [0.1, 0.2]
    want = [float((ds.u[n] * ds.u[2]).sum()) for n in range(2)]
    np.testing.assert_allclose(said(last, fields.to_array(ds)[2]), want, rtol=1e-5)
    with pytest.raises(UserError, match="the smallest error is 0"):
        Weighted(weights, values, 0.0).rows(fields, every(fields), TIMES, DAY)


def test_weighted_sums_are_matched_by_label():
    """Of one surface variable where others have levels; observations in another order."""
    ds, _ = world(PLANE, ("t", "u"))
    deep = ds.assign(u=ds.u.expand_dims(level=[500, 850]))
    fields = Fields.from_dataset(deep, {"t": None, "u": None})
    assert len(fields.channels) == 3
    weights = xr.Dataset({"t": ds.t[:2].rename(time="observation").drop_vars("observation")})
    weights = weights.assign_coords(observation=["a", "b"])
    values = xr.DataArray(
        [[2.0, 1.0]], {"time": TIMES[:1], "observation": ["b", "a"]}, ("time", "observation")
    )
    errors = xr.DataArray([0.2, 0.1], {"observation": ["b", "a"]}, "observation")
    (rows, *_) = Weighted(weights, values, errors).rows(fields, every(fields), TIMES, DAY)
    assert list(rows.values) == [1, 2] and list(rows.std) == [0.1, 0.2]
    np.testing.assert_allclose(rows.weights[:, :48].toarray(), weights.t.values.reshape(2, -1))
    assert rows.weights[:, 48:].nnz == 0
    for wrong, message in (
        (values.assign_coords(observation=["b", "c"]), "is not told of"),
        (
            values.drop_vars("observation").isel(observation=[0]),
            "1 observations, and weights of 2",
        ),
        (values.isel(time=[0, 0]), "comes twice"),
    ):
        with pytest.raises(UserError, match=message):
            Weighted(weights, wrong, 0.1).rows(fields, every(fields), TIMES, DAY)
    with pytest.raises(UserError, match="none of t, u among salt"):
        Weighted(weights.rename(t="salt"), values, 0.1).rows(fields, every(fields), TIMES, DAY)


def test_points_of_a_single_variable_are_of_that_variable():
    """And their times may be text, or in a zone."""
    _, fields = world(PLANE)
    at = {"y": 1.0, "x": 2.0}
    text = Points(table(**at, time="2250-01-02T01:00+01:00", variable="t"))
    assert [len(part) for part in text.rows(fields, every(fields), TIMES, DAY)] == [0, 1, 0]
    assert (text.times == TIMES[[1]]).all() and len(text.at(TIMES[:1], DAY).table) == 0
    bent = replace(fields, channels=(replace(fields.channels[0], transform="log1p:1"),))
    for told, seen, message in (
        (table(**at, variable="salt"), fields, "no salt in the run; there are t"),
        (table(**at, level=500.0), fields, "no t at level 500"),
        (table(**at), bent, "the run sees t transformed"),
        (table(**at, value="<0.5"), fields, "lack a number"),
    ):
        with pytest.raises(UserError, match=message):
            Points(told).rows(seen, every(seen), TIMES, DAY)
    for told, message in (
        (table(**at, time="soon"), "please"),
        (pd.DataFrame(at, [0]), "no column time"),
    ):
        with pytest.raises(UserError, match=message):
            Points(told)


def test_rows_of_anomalies_say_the_same():
    ds, fields = world(PLANE, ("t", "u"))
    (rows, *_) = Points(table(y=1.2, x=2.7, variable=["u", "t"], value=[4.0, 5.0])).rows(
        fields, every(fields), TIMES, DAY
    )
    x = fields.to_array(ds)
    scale = np.array([2.0, 3.0]).reshape(2, 1, 1)
    moved = rows.anomalies(x[1].astype(float), scale)
    misfit = rows.values - said(rows, x[0])
    np.testing.assert_allclose(
        moved.values - said(moved, (x[0] - x[1]) / scale), misfit, atol=1e-6
    )
    both, other = Rows.of([rows, moved]), Rows.of([moved, rows])
    assert len(both) == 4 and both.weights.shape == (4, 96)
    assert (both.values == other.values).all() and abs(both.weights - other.weights).sum() == 0
