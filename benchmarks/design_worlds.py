"""Designs of the paper's roadmap in which it is known what every decision is worth, to test their
effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from report.variance import Runs

from ablations.designs import Design, DesignSpec, build_design
from ablations.designs.orders import orders
from ablations.presets import REGIMES
from ablations.roadmaps import PAPER
from benchmarks.worlds import World

Worth = Mapping[frozenset[str], float]
"""Points that a row gains where it has all of these decisions: of one its effect, of two their
interaction."""

NOTHING: Worth = {}
SEVERAL: Worth = {
    **{
        frozenset([name]): points
        for name, points in {
            "training-recipe": 2.0,
            "stage-ratio": 0.5,
            "depthwise": -1.0,
            "width": 1.0,
            "inverted-bottleneck": 0.3,
            "depthwise-first": -0.5,
            "kernel-7": 0.5,
            "fewer-activations": -0.3,
            "layer-norm": 1.0,
            "separate-downsampling": 0.3,
        }.items()
    },
    frozenset(["stage-ratio", "layer-norm"]): 1.0,
    frozenset(["width", "kernel-7"]): -1.0,
    frozenset(["inverted-bottleneck", "layer-norm"]): 0.5,
}
"""Three decisions, patchify-stem, gelu and fewer-norms, change nothing in any row."""


@dataclass(frozen=True)
class DesignWorld:
    """A design, what its decisions are worth and how many seeds its rows have; else as `World` has
    it."""

    request: DesignSpec
    worth: Worth
    seeds: int
    images: int = 10_000
    deviation: float = 0.3

    @cached_property
    def whole(self) -> Design:
        """The design with every row that an order could pass through."""
        return build_design(PAPER, REGIMES["tiny"], replace(self.request, variants_at_most=None))

    @cached_property
    def levels(self) -> np.ndarray:
        """True accuracy of every row of the whole design, in points, (rows,)."""
        return np.array(
            [
                78
                + sum(
                    points for together, points in self.worth.items() if together <= row.decisions
                )
                for row in self.whole.variants
            ]
        )

    def effects(self, levels: np.ndarray) -> np.ndarray:
        """What the design would say if these were known of every row, in points, (effects,)."""
        known = dict(zip((row.name for row in self.whole.variants), levels, strict=True))
        found = [
            sum(weight * known[row] for row, weight in effect.weights.items())
            for effect in self.whole.effects
        ]
        return np.round(found, 9)  # an effect that adds up to nothing is exactly 0

    def draw(self, rng: np.random.Generator) -> tuple[Design, dict[str, Runs], np.ndarray]:
        """The design of one study, its runs by row, and its effects' true values on the images that
        it drew."""
        design = self.whole
        if self.request.variants_at_most is not None:
            design = orders(PAPER, REGIMES["tiny"], self.request, seed=int(rng.integers(2**31)))
        gaps = tuple(float(gap) for gap in np.diff(self.levels))
        world = World(gaps, self.seeds, self.images, self.deviation, first=float(self.levels[0]))
        runs, here = world.draw(rng)
        named = dict(zip((row.name for row in self.whole.variants), runs.values(), strict=True))
        return design, {row.name: named[row.name] for row in design.variants}, self.effects(here)
