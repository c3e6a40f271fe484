"""Designs: which combinations of a roadmap's decisions are trained, and what is read off them.

A design is a list of variants and of effects; an effect weighs the accuracies of variants. Nothing
is trained twice: variants of one or several designs with the same network and recipe share runs.
"""

from ablations.designs.design import Design, DesignSpec, Effect, Kind, Variant
from ablations.designs.kinds import build_design, recorded

__all__ = ["Design", "DesignSpec", "Effect", "Kind", "Variant", "build_design", "recorded"]
