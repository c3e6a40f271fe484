"""The paper's numbers against ours: do levels and differences rank alike, and do resolved steps
point the same way?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

DRAWS = 4000
FEWEST = 5
"""Fewer steps have no rank correlation worth a number."""


@dataclass(frozen=True)
class Side:
    """One side's numbers in points, and the standard errors with which they are known, or NaN; both
    (steps,)."""

    values: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's, as observed, and a 95 % interval for what it would be without noise on either
    side."""

    rows: int
    observed: float
    low: float
    """With `high` NaN where the noise is not known."""
    high: float


@dataclass(frozen=True)
class SignAgreement:
    """How many of our resolved steps move the way the paper's do.

    `expected` would if the same signs were dealt out by lot, and `p` is how often lots agree as
    often or more.
    """

    resolved: int
    same: int
    expected: float
    p: float


def rank_correlation(
    ours: Side, paper: Side, *, draws: int = DRAWS, seed: int = 0
) -> RankCorrelation | None:
    """None below five steps, or where one side does not vary.

    VarianceComponents makes two rankings less alike than what they rank, so adding more of it to
    the numbers (a parametric bootstrap) would be off on the low side. Instead the true numbers are
    drawn from what the observed say: steps normal with an unknown covariance of the two sides
    (inverse Wishart), each observed with its own noise.
    """
    steps = len(ours.values)
    both = np.stack([ours.values, paper.values], axis=1)
    if steps < FEWEST or np.ptp(both, axis=0).min() == 0:
        return None
    observed = float(stats.spearmanr(*both.T).statistic)
    if np.isnan(ours.errors).any():
        return RankCorrelation(steps, observed, np.nan, np.nan)
    noise = np.stack([ours.errors, paper.errors], axis=1) ** 2
    rng = np.random.default_rng(seed)
    centred = both - both.mean(axis=0)
    scatter = centred.T @ centred
    scatter += np.eye(2) * 1e-9 * np.trace(scatter)  # sides that agree to the last digit
    total = np.linalg.inv(
        stats.wishart.rvs(steps - 1, np.linalg.inv(scatter), size=draws, random_state=rng).reshape(
            draws, 2, 2
        )
    )
    true = _positive(total - np.diag(noise.mean(axis=0)))
    mean = both.mean(axis=0) + _normal(total / steps, (draws, 1), rng)
    of_step = true[:, None] @ np.linalg.inv(true[:, None] + noise[None, :, :, None] * np.eye(2))
    drawn = mean + np.einsum("dsij,dsj->dsi", of_step, both - mean)
    drawn += _normal(_positive(true[:, None] - of_step @ true[:, None]), (draws, steps), rng)
    ranks = drawn.argsort(axis=1).argsort(axis=1) - (steps - 1) / 2
    correlations = ranks.prod(axis=2).sum(axis=1) / (steps * (steps**2 - 1) / 12)
    low, high = np.quantile(correlations, [0.025, 0.975])
    return RankCorrelation(steps, observed, float(low), float(high))


def sign_agreement(
    ours: Sequence[float] | np.ndarray, paper: Sequence[float] | np.ndarray
) -> SignAgreement:
    """Of steps that are resolved here; a paper's difference of exactly 0 agrees with none."""
    up, theirs = np.array(ours) > 0, np.array(paper)
    same = int(((theirs > 0) & up).sum() + ((theirs < 0) & ~up).sum())
    n, ours_up, theirs_up = len(up), int(up.sum()), int((theirs > 0).sum())
    if not n:
        return SignAgreement(0, 0, 0.0, 1.0)
    expected = (ours_up * theirs_up + (n - ours_up) * (n - theirs_up)) / n
    # With the numbers of ups given, agreement rises with the number of steps that are up on both
    # sides.
    both_up = int(((theirs > 0) & up).sum())
    p = float(stats.hypergeom.sf(both_up - 1, n, ours_up, theirs_up))
    return SignAgreement(n, same, expected, p)


def _positive(matrices: np.ndarray) -> np.ndarray:
    """The nearest covariance matrices, (..., 2, 2)."""
    values, vectors = np.linalg.eigh(matrices)
    least = 1e-6 * np.maximum(values.max(axis=-1, keepdims=True), 1e-6)
    found: np.ndarray = (vectors * np.maximum(values, least)[..., None, :]) @ np.swapaxes(
        vectors, -1, -2
    )
    return found


def _normal(covariance: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draws of that covariance, (*shape, 2)."""
    factor = np.linalg.cholesky(covariance).reshape(shape[0], -1, 2, 2)
    found: np.ndarray = np.einsum(
        "dsij,dsj->dsi", np.broadcast_to(factor, (*shape, 2, 2)), rng.standard_normal((*shape, 2))
    )
    return found
