"""From noise to a sample: one interface, a page for each sampler, and the list of them."""

from collections.abc import Callable

from sciladm.diffusion.sampler.base import Denoise, Fresh, Sampler, no_fresh
from sciladm.diffusion.sampler.ddim import Ancestral, Ddim
from sciladm.diffusion.sampler.dpm import DpmSolver, DpmSolverSde
from sciladm.diffusion.sampler.heun import Euler, Heun
from sciladm.diffusion.sampler.langevin import Langevin
from sciladm.diffusion.sampler.multistep import Multistep
from sciladm.diffusion.sampler.near import Near

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "multistep": Multistep,
    "heun": Heun,
    "euler": Euler,
    "ddim": Ddim,
    "ancestral": Ancestral,
    "dpm_solver": DpmSolver,
    "dpm_solver_sde": DpmSolverSde,
    "langevin": Langevin,
}

__all__ = [
    "SAMPLERS", "Ancestral", "Ddim", "Denoise", "DpmSolver", "DpmSolverSde", "Euler", "Fresh",
    "Heun", "Langevin", "Multistep", "Near", "Sampler", "no_fresh",
]  # fmt: skip
