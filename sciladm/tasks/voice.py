"""How a task tells of itself while it works; doors lend it a screen."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Voice(Protocol):
    """What a task says and how far it is."""

    def say(self, text: str) -> None:
        """One line of prose."""
        ...

    def progress(self, title: str) -> AbstractContextManager[Callable[..., None]]:
        """Yields ``report(fraction, note="")``, fraction in [0, 1]."""
        ...


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[..., None]]:
        """Nothing."""
        yield lambda fraction, note="": None
