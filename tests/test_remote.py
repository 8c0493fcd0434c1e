"""The public store's path against a server on this machine, and its failures."""

import asyncio
import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from sciladm.conventions import UserError
from sciladm.data import web
from sciladm.data.catalog import Wanted, open_card
from sciladm.data.remote import fetch, is_complete
from sciladm.data.store import open_store
from sciladm.data.units import Request
from sciladm.data.web import Patience, UnreachableError

HASTE = Patience(connect=5, read=10, attempts=4, pause=0.01, at_once=8)
SPLITS = {"train": [["2000-01-20", "2000-03-10"]], "test": [["2000-06-01", "2000-07-05"]]}
VARIABLES = {"geopotential": [850, 500], "2m_temperature": None}


def weatherbench(path: Path) -> xr.Dataset:
    """A small store in that project's layout: zarr 2, consolidated, longitude before latitude."""
    random = np.random.default_rng(0)
    times = np.datetime64("2000-01-01", "ns") + np.arange(730) * np.timedelta64(6, "h")
    longitude, latitude = np.arange(0, 360, 45.0), np.linspace(-78.75, 78.75, 8)
    dims = ("time", "level", "longitude", "latitude")
    ds = xr.Dataset(
        {
            "geopotential": (dims, random.normal(5e4, 999, (730, 3, 8, 8)).astype("f4")),
            "2m_temperature": (
                (dims[0], *dims[2:]),
                random.normal(280, 9, (730, 8, 8)).astype("f4"),
            ),
            "land_sea_mask": (dims[2:], random.random((8, 8)).astype("f4")),
        },
        {"time": times, "level": [200, 500, 850], "longitude": longitude, "latitude": latitude},
    )
    ds["2m_temperature"].attrs["units"] = "K"
    encoding = {
        "geopotential": {"chunks": (100, 3, 8, 8)},
        "2m_temperature": {"chunks": (100, 8, 8)},
        "time": {"chunks": (300,), "units": "hours since 1959-01-01"},
    }
    ds.to_zarr(path, encoding=encoding, zarr_format=2, consolidated=True)
    return ds


class Server:
    """A web server for a folder; ``trouble`` (path, attempt) may answer instead."""

    def __init__(self, folder):
        self.folder, self.trouble, self.asked = folder, lambda path, attempt: None, {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                attempt = outer.asked[self.path] = outer.asked.get(self.path, 0) + 1
                kind = outer.trouble(self.path, attempt)
                file = outer.folder / self.path.lstrip("/")
                if kind == "reset":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                if kind == "slow":
                    time.sleep(1.6)
                if isinstance(kind, int) or not file.is_file():
                    self.send_response(kind if isinstance(kind, int) else 404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = file.read_bytes()
                self.send_response(200)
                if kind == "garbage":
                    body = body[: len(body) // 2]
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if kind == "short":
                    self.wfile.write(body[: len(body) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(body)

            def log_message(self, *_):
                pass

            def handle(self):
                with contextlib.suppress(ConnectionError, ValueError):
                    super().handle()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/era5.zarr"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bucket")
    return path, weatherbench(path / "era5.zarr")


@pytest.fixture
def server(folder):
    one = Server(folder[0])
    yield one
    one.server.shutdown()
    one.server.server_close()


def request(server, **changes):
    given = {"variables": VARIABLES, "static": ["land_sea_mask"], "splits": SPLITS}
    return Request(server.url, **(given | changes))


def check(store, truth):
    """Every value that the splits want is there, under its label."""
    ds = open_store(store)
    assert ds.geopotential.dims == ("time", "level", "latitude", "longitude")
    assert ds["2m_temperature"].attrs["units"] == "K"
    assert ds.level.values.tolist() == [500, 850]
    for start, stop in (("2000-01-20", "2000-03-10"), ("2000-06-01", "2000-07-05")):
        part, full = (x.sel(time=slice(start, stop)) for x in (ds, truth))
        assert part.sizes["time"] == full.sizes["time"] > 100
        for name in ds.data_vars:
            expected = (
                full[name].sel(level=[500, 850]) if "level" in full[name].dims else full[name]
            )
            assert np.array_equal(part[name], expected.transpose(*part[name].dims))


def test_a_part_is_copied(server, folder, tmp_path):
    seen = []
    store = fetch(request(server), tmp_path / "copy", {}, seen.append, HASTE)
    check(store, folder[1])
    assert open_store(store).geopotential.encoding["chunks"] == (20, 2, 8, 8)
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert not any("geopotential/3." in path for path in server.asked)  # 14 March to 8 April
    before = dict(server.asked)
    assert fetch(request(server), tmp_path / "copy", {}, None, HASTE) == store
    assert server.asked == before  # complete: nothing is asked


@pytest.mark.parametrize("trouble", [503, 429, "reset", "short", "garbage", "slow"])
def test_trouble_that_passes(server, folder, tmp_path, trouble):
    server.trouble = lambda path, attempt: trouble if attempt == 1 and "2m" in path else None
    patience = replace(HASTE, read=0.8) if trouble == "slow" else HASTE
    check(fetch(request(server), tmp_path / "copy", {}, None, patience), folder[1])


@pytest.mark.parametrize(
    ("trouble", "message"),
    [(503, "given up after 4 tries: the server answers 503"), (403, "answers 403"),
     ("short", "given up"), ("garbage", "do not decode")],
)  # fmt: skip
def test_trouble_that_stays_then_resumed(server, folder, tmp_path, trouble, message):
    server.trouble = lambda path, attempt: (
        trouble if path.endswith("2m_temperature/6.0.0") else None
    )
    with pytest.raises(UserError, match=message):
        fetch(request(server), tmp_path / "copy", {}, None, HASTE)
    assert not is_complete(tmp_path / "copy")
    done = {path.name for path in (tmp_path / "copy/done").iterdir()}
    server.trouble, server.asked = lambda path, attempt: None, {}
    check(fetch(request(server), tmp_path / "copy", {}, None, HASTE), folder[1])
    for name in done:  # what had come is not asked for again
        variable, chunk = name.rsplit(".", 1)
        assert not any(f"{variable}/{chunk}." in path for path in server.asked)


def test_lost_chunk_is_an_error_where_none_may_be(server, tmp_path):
    server.trouble = lambda path, attempt: 404 if path.endswith("geopotential/6.0.0.0") else None
    with pytest.raises(UserError, match=r"geopotential lacks 12800 .* absent on the server"):
        fetch(request(server), tmp_path / "copy", {}, None, HASTE)
    store = fetch(request(server), tmp_path / "other", {"geopotential": "moving"}, None, HASTE)
    assert np.isnan(open_store(store).geopotential).sum() == 12800


def test_damage_on_this_disk_is_found(server, tmp_path, monkeypatch):
    import sciladm.data.remote as remote

    original = remote._write

    def damaging(group, path, unit, values):
        original(group, path, unit, values)
        if unit.array.name == "2m_temperature" and unit.chunk == 1:
            group["2m_temperature"][unit.start] = 0

    monkeypatch.setattr(remote, "_write", damaging)
    with pytest.raises(UserError, match="2m_temperature, chunk 1, reads back differently"):
        fetch(request(server), tmp_path / "copy", {}, None, HASTE)
    monkeypatch.undo()
    fetch(request(server), tmp_path / "copy", {}, None, HASTE)


def test_in_a_notebook(server, folder, tmp_path):
    async def cell():
        return fetch(request(server), tmp_path / "copy", {}, None, HASTE)

    check(asyncio.run(cell()), folder[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variables": {"geopotentiel": [500]}}, "did you mean geopotential"),
        ({"variables": {"geopotential": [501]}}, r"no level \[501\]; there are \[200, 500, 850\]"),
        ({"splits": {"train": [["1950", "1951"]]}}, "train holds none"),
    ],
)
def test_wishes_that_cannot_be_met(server, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        fetch(request(server, **changes), tmp_path / "copy", {}, None, HASTE)


def test_no_store_there(server, tmp_path):
    server.url = server.url.replace("era5", "none")
    with pytest.raises(UserError, match=r"no \.zmetadata"):
        fetch(request(server), tmp_path / "copy", {}, None, HASTE)


def test_out_of_reach(tmp_path):
    for url in ("http://127.0.0.1:9/x.zarr", "http://no-such-host.invalid/x.zarr"):
        with pytest.raises(UnreachableError):
            fetch(Request(url, VARIABLES, [], SPLITS), tmp_path / "copy", {}, None, HASTE)


def test_out_of_reach_after_a_start_is_an_error():
    async def ask():
        async with web.Server("http://127.0.0.1:9/x.zarr", HASTE) as connection:
            connection.reached = True
            await connection.get(".zmetadata")

    with pytest.raises(UserError, match="given up after 4 tries"):
        asyncio.run(ask())


def card(tmp_path, url):
    shown = {
        "title": "t", "description": "d", "licence": "l", "citation": "c", "step": "6h",
        "sources": [
            {"name": "far", "kind": "zarr-https", "url": url, "splits": SPLITS},
            {"name": "here", "kind": "local", "path": "own.zarr", "splits": SPLITS},
        ],
        "variables": {"geopotential": {}, "2m_temperature": {}},
    }  # fmt: skip
    (tmp_path / "card.yaml").write_text(json.dumps(shown))
    return tmp_path / "card.yaml"


def test_only_out_of_reach_moves_on(server, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SCILADM_CACHE", str(tmp_path / "cache"))
    folder[1].to_zarr(tmp_path / "own.zarr", zarr_format=2, consolidated=True)
    wanted = Wanted(VARIABLES, ["land_sea_mask"])
    refused = card(tmp_path, "http://127.0.0.1:9/x.zarr")
    assert open_card(refused, wanted=wanted, patience=HASTE).source == "here"
    with pytest.raises(UserError, match="far: its host is out of reach"):
        open_card(refused, source="far", wanted=wanted, patience=HASTE)
    for trouble in (403, 503, 404):
        server.trouble = lambda path, attempt, trouble=trouble: trouble
        with pytest.raises(UserError, match=r"given up|answers|zmetadata"):
            open_card(card(tmp_path, server.url), wanted=wanted, patience=HASTE)
    server.trouble = lambda path, attempt: None
    opened = open_card(card(tmp_path, server.url), wanted=wanted, patience=HASTE)
    assert opened.source == "far" and opened.kind == "zarr-https"
    assert opened.dataset["2m_temperature"].sizes["time"] >= 300
    monkeypatch.setattr(server, "trouble", lambda path, attempt: "reset")
    again = open_card(card(tmp_path, server.url), wanted=wanted, patience=HASTE)
    assert again.fingerprint == opened.fingerprint  # from the copy, without the server


SCRIPT = """
import json, sys
from pathlib import Path
from sciladm.data.remote import fetch
from sciladm.data.units import Request
from sciladm.data.web import Patience
url, path = sys.argv[1:]
fetch(Request(url, {variables}, ["land_sea_mask"], {splits}), Path(path), {{}}, None,
      Patience(at_once=2))
"""


@pytest.mark.slow
def test_killed_at_any_moment(server, folder, tmp_path):
    server.trouble = lambda path, attempt: time.sleep(0.1)
    script = SCRIPT.format(variables=VARIABLES, splits=SPLITS)
    command = [sys.executable, "-c", script, server.url, str(tmp_path / "killed")]
    random, counts = np.random.default_rng(0), []
    done = lambda: len(list((tmp_path / "killed/done").glob("*.[0-9]")))
    for requests in (2, 6, 8, 10, 10, 10):
        process = subprocess.Popen(command)
        while len(server.asked) < requests and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.05 * random.random())
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        server.asked = {}
        counts.append(done())
    assert 0 < counts[-1] < 10, counts  # killed while units were coming
    subprocess.run(command, check=True)
    check(tmp_path / "killed/data.zarr", folder[1])
    fetch(request(server), tmp_path / "whole", {}, None, HASTE)
    whole, killed = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (tmp_path / "whole", tmp_path / "killed")
    )
    assert whole == killed


def test_the_server_holds_what_that_project_publishes(folder):
    metadata = json.loads((folder[0] / "era5.zarr/.zmetadata").read_text())["metadata"]
    assert metadata["geopotential/.zattrs"]["_ARRAY_DIMENSIONS"][2:] == ["longitude", "latitude"]
    assert zarr.open_group(folder[0] / "era5.zarr", mode="r").metadata.zarr_format == 2
