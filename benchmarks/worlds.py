"""Studies drawn at random from a known truth, to test the statistics as one tests a product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from scipy import optimize, special

from ablations.designs import Design, DesignSpec, build_design
from ablations.designs.kinds import orders
from ablations.presets import REGIMES
from ablations.roadmaps import PAPER
from report.statistics import Measurements

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()

Correct = dict[str, np.ndarray]
"""Variant to 0 or 1, (seeds, images); its seeds are 0, 1, 2 ..."""


def measurements(correct: Correct) -> Measurements:
    """The runs of a study as a table for statistics."""
    entries = [(name, seed) for name, own in correct.items() for seed in range(len(own))]
    names, seeds = zip(*entries, strict=True)
    return Measurements.from_predictions(names, seeds, np.concatenate(list(correct.values())))


@dataclass(frozen=True)
class World:
    """The truth behind a study.

    An image is easy or hard (normal on the logit scale) for all variants, and a little for each. A
    seed is good or bad. Whether a run is right about an image is then drawn at random.
    """

    effects: tuple[float, ...]
    """Points between each variant and the one before: there is one variant more."""
    seeds: int
    images: int = 10_000
    deviation: float = 0.3
    """Standard deviation of a seed's effect on a variant's accuracy, in points."""
    correlation: float = 0.0
    """Of the same seed's effects on two variants."""
    unequal: float = 0.0
    """Standard deviation of the logarithm of variants' own seed deviations."""
    first: float = 80.0
    difficulty: float = 3.0
    own_difficulty: float = 0.7
    in_turn: tuple[int, ...] = ()
    """Unequal numbers of seeds: of the first variant, the second and so on, repeated."""
    spreads: tuple[float, ...] = ()
    """Factors of the seed deviations: of the first variant, the second and so on, repeated."""
    heavy_tails: bool = False
    """Seeds' effects follow Student's t with three degrees of freedom, not the normal law."""
    at_chance: int | None = None
    """A variant whose first run is right on one image in ten, by chance."""
    apart: tuple[int, ...] = ()
    """Comparisons that are scored apart from the others, by number."""

    @property
    def levels(self) -> np.ndarray:
        """(variants,) accuracy over all seeds and images, in points."""
        levels: np.ndarray = self.first + np.concatenate([[0.0], np.cumsum(self.effects)])
        return levels

    @cached_property
    def _intercepts(self) -> np.ndarray:
        """(variants,) on the logit scale."""
        spread = float(np.hypot(self.difficulty, self.own_difficulty))
        return np.array([_intercept(float(level), spread) for level in self.levels])

    def draw(self, rng: np.random.Generator) -> tuple[Correct, np.ndarray]:
        """The runs of one study, and each variant's true level on its images, in points."""
        variants = len(self.effects) + 1
        hard = self.difficulty * rng.standard_normal(self.images, dtype=np.float32)
        own_hard = rng.standard_normal((variants, self.images), dtype=np.float32)
        right = hard + self.own_difficulty * own_hard
        right += self._intercepts[:, None].astype(np.float32)
        log_scale = self.unequal * rng.standard_normal(variants) - self.unequal**2
        scale = self.deviation * np.exp(log_scale)
        if self.spreads:
            scale = scale * np.resize(self.spreads, variants)
        common = rng.standard_normal(self.seeds)
        alone = rng.standard_normal((variants, self.seeds))
        if self.heavy_tails:
            alone = rng.standard_t(3, (variants, self.seeds)) / 3**0.5
        seed = self.correlation**0.5 * common + (1 - self.correlation) ** 0.5 * alone
        chance = special.expit(right)
        slope = chance * (1 - chance)
        # From points to logits.
        seed *= scale[:, None] / (100 * slope.mean(axis=1, keepdims=True))
        correct = {}
        for variant in range(variants):
            shifted = special.expit(right[variant] + seed[variant, :, None].astype(np.float32))
            drawn = rng.random((self.seeds, self.images), dtype=np.float32) < shifted
            count = self.in_turn[variant % len(self.in_turn)] if self.in_turn else self.seeds
            correct[f"variant-{variant}"] = drawn[:count].view(np.uint8)
        if self.at_chance is not None:
            correct[f"variant-{self.at_chance}"][0] = rng.random(self.images) < 0.1
        # The mean over seeds, to second order of a shift of a few hundredths of a logit.
        shift = (scale / (100 * slope.mean(axis=1))) ** 2
        bend = (slope * (1 - 2 * chance)).mean(axis=1)
        return correct, 100 * (chance.mean(axis=1) + shift * bend / 2)


@lru_cache(maxsize=256)
def _intercept(level: float, spread: float) -> float:
    def gap(value: float) -> float:
        return float(_WEIGHTS @ special.expit(value + spread * _NODES)) - level / 100

    return float(optimize.brentq(gap, -30, 30))


Worth = Mapping[frozenset[str], float]
"""Points that a variant gains if it has all of these decisions: of one, its effect; of two, their
interaction."""

NOTHING: Worth = {}
SEVERAL: Worth = {
    frozenset(["training-recipe"]): 2.0,
    frozenset(["stage-ratio"]): 0.5,
    frozenset(["depthwise"]): -1.0,
    frozenset(["width"]): 1.0,
    frozenset(["inverted-bottleneck"]): 0.3,
    frozenset(["depthwise-first"]): -0.5,
    frozenset(["kernel-7"]): 0.5,
    frozenset(["fewer-activations"]): -0.3,
    frozenset(["layer-norm"]): 1.0,
    frozenset(["separate-downsampling"]): 0.3,
    frozenset(["stage-ratio", "layer-norm"]): 1.0,
    frozenset(["width", "kernel-7"]): -1.0,
    frozenset(["inverted-bottleneck", "layer-norm"]): 0.5,
}
"""Three decisions, patchify-stem, gelu and fewer-norms, change nothing in any variant."""


@dataclass(frozen=True)
class DesignWorld:
    """A design of the paper's roadmap with known worth of its decisions; else as `World`."""

    spec: DesignSpec
    worth: Worth
    seeds: int
    images: int = 10_000
    deviation: float = 0.3

    @cached_property
    def whole(self) -> Design:
        """The design with every variant that an order could pass through."""
        return build_design(PAPER, REGIMES["tiny"], replace(self.spec, variants_at_most=None))

    @cached_property
    def levels(self) -> np.ndarray:
        """(variants,) true accuracy of every variant of the whole design, in points."""
        return np.array(
            [
                78 + sum(points for own, points in self.worth.items() if own <= one.decisions)
                for one in self.whole.variants
            ]
        )

    def effects(self, levels: np.ndarray) -> np.ndarray:
        """(effects,) the design's effects if these levels were known, in points."""
        known = dict(zip((one.name for one in self.whole.variants), levels, strict=True))
        effects = [
            sum(weight * known[name] for name, weight in effect.weights.items())
            for effect in self.whole.effects
        ]
        return np.round(effects, 9)  # an effect that adds up to nothing is exactly 0

    def draw(self, rng: np.random.Generator) -> tuple[Design, Correct, np.ndarray]:
        """The design of one study, its runs, and its effects' true values on its images."""
        drawn = self.whole
        if self.spec.variants_at_most is not None:
            drawn = orders(PAPER, REGIMES["tiny"], self.spec, seed=int(rng.integers(2**31)))
        gaps = tuple(float(gap) for gap in np.diff(self.levels))
        world = World(gaps, self.seeds, self.images, self.deviation, first=float(self.levels[0]))
        correct, here = world.draw(rng)
        names = (one.name for one in self.whole.variants)
        named = dict(zip(names, correct.values(), strict=True))
        return drawn, {one.name: named[one.name] for one in drawn.variants}, self.effects(here)
