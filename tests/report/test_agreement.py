"""The paper against ours: noise on either side makes the interval wide, not the correlation
small."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from report.agreement import Side, rank_correlation, sign_agreement


def side(values: np.ndarray, error: float) -> Side:
    return Side(values, np.full(len(values), error))


def test_without_noise_the_interval_is_the_correlation() -> None:
    rng = np.random.default_rng(0)
    ours, paper = rng.normal(size=12), rng.normal(size=12)
    found = rank_correlation(side(ours, 1e-6), side(paper, 1e-6))
    assert found is not None
    assert found.observed == pytest.approx(stats.spearmanr(ours, paper).statistic)
    assert found.high - found.low < 0.02
    assert found.low - 0.01 <= found.observed <= found.high + 0.01


def test_noise_of_either_side_widens_it() -> None:
    rng = np.random.default_rng(1)
    truth, other = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=16).T
    widths = []
    for ours, paper in ((0.05, 0.05), (0.5, 0.05), (0.05, 0.5), (0.5, 0.5)):
        found = rank_correlation(side(truth, ours), side(other, paper))
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[0] < 0.5 * min(widths[1:])


@pytest.mark.parametrize(
    ("steps", "ours", "paper", "correlation"),
    [(16, 0.3, 0.1, 0.5), (16, 0.5, 0.2, 0.9), (8, 0.3, 0.1, 0.0)],
)
def test_the_interval_covers_the_correlation_of_the_true_numbers(
    steps, ours, paper, correlation
) -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(60):
        truth = (
            0.8
            * rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], size=steps).T
        )
        seen = [
            side(values + error * rng.normal(size=steps), error)
            for values, error in zip(truth, (ours, paper))
        ]
        found = rank_correlation(*seen, draws=400)
        assert found is not None
        covered += found.low - 1e-9 <= stats.spearmanr(*truth).statistic <= found.high + 1e-9
    assert covered >= 50  # 57 are expected; where noise is as large as here 91 to 97 % were seen


def test_few_steps_or_equal_ones_have_no_correlation() -> None:
    assert rank_correlation(side(np.arange(4.0), 0.1), side(np.arange(4.0), 0.1)) is None
    assert rank_correlation(side(np.ones(9), 0.1), side(np.arange(9.0), 0.1)) is None


def test_signs_are_held_against_lots() -> None:
    found = sign_agreement([1, 2, 1, -1, -2, -1], [0.1, 0.2, 0.3, -0.1, -0.2, -0.3])
    assert (found.resolved, found.same) == (6, 6)
    assert found.expected == pytest.approx(3.0)
    assert found.p == pytest.approx(
        stats.fisher_exact([[3, 0], [0, 3]], alternative="greater").pvalue
    )
    always_up = sign_agreement([1, 2, 3], [0.1, 0.2, 0.3])
    assert (always_up.same, always_up.expected, always_up.p) == (
        3,
        3.0,
        1.0,
    )  # no surprise: lots agree as well
    assert sign_agreement([1, -1], [0.0, 0.0]).same == 0
    assert sign_agreement([], []).resolved == 0
