"""How many network evaluations each sampler needs, ours and others', with an exact denoiser.

    python benchmarks/samplers.py [--library sciladm azula …] [--most 400]

Six independent modes of variance v = 1 … 0.003 and σ from 30 down. For Gaussian data a sampler is
an affine map of its start and its fresh noise, so that unit impulses give each mode's standard
deviation exactly. Printed: sample over true standard deviation with at most 20 evaluations, and
the fewest evaluations (corrector calls counted, each on its own) from which on the worst mode
stays within 3 % and 1 %. Every sampler may choose among three σ_min, for all modes the same; ours
by default has one.
"""

import argparse
from collections.abc import Iterator

import torch
from peers import LIBRARIES, Candidate, candidates
from torch import Tensor

VARIANCES = torch.tensor([1, 0.3, 0.1, 0.03, 0.01, 0.003], dtype=torch.float64)
SIGMA_MAX = 30.0


def spread(candidate: Candidate, steps: int, sigma_min: float) -> tuple[Tensor, int]:
    """Sample over true standard deviation of each mode; number of evaluations."""
    calls, asked = [], [0]

    def denoise(x: Tensor, sigma: float | Tensor, **_) -> Tensor:
        calls.append(sigma)
        level = torch.as_tensor(sigma, dtype=torch.float64)
        return x * (VARIANCES / (VARIANCES + level.reshape(-1, 1) ** 2))

    def listen(draw: int) -> Tensor:
        asked.append(draw)
        return torch.zeros(1, len(VARIANCES), dtype=torch.float64)

    candidate.prepare(steps, SIGMA_MAX, sigma_min)(denoise, listen(0), listen)
    evaluations = len(calls)
    impulse = torch.eye(max(asked) + 1, dtype=torch.float64)[:, :, None].expand(-1, -1, 6)
    run = candidate.prepare(steps, SIGMA_MAX, sigma_min)
    gains = run(denoise, impulse[0], lambda draw: impulse[draw].clone())
    return (gains.square().sum(0) / VARIANCES).sqrt(), evaluations


def ladder(most: int) -> Iterator[int]:
    """4, 5, 6 … 40, then 5 % more each."""
    steps = 4
    while steps <= most:
        yield steps
        steps = steps + 1 if steps < 40 else int(steps * 1.05)


def needs(candidate: Candidate, sigma_min: float, most: int) -> dict:
    """Evaluations for 3 % and 1 %, ratios at 20; the search ends three rungs after 1 %."""
    tried: list[tuple[int, float]] = []
    found = {"ratios": None, "sigma_min": sigma_min}
    for steps in ladder(most):
        ratios, evaluations = spread(candidate, steps, sigma_min)
        if evaluations > most:
            break
        tried.append((evaluations, float((ratios - 1).abs().max())))
        if evaluations <= 20:
            found["ratios"] = ratios
        if len(tried) > 2 and evaluations > 20 and all(error <= 0.01 for _, error in tried[-3:]):
            break
    for bar in (0.03, 0.01):
        good = len(tried)
        while good and tried[good - 1][1] <= bar:
            good -= 1
        found[bar] = tried[good][0] if good < len(tried) else most + 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--library", nargs="*", choices=list(LIBRARIES))
    parser.add_argument("--most", type=int, default=400, help="evaluations to go to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [c for c in candidates() if not given.library or c.library in given.library]
    levels = " | ".join(f"v = {float(v):g}" for v in VARIANCES)
    print(f"\n| library | sampler | σ_min | to 3 % | to 1 % | {levels} |")
    print("|---" * (5 + len(VARIANCES)) + "|")
    for row in rows:
        best = min(
            (needs(row, end, given.most) for end in row.ends),
            key=lambda found: (found[0.01], found[0.03]),
        )
        ratios = "–" if best["ratios"] is None else " | ".join(f"{r:.3f}" for r in best["ratios"])
        count = [
            f"{n}" if n <= given.most else f"> {given.most}" for n in (best[0.03], best[0.01])
        ]
        print(
            f"| {row.library} | {row.name} | {best['sigma_min']:.3g} | {count[0]} | {count[1]} "
            f"| {ratios} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
