"""Where rows differ: classes, confusion, calibration, images that turned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from benchmarks.worlds import measurements
from report import calibration, classes
from report.collect import read
from report.statistics import VarianceComponents
from report.tables import Summary
from tests.report.conftest import CLASSES, StudyFolder

Make = Callable[..., StudyFolder]


def two_rows(study: StudyFolder, seeds: int = 4) -> Summary:
    """Six classes of 100 images. baseline: the first 50 of each class are right.

    training-recipe: the same, but all of pizza and none of ramen, and ten more of sushi with every
    further seed.
    """
    label = np.arange(600) % 6
    place = np.arange(600) // 6
    for seed in range(seeds):
        study.add("baseline", place < 50, seed=seed)
        right = (place < 50) & (label != CLASSES.index("ramen")) | (label == CLASSES.index("pizza"))
        right |= (label == CLASSES.index("sushi")) & (place < 50 + 10 * seed)
        study.add("training-recipe", right, seed=seed)
    return Summary(read(study.root))


@pytest.fixture
def summary(make_study: Make) -> Summary:
    return two_rows(make_study(test=600))


def test_each_class_has_its_change_at_each_step(summary: Summary) -> None:
    table = classes.table(summary).set_index("class")
    assert list(table.index) == list(CLASSES)
    assert table["points"].tolist() == pytest.approx([0, 50, -50, 15, 0, 0])
    assert table.loc["pizza", ["images", "top1_after", "top1"]].tolist() == [100, 50, 100]
    assert table.loc["pizza", "low"] > 0 > table.loc["ramen", "high"]
    assert table.loc["sushi", "low"] < 0 < table.loc["sushi", "high"], (
        "a mean of 0, 10, 20 and 30 is not clear"
    )
    assert table["covers_seeds"].all()


def test_intervals_of_one_seed_are_marked(make_study: Make) -> None:
    study = make_study(test=600)
    assert not classes.table(two_rows(study, seeds=1))["covers_seeds"].any()
    assert "another seed could move a class further" in study.report()[1]


def test_class_intervals_cover_what_new_seeds_and_images_would_give() -> None:
    """Of one class alone: 100 images, three seeds; its 95 % intervals over 300 simulated
    studies."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        hard = rng.normal(size=100)
        rows = {}
        for row, level in (("a", 0.5), ("b", 0.7)):
            seeds = [level + hard + rng.normal(0, 0.6, 100) > 0 for _ in range(3)]
            rows[row] = np.stack(seeds)
        components = VarianceComponents(measurements(rows))
        estimate = components.estimate({"b": 1.0, "a": -1.0})
        truth = 100 * (normal_cdf(0.7 / 1.36**0.5) - normal_cdf(0.5 / 1.36**0.5))
        half = estimate.uncertainty["new"].half_width(0.025)
        covered += abs(estimate.points - truth) <= half
    assert 0.92 <= covered / 300 <= 1


def normal_cdf(value: float) -> float:
    from scipy.stats import norm

    return float(norm.cdf(value))


def test_the_last_steps_confusions_add_up_to_its_errors(summary: Summary) -> None:
    table = classes.confusion(summary)
    assert set(table["step"]) == {"training-recipe"}
    wrong = 600 - summary.correct["training-recipe"].sum() / 4
    assert table["images"].sum() == pytest.approx(wrong)
    first = table.iloc[0]
    assert (first["class"], first["taken_for"], first["images"], first["percent"]) == (
        "ramen",
        "sushi",
        100,
        100,
    )
    assert not (table["class"] == table["taken_for"]).any()


def test_ece_is_the_distance_of_confidence_and_accuracy(summary: Summary) -> None:
    """Every image is predicted with 0.6; baseline is right on half."""
    table = calibration.table(summary).set_index("name")
    assert table.loc["baseline", "ece"] == pytest.approx(10, abs=1e-4)
    assert table.loc["baseline", "overconfidence"] == pytest.approx(10, abs=1e-4)


def test_a_calibrated_networks_ece_is_small_and_its_interval_covers_a_larger_sample() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.2, 1, 20_000)
    calibrated = calibration.ece_terms(confidence, rng.uniform(size=20_000) < confidence)
    assert calibrated.mean() < 0.015
    doubtful = calibration.ece_terms(
        confidence, rng.uniform(size=20_000) < np.minimum(1, confidence + 0.1)
    )
    low, high = calibration.interval(doubtful[None])
    assert low < np.minimum(0.1, 1 - np.linspace(0.2, 1, 100_001)).mean() < high
    assert high - low < 0.03


def test_without_the_probability_of_the_best_class_the_page_says_what_is_not_known(
    make_study: Make,
) -> None:
    study = make_study(test=600)
    two_rows(study)
    for run in study.root.glob("*/seed-*"):
        table = pd.read_csv(run / "predictions.csv")
        table.drop(columns="p_top1").to_csv(run / "predictions.csv", index=False)
    tables, page = study.report()
    assert "Not known: these runs wrote the probability of the true class only" in page
    assert tables["calibration"].empty


def test_changed_predictions_are_counted_by_most_seeds(summary: Summary) -> None:
    """Three of four seeds have ten of sushi more."""
    counts = classes.changed_predictions(summary).iloc[0]
    assert (counts["to_right"], counts["to_wrong"]) == (60, 50)
    assert counts["between_seeds"] == pytest.approx(10 * (3 * 1 + 2 * 2 + 3) / 6)


def test_a_class_may_be_called_anything(make_study: Make) -> None:
    study = make_study(test=600)
    two_rows(study)
    path = study.root / "study.json"
    path.write_text(path.read_text().replace('"pizza"', '"<b>a | b</b>"'))
    page = study.report()[1]
    assert "&lt;b&gt;a \\| b&lt;/b&gt;" in page
    assert "<b>a" not in page
