"""Variance components: seeds and images are separated, and each is as large as it should be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from benchmarks.worlds import measurements
from report.statistics import Estimate, Measurements, Uncertainty, VarianceComponents, holm

CASES = Path(__file__).parent / "judge_cases"


def draw(rng: np.random.Generator, chance: np.ndarray | float, seeds: int, images: int = 0):
    return (rng.random((seeds, images or len(chance))) < chance).astype(np.uint8)


def components(**variants: np.ndarray) -> VarianceComponents:
    return VarianceComponents(measurements(variants))


B_MINUS_A = {"b": 1.0, "a": -1.0}


def test_accuracies_and_covariances_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = draw(rng, 0.7, 2, 20_000), draw(rng, 0.4, 3, 20_000)
    runs = measurements({"a": a, "b": b})
    both = 100.0 * np.concatenate([a, b])
    np.testing.assert_allclose(runs.accuracy, both.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(runs.covariance, np.cov(both), rtol=1e-9, atol=1e-7)
    assert runs.with_seeds([2]).variants == ("b",)
    assert runs.with_seeds([0, 2]).seeds_of("b") == (0, 2)


def test_the_chance_of_single_images_is_counted_once() -> None:
    rng = np.random.default_rng(2)
    chance = rng.beta(0.5, 0.2, size=20_000)
    fitted = components(**{f"r{i}": draw(rng, chance, 4) for i in range(8)})
    estimate = fitted.estimate({"r1": 1.0, "r0": -1.0})
    new = estimate.uncertainty["new"]
    assert new.images < 0.15 * new.seeds
    once = 100**2 * 2 * (chance * (1 - chance)).mean() / (4 * 20_000)
    assert new.seeds == pytest.approx(once, rel=0.4)
    assert estimate.these_runs.images == pytest.approx(once, rel=0.1)


def test_the_variance_over_images_is_what_variants_differ_by_image_by_image() -> None:
    rng = np.random.default_rng(3)
    easy, hard = np.full(4000, 0.95), np.full(4000, 0.05)
    a, b = np.concatenate([easy, hard]), np.concatenate([hard, easy])
    new = components(a=draw(rng, a, 3), b=draw(rng, b, 3)).estimate(B_MINUS_A).uncertainty["new"]
    assert new.images == pytest.approx(100**2 * 0.9**2 / 8000, rel=0.05)


def test_a_variant_with_one_seed_can_borrow_the_spread_of_the_others() -> None:
    rng = np.random.default_rng(9)
    fitted = components(a=draw(rng, 0.7, 4, 900), b=draw(rng, 0.6, 1, 900))
    assert not fitted.estimate(B_MINUS_A).uncertainty
    borrowed = fitted.estimate(B_MINUS_A, borrow=True).uncertainty["fixed"]
    assert borrowed.seeds == pytest.approx(
        fitted.seed_variance.sum() - 0.75 * fitted.seed_variance[0]
    )


def test_seeds_that_agree_to_the_image_are_not_taken_for_certainty() -> None:
    same = np.repeat((np.arange(400) < 200).astype(np.uint8)[None], 3, axis=0)
    for uncertainty in components(a=same, b=same).estimate(B_MINUS_A).uncertainty.values():
        assert uncertainty.standard_error > 0.05
        assert 2 * uncertainty.tail(0.0) == pytest.approx(1)


def test_a_run_that_variants_share_varies_once() -> None:
    rng = np.random.default_rng(8)
    correct = {"a": draw(rng, 0.7, 3, 900), "b": draw(rng, 0.6, 3, 900)}

    def fitted(*names: str) -> VarianceComponents:
        entries = [(name, seed) for name in names for seed in range(3)]
        rows = np.stack([correct[name[0]][seed] for name, seed in entries])
        digests = [(name[0], seed) for name, seed in entries]
        variants, seeds = zip(*entries)
        return VarianceComponents(Measurements.from_predictions(variants, seeds, rows, digests))

    plain, shared = fitted("a", "b"), fitted("a", "a again", "b", "b again")
    halves = {"a": -0.5, "a again": -0.5, "b": 0.5, "b again": 0.5}
    for question, uncertainty in shared.estimate(halves).uncertainty.items():
        expected = plain.estimate(B_MINUS_A).uncertainty[question]
        assert uncertainty.variance == pytest.approx(expected.variance)
        assert uncertainty.df == pytest.approx(expected.df)
    assert shared.estimate({"a": 1.0, "a again": -1.0}).uncertainty["fixed"].seeds == 0


@pytest.mark.parametrize(
    ("uncertainty", "quantile"),
    [
        (Uncertainty(4.0, 5, 0.0), 2 * stats.t.isf(0.01, 5)),
        (Uncertainty(0.0, 5, 4.0), 2 * stats.norm.isf(0.01)),
        (Uncertainty(4.0, 5, 1.0), np.hypot(2 * stats.t.isf(0.01, 5), stats.norm.isf(0.01))),
        (
            Uncertainty(4.0, 5, 0.0, 9.0, 3),
            np.hypot(2 * stats.t.isf(0.01, 5), 3 * stats.t.isf(0.01, 3)),
        ),
    ],
)
def test_tail_inverts_half_width(uncertainty: Uncertainty, quantile: float) -> None:
    assert uncertainty.half_width(0.01) == pytest.approx(quantile, rel=1e-9)
    for tail in (0.6, 0.3, 0.01, 1e-6, 1e-12):
        assert uncertainty.tail(uncertainty.half_width(tail)) == pytest.approx(tail, rel=1e-5)
    assert uncertainty.tail(1e9) < 1e-9


def test_holm_is_that_of_statsmodels() -> None:
    p = list(np.random.default_rng(2).random(30) ** 3)
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


@pytest.mark.parametrize("known", json.loads((CASES / "seeds_needed.expected.json").read_text()))
def test_the_seeds_needed_have_the_power_that_is_promised(known: dict[str, float]) -> None:
    variance, df = known["sd"] ** 2, 2 * known["variants"]
    pair = Uncertainty(2 * variance / 3, df, 0.0)
    usual = Estimate(0.0, pair, {"fixed": pair}, 3, 3)
    level = 0.05 / known["family"]
    assert usual.seeds_needed("fixed", known["gap"], level) == known["seeds"]
    power = usual.with_seeds("fixed", known["seeds"]).power(known["gap"], level)
    assert power == pytest.approx(known["power"], rel=1e-6)
    assert pair.power(pair.detectable(level), level) == pytest.approx(0.8)
    assert usual.seeds_needed("fixed", 1e-6, level) is None
