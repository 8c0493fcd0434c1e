"""What drawing in latent space saves: the same recipe with and without an autoencoder.

    python benchmarks/latent_vs_grid.py [--seconds 400] [--seeds 0 1] [--cases 64] [--members 16]

The world of recipes/two-regimes.yaml, whose best forecast is known exactly. Both sides have the
same kind of network (the grid's has two more resolutions above, so that it sees as far), the same
batch, and as many steps as fit the same process CPU time, everything that is fitted included.
Then one-day forecasts with few and many evaluations, encoding and decoding included: fair CRPS
as a multiple of the exact ensemble's against CPU seconds per member. The ratio of costs is that
at equal score: the cheapest setting of each side that is as good as the worse side's best. Exits
with 1 below the bar of 10.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciladm import recipe as recipes
from sciladm.data.dataset import DataSet, open_dataset
from sciladm.data.plan import ForecastPlan
from sciladm.data.windows import resolve_init
from sciladm.metrics.ensemble import fair_crps
from sciladm.model import Model
from sciladm.simulate.regimes import TwoRegimes
from sciladm.tasks.fit import fit
from sciladm.tasks.forecast import from_states

RECIPE = Path(__file__).parents[1] / "recipes" / "two-regimes.yaml"
DAY = np.array([86_400_000_000_000], "m8[ns]")
PROBE = 0.25
"""How much longer a run must take than one of ten steps to tell what a step costs: less is lost in
the noise of all that is fitted beside them."""
EVALUATIONS = (4, 5, 6, 8, 12, 18)
SIDES = {
    "latent": {},
    "grid": {
        "autoencoder.patch": 1,
        "autoencoder.channels": 1,
        "denoiser.widths": [48, 48, 48, 64],
    },
}


@dataclass(frozen=True)
class Point:
    """CPU seconds per member, and what they buy."""

    evaluations: int
    cost: float
    crps: float
    calibration: float


def train(
    changes: dict[str, Any], seconds: float, seed: int, folder: Path
) -> tuple[Model, DataSet, float]:
    """As many steps as ``seconds`` of CPU time hold; → what it took."""
    told = changes | {"seed": seed, "denoiser.mean_steps": 0}

    def run(steps: int) -> tuple[Model, DataSet, float]:
        recipe = recipes.load(RECIPE, told | {"denoiser.steps": steps})
        data = open_dataset(recipe)
        start = time.process_time()
        model = fit(recipe, data, folder / f"{seed}-{steps}")
        return model, data, time.process_time() - start

    few, steps, took = run(10)[2], 10, 0.0
    while took < (1 + PROBE) * few:
        steps *= 3
        took = run(steps)[2]
    each = (took - few) / (steps - 10)
    whole = round(10 + (seconds - few) / each)
    if whole <= steps:  # a run of as many steps is there already, and would be found finished
        sys.exit(f"--seconds {seconds:.0f}: what is fitted beside the steps takes {few:.0f} alone")
    return run(whole)


def scores(model: Model, data: DataSet, cases: int, members: int) -> list[Point]:
    """One for each number of evaluations."""
    times, fields = data.frames.times, data.fields
    init = resolve_init(f"test:0:{cases}", times, data.splits, DAY[0], 0 * DAY[0])
    truth = data.frames.read(init + 1)
    state = fields.to_dataset(data.frames.read(init[:1])[0], (), {})
    size, found = model.recipe.micro_batch, []
    blocks = ForecastPlan(state, times[init], DAY, members, size).blocks()
    for evaluations in EVALUATIONS:
        changes = {"sampler.steps": evaluations}
        tried = replace(model, recipe=recipes.after_training(model.recipe, changes))
        for part in ("autoencoder", "residual", "denoiser"):
            vars(tried)[part] = getattr(model, part)
        start = time.process_time()
        drawn = [
            states[:, 0]
            for _, states in from_states(tried, data.frames, init, DAY, 0).draw(blocks, 1)
        ]
        cost = (time.process_time() - start) / (cases * members)
        ensemble = np.concatenate(drawn).reshape(cases, members, *truth.shape[1:])
        found.append(Point(evaluations, cost, *scored(ensemble, truth)))
    return found


def exact(data: DataSet, cases: int, members: int) -> tuple[float, float]:
    """Fair CRPS and spread–skill of the best there is."""
    init = resolve_init(f"test:0:{cases}", data.frames.times, data.splits, DAY[0], 0 * DAY[0])
    world, random = TwoRegimes(), np.random.default_rng(0)
    laws = [world.predictive(state, 1.0) for state in data.frames.read(init)]
    drawn = np.stack([law.sample(random, members) for law in laws])
    return scored(drawn, data.frames.read(init + 1))


def scored(drawn: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Fair CRPS and spread–skill of (case, member, …) against (case, …)."""
    by_member = np.moveaxis(drawn, 1, 0).astype(np.float64)
    error = np.square(by_member.mean(0) - truth).mean()
    spread = by_member.var(0, ddof=1).mean() * (1 + 1 / len(by_member))
    return float(fair_crps(by_member, truth).mean()), float(np.sqrt(spread / error))


def ratio(sides: dict[str, list[Point]]) -> float:
    """Of the costs at which both are as good as the worse side's best."""
    bar = max(min(p.crps for p in points) for points in sides.values())
    cheapest = {
        name: min(p.cost for p in points if p.crps <= bar) for name, points in sides.items()
    }
    return cheapest["grid"] / cheapest["latent"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--cases", type=int, default=64)
    parser.add_argument("--members", type=int, default=16)
    given = parser.parse_args()
    ratios = []
    for seed in given.seeds:
        sides = {}
        for name, changes in SIDES.items():
            with tempfile.TemporaryDirectory() as folder:
                model, data, took = train(changes, given.seconds, seed, Path(folder))
                sides[name] = scores(model, data, given.cases, given.members)
            best = exact(data, given.cases, given.members)
            steps = model.recipe.denoiser.steps
            print(f"seed {seed}, {name}: {steps} steps in {took:.0f} CPU s", flush=True)
            for p in sides[name]:
                print(
                    f"  {p.evaluations:3} evaluations  {1e3 * p.cost:7.1f} ms a member  "
                    f"fair CRPS / exact {p.crps / best[0]:.4f}  spread–skill {p.calibration:.3f} "
                    f"(exact {best[1]:.3f})",
                    flush=True,
                )
        ratios.append(ratio(sides))
        print(f"seed {seed}: the grid costs {ratios[-1]:.1f} times as much at equal score")
    print(f"ratio {min(ratios):.1f} to {max(ratios):.1f} (bar: 10)")
    sys.exit(min(ratios) < 10)


if __name__ == "__main__":
    main()
