"""Studies drawn by lot from a known truth, to test the statistics as one tests a product."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from report.variance import Runs
from scipy import optimize, special

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class World:
    """What is true of a study. An image is easy or hard (normal on the logit scale) for all rows
    and a little for each; a seed is good or bad; whether a run is right about an image is then
    drawn by lot.

    `effects` are the points between each row and the one before, so there is one row more than
    effects.
    """

    effects: tuple[float, ...]
    seeds: int
    images: int = 10_000
    deviation: float = 0.3
    """Standard deviation of what a seed does to a row's accuracy, in points."""
    correlation: float = 0.0
    """Of what the same seed does to two rows."""
    unequal: float = 0.0
    """Standard deviation of the logarithm of rows' own seed deviations."""
    first: float = 80.0
    difficulty: float = 3.0
    own_difficulty: float = 0.7
    in_turn: tuple[int, ...] = ()
    """Where rows have unequal numbers of seeds: the first row's, the second's and so on, and again
    from the first."""

    @property
    def levels(self) -> np.ndarray:
        """Accuracy of each row over all seeds and images, in points, (rows,)."""
        found: np.ndarray = self.first + np.concatenate([[0.0], np.cumsum(self.effects)])
        return found

    @cached_property
    def _intercepts(self) -> np.ndarray:
        """Of each row on the logit scale, (rows,)."""
        return np.array([_intercept(float(level), self._logit_spread) for level in self.levels])

    @property
    def _logit_spread(self) -> float:
        return float(np.hypot(self.difficulty, self.own_difficulty))

    def draw(self, rng: np.random.Generator) -> tuple[dict[str, Runs], np.ndarray]:
        """The runs of one study, by row, and each row's true level on the images that it drew, in
        points."""
        rows = len(self.effects) + 1
        shape = (rows, self.images)
        hard = self.difficulty * rng.standard_normal(self.images, dtype=np.float32)
        right = hard + self.own_difficulty * rng.standard_normal(shape, dtype=np.float32)
        right += self._intercepts[:, None].astype(np.float32)
        scale = self.deviation * np.exp(self.unequal * rng.standard_normal(rows) - self.unequal**2)
        common = rng.standard_normal(self.seeds)
        alone = rng.standard_normal((rows, self.seeds))
        seed = scale[:, None] * (
            self.correlation**0.5 * common + (1 - self.correlation) ** 0.5 * alone
        )
        chance = special.expit(right)
        slope = chance * (1 - chance)
        seed /= 100 * slope.mean(axis=1, keepdims=True)  # from points to logits
        runs = {}
        for row in range(rows):
            shifted = special.expit(right[row] + seed[row, :, None].astype(np.float32))
            correct = rng.random((self.seeds, self.images), dtype=np.float32) < shifted
            count = self.in_turn[row % len(self.in_turn)] if self.in_turn else self.seeds
            runs[f"row-{row}"] = Runs(tuple(range(count)), correct[:count].view(np.uint8))
        # The mean over seeds, to second order of a shift of a few hundredths of a logit.
        shift = (scale / (100 * slope.mean(axis=1))) ** 2
        bend = (slope * (1 - 2 * chance)).mean(axis=1)
        return runs, 100 * (chance.mean(axis=1) + shift * bend / 2)


@lru_cache(maxsize=256)
def _intercept(level: float, spread: float) -> float:
    def gap(value: float) -> float:
        return float(_WEIGHTS @ special.expit(value + spread * _NODES)) - level / 100

    return float(optimize.brentq(gap, -30, 30))
