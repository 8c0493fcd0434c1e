"""Processes that help to simulate, and know nothing of the script that asked."""

import sys
from multiprocessing.context import SpawnContext, SpawnProcess


class Helper(SpawnProcess):
    """A spawned process would run the user's script again, all that `if __name__ == "__main__"`
    does not guard, to find there what it is to do: in the simulator alone is all it needs."""

    def start(self) -> None:
        """As of a session without a script."""
        main = sys.modules["__main__"]
        script, spec = main.__dict__.pop("__file__", None), main.__spec__
        main.__spec__ = None
        try:
            super().start()
        finally:
            main.__spec__ = spec
            if script is not None:
                main.__file__ = script


class Helpers(SpawnContext):
    """A context of `multiprocessing` whose processes are these."""

    Process = Helper


HELPERS = Helpers()
