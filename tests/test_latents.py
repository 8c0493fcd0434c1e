"""A latent store and a record have their names only when all of them lasts."""

import os
from types import SimpleNamespace

import numpy as np
import zarr

from sciladm.data import durable
from sciladm.grid import Grid
from sciladm.latents import encode_once, open_latents
from sciladm.simulate import record


def test_a_latent_store_is_durable_before_it_has_its_name(tmp_path, monkeypatch):
    synced, sync = [], durable._sync

    def noted(path):
        synced.append(path.relative_to(tmp_path))
        sync(path)

    monkeypatch.setattr(durable, "_sync", noted)
    grid = Grid.from_coords({"y": np.arange(3.0), "x": np.arange(4.0)})
    times = np.datetime64("2001-01-01", "ns") + np.arange(5) * np.timedelta64(1, "D")
    values = np.ones((5, 2, 3, 4), np.float32)
    path = tmp_path / "latents.zarr"
    encode_once(path, [(times, values)], lambda values, _: values, grid, {"a": 1})
    np.testing.assert_array_equal(open_latents(path)["latent"], values)
    there = {"latents.zarr.partial" / p.relative_to(path) for p in (path, *path.rglob("*"))}
    assert there <= set(synced) and str(synced[-1]) == "."


def test_a_record_is_durable_before_it_has_its_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "record.zarr", []
    monkeypatch.setattr(record, "lay_out", lambda _, path, *__: zarr.create_group(path))
    monkeypatch.setattr(os, "sync", lambda: seen.append(path.exists()))
    plan = SimpleNamespace(latitudes=4, longitudes=8, realisations=[], chunk=1, groups=[])
    record.write_record(lambda *_: None, path, plan, {}, None, 1)
    assert seen == [False] and path.exists()
