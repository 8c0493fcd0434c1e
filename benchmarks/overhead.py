"""What a sampler adds to each of its steps above the network, in time; ours and others'.

    python benchmarks/overhead.py [--rounds 40] [--device cpu] [--shape 16 8 16 16]

Process CPU time on one thread (on a GPU: wall time). The network is the identity, its bare call is
taken off. A step is (T(40 steps) − T(20 steps))/20,
so that what is done once per sample counts for nobody. All candidates take their turn in every
round; printed are medians over rounds with 95 % bootstrap intervals, and for each order the ratio
of our sampler to the fastest of the others, paired by round.
"""

import argparse
import time

import numpy as np
import torch
from peers import Candidate, candidates, identity
from torch import Tensor

FEW, MANY, REPEATS = 20, 40, 3


def seconds(candidate: Candidate, steps: int, noise: Tensor) -> float:
    """Fastest of a few runs; set-up apart."""
    best = float("inf")
    for _ in range(REPEATS):
        run = candidate.prepare(steps, 30.0, 0.0164)
        start = clock(noise)
        run(identity, noise, lambda draw: noise)
        best = min(best, clock(noise) - start)
    return best


def clock(noise: Tensor) -> float:
    """Seconds, once the device has done what it was told."""
    if not noise.is_cuda:
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def bare(noise: Tensor) -> float:
    """One call of the network [s]."""
    start = clock(noise)
    for _ in range(1000):
        identity(noise, 1.0)
    return (clock(noise) - start) / 1000


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Median with its 95 % bootstrap interval over rounds."""
    drawn = np.random.default_rng(seed).choice(values, (2000, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", type=int, nargs="+", default=[16, 8, 16, 16])
    given = parser.parse_args()
    torch.set_num_threads(1)
    noise = torch.randn(given.shape, device=given.device)
    rows = [c for c in candidates() if "churn" not in c.name]
    evaluations = {id(c): _evaluations(c, noise) for c in rows}
    times: dict[int, list[float]] = {id(c): [] for c in rows}
    with torch.inference_mode():
        for _ in range(given.rounds + 1):
            for row in rows:
                step = (seconds(row, MANY, noise) - seconds(row, FEW, noise)) / (MANY - FEW)
                times[id(row)].append(1e6 * (step - evaluations[id(row)] * bare(noise)))
    made = {row: np.array(times[id(row)][1:]) for row in rows}  # the first round warms up
    print("\n| order | library | sampler | evaluations a step | µs a step | 95 % |")
    print("|---" * 6 + "|")
    for row, values in sorted(made.items(), key=lambda item: (item[0].order, np.median(item[1]))):
        middle, low, high = interval(values)
        calls = f"{evaluations[id(row)]:.0f}"
        cells = [f"{row.order}", row.library, row.name, calls, f"{middle:.0f}"]
        print("| " + " | ".join(cells) + f" | {low:.0f} … {high:.0f} |")
    for order in sorted({row.order for row in rows}):
        _verdict(order, made)


def _evaluations(candidate: Candidate, noise: Tensor) -> float:
    """Calls of the network per step."""
    calls = []

    def count(x: Tensor, sigma: float | Tensor, **_) -> Tensor:
        calls.append(sigma)
        return x

    ends = []
    for steps in (FEW, MANY):
        candidate.prepare(steps, 30.0, 0.0164)(count, noise, lambda draw: noise)
        ends.append(len(calls))
    return (ends[1] - 2 * ends[0]) / (MANY - FEW)


def _verdict(order: int, made: dict[Candidate, np.ndarray]) -> None:
    same = {row: values for row, values in made.items() if row.order == order}
    others = {row: v for row, v in same.items() if row.library != "sciladm"}
    if not others:
        return print(f"order {order}: nobody to compare with")
    best = min(others, key=lambda row: np.median(others[row]))
    for row, values in same.items():
        if row.library == "sciladm":
            middle, low, high = interval(values / others[best])
            against = f"{best.library} {best.name}"
            print(f"order {order}: {row.name} / {against} = {middle:.2f} ({low:.2f} … {high:.2f})")


if __name__ == "__main__":
    main()
