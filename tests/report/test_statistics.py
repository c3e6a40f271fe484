"""Noise is never called a gain, and what is there is found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from report.statistics import Difference, agreement, compare


def runs(rng: np.random.Generator, accuracy: float, seeds: int, pictures: int, spread: float = 0.0) -> np.ndarray:
    """Independent runs, right with the probability `accuracy` that varies by `spread` between seeds."""
    levels = accuracy + spread * rng.normal(size=(seeds, 1))
    return rng.random((seeds, pictures)) < levels


def one(step: np.ndarray, after: np.ndarray, **more: int) -> Difference:
    return compare({"a": step, "b": after}, [("a", "b")], **more)["a", "b"]


def test_standard_error_of_one_seed_is_that_of_paired_proportions() -> None:
    rng = np.random.default_rng(0)
    step, after = runs(rng, 0.8, 1, 3000), runs(rng, 0.7, 1, 3000)
    found = one(step, after, draws=3000)
    gaps = step[0].astype(float) - after[0]
    expected = 100 * np.sqrt(gaps.var(ddof=1) / 3000 + 2 / 3000**2)
    assert found.points == pytest.approx(100 * gaps.mean())
    assert found.standard_error == pytest.approx(expected, rel=0.05)
    assert found.high - found.points == pytest.approx(1.96 * expected, rel=0.05)


def test_pairing_makes_the_interval_narrow_where_runs_agree() -> None:
    rng = np.random.default_rng(1)
    after = runs(rng, 0.7, 1, 4000)
    step = after.copy()
    step[0, np.flatnonzero(~after[0])[:60]] = True
    paired, unpaired = one(step, after), one(rng.permuted(step, axis=1), after)
    assert paired.points == pytest.approx(1.5)
    assert paired.standard_error < 0.4 * unpaired.standard_error
    assert paired.verdict == "gain for this seed"
    assert unpaired.verdict == "within noise"


def test_identical_predictions_are_within_noise() -> None:
    same = runs(np.random.default_rng(2), 0.6, 1, 500)
    found = one(same, same)
    assert (found.points, found.p, found.verdict) == (0.0, 1.0, "within noise")
    assert found.low < 0 < found.high


def test_a_handful_of_pictures_is_not_certain() -> None:
    after = np.zeros((1, 400), dtype=bool)
    after[0, :200] = True
    step = after.copy()
    step[0, 200:205] = True
    exact = stats.binomtest(5, 5).pvalue
    assert one(step, after).p == pytest.approx(exact, abs=0.01)


def test_seeds_are_resampled_as_well_as_pictures() -> None:
    rng = np.random.default_rng(3)
    step, after = runs(rng, 0.75, 3, 20_000, spread=0.01), runs(rng, 0.75, 3, 20_000, spread=0.01)
    found = one(step, after, draws=3000)
    levels = [100 * array.mean(axis=1) for array in (step, after)]
    pooled = sum(values.var(ddof=1) for values in levels) / 2
    between = sum(max(pooled, values.var(ddof=1)) / 3 for values in levels)
    pictures = 100**2 * (step.mean(axis=0) - after.mean(axis=0)).var() / 20_000
    assert between > 4 * pictures, "the example must be one where seeds matter"
    assert found.standard_error == pytest.approx(np.sqrt(between + pictures), rel=0.05)
    half = found.high - found.points
    assert half > 2.2 * found.standard_error, "few seeds need Student's wider interval"


def test_noise_between_seeds_is_called_a_gain_or_loss_at_most_as_often_as_promised() -> None:
    rng = np.random.default_rng(4)
    verdicts = []
    for _ in range(30):
        study = {name: runs(rng, 0.7, 2, 600, spread=0.03) for name in "abcdef"}
        pairs = list(zip("bcdef", "abcde", strict=True))
        verdicts.append(any(d.sign for d in compare(study, pairs, draws=200).values()))
    # 5 % of 30 studies is 1.5; seven or more would happen once in 1,700.
    assert sum(verdicts) < 7


def test_a_true_difference_is_found_and_gets_a_plain_verdict() -> None:
    rng = np.random.default_rng(5)
    study = {
        "low": runs(rng, 0.70, 3, 5000, spread=0.002),
        "high": runs(rng, 0.76, 3, 5000, spread=0.002),
    }
    up, down = (compare(study, [pair])[pair] for pair in (("high", "low"), ("low", "high")))
    assert (up.verdict, down.verdict) == ("gain", "loss")
    assert up.low < 6 < up.high
    assert up.points == pytest.approx(-down.points)


def test_a_verdict_about_one_seed_says_so() -> None:
    rng = np.random.default_rng(6)
    low, high = runs(rng, 0.5, 1, 3000), runs(rng, 0.7, 1, 3000)
    assert one(high, low).verdict == "gain for this seed"
    assert one(low, high).verdict == "loss for this seed"
    assert not one(high, low).covers_seeds
    many = runs(rng, 0.7, 3, 3000)
    assert one(many, low).verdict == "gain for these seeds"


def test_holm_corrects_over_the_whole_family() -> None:
    rng = np.random.default_rng(7)
    study = {f"s{i}": runs(rng, 0.7, 1, 800) for i in range(9)}
    pairs = [(f"s{i + 1}", f"s{i}") for i in range(8)]
    found = list(compare(study, pairs).values())
    ordered = sorted(found, key=lambda d: d.p)
    largest = 0.0
    for rank, difference in enumerate(ordered):
        largest = min(1.0, max(largest, (8 - rank) * difference.p))
        assert difference.p_holm == pytest.approx(largest)


def test_the_bootstrap_repeats_itself() -> None:
    rng = np.random.default_rng(8)
    step, after = runs(rng, 0.7, 3, 700), runs(rng, 0.6, 2, 700)
    assert one(step, after) == one(step, after)
    assert one(step, after) != one(step, after, seed=1)


def test_no_pairs_give_no_differences() -> None:
    assert compare({"a": np.ones((1, 5), dtype=bool)}, []) == {}


def test_agreement_counts_signs_and_ranks() -> None:
    found = agreement([1.0, 2.0, -1.0, 0.0, 3.0], [0.1, 0.2, -0.4, 0.1, -0.5], [True, True, True, False, True])
    assert (found.steps, found.same_sign, found.clear, found.clear_same_sign) == (5, 3, 4, 3)
    assert found.rho == pytest.approx(stats.spearmanr([1, 2, -1, 0, 3], [0.1, 0.2, -0.4, 0.1, -0.5]).statistic)
    assert agreement([1.0] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [True] * 6).rho is None
    assert agreement([1.0, 2.0], [0.1, 0.2], [True] * 2).rho is None
