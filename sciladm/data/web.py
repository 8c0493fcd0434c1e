"""A zarr 2 store behind plain HTTP: metadata, chunks, patience with servers that fail."""

import asyncio
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import numcodecs  # type: ignore[import-untyped]
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciladm.conventions import UserError

_AGAIN = {408, 425, 429, 500, 502, 503, 504}


class UnreachableError(Exception):
    """No connection to the host could be made: after this alone, another source may do."""


@dataclass(frozen=True)
class Patience:
    """How long to wait [s], how often to try, how many requests at once."""

    connect: float = 10.0
    read: float = 60.0
    attempts: int = 6
    pause: float = 1.0
    at_once: int = 32


@dataclass(frozen=True)
class RemoteArray:
    """Metadata of one array of the store."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Any
    separator: str
    codecs: tuple[Any, ...]
    attributes: dict[str, Any]

    @classmethod
    def parse(cls, name: str, metadata: dict[str, Any]) -> "RemoteArray":
        """From the store's consolidated metadata."""
        array, attributes = metadata[f"{name}/.zarray"], dict(metadata.get(f"{name}/.zattrs", {}))
        configured = [*(array.get("filters") or []), array["compressor"]]
        return cls(
            name,
            tuple(attributes.pop("_ARRAY_DIMENSIONS", ())),
            tuple(array["shape"]),
            tuple(array["chunks"]),
            np.dtype(array["dtype"]),
            array["order"],
            array.get("dimension_separator", "."),
            tuple(numcodecs.get_codec(c) for c in reversed(configured) if c),
            attributes,
        )

    def decode(self, data: bytes) -> NDArray[Any]:
        """One whole chunk from the bytes of its object."""
        buffer: Any = data
        for codec in self.codecs:
            buffer = codec.decode(buffer)
        values = np.frombuffer(buffer, self.dtype)
        return values.reshape(self.chunks, order=self.order)


class Server:
    """An open connection to one store; use as ``async with``."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.url, self.patience = url.rstrip("/"), patience
        self.reached = False

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.patience.connect, sock_read=self.patience.read
        )
        connector = aiohttp.TCPConnector(limit=self.patience.at_once)
        self.session = aiohttp.ClientSession(
            timeout=timeout, connector=connector, trust_env=True, auto_decompress=False
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.session.close()

    async def get(self, key: str) -> bytes | None:
        """Bytes of an object; None if the store has none (404). Tries again what may pass.

        UnreachableError if not even the first connection is made; UserError when patience ends.
        """
        said = ""
        for attempt in range(self.patience.attempts):
            if attempt:
                await asyncio.sleep(self.patience.pause * 2 ** (attempt - 1))
            try:
                async with self.session.get(f"{self.url}/{key}") as answer:
                    self.reached = True
                    if answer.status == 404:
                        return None
                    if answer.status not in _AGAIN:
                        if answer.status != 200:
                            raise UserError(
                                f"{self.url}/{key}: the server answers {answer.status} "
                                f"{answer.reason}; check the card's url"
                            )
                        return await answer.read()
                    said = f"the server answers {answer.status} {answer.reason}"
            except aiohttp.ClientSSLError as error:
                raise UserError(f"{self.url}: no secure connection: {error}") from None
            except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError) as error:
                said = str(error)
                if not self.reached:
                    raise UnreachableError(said) from None
            except (aiohttp.ClientError, TimeoutError) as error:
                said = str(error) or type(error).__name__
                if not self.reached and isinstance(error, TimeoutError):
                    raise UnreachableError(f"no answer from {self.url}") from None
        raise UserError(
            f"{self.url}/{key}: given up after {self.patience.attempts} tries: {said}; what is "
            "there already is kept: run the same command again to go on"
        )

    async def metadata(self) -> dict[str, Any]:
        """Consolidated metadata of the store."""
        data = await self.get(".zmetadata")
        if data is None:
            raise UserError(f"{self.url}: no .zmetadata there: not a consolidated zarr 2 store")
        try:
            return dict(json.loads(data)["metadata"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.url}/.zmetadata is not zarr metadata: {error}") from None

    async def chunk(self, array: RemoteArray, place: Sequence[int]) -> NDArray[Any] | None:
        """One whole chunk; None if the store lost it. A body that does not decode is retried."""
        key = f"{array.name}/{array.separator.join(map(str, place)) or '0'}"
        for attempt in range(self.patience.attempts):
            if attempt:
                await asyncio.sleep(self.patience.pause * 2 ** (attempt - 1))
            data = await self.get(key)
            if data is None:
                return None
            try:
                return await asyncio.to_thread(array.decode, data)
            except (ValueError, RuntimeError) as error:
                said = f"{len(data)} bytes that do not decode ({error})"
        raise UserError(f"{self.url}/{key}: {said}, {self.patience.attempts} times over")

    async def region(
        self, array: RemoteArray, wanted: dict[str, NDArray[np.int64]]
    ) -> tuple[NDArray[Any], int]:
        """Values at the ``wanted`` numbers along each dimension (default: all); chunks lost.

        Cells of a lost chunk are NaN (0 where the type has none).
        """
        numbers = [
            wanted.get(d, np.arange(n)) for d, n in zip(array.dims, array.shape, strict=True)
        ]
        blank = math.nan if array.dtype.kind == "f" else 0
        out = np.full([len(n) for n in numbers], blank, array.dtype.newbyteorder("="))
        lost = 0
        touched = [np.unique(n // c) for n, c in zip(numbers, array.chunks, strict=True)]

        async def place_one(place: tuple[int, ...]) -> int:
            values = await self.chunk(array, place)
            if values is None:
                return 1
            inside = [n // c == p for n, c, p in zip(numbers, array.chunks, place, strict=True)]
            local = [n[i] % c for n, c, i in zip(numbers, array.chunks, inside, strict=True)]
            out[np.ix_(*inside)] = values[np.ix_(*local)]
            return 0

        lost = sum(await asyncio.gather(*(place_one(p) for p in itertools.product(*touched))))
        return out, lost

    async def variable(self, array: RemoteArray) -> xr.Variable:
        """A whole small array: a coordinate or a static field."""
        values, lost = await self.region(array, {})
        if lost:
            raise UserError(
                f"{self.url}/{array.name}: {lost} chunks of it are absent on the server"
            )
        return xr.Variable(array.dims, values, array.attributes)
