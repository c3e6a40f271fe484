"""What is compared: the steps of the roadmap, the regimes they run in, and what the paper measured."""

from ablations.paper import PaperRow, paper_row
from ablations.regimes import REGIMES, Regime, get_regime
from ablations.steps import STEPS, Step

__all__ = ["REGIMES", "STEPS", "PaperRow", "Regime", "Step", "get_regime", "paper_row"]
