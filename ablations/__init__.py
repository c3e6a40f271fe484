"""What is compared: roadmaps and their steps, model sizes, and what the paper measured."""

from ablations.paper import PaperRow, paper_row
from ablations.presets import REGIMES, Regime, get_regime
from ablations.roadmap import Roadmap, Setup
from ablations.roadmaps import PAPER, get_roadmap
from ablations.step import RecipeOf, Step

__all__ = [
    "PAPER",
    "REGIMES",
    "PaperRow",
    "RecipeOf",
    "Regime",
    "Roadmap",
    "Setup",
    "Step",
    "get_regime",
    "get_roadmap",
    "paper_row",
]
