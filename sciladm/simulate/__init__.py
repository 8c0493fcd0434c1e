"""Worlds that need no download, whose truth is known."""

from sciladm.simulate.atmosphere import Atmosphere
from sciladm.simulate.plan import Plan, Realisation

WORLDS = {"atmosphere": Atmosphere}

__all__ = ["WORLDS", "Atmosphere", "Plan", "Realisation"]
