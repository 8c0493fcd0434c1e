"""Peak memory of a forecast against its number of members.

    python benchmarks/memory.py RUN [--members 16 160] [--init test:0:2] [--lead 5d]

Each forecast is a process of its own; its peak is the kernel's (maximum resident set size). Also
without what Python and its libraries take, which a forecast of one member on one lead stands for.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path


def peak(line: list[str]) -> float:
    """Largest resident set of a command [MB]."""
    child = os.posix_spawn(sys.executable, line, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"{' '.join(line)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--members", type=int, nargs=2, default=[16, 160])
    parser.add_argument("--init", default="test:0:2")
    parser.add_argument("--lead", default="5d")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:

        def forecast(members: int, lead: str, init: str) -> float:
            out = f"{name}/{members}-{lead}.zarr"
            line = [sys.executable, "-m", "sciladm.forecast", str(given.run), "--quiet"]
            options = ["--init", init, "--lead", lead, "--members", str(members), "--out", out]
            return peak(line + options)

        floor = forecast(1, "1step", "test:0")
        few, many = (forecast(members, given.lead, given.init) for members in given.members)
    for members, mb in zip((1, *given.members), (floor, few, many), strict=True):
        print(f"{members:4} members: peak {mb:7.1f} MB")
    print(f"ratio {many / few:.3f} (bar: < 1.1); growth {many - few:+.1f} MB")
    sys.exit(many >= 1.1 * few)


if __name__ == "__main__":
    main()
