"""Our numbers against the paper's: do they rank alike, and do steps point the same way?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2000
FEWEST = 5
"""With fewer steps there is no rank correlation worth a number."""


class RankCorrelation(NamedTuple):
    """Spearman's correlation over steps, with a 95 % bootstrap interval."""

    rows: int
    observed: float
    low: float
    high: float


class SignAgreement(NamedTuple):
    """How many of the resolved steps move as the paper's do.

    `expected` would by chance, with the same numbers of ups and downs; `p` is the probability that
    chance agrees as often or more (Fisher's exact test).
    """

    resolved: int
    same: int
    expected: float
    p: float


def rank_correlation(ours: np.ndarray, paper: np.ndarray) -> RankCorrelation | None:
    """None below five steps, or if one side does not vary."""
    both = np.stack([ours, paper])
    steps = both.shape[1]
    if steps < FEWEST or np.ptp(both, axis=1).min() == 0:
        return None
    observed = float(stats.spearmanr(*both).statistic)
    rng = np.random.default_rng(0)
    samples = both[:, rng.integers(steps, size=(RESAMPLES, steps))]
    ranks = stats.rankdata(samples, axis=2)
    centred = ranks - ranks.mean(axis=2, keepdims=True)
    spread = np.sqrt((centred**2).sum(axis=2).prod(axis=0))
    correlations = (centred.prod(axis=0).sum(axis=1) / np.maximum(spread, 1e-9))[spread > 0]
    low, high = np.quantile(correlations, [0.025, 0.975])
    return RankCorrelation(steps, observed, float(low), float(high))


def sign_agreement(ours: np.ndarray, paper: np.ndarray) -> SignAgreement:
    """Compare the signs of resolved steps; a paper's difference of exactly 0 agrees with none."""
    up, paper_up = ours > 0, paper > 0
    same = int((paper_up & up).sum() + ((paper < 0) & ~up).sum())
    n, ups, paper_ups = len(up), int(up.sum()), int(paper_up.sum())
    if not n:
        return SignAgreement(0, 0, 0.0, 1.0)
    expected = (ups * paper_ups + (n - ups) * (n - paper_ups)) / n
    # Given the numbers of ups, agreement rises with the steps that are up on both sides.
    p = float(stats.hypergeom.sf(int((paper_up & up).sum()) - 1, n, ups, paper_ups))
    return SignAgreement(n, same, expected, p)
