"""Processes that simulate beside this one, and do not run the script that asked again."""

import multiprocessing as mp
import sys
from multiprocessing.context import SpawnContext, SpawnProcess


class _Apart(SpawnProcess):
    def start(self) -> None:
        """Hides the script from `multiprocessing` while it writes down what the child loads."""
        main = sys.modules["__main__"]
        spec, script = main.__spec__, main.__dict__.pop("__file__", None)
        main.__spec__ = None
        try:
            super().start()
        finally:
            main.__spec__ = spec
            if script is not None:
                main.__file__ = script


class _ApartContext(SpawnContext):
    Process = _Apart


def beside(world: object) -> SpawnContext:
    """A context of `multiprocessing` for what ``world`` is to do. A spawned process looks for that
    in the user's script, and runs all that no `if __name__ == "__main__"` guards there: only for
    a world that is written there."""
    return mp.get_context("spawn") if type(world).__module__ == "__main__" else _ApartContext()
