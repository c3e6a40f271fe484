"""Our numbers against the paper's."""

import numpy as np
import pytest
from scipy import stats

from report.agreement import rank_correlation, sign_agreement


def test_the_correlation_is_spearmans_and_lies_in_its_interval() -> None:
    rng = np.random.default_rng(0)
    ours, paper = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=16).T
    found = rank_correlation(ours, paper)
    assert found is not None
    assert found.observed == pytest.approx(stats.spearmanr(ours, paper).statistic)
    assert found.low < found.observed < found.high < 1
    assert rank_correlation(ours, ours) == (16, 1, 1, 1)


def test_the_interval_covers() -> None:
    rng = np.random.default_rng(2)
    everything = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=100_000).T
    truth, covered = stats.spearmanr(*everything).statistic, 0
    for start in range(0, 16 * 100, 16):
        found = rank_correlation(*everything[:, start : start + 16])
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 88 <= covered <= 99


def test_few_steps_or_equal_ones_have_no_correlation() -> None:
    assert rank_correlation(np.arange(4.0), np.arange(4.0)) is None
    assert rank_correlation(np.ones(9), np.arange(9.0)) is None


def test_signs_are_compared_with_chance() -> None:
    paper = np.array([0.1, 0.2, 0.3, -0.1, -0.2, -0.3])
    found = sign_agreement(np.array([1, 2, 1, -1, -2, -1]), paper)
    assert (found.resolved, found.same) == (6, 6)
    assert found.expected == pytest.approx(3.0)
    exact = stats.fisher_exact([[3, 0], [0, 3]], alternative="greater").pvalue
    assert found.p == pytest.approx(exact)
    # If all are up on both sides, chance agrees as well.
    assert sign_agreement(np.ones(3), paper[:3]) == (3, 3, 3.0, 1.0)
    assert sign_agreement(np.array([1, -1]), np.zeros(2)).same == 0
    assert sign_agreement(np.empty(0), np.empty(0)).resolved == 0
