"""Which differences between steps are real: paired bootstrap, Student intervals, Holm's correction.

Two designs are compared on the same test pictures, each with one or more seeds. What may vary if the study
were done again is the test pictures (the same new ones for both designs) and the seeds (new ones for each).
Both are resampled; resampling pictures alone would compare two sets of weights, not two designs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

DRAWS = 4000  # the standard error of a bootstrap standard error is then 1.1 % of it
LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """Top-1 of `step` minus top-1 of `after`, in points, with a 95 % interval.

    `p_holm` is the p-value corrected for all comparisons of its family, and decides the verdict. `covers_seeds`
    is False where one of the two has one seed only: then the interval covers the sampling of test pictures
    but not what another seed would give.
    """

    step: str
    after: str
    points: float
    low: float
    high: float
    standard_error: float
    p: float
    p_holm: float
    seeds: tuple[int, int]

    @property
    def covers_seeds(self) -> bool:
        return min(self.seeds) > 1

    @property
    def sign(self) -> int:
        """1 for a gain, -1 for a loss, 0 for what may be noise."""
        return int(np.sign(self.points)) if self.p_holm < LEVEL else 0

    @property
    def verdict(self) -> str:
        if self.sign == 0:
            return "within noise"
        word = "gain" if self.sign > 0 else "loss"
        if self.covers_seeds:
            return word
        return f"{word} for {'this seed' if self.seeds == (1, 1) else 'these seeds'}"

    @property
    def detectable(self) -> float:
        """Points that this comparison would find with 80 % power before the correction of Holm."""
        return float((stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(0.8)) * self.standard_error)


def compare(
    correct: Mapping[str, np.ndarray],
    pairs: Iterable[tuple[str, str]],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[tuple[str, str], Difference]:
    """Compare pairs of steps.

    Args:
        correct: for each step its bool array (seeds, pictures), the pictures in the same order for all.
        pairs: (step, the step it is compared with); one family for Holm's correction.

    The standard error is that of the bootstrap plus one picture won and one lost (Bonett and Price's
    adjustment for paired proportions), so that a handful of pictures is never certain. The interval is
    Student's: a standard deviation over few seeds is itself uncertain, and its degrees of freedom
    (Satterthwaite) say how much.
    """
    pairs = list(pairs)
    if not pairs:
        return {}
    used = list(dict.fromkeys(name for pair in pairs for name in pair))
    pictures = correct[used[0]].shape[1]
    assert all(correct[name].shape[1] == pictures for name in used)
    seeds = _Seeds.of(correct)
    resampled = _bootstrap({name: correct[name] for name in used}, seeds, draws, seed)
    rows = []
    for step, after in pairs:
        points = _points(correct[step], correct[after])
        drawn = 100 * (resampled[step] - resampled[after])
        variance = float(drawn.var(ddof=1)) + 2 * (100 / pictures) ** 2
        between = sum((100 * seeds.deviation(correct[name])) ** 2 / len(correct[name]) for name in (step, after))
        freedom = _degrees_of_freedom([(between, seeds.freedom), (max(0.0, variance - between), max(1, pictures - 1))])
        error = variance**0.5
        half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
        p = float(2 * stats.t.sf(abs(points) / error, freedom))
        count = (len(correct[step]), len(correct[after]))
        rows.append((step, after, points, points - half, points + half, error, p, count))
    corrected = multipletests([row[6] for row in rows], method="holm")[1]
    return {
        (row[0], row[1]): Difference(*row[:7], p_holm=float(value), seeds=row[7])
        for row, value in zip(rows, corrected, strict=True)
    }


def _points(one: np.ndarray, other: np.ndarray) -> float:
    """Difference of two accuracies; in whole numbers up to the last division, so that equal ones give 0."""
    return 100 * (int(one.sum()) * other.size - int(other.sum()) * one.size) / (one.size * other.size)


@dataclass(frozen=True)
class _Seeds:
    """What is known of the spread between seeds, pooled over all steps with more than one.

    Two or three seeds of one step say next to nothing about their spread: tests that rely on them alone call
    noise a gain up to six times too often at the levels that Holm's correction uses (two seeds, simulated).
    So the steps share one estimate, and a step that spreads more than the others keeps its own.
    """

    residuals: np.ndarray  # accuracies (0 to 1) about their step's mean; mean square = the pooled variance
    freedom: int

    @classmethod
    def of(cls, correct: Mapping[str, np.ndarray]) -> _Seeds:
        several = [array.mean(axis=1) for array in correct.values() if len(array) > 1]
        if not several:
            return cls(np.zeros(1), 0)
        raw = np.concatenate([values - values.mean() for values in several])
        freedom = sum(len(values) - 1 for values in several)
        return cls(raw * (len(raw) / freedom) ** 0.5, freedom)

    def deviation(self, array: np.ndarray) -> float:
        """Standard deviation between seeds (0 to 1) that holds for a step's runs (seeds, pictures)."""
        pooled = float(np.sqrt(np.mean(self.residuals**2)))
        own = float(array.mean(axis=1).std(ddof=1)) if len(array) > 1 else 0.0
        return max(pooled, own)

    def draw(self, array: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
        """What other seeds would add to the mean accuracy of a step's runs, shape (draws,)."""
        pooled = float(np.sqrt(np.mean(self.residuals**2)))
        if pooled == 0:
            return np.zeros(draws)
        drawn: np.ndarray = rng.choice(self.residuals, size=(draws, len(array))).mean(axis=1)
        drawn *= self.deviation(array) / pooled
        return drawn


def _bootstrap(correct: Mapping[str, np.ndarray], seeds: _Seeds, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Accuracy (0 to 1) of each step in each of `draws` resamples of pictures and seeds, shape (draws,).

    The resampled pictures of a draw are the same for all steps (paired), its seeds are each step's own.
    """
    # Whole numbers, and so are the counts below: their product is exact whatever the order of summation.
    hits = np.stack([array.sum(axis=0, dtype=np.float64) for array in correct.values()], axis=1)
    pictures = hits.shape[0]
    rng = np.random.default_rng(seed)
    chunk = max(1, 4_000_000 // pictures)
    parts = []
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        drawn = rng.integers(pictures, size=(size, pictures), dtype=np.int32)
        drawn += np.arange(size, dtype=np.int32)[:, None] * pictures
        counts = np.bincount(drawn.ravel(), minlength=size * pictures).reshape(size, pictures)
        parts.append(counts @ hits)
    accuracy = np.concatenate(parts) / [pictures * len(array) for array in correct.values()]
    return {
        name: accuracy[:, column] + seeds.draw(array, draws, rng)
        for column, (name, array) in enumerate(correct.items())
    }


def _degrees_of_freedom(parts: Iterable[tuple[float, int]]) -> float:
    """Satterthwaite's, of a sum of (variance, degrees of freedom)."""
    known = [(part, freedom) for part, freedom in parts if part > 0]
    total = sum(part for part, _ in known)
    return total**2 / sum(part**2 / freedom for part, freedom in known)


@dataclass(frozen=True)
class Agreement:
    """How far our differences and the paper's point the same way, over `steps` compared steps."""

    steps: int
    same_sign: int
    clear: int
    clear_same_sign: int
    rho: float | None
    p: float | None


def agreement(ours: list[float], paper: list[float], clear: list[bool]) -> Agreement:
    """Signs and Spearman's rank correlation; `clear` marks the differences of ours beyond noise.

    The correlation is None below five steps or where one side does not vary.
    """
    same = [one * other > 0 for one, other in zip(ours, paper, strict=True)]
    rho = p = None
    if len(ours) >= 5 and len(set(ours)) > 1 and len(set(paper)) > 1:
        rank = stats.spearmanr(ours, paper)
        rho, p = float(rank.statistic), float(rank.pvalue)
    both = sum(one and other for one, other in zip(same, clear, strict=True))
    return Agreement(len(ours), sum(same), sum(clear), both, rho, p)
