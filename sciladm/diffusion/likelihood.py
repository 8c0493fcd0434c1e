"""How likely data are: the change of variables along the probability flow.

With x(σ) the flow's path from data r of d numbers, and J = ∂D/∂x,

    log p(r) = log p(x(σ_max), σ_max) + ∫ (d − tr J) d(ln σ)        from σ = 0 to σ_max

(Chen et al. 2018, arXiv:1806.07366, eq. 8; Song et al. 2021, arXiv:2011.13456, eq. 39). At σ_max
data are a spot in noise, x = μ + (σ² + λ)^½ ξ for modes of mean μ and variance λ ≪ σ², so that
ε = (x − D) / σ = ξ (1 + λ/σ²)^−½ knows of no mean, tr J = Σ λ/(σ² + λ), and

    log p(x, σ) = log N(ε; 0, 1) − d ln σ − tr J

but for Σ ½ (ξ² − 1) λ/σ².
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciladm.diffusion.flow import Flow
from sciladm.diffusion.noise import Key, unit_normal
from sciladm.diffusion.sampler.base import Denoise


class Traced:
    """A denoiser that notes vᵀ J v of every evaluation, J = ∂D/∂x, for probes v.

    probes: (probe, batch or 1, channel, *space), such that the mean of v vᵀ is 1: then the mean
    of ``seen`` (evaluation, probe, batch), float64, over probes is the trace. By backward
    differentiation, one pass per probe. Samples of a batch must not know of each other.
    ``noise`` is ε = (x − D) / σ of the last evaluation.
    """

    def __init__(self, denoise: Denoise, probes: Tensor) -> None:
        self.denoise, self.probes = denoise, probes
        self.seen: list[Tensor] = []
        self.noise = probes

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The denoiser's answer."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            out = self.denoise(x, sigma)
            found = []
            for probe in self.probes:
                probe = probe.expand_as(out)
                (rows,) = torch.autograd.grad(out, x, probe, retain_graph=True)
                found.append((rows * probe).flatten(1).double().sum(1))
        self.seen.append(torch.stack(found))
        self.noise = (x - out).detach() / sigma
        return out.detach()


def axes(shape: Sequence[int], like: Tensor) -> Tensor:
    """Probes that give the trace exactly, one per number of a sample of ``shape`` (channel,
    *space): (number, 1, channel, *space)."""
    count = math.prod(shape)
    return math.sqrt(count) * torch.eye(count).to(like).view(count, 1, *shape)


def signs(keys: Sequence[Key], count: int, channels: int, space: Sequence[int]) -> Tensor:
    """``count`` probes of random signs (count, keys, channel, *space), which belong to the keys
    (Hutchinson 1990): the same at every noise level and at every call. Exact for a diagonal J;
    the error grows with what lies beside the diagonal."""
    drawn = [unit_normal(keys, "probe", n, channels, space).sign() for n in range(count)]
    return torch.stack(drawn)


def log_density(denoise: Denoise, r: Tensor, flow: Flow, probes: Tensor) -> tuple[Tensor, Tensor]:
    """log p of data r (batch, channel, *space) in nats, per probe (probe, batch), float64, and
    the noise that leads to them. Its mean over probes is the answer, its standard deviation over
    √probes the error of that, unless the probes are `axes`."""
    traced = Traced(denoise, probes)
    noise = flow.up(traced, r)
    count = noise[0].numel()
    traces = torch.stack(traced.seen)
    weights = torch.tensor(flow.quadrature, dtype=torch.float64, device=r.device)
    grown = torch.einsum("e,epb->pb", weights, count - traces)
    square = traced.noise.flatten(1).double().square().sum(1)
    constant = count * (math.log(2 * math.pi) / 2 + math.log(flow.sigmas[-1]))
    return grown - square / 2 - constant - traces[-1], noise
