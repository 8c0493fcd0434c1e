"""What guidance does to an ensemble whose right answer is known: `python benchmarks/guidance.py`.

Prints the tables of docs/guidance.md. All denoisers are exact, so that nothing but guidance is to
blame; a table takes seconds on one core.
"""

import math

import numpy as np
import torch

from sciladm.diffusion.guidance import apart, guided, resting
from sciladm.diffusion.sampler import Multistep
from sciladm.metrics.ensemble import fair_crps

CASES, MEMBERS = 4096, 16
SAMPLER = Multistep(40, 100.0, 5e-3)
WAYS = [(1.0, None), (1.25, None), (1.5, None), (2.0, None), (3.0, None), (1.5, (0.1, 1.0)),
        (2.0, (0.1, 1.0)), (3.0, (0.1, 1.0))]  # fmt: skip


def normal(mean, variance):
    """The exact denoiser of N(mean, variance)."""
    return lambda x, sigma: mean + (x - mean) * (variance / (variance + sigma**2))


def mixture(share, places, variance):
    """The exact denoiser of share · N(places[1], variance) + (1 − share) · N(places[0], …)."""

    def denoise(x, sigma):
        total = variance + sigma**2
        middle, half = (places[1] + places[0]) / 2, (places[1] - places[0]) / 2
        odds = math.log(share / (1 - share)) + 2 * half * (x - middle) / total
        right = torch.sigmoid(odds)
        each = [normal(place, variance)(x, sigma) for place in places]
        return right * each[1] + (1 - right) * each[0]

    return denoise


def steered(good, poor, weight, interval):
    denoise = guided(apart(good, poor), weight)
    return denoise if interval is None else resting(denoise, good, *interval)


def named(weight, interval):
    return f"{weight:g}" + (f", {interval[0]:g} < σ ≤ {interval[1]:g}" if interval else "")


def forecasts(poor_of, title):
    """Tomorrow b = ρ a + √(1 − ρ²) n of today's a: three scales, ρ = 0.9, 0.6, 0.3."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    memory = torch.tensor([0.9, 0.6, 0.3], dtype=torch.float64)
    rest = 1 - memory**2
    today, noise = draw(CASES, 3), draw(MEMBERS, CASES, 3)
    truth = memory * today + rest.sqrt() * draw(CASES, 3)
    good = normal(memory * today, rest)
    print(f"\n### {title}\n")
    print("| weight | spread / right, ρ = 0.9, 0.6, 0.3 | spread–skill | fair CRPS / exact |")
    print("|---|---|---|---|")
    exact = None
    for weight, interval in WAYS:
        drawn = SAMPLER.sample(
            steered(good, poor_of(memory * today, rest), weight, interval), noise
        )
        spread = drawn.var(0).mean(0)
        skill = (drawn.mean(0) - truth).square().mean(0)
        ratio = ((1 + 1 / MEMBERS) * spread.sum() / skill.sum()).sqrt()
        crps = float(np.mean(fair_crps(drawn.numpy(), truth.numpy())))
        exact = exact or crps
        sizes = " ".join(f"{s:.2f}" for s in (spread / rest).sqrt().tolist())
        print(f"| {named(weight, interval)} | {sizes} | {ratio:.2f} | {crps / exact:.3f} |")


def regimes(good, poor, title):
    """0.3 · N(1, 0.25) + 0.7 · N(−1, 0.25), or one of the two by its label."""
    noise = torch.special.ndtri((torch.arange(40000, dtype=torch.float64) + 0.5) / 40000)
    print(f"\n### {title}\n")
    print("| weight | mean | share right of 0 | mean and standard deviation of these |")
    print("|---|---|---|---|")
    for weight, interval in WAYS:
        drawn = SAMPLER.sample(steered(good, poor, weight, interval), noise)
        right = drawn[drawn > 0]
        share, size = len(right) / len(drawn), f"{right.mean():.2f} ± {right.std():.2f}"
        print(f"| {named(weight, interval)} | {drawn.mean():.2f} | {share:.2f} | {size} |")


def main():
    forecasts(lambda mean, rest: normal(0 * mean, 1 + 0 * rest),
              "Classifier-free: a Gaussian forecast, without context the climate")  # fmt: skip
    forecasts(lambda mean, rest: normal(0.9 * mean, 1.3 * rest),
              "Autoguidance: the same forecast, the weaker copy blurred and timid")  # fmt: skip
    both = mixture(0.3, (-1.0, 1.0), 0.25)
    regimes(normal(1.0, 0.25), both, "Classifier-free: the right regime by its label")
    regimes(both, mixture(0.35, (-0.9, 0.9), 0.35), "Autoguidance: both regimes, no label")


if __name__ == "__main__":
    main()
