"""What survives a power cut: durable files, and one program at a time in a folder."""

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sciladm.conventions import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a UserError; the store stays resumable."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot write {path}: {reason}. What is finished is safe: make room or mend the "
            "permission, then run the same command again to go on"
        ) from error


def sync(*paths: Path) -> None:
    """Make files, or the lists of names in folders, durable: side by side, for they only wait."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(_sync, paths))


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot; its file system logs names by itself
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole, or not at all; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def publish(partial: Path, path: Path) -> None:
    """Give a finished folder its name, once all of it is durable; what had the name before stays
    beside it until then, and comes back where that fails."""
    sync(*partial.rglob("*"), partial)
    old = path.with_name(f".{path.name}.replaced")
    if replaced := path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.replace(old)
    try:
        partial.replace(path)
    except OSError:
        if replaced:
            old.replace(path)
        raise
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_partial(path: Path) -> None:
    """Delete what writes that were cut short left behind; only rank 0, before others start."""
    for leftover in path.rglob("*.partial"):
        leftover.unlink(missing_ok=True)


def hold(path: Path) -> int | None:
    """Hold the folder for one program; the system lets go when the process ends, however."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            f"another program is writing to {path}; wait for it, or give another --out"
        ) from None
    return descriptor


class Locked:
    """What holds a lock of `hold`, as ``_lock``, until its context ends."""

    _lock: int | None

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
