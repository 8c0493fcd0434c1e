"""What a network is told to say, at which noise levels, with which weights: each against the rest.

    python benchmarks/training_levels.py [--steps 200] [--worlds white steep] [--seed 0]

A small network learns a Gaussian field on a ring whose denoiser is known for every σ and state.
`kl` is how far its draws are from the truth in nats a number, ∫ |D − D*|² / σ² d ln σ (Verdú
2010, IEEE Trans. Inf. Theory 56, 3712); `wrong` is |D − D*|² over what D* leaves, its mean over
every σ that a sampler passes. A learned weighting is a log variance, a function of σ, in the loss
e / exp(u) + u (Kendall et al. 2018, arXiv:1705.07115).
"""

import argparse
from math import log

import torch
from torch import Tensor, nn

from sciladm.diffusion import levels
from sciladm.diffusion.noise import training_generator, training_sigma
from sciladm.diffusion.parametrisation import PARAMETRISATIONS, Parametrisation
from sciladm.nn.unet import UNet
from sciladm.training.average import Average
from sciladm.training.muon import Muon
from sciladm.training.optim import schedule

CELLS, BATCH, RATE = 32, 48, 1e-2
WORLDS = {
    "white": (torch.linspace(1.5, 0.6, 17), 0.4),
    "small": (0.01 * torch.linspace(1.5, 0.6, 17), 0.4),
    "steep": (10 ** torch.linspace(0.6, -3, 17), 0.0),
}
"""Variances by wavenumber of the first channel, the second has 0.7 of them; and by how much ln of
the amplitude varies with the state, which the network sees."""


class World:
    """A Gaussian field on a ring, and its exact denoiser."""

    def __init__(self, name: str) -> None:
        first, self.state = WORLDS[name]
        self.variances = torch.stack([first, 0.7 * first])

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """r (count, 2, cell), what is known of it, its amplitude."""
        state = torch.randn(count, 1, 1, generator=generator)
        white = torch.randn(count, 2, CELLS, generator=generator)
        amplitude = (self.state * state).exp()
        waves = torch.fft.rfft(white) * self.variances.sqrt() * amplitude
        return torch.fft.irfft(waves, CELLS), state.expand(-1, 1, CELLS), amplitude

    def best(self, x: Tensor, sigma: float, amplitude: Tensor) -> tuple[Tensor, Tensor]:
        """D*, and the variance that it leaves in each mode."""
        own = self.variances * amplitude**2
        share = own / (own + sigma**2)
        return torch.fft.irfft(torch.fft.rfft(x) * share, CELLS), share * sigma**2


class Network(nn.Module):
    """What a network says of x at σ, knowing the state."""

    def __init__(self, method: Parametrisation) -> None:
        super().__init__()
        self.method = method
        self.backbone = UNet(3, 2, ("periodic",), widths=(24, 32), blocks=1, attention=False)

    def forward(self, x: Tensor, sigma: Tensor, known: Tensor) -> Tensor:
        """x, known (batch, …, cell), σ (batch, 1, 1) → F (batch, 2, cell)."""
        x_t, t = self.method.seen(x, sigma)
        said: Tensor = self.backbone(torch.cat([x_t, known], dim=1), t.flatten())
        return said


def train(world: World, network: Network, centre: float, spread: float, learned: bool,
          steps: int, seed: int) -> Average:  # fmt: skip
    optimiser, average = Muon(network.parameters(), lr=RATE, weight_decay=0.01), Average(network)
    spoken = nn.Linear(64, 1, bias=False)  # ln of the expected loss, as a function of σ
    nn.init.zeros_(spoken.weight)
    weights = torch.optim.Adam(spoken.parameters(), lr=1e-2)
    for step in range(steps):
        generator = training_generator(seed, step)
        r, known, _ = world.draw(BATCH, generator)
        noise = torch.randn(r.shape, generator=generator)
        sigma = training_sigma(seed, step, BATCH, centre, spread)[:, None, None]
        goal = network.method.goal(r, noise, sigma)
        wrong = (network(r + sigma * noise, sigma, known) - goal).square().mean((1, 2))
        if learned:
            angle = sigma[:, :, 0].log() / 4 * network.backbone.embed.frequencies
            u = spoken(torch.cat([angle.sin(), angle.cos()], dim=1))[:, 0] / 32**0.5
            wrong = wrong / u.exp() + u
        for one in (optimiser, weights):
            one.zero_grad()
        wrong.mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = RATE * schedule(step, steps, 30)
        optimiser.step()
        weights.step()
        average.update(step)
    return average


@torch.no_grad()
def errors(world: World, network: Network) -> tuple[float, float]:
    ends = 0.3 * float(world.variances.min()) ** 0.5, 30 * float(world.variances.max()) ** 0.5
    grid = torch.linspace(log(ends[0]), log(ends[1]), 25)
    nats, share = [], []
    for number, sigma in enumerate(grid.exp().tolist()):
        generator = training_generator(99, number)
        r, known, amplitude = world.draw(256, generator)
        x, level = r + sigma * torch.randn(r.shape, generator=generator), torch.tensor(sigma)
        said = network(x, level.expand(256, 1, 1), known)
        best, left = world.best(x, sigma, amplitude)
        off = network.method.denoised(said, x, level) - best
        nats.append(float(off.square().mean()) / sigma**2)
        share.append(float((torch.fft.rfft(off, norm="ortho").abs().square() / left).mean()))
    return float(torch.trapezoid(torch.tensor(nats), grid)), sum(share) / len(share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("world  says  centre spread weights      kl   wrong")
    for name in given.worlds:
        world = World(name)
        centre, spread = levels.training_levels(world.draw(600, training_generator(7, 0))[0])
        lone = spread / levels.WIDER
        rows = [("edm", 0.0, 1.4, False)]
        rows += [("edm", centre, wider * lone, False) for wider in (1.0, 1.5, 2.0)]
        rows += [("edm", centre, spread, True)]
        rows += [(says, centre, spread, False) for says in ("v", "flow", "noise")]
        for says, middle, width, learned in rows:
            torch.manual_seed(given.seed)
            network = Network(PARAMETRISATIONS[says])
            average = train(world, network, middle, width, learned, given.steps, given.seed)
            with average.applied():
                kl, wrong = errors(world, network)
            weights = "learned" if learned else "own"
            row = (
                f"{name:6} {says:5} {middle:6.2f} {width:6.2f} {weights:7} {kl:7.4f} {wrong:7.4f}"
            )
            print(row, flush=True)


if __name__ == "__main__":
    main()
