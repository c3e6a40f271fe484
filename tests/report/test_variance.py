"""Seeds and images are taken apart, and what is left of each is what it should be."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from report.variance import Measured, Runs, Uncertainty, VarianceComponents
from scipy import stats


def measured(**rows: np.ndarray) -> Measured:
    return Measured.of(
        {name: Runs(tuple(range(len(array))), array) for name, array in rows.items()}
    )


def draw(rng: np.random.Generator, chance: np.ndarray, seeds: int) -> np.ndarray:
    return (rng.random((seeds, len(chance))) < chance).astype(np.uint8)


def test_accuracies_and_covariances_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = draw(rng, np.full(20_000, 0.7), 2), draw(rng, np.full(20_000, 0.4), 3)
    found = measured(a=a, b=b)
    both = 100.0 * np.concatenate([a, b])
    np.testing.assert_allclose(found.accuracy, both.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(both), rtol=1e-9, atol=1e-7)
    assert found.of_seeds([2]).rows == ("b",)
    assert found.of_seeds([0, 2]).seeds_of("b") == (0, 2)


def test_on_these_images_two_balanced_rows_are_students_t_test() -> None:
    rng = np.random.default_rng(1)
    a, b = (draw(rng, np.full(500, chance), 6) for chance in (0.6, 0.55))
    noise = VarianceComponents(measured(a=a, b=b))
    assert noise.same_seed is not None
    assert not noise.same_seed.used
    uncertainty = noise.these_images(noise.weights({"a": 1, "b": -1}))
    assert uncertainty is not None
    levels = [100 * array.mean(axis=1) for array in (a, b)]
    spread = [values.var(ddof=1) for values in levels]
    pooled = np.mean(spread)
    drawn = [
        max(pooled, (6 * pooled + 5 * own) / 11) for own in spread
    ]  # a row that spreads more keeps some of it
    assert uncertainty.seeds == pytest.approx(sum(drawn) / 6)
    assert uncertainty.freedom == pytest.approx(10)


def test_the_chance_of_single_images_is_counted_once() -> None:
    """Rows that are the same on average for every image: new images add nothing to what seeds
    show."""
    rng = np.random.default_rng(2)
    chance = rng.beta(0.5, 0.2, size=20_000)
    noise = VarianceComponents(measured(**{f"r{i}": draw(rng, chance, 4) for i in range(8)}))
    weights = noise.weights({"r1": 1, "r0": -1})
    these, new = noise.these_images(weights), noise.new_images(weights)
    assert these is not None
    assert new is not None
    assert new.images < 0.15 * new.seeds
    once = 100**2 * 2 * (chance * (1 - chance)).mean() / (4 * 20_000)
    assert these.seeds == pytest.approx(once, rel=0.4)
    assert noise.these_runs(weights).images == pytest.approx(once, rel=0.1), (
        "what a bootstrap would add again"
    )


def test_what_rows_differ_in_image_by_image_is_found() -> None:
    rng = np.random.default_rng(3)
    easy, hard = np.full(4000, 0.95), np.full(4000, 0.05)
    a, b = np.concatenate([easy, hard]), np.concatenate([hard, easy])
    noise = VarianceComponents(measured(a=draw(rng, a, 3), b=draw(rng, b, 3)))
    new = noise.new_images(noise.weights({"a": 1, "b": -1}))
    assert new is not None
    assert new.images == pytest.approx(100**2 * 0.9**2 / 8000, rel=0.05)


def seeds_move_rows(
    rng: np.random.Generator, correlation: float, rows: int, seeds: int
) -> VarianceComponents:
    common, alone = rng.normal(size=seeds), rng.normal(size=(rows, seeds))
    shift = 0.02 * (correlation**0.5 * common + (1 - correlation) ** 0.5 * alone)
    arrays = {
        f"r{i}": np.stack([draw(rng, np.full(20_000, 0.7 + s), 1)[0] for s in shift[i]])
        for i in range(rows)
    }
    return VarianceComponents(measured(**arrays))


def test_a_seed_that_moves_rows_together_is_seen_and_paired_away() -> None:
    rng = np.random.default_rng(4)
    together, apart = seeds_move_rows(rng, 0.8, 6, 8), seeds_move_rows(rng, 0.0, 6, 8)
    assert together.same_seed is not None
    assert apart.same_seed is not None
    assert together.same_seed.low > 0.3
    assert apart.same_seed.low < 0 < apart.same_seed.high
    widths = []
    for noise in (together, apart):
        uncertainty = noise.these_images(noise.weights({"r1": 1, "r0": -1}))
        assert uncertainty is not None
        assert uncertainty.freedom == pytest.approx(5 * 7)
        widths.append(uncertainty.error)
    assert widths[0] < 0.65 * widths[1]


def test_seeds_that_are_not_shared_keep_what_pairing_would_take_away() -> None:
    rng = np.random.default_rng(5)
    noise = seeds_move_rows(rng, 0.9, 6, 6)
    runs = noise.measured
    apart = np.where(runs.row == 0, runs.seed < 3, np.where(runs.row == 1, runs.seed >= 3, True))
    paired = np.where(runs.row <= 1, runs.seed < 3, True)
    errors = []
    for kept in (apart, paired):
        some = VarianceComponents(runs.some(kept))
        uncertainty = some.these_images(some.weights({"r1": 1, "r0": -1}))
        assert uncertainty is not None
        errors.append(uncertainty.error)
    assert errors[0] > 2 * errors[1]


def test_one_seed_everywhere_says_nothing_of_seeds() -> None:
    rng = np.random.default_rng(6)
    noise = VarianceComponents(
        measured(a=draw(rng, np.full(900, 0.7), 1), b=draw(rng, np.full(900, 0.6), 1))
    )
    weights = noise.weights({"a": 1, "b": -1})
    assert noise.these_images(weights) is None
    assert noise.new_images(weights) is None
    gaps = 100.0 * (
        noise.measured.covariance[0, 0]
        + noise.measured.covariance[1, 1]
        - 2 * noise.measured.covariance[0, 1]
    )
    assert noise.these_runs(weights).images == pytest.approx(
        gaps / 100 / 900 + 2 * (100 / 900) ** 2
    )


def test_seeds_that_agree_to_the_image_are_not_taken_for_certainty() -> None:
    same = np.repeat((np.arange(400) < 200).astype(np.uint8)[None], 3, axis=0)
    noise = VarianceComponents(measured(a=same, b=same))
    for uncertainty in (
        noise.these_images(np.array([1.0, -1.0])),
        noise.new_images(np.array([1.0, -1.0])),
    ):
        assert uncertainty is not None
        assert uncertainty.error > 0.1
        assert 2 * uncertainty.tail(0.0) == pytest.approx(1)


def test_a_run_that_rows_share_varies_once() -> None:
    rng = np.random.default_rng(8)
    a, b = (draw(rng, np.full(900, chance), 3) for chance in (0.7, 0.6))

    def of(*names: str) -> Measured:
        made = {"a": a, "b": b}
        return Measured.of(
            {
                name: Runs(
                    (0, 1, 2), made[name[0]], tuple(f"{name[0]}-{seed}" for seed in range(3))
                )
                for name in names
            }
        )

    plain, shared = (
        VarianceComponents(of("a", "b")),
        VarianceComponents(of("a", "a again", "b", "b again")),
    )
    halves = {"a": 0.5, "a again": 0.5, "b": -0.5, "b again": -0.5}
    for question in ("these_images", "new_images"):
        found = getattr(shared, question)(shared.weights(halves))
        expected = getattr(plain, question)(plain.weights({"a": 1.0, "b": -1.0}))
        assert (found.seeds, found.freedom) == pytest.approx((expected.seeds, expected.freedom))
        assert found.images == pytest.approx(expected.images)
    covariance = shared.covariance_of_levels("these")
    assert covariance[0, 1] == pytest.approx(covariance[0, 0])
    assert covariance[0, 2] == pytest.approx(0)
    itself = shared.these_images(shared.weights({"a": 1.0, "a again": -1.0}))
    assert itself.seeds == 0


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
def test_tail_and_reach_are_each_others_inverse(uncertainty: Uncertainty, quantile: float) -> None:
    assert uncertainty.reach(0.01) == pytest.approx(quantile, rel=1e-9)
    for tail in (0.6, 0.3, 0.01, 1e-6, 1e-12):
        assert uncertainty.tail(uncertainty.reach(tail)) == pytest.approx(tail, rel=1e-5)
    assert uncertainty.tail(1e9) < 1e-9


def test_eighteen_rows_of_five_seeds_and_25_250_images_are_fast_and_small() -> None:
    rng = np.random.default_rng(7)
    rows = {f"r{i}": draw(rng, np.full(25_250, 0.8), 5) for i in range(18)}
    tracemalloc.start()
    start = time.perf_counter()
    noise = VarianceComponents(measured(**rows))
    for i in range(1, 18):
        noise.new_images(noise.weights({f"r{i}": 1, f"r{i - 1}": -1}))
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 5
    assert peak < 50e6
