"""Samplers of other libraries and ours behind one call, for benchmarks/samplers.py, overhead.py.

    pip install -e .[bench]                                                # azula, diffusers
    pip install --no-deps k-diffusion torchdiffeq torchsde trampoline      # it wants numpy < 2
    pip install nvidia-physicsnemo                                         # some gigabytes

A library that is not there, or does not import, is named as missing with its own words.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from sciladm.diffusion.sampler import SAMPLERS

Run = Callable[[Callable, Tensor, Callable], Tensor]
"""(denoise(x, σ as float or tensor), noise, fresh(draw)) → samples."""
Prepare = Callable[[int, float, float], Run]
"""(steps, σ_max, σ_min) → a run, to be used once; all that is done once is done here."""


def identity(x: Tensor, sigma: float | Tensor, **_) -> Tensor:
    """A network that costs nothing; the adapters spare it the conversions that are theirs."""
    return x


@dataclass(frozen=True)
class Candidate:
    """A sampler of a library; `grid` is how its noise levels are spaced."""

    library: str
    name: str
    order: int
    prepare: Prepare
    ends: tuple[float, ...] = (0.0164, 0.005, 0.002)  # σ_min to try: the best one is shown


def ours() -> Iterator[Candidate]:
    def make(name: str, label: str, stated: int, ends: tuple[float, ...], **told) -> Candidate:
        def prepare(steps, high, low):
            return SAMPLERS[name](steps, high, low, **told).sample

        return Candidate("sciladm", label, stated, prepare, ends)

    usual, one = Candidate.ends, (0.3 * 0.003**0.5,)
    yield make("multistep", "multistep 3, corrector (default)", 3, one)
    yield make("multistep", "multistep 3", 3, one, corrector=False)
    yield make("multistep", "multistep 2, corrector", 2, one, order=2)
    yield make("dpm_solver", "dpm_solver", 2, usual)
    yield make("dpm_solver_sde", "dpm_solver_sde", 2, usual)
    yield make("heun", "heun", 2, usual)
    yield make("heun", "heun, churn 10", 2, usual, churn=10.0)
    yield make("euler", "euler", 1, usual)
    yield make("euler", "euler, churn 10", 1, usual, churn=10.0)
    yield make("ddim", "ddim", 1, usual)
    yield make("ancestral", "ancestral", 1, usual)
    yield make("langevin", "langevin, 1 correction", 2, usual, corrections=1)
    yield make("langevin", "langevin, 4 corrections", 2, usual, corrections=4)


def azula() -> Iterator[Candidate]:
    sample, denoisers = (
        importlib.import_module("azula.sample"),
        importlib.import_module("azula.denoise"),
    )
    noise_page = importlib.import_module("azula.noise")

    class Exact(denoisers.Denoiser):
        denoise: Callable

        def __init__(self, schedule: Callable) -> None:
            super().__init__()
            self.schedule = schedule

        def forward(self, x_t: Tensor, t: Tensor):
            return denoisers.DiracPosterior(mean=self.denoise(x_t, self.schedule.sigma(t)))

    def make(name: str, label: str, stated: int, **told) -> Candidate:
        def prepare(steps, high, low):
            exact = Exact(noise_page.VESchedule(low, high))
            sampler = getattr(sample, name)(exact, steps=steps, silent=True, **told)

            def run(denoise, noise, fresh):
                exact.denoise, sampler.dtype = denoise, noise.dtype
                count = iter(range(1, 1_000_000))
                with patch.object(torch, "randn_like", lambda _: fresh(next(count))):
                    return sampler(noise * high)

            return run

        return Candidate("azula", label, stated, prepare)

    yield make("xEABSampler", "exponential AB 3, data", 3, order=3)
    yield make("xEABSampler", "exponential AB 2, data", 2, order=2)
    yield make("REABSampler", "Rosenbrock EAB 3", 3, order=3)
    yield make("HeunSampler", "Heun", 2)
    yield make("EulerSampler", "Euler", 1)
    yield make("DDIMSampler", "DDIM", 1)
    yield make("DDPMSampler", "DDPM", 1)
    yield make("PCSampler", "predictor–corrector, δ 0.1", 1, delta=0.1)


def diffusers() -> Iterator[Candidate]:
    library = importlib.import_module("diffusers")

    def precondition(make: Callable) -> Prepare:
        """EDM schedulers take the bare network's output, for σ_data = 0.5."""

        def prepare(steps, high, low):
            scheduler = make(sigma_min=low, sigma_max=high)
            scheduler.set_timesteps(steps)

            def run(denoise, noise, fresh):
                x = noise * high
                for step, time in enumerate(scheduler.timesteps):
                    output = scheduler.scale_model_input(x, time)
                    if denoise is not identity:
                        sigma = scheduler.sigmas[step]
                        total = sigma**2 + 0.25
                        output = denoise(x, sigma) - x * 0.25 / total
                        output = output * total**0.5 / (sigma * 0.5)
                    x = scheduler.step(output, time, x, return_dict=False)[0]
                return x

            return run

        return prepare

    def preserving(make: Callable) -> Prepare:
        """Variance-preserving schedulers, whose training levels span [σ_min, σ_max]."""

        def prepare(steps, high, low):
            kept = 1 / (1 + np.geomspace(low, high, 1000) ** 2)
            betas = 1 - kept / np.array([1.0, *kept[:-1]])
            scheduler = make(
                trained_betas=betas.tolist(), prediction_type="sample", use_exponential_sigmas=True
            )
            scheduler.set_timesteps(steps)
            scales = [float(s) for s in (1 + scheduler.sigmas**2).sqrt()]

            def run(denoise, noise, fresh):
                x = noise * (high / scales[0])
                for step, time in enumerate(scheduler.timesteps):
                    clean = x
                    if denoise is not identity:
                        clean = denoise(x * scales[step], scheduler.sigmas[step])
                    x = scheduler.step(clean, time, x, return_dict=False)[0]
                return x

            return run

        return prepare

    edm = library.EDMDPMSolverMultistepScheduler
    for grid in ("karras", "exponential"):
        for order in (2, 3):
            make = lambda order=order, grid=grid, **range_: edm(
                solver_order=order, sigma_schedule=grid, **range_
            )
            yield Candidate("diffusers", f"EDM DPM++ {order}M, {grid}", order, precondition(make))
    yield Candidate("diffusers", "EDM Euler", 1, precondition(library.EDMEulerScheduler))
    for order in (2, 3):
        unipc = lambda order=order, **told: library.UniPCMultistepScheduler(
            solver_order=order, **told
        )
        yield Candidate("diffusers", f"UniPC {order}", order, preserving(unipc))
        dpm = lambda order=order, **told: library.DPMSolverMultistepScheduler(
            solver_order=order, **told
        )
        yield Candidate("diffusers", f"DPM++ {order}M", order, preserving(dpm))


def k_diffusion() -> Iterator[Candidate]:
    """Its page of samplers alone, the package imports tools for images that are not needed."""
    package = types.ModuleType("k_diffusion")
    found = importlib.util.find_spec("k_diffusion")
    if found is None:
        raise ModuleNotFoundError("No module named 'k_diffusion'")
    package.__path__ = list(found.submodule_search_locations)
    package.utils = types.ModuleType("k_diffusion.utils")
    package.utils.append_dims = lambda x, dims: x.reshape(*x.shape, *[1] * (dims - x.ndim))
    with patch.dict(sys.modules, {"k_diffusion": package, "k_diffusion.utils": package.utils}):
        page = importlib.import_module("k_diffusion.sampling")

    def make(name: str, label: str, stated: int, grid: str, stochastic: bool = False, **told):
        def prepare(steps, high, low):
            sigmas = getattr(page, f"get_sigmas_{grid}")(steps, low, high)

            def run(denoise, noise, fresh):
                if stochastic:
                    count = iter(range(1, 1_000_000))
                    told["noise_sampler"] = lambda *_: fresh(next(count))
                return getattr(page, f"sample_{name}")(
                    denoise, noise * high, sigmas.to(noise.dtype), disable=True, **told
                )

            return run

        return Candidate("k-diffusion", f"{label}, {grid}", stated, prepare)

    for grid in ("karras", "exponential"):
        yield make("dpmpp_3m_sde", "DPM++ 3M", 3, grid, True, eta=0.0)
        yield make("lms", "linear multistep 3", 3, grid, order=3)
        yield make("dpmpp_2m", "DPM++ 2M", 2, grid)
        yield make("dpmpp_2m_sde", "DPM++ 2M SDE", 2, grid, True)
        yield make("heun", "Heun", 2, grid)
        yield make("euler", "Euler", 1, grid)
        yield make("euler_ancestral", "Euler ancestral", 1, grid, True)


def physicsnemo() -> Iterator[Candidate]:
    samplers = importlib.import_module("physicsnemo.diffusion.samplers")
    schedulers = importlib.import_module("physicsnemo.diffusion.noise_schedulers")

    def make(solver: str, order: int) -> Candidate:
        def prepare(steps, high, low):
            scheduler = schedulers.EDMNoiseScheduler(sigma_min=low, sigma_max=high)

            def run(denoise, noise, fresh):
                denoiser = scheduler.get_denoiser(x0_predictor=denoise)
                return samplers.sample(denoiser, noise * high, scheduler, steps, solver=solver)

            return run

        return Candidate("physicsnemo", solver, order, prepare)

    yield make("heun", 2)
    yield make("euler", 1)


LIBRARIES = {
    "sciladm": ours,
    "azula": azula,
    "diffusers": diffusers,
    "k-diffusion": k_diffusion,
    "nvidia-physicsnemo": physicsnemo,
}


def candidates() -> list[Candidate]:
    """All that can be had here; prints the versions, and which library is missing and why."""
    found = []
    for library, of in LIBRARIES.items():
        try:
            found += list(of())
            print(f"{library} {version(library)}")
        except Exception as error:  # whatever a library does on import: it is missing then
            print(f"{library} missing: {type(error).__name__}: {' '.join(str(error).split())}")
    return found
