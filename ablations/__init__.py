"""What is compared: roadmaps and their steps, the regimes they are walked in, and what the paper measured."""

from ablations.paper import PaperRow, paper_row
from ablations.regimes import REGIMES, Regime, get_regime
from ablations.roadmap import RecipeOf, Roadmap, Step, Variant
from ablations.roadmaps import PAPER

__all__ = [
    "PAPER", "REGIMES", "PaperRow", "RecipeOf", "Regime", "Roadmap", "Step", "Variant", "get_regime", "paper_row",
]  # fmt: skip
