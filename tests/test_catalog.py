import json
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from sciladm.conventions import UserError, parse_duration
from sciladm.data.cards import Card, folder, load_card
from sciladm.data.catalog import Wanted, cache_folder, open_card, prospect
from sciladm.data.fields import Fields
from sciladm.data.frames import Frames
from sciladm.data.splits import Splits
from sciladm.simulate import WORLDS, Plan

CARDS = sorted(path.stem for path in folder().glob("*.yaml"))
SPLITS = {"train": [["2001-01-01", "2001-01-06"]], "test": [["2001-01-07", "2001-01-09"]]}


def sample():
    times = np.datetime64("2001-01-01", "ns") + np.arange(10) * np.timedelta64(24, "h")
    coords = {"time": times, "lat": [10.0, 20.0, 30.0], "lon": [1.0, 2.0]}
    return xr.Dataset(
        {"sst": (("time", "lat", "lon"), np.random.default_rng(0).random((10, 3, 2)))}, coords
    )


def write_card(tmp_path, *sources, **changes):
    tree = {
        "title": "t", "description": "d", "licence": "l", "citation": "c", "step": "24h",
        "sources": list(sources), "variables": {"sst": {"units": "K"}},
    }  # fmt: skip
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(tree | changes))
    return tmp_path / "card.yaml"


def local(path, name="local"):
    return {"name": name, "kind": "local", "path": str(path), "splits": SPLITS}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCILADM_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", CARDS)
def test_our_cards(name):
    card, path = load_card(name)
    assert path.stem == name and card.licence and card.citation
    parse_duration(card.step)
    assert len({source.name for source in card.sources}) == len(card.sources)
    assert all(variable.units for variable in card.variables.values())


def test_the_default_slice_is_within_a_gigabyte():
    source = load_card("era5")[0].sources[0]
    times = np.datetime64("1959-01-01", "ns") + np.arange(92044) * np.timedelta64(6, "h")
    splits = Splits.resolve(source.splits, times)
    count = sum(len(splits.indices(name, times)) for name in splits.ranges)
    assert 0.9e9 < count * 16 * 64 * 32 * 4 <= 1e9


def test_local(tmp_path, monkeypatch):
    sample().to_netcdf(tmp_path / "a.nc")
    opened = open_card(write_card(tmp_path, local("a.nc")))
    assert opened.source == "local" and opened.dataset.sst.dims == (
        "time",
        "latitude",
        "longitude",
    )
    assert opened.splits == SPLITS and len(opened.fingerprint) == 64
    monkeypatch.setenv("SCILADM_DATA", str(tmp_path))
    again = open_card(write_card(tmp_path, local("${SCILADM_DATA}/a.nc")))
    assert again.fingerprint == opened.fingerprint
    other = open_card(
        write_card(tmp_path, local("a.nc")), wanted=Wanted({"sst": None}, splits={"a": "rest"})
    )
    assert other.splits == {"a": "rest"}


def test_absent_moves_on_and_damage_does_not(tmp_path, monkeypatch):
    monkeypatch.delenv("SCILADM_DATA", raising=False)
    sample().to_netcdf(tmp_path / "a.nc")
    first, unset = local("none.nc", "first"), local("${SCILADM_DATA}/a.nc", "unset")
    path = write_card(tmp_path, first, unset, local("a.nc", "third"))
    assert open_card(path).source == "third"
    assert prospect(path) == ("third", f"read from {tmp_path / 'a.nc'}", True)
    with pytest.raises(UserError, match=r"no source .* first: .*none.nc is absent"):
        open_card(path, source="first")
    with pytest.raises(UserError, match="no source fourth; there are: first, unset, third"):
        open_card(path, source="fourth")
    (tmp_path / "none.nc").write_bytes(b"CDF")
    with pytest.raises(UserError, match=r"none\.nc: cannot be read|none\.nc is no netCDF"):
        open_card(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licence": None}, "`licence`"),
        ({"lisense": "x"}, "unknown key `lisense`; did you mean `licence`"),
        ({"variables": {"sst": {"unit": "K"}}}, "did you mean `units`"),
        ({"variables": {"sst": {"missing": "some"}}}, "`variables.sst.missing`"),
        ({"sources": []}, "`sources`"),
        ({"sources": [local("a.nc") | {"pth": 1}]}, "did you mean `path`"),
        ({"sources": [{"kind": "simulated", "name": "s", "world": "w", "plan": {"day": 1}}]},
         "did you mean `days`"),
        ({"sources": [{"kind": "ftp", "name": "s"}]}, "ftp"),
        ({"sources": [{"kind": "zarr-https", "name": "s", "url": "gs://x", "splits": {}}]}, "url"),
    ],
)  # fmt: skip
def test_mistakes_in_a_card(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        load_card(write_card(tmp_path, **({"sources": [local("a.nc")]} | changes)))


def test_cards_that_are_none(tmp_path):
    with pytest.raises(UserError, match="did you mean era5"):
        load_card("era6")
    with pytest.raises(UserError, match="cannot be read"):
        load_card(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_card(tmp_path / "bad.yaml")
    (tmp_path / "run.yaml").write_text("!!python/object/apply:os.system [echo]")
    with pytest.raises(UserError):
        load_card(tmp_path / "run.yaml")


class World:
    """A stand-in for a simulated world: it counts how often it runs."""

    ran = 0

    def parameters(self):
        return {"speed": 1}

    def plan(self, **years):
        return Plan.years(**years)

    def run(self, path, plan, progress):
        World.ran += 1
        ds = sample().isel(time=0, drop=True).expand_dims(time=plan.times)
        ds.to_zarr(path, zarr_format=2, consolidated=True)
        progress(1.0)


def test_simulated_once(tmp_path, monkeypatch):
    monkeypatch.setitem(WORLDS, "test", World)
    plan = {"train": 2, "validation": 1, "test": 1, "days": 3}
    source = {"name": "simulated", "kind": "simulated", "world": "test", "plan": plan}
    path = write_card(tmp_path, source)
    assert prospect(path)[1].startswith("48 states to be simulated into")
    seen = []
    first = open_card(path, progress=seen.append)
    again = open_card(path, progress=seen.append)
    assert World.ran == 1 and seen == [1.0]
    assert first.fingerprint == again.fingerprint and first.kind == "simulated"
    assert prospect(path)[1].startswith("simulated already") and prospect(path)[2]
    times = first.dataset.time.values
    splits = Splits.resolve(first.splits, times)
    assert {name: len(splits[name]) for name in splits.ranges} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }
    assert sum(len(splits.indices(name, times)) for name in splits.ranges) == len(times)
    source["plan"] = plan | {"seed": 1}
    assert (
        open_card(write_card(tmp_path, source), progress=seen.append).fingerprint
        != first.fingerprint
    )
    source["world"] = "moon"
    with pytest.raises(UserError, match="no simulated world moon"):
        open_card(write_card(tmp_path, source))


def test_parameters_of_a_simulated_world(tmp_path):
    plan = {"train": 1, "validation": 1, "test": 1, "days": 3}
    source = {"name": "simulated", "kind": "simulated", "world": "gaussian", "plan": plan}
    shown = source | {"parameters": {"geometry": "sphere", "shape": [8, 16], "tracers": 2}}
    opened = open_card(write_card(tmp_path, shown))
    assert dict(opened.dataset.sizes) == {"time": 9, "latitude": 8, "longitude": 16}
    assert set(opened.dataset.data_vars) == {"tracer", "second_tracer"}
    with pytest.raises(UserError, match=r"parameters of the world gaussian: .*'wind'"):
        open_card(write_card(tmp_path, source | {"parameters": {"wind": 3}}))
    with pytest.raises(UserError, match=r"plan of the world gaussian: .*'latitudes'"):
        open_card(write_card(tmp_path, source | {"plan": plan | {"latitudes": 16}}))


def test_tutorial(tmp_path, monkeypatch):
    pytest.importorskip("pooch")
    requests = pytest.importorskip("requests")
    source = {"name": "x", "kind": "xarray-tutorial", "dataset": "air", "splits": SPLITS}
    path = write_card(tmp_path, source)
    monkeypatch.setattr(xr.tutorial, "open_dataset", lambda name, cache_dir: sample())
    assert open_card(path).dataset.sizes["latitude"] == 3

    def offline(name, cache_dir):
        raise requests.exceptions.ConnectionError("no route")

    monkeypatch.setattr(xr.tutorial, "open_dataset", offline)
    with pytest.raises(UserError, match="x: its host is out of reach"):
        open_card(path)


def test_tutorial_without_pooch(tmp_path, monkeypatch):
    source = {"name": "x", "kind": "xarray-tutorial", "dataset": "air", "splits": SPLITS}
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(UserError, match="pip install pooch"):
        open_card(write_card(tmp_path, source))


def test_cache_folder(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SCILADM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / "xdg/sciladm"


def test_from_card_to_arrays(tmp_path):
    sample().to_netcdf(tmp_path / "a.nc")
    opened = open_card(write_card(tmp_path, local("a.nc")))
    fields = Fields.from_dataset(opened.dataset, {"sst": None}, meta=opened.card.variables)
    frames = Frames(opened.dataset, fields)
    training = Splits.resolve(opened.splits, frames.times).indices("train", frames.times)
    assert np.array_equal(frames.read(training)[:, 0], sample().sst.values[:6].astype("f4"))
    assert fields.channels[0].units == "K"


def test_schema_is_plain():
    assert json.dumps(Card.model_json_schema()) and Path(folder()).is_dir()
