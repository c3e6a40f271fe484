"""A weighted sum of rows' accuracies, such as a difference of two: its estimate and how well it is
known."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from report.variance import Uncertainty, VarianceComponents

POWER = 0.8
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Contrast:
    """In points. `of` has the uncertainty for the questions "these" and "new"; empty where a row
    has one seed."""

    points: float
    these_runs: Uncertainty
    of: Mapping[str, Uncertainty]
    seeds: float
    """Of its rows, as many each as would give its seeds' part of the variance."""
    pool: float
    """Of an average row of the study, which the degrees of freedom come from."""

    @classmethod
    def between(
        cls, noise: VarianceComponents, of_rows: Mapping[str, float], *, borrow: bool = False
    ) -> Contrast:
        """With `borrow` a row with one seed is taken to spread as the others do.

        Raises:
            KeyError: a row has no run.
        """
        weights = noise.weights(of_rows)
        used = weights != 0
        these, new = noise.these_images(weights), noise.new_images(weights)
        several = borrow or bool((noise.counts[used] > 1).all())
        squares = weights[used] ** 2
        pool = noise.counts[noise.counts > 1]
        return cls(
            noise.points(weights),
            noise.these_runs(weights),
            {"these": these, "new": new} if several and these and new else {},
            float(squares.sum() / (squares / noise.counts[used]).sum()) if used.any() else 0.0,
            float(pool.mean()) if len(pool) else 1.0,
        )

    def with_seeds(self, question: str, seeds: int) -> Uncertainty:
        """What the uncertainty would be with so many seeds in all rows."""
        now = self.of[question]
        freedom = now.freedom / max(1e-9, self.pool - 1) * (seeds - 1)
        return replace(now, seeds=now.seeds * self.seeds / seeds, freedom=freedom)

    def seeds_needed(self, question: str, level: float) -> int | None:
        """How many in all rows would find a gap as large as the observed with 80 % power; None:
        1,000 would not."""

        def found(seeds: int) -> bool:
            return detectable(self.with_seeds(question, seeds), level) <= abs(self.points)

        return (
            bisect.bisect_left(range(MOST_SEEDS), True, lo=2, key=found)
            if found(MOST_SEEDS)
            else None
        )


def detectable(uncertainty: Uncertainty, level: float) -> float:
    """The gap that a two-sided test of that level finds with 80 % power."""
    return uncertainty.reach(level / 2) + uncertainty.reach(1 - POWER)


def holm(p: list[float]) -> np.ndarray:
    """Holm's corrected p-values (1979). statsmodels has them too, and collects garbage for 0.1 s at
    each call."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(np.arange(len(p), 0, -1) * np.asarray(p)[order])
    found = np.empty(len(p))
    found[order] = np.minimum(steps, 1.0)
    return found
