"""In-filling by a trained run, beside the exact posterior of its world.

    python -m sciladm.train recipes/gaussian-gaps.yaml --run-dir RUN
    python benchmarks/infill.py RUN --cases 24
    python -m sciladm.train recipes/two-regimes.yaml --set window.past=0 \\
        --set denoiser.mean_steps=0 --set denoiser.masks=24 --set denoiser.gains=true \\
        --set denoiser.steps=900 --set autoencoder.channels=16 --run-dir TWO
    python benchmarks/infill.py TWO --only block twentieth

Test states of a world with known answers are hidden in three ways, or known by their means over
8 × 8 cells alone. The run's members and as many of the exact posterior are scored in the hidden
cells against other draws of that posterior, any of which could have been the truth: fair CRPS over
the exact one's with its 95 % interval over cases, spread–skill, the farthest member from the exact
mean in exact standard deviations; beside them misfit to the observations in standard errors and
seconds of process time per member.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import sciladm
from sciladm.data.catalog import world_of
from sciladm.metrics.ensemble import fair_crps
from sciladm.tasks.run import open_run
from sciladm.tasks.voice import Silent

TRUTHS = 64
TITLE = f"{'problem':10} {'method':9} {'CRPS / exact':>22} {'spread–skill':>13} {'exact':>6} " \
        f"{'farthest':>9} {'exact':>6} {'misfit':>7} {'s/member':>9}"  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """Which cells are observed, or means over how many cells along each axis, and the standard
    error, in standard deviations."""

    seen: np.ndarray
    error: float
    coarse: int = 0

    def operator(self) -> np.ndarray:
        """(observation, cell)."""
        if not self.coarse:
            return np.eye(self.seen.size)[self.seen.ravel()]
        rows, columns = (n // self.coarse for n in self.seen.shape)
        over = np.kron(np.eye(rows * columns).reshape(-1, rows, columns),
                       np.ones((self.coarse, self.coarse)))  # fmt: skip
        return over.reshape(rows * columns, -1) / self.coarse**2

    def asked(
        self, values: np.ndarray, error: float, blank: xr.Dataset
    ) -> tuple[xr.Dataset, list]:
        """``blank`` states with ``values`` (observation,) in them, and what else is told."""
        (name,) = blank.data_vars
        if self.coarse:
            means = blank.coarsen(dict.fromkeys(blank[name].dims[1:], self.coarse)).mean()
            means[name][:] = values.reshape(means[name].shape)
            return blank, [sciladm.AreaMean(means, error)]
        ds = blank.copy(deep=True)
        ds[name].values[0][self.seen] = values
        return ds, []


def problems(shape: tuple[int, int], seed: int) -> dict[str, Problem]:
    """A gap of half the sides, every second cell at random, one in twenty with a large error,
    means."""
    rng = np.random.default_rng(seed)
    rows, columns = shape
    block = np.ones(shape, bool)
    block[rows // 4 : 3 * rows // 4, columns // 4 : 3 * columns // 4] = False
    return {
        "block": Problem(block, 0.01),
        "half": Problem(rng.random(shape) < 0.5, 0.01),
        "twentieth": Problem(rng.random(shape) < 0.05, 0.1),
        "means": Problem(np.zeros(shape, bool), 0.01, coarse=8),
    }


def scores(members: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Fair CRPS, variance within, squared error of the mean, in the mean over cells and truths."""
    spread = members.var(0, ddof=1) * (1 + 1 / len(members))
    error = (members.mean(0) - truths) ** 2
    crps = np.mean([fair_crps(members, truth).mean() for truth in truths])
    return np.array([crps, spread.mean(), error.mean()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--methods", nargs="+", help="absent: all that the run has")
    parser.add_argument("--only", nargs="+", default=["block", "half", "twentieth", "means"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    opened, data = open_run(asked.run, torch.device("cpu"), {}, None, Silent())
    model = sciladm.load(asked.run)
    masked = ["amortised"] if opened.recipe.denoiser.masks else []
    methods = asked.methods or [*masked, "guided", "oi"]
    world = world_of(opened.recipe.data.card, data.source)
    (name,) = (channel.variable for channel in opened.fields.channels)
    law, test = world.climate, data.indices("test")
    size = float(np.sqrt(np.mean(law.variance)))
    chosen = test[np.linspace(0, len(test) - 1, asked.cases).astype(int)]
    print(TITLE)
    for kind, problem in problems(opened.fields.grid.shape, asked.seed).items():
        if kind not in asked.only:
            continue
        rng = np.random.default_rng([asked.seed, len(kind)])
        operator = problem.operator()
        std, hidden = problem.error * size, ~problem.seen
        found: dict[str, list[np.ndarray]] = {method: [] for method in ("exact", *methods)}
        farthest = dict.fromkeys(found, 0.0)
        misfit: dict[str, list[float]] = {method: [] for method in found}
        cost = dict.fromkeys(found, 0.0)
        for number in chosen:
            truth = data.frames.read(np.array([number]))[0, 0].astype(float)
            values = operator @ truth.ravel() + std * rng.standard_normal(len(operator))
            exact = law.condition(operator, values, std)
            middle = exact.mean[0]
            deviation = np.sqrt(np.maximum(exact.variance[0], 1e-12))
            truths = exact.sample(rng, TRUTHS)[:, 0][:, hidden]
            blank = model.unknown(data.frames.times[[number]])
            ds, told = problem.asked(values, std, blank)
            for method in found:
                start = time.process_time()
                if method == "exact":
                    members = exact.sample(rng, asked.members)[:, 0]
                else:
                    filled = model.infill(
                        ds, asked.members, obs_error=std, method=method, workers=1, operator=told
                    )
                    members = filled[name].values[:, 0].astype(float)
                cost[method] += (time.process_time() - start) / asked.members
                found[method].append(scores(members[:, hidden], truths))
                off = np.abs(members - middle)[:, hidden] / deviation[hidden]
                farthest[method] = max(farthest[method], float(off.max()))
                missed = (members.reshape(len(members), -1) @ operator.T - values) / std
                misfit[method].append(float(np.mean(missed**2)))
        report(kind, found, farthest, misfit, {m: c / len(chosen) for m, c in cost.items()})


def report(kind, found, farthest, misfit, cost) -> None:  # type: ignore[no-untyped-def]
    """One line a method."""
    rng = np.random.default_rng(0)
    table = {method: np.array(rows) for method, rows in found.items()}
    calibration = lambda t: float(np.sqrt(t[:, 1].mean() / t[:, 2].mean()))
    exact = table.pop("exact")
    draws = rng.integers(len(exact), size=(2000, len(exact)))
    for method, own in table.items():
        ratio = own[:, 0].mean() / exact[:, 0].mean()
        low, high = np.quantile(own[draws, 0].mean(1) / exact[draws, 0].mean(1), (0.025, 0.975))
        print(
            f"{kind:10} {method:9} {ratio:8.3f} [{low:.3f}, {high:.3f}] {calibration(own):13.3f} "
            f"{calibration(exact):6.3f} {farthest[method]:9.2f} {farthest['exact']:6.2f} "
            f"{np.sqrt(np.mean(misfit[method])):7.3f} {cost[method]:9.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
