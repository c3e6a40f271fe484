"""Where rows differ: classes, confusion, calibration, images that turned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from report import calibration, classes
from report.tables import Summary
from tests.report.conftest import CLASSES, StudyFolder

Make = Callable[..., StudyFolder]


@pytest.fixture
def summary(make_study: Make) -> Summary:
    """Six classes of 100 images. baseline: the first 50 of each class are right.

    training-recipe: the same, but all of pizza and none of ramen, and ten more of sushi with every
    further seed.
    """
    study = make_study(test=600)
    label = np.arange(600) % 6
    place = np.arange(600) // 6
    for seed in range(4):
        study.add("baseline", place < 50, seed=seed)
        right = (place < 50) & (label != CLASSES.index("ramen")) | (label == CLASSES.index("pizza"))
        right |= (label == CLASSES.index("sushi")) & (place < 50 + 10 * seed)
        study.add("training-recipe", right, seed=seed)
    return study.summary()


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


def test_changed_predictions_are_counted_by_most_seeds(summary: Summary) -> None:
    """Three of four seeds have ten of sushi more."""
    counts = classes.changed_predictions(summary).iloc[0]
    assert (counts["to_right"], counts["to_wrong"]) == (60, 50)
    assert counts["between_seeds"] == pytest.approx(10 * (3 * 1 + 2 * 2 + 3) / 6)
