"""Worlds that need no download, whose truth is known."""

from sciladm.simulate.atmosphere import Atmosphere
from sciladm.simulate.gaussian import GaussianWorld
from sciladm.simulate.plan import Plan, Realisation, Records
from sciladm.simulate.regimes import TwoRegimes
from sciladm.simulate.world import World

WORLDS: dict[str, type[World]] = {
    "atmosphere": Atmosphere,
    "gaussian": GaussianWorld,
    "two_regimes": TwoRegimes,
}

__all__ = [
    "WORLDS", "Atmosphere", "GaussianWorld", "Plan", "Realisation", "Records", "TwoRegimes",
    "World",
]  # fmt: skip
