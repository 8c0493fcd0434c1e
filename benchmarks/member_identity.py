"""Whose bits are they? Member 7 and whole stores under every way to run; training under kills.

    python benchmarks/member_identity.py RECIPE RUN [--kills 10] [--seed 0] [--set KEY=VALUE …]

RUN is a trained run; RECIPE is trained anew here, once left alone and once killed. Everything
runs as people run it, by `python -m`, in a temporary folder. Exits 1 if a bit differs.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import xarray as xr

INIT, LEAD = "test:0:12", "3d"


def command(door: str, *options: object) -> list[str]:
    return [sys.executable, "-m", f"sciladm.{door}", *map(str, options), "--quiet"]


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def forecast(run: Path, out: Path, members: int, *options: object) -> Path:
    subprocess.run(asked(run, out, members, *options), check=True)
    return out


def asked(run: Path, out: Path, members: int, *options: object) -> list[str]:
    given = ("--init", INIT, "--lead", LEAD, "--members", members, "--out", out)
    return command("forecast", run, *given, *options)


def equal(a: Path, b: Path, member: int) -> bool:
    with xr.open_zarr(a) as one, xr.open_zarr(b) as other:
        pair = [ds.sel(member=member).load() for ds in (one, other)]
    return all(pair[0][n].values.tobytes() == pair[1][n].values.tobytes() for n in pair[0])


def look(folder: Path) -> dict[str, int]:
    """When each file of a folder was last written, as far as one can see."""
    seen = {}
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                seen[f"{path}/{name}"] = Path(path, name).stat().st_mtime_ns
    return seen


def killed(line: list[str], out: Path, span: float, kills: int, chance: random.Random) -> int:
    """Run `line` again and again, killed -9: every other time up to a third of `span` seconds
    after its start, else up to half a second after it writes to `out`; then to its end. → how
    many were killed before they ended."""
    count = 0
    for number in range(kills):
        before, child = look(out), subprocess.Popen(line)
        while number % 2 and child.poll() is None and look(out) == before:
            time.sleep(0.02)
        try:
            child.wait(chance.uniform(0, 0.5 if number % 2 else span / 3))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            count += 1
    subprocess.run(line, check=True)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    chance, verdicts = random.Random(given.seed), []

    def told(what: str, verdict: bool, note: str = "") -> None:
        verdicts.append(verdict)
        print(f"{'same' if verdict else 'DIFFERS':8}{what}{note and f' ({note})'}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        whole = forecast(given.run, folder / "whole.zarr", 16)
        span = time.perf_counter() - start
        eight = forecast(given.run, folder / "8.zarr", 8)
        told("member 7 of 8 and of 16", equal(whole, eight, 7))
        for batch in (1, 3, 8):
            other = forecast(given.run, folder / f"batch{batch}.zarr", 16, "--batch", batch)
            told(f"every file, --batch {batch}", contents(other) == contents(whole))
        other = forecast(given.run, folder / "seed.zarr", 8, "--seed", 1)
        told("control: another seed is another member 7", not equal(eight, other, 7))
        out = folder / "workers.zarr"
        line = asked(given.run, out, 16)
        workers = ["-m", "torch.distributed.run", "--nproc-per-node", "2", *line[1:]]
        subprocess.run([sys.executable, *workers], check=True, stderr=subprocess.DEVNULL)
        told("every file, two workers", contents(out) == contents(whole))
        out = folder / "killed.zarr"
        line = asked(given.run, out, 16)
        count = killed(line, out, span, given.kills, chance)
        note = f"{count} of {given.kills} runs killed"
        alike = count == given.kills and contents(out) == contents(whole)
        told("every file, forecast killed -9 and resumed", alike, note)
        settings = [part for one in given.settings for part in ("--set", one)]
        paths = [folder / "whole", folder / "killed"]
        lines = [command("train", given.recipe, "--run-dir", p, *settings) for p in paths]
        start = time.perf_counter()
        subprocess.run(lines[0], check=True)
        span = time.perf_counter() - start
        count = killed(lines[1], paths[1], span, given.kills, chance)
        note = f"{count} of {given.kills} runs killed"
        a, b = (contents(p) for p in paths)
        differing = [n for n in a.keys() | b.keys() if a.get(n) != b.get(n)]
        alike = count == given.kills and not differing
        told("every file, training killed -9 and resumed", alike, note)
        print("files of the run:", len(a), "differing:", differing)
    sys.exit(not all(verdicts))


if __name__ == "__main__":
    main()
