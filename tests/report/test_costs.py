"""What accuracy costs: fronts, changes and prices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from report import costs
from report.collect import read
from report.page import write
from report.tables import Summary
from tests.report.conftest import StudyFolder

Make = Callable[..., StudyFolder]


@pytest.fixture
def three(make_study: Make) -> pd.DataFrame:
    """baseline 50 % at 0.028 GFLOPs, training-recipe 55 % at 0.029, stage-ratio 52.5 % at 0.030;
    100 to 50 s."""
    study = make_study()
    for step, hits, seconds in (
        ("baseline", 200, 100.0),
        ("training-recipe", 220, 50.0),
        ("stage-ratio", 210, 50.2),
    ):
        study.add(step, hits)
        study.edit("result.json", step, seconds={**costs_of(seconds)})
    return costs.table(Summary(read(study.root))).set_index("name")


def costs_of(total: float) -> dict[str, float]:
    parts = ("data", "forward", "backward", "optimizer", "evaluation", "other")
    return {**dict.fromkeys(parts, 1.0), "total": total}


def test_a_row_is_on_the_front_unless_another_is_as_good_for_less() -> None:
    cost = np.array([1.0, 2, 3, np.nan, 2, 2])
    accuracy = np.array([5.0, 6, 5.5, 9, 6, 5])
    assert costs.front(cost, accuracy).tolist() == [True, True, False, False, True, False]


def test_each_cost_has_its_own_front(three: pd.DataFrame) -> None:
    assert three["front_gflops"].tolist() == [True, True, False]
    assert three["front_train_hours"].tolist() == [False, True, False], (
        "half the time and more accurate"
    )
    assert three["front_mactivations"].tolist() == [False, True, True], (
        "activations fall from step to step here"
    )


def test_a_price_is_named_only_where_accuracy_and_cost_rose(three: pd.DataFrame) -> None:
    recipe = three.loc["training-recipe"]
    assert recipe["change_gflops"] == pytest.approx(100 / 28)
    assert recipe["points_per_10_percent_gflops"] == pytest.approx(5 / (100 / 28) * 10)
    assert np.isnan(recipe["points_per_10_percent_train_hours"]), "it is cheaper there"
    assert np.isnan(three.loc["stage-ratio", "points_per_10_percent_gflops"]), "nothing was gained"
    assert np.isnan(three.loc["baseline", "points"]), "it changes no step"


def test_what_was_not_measured_says_so_and_is_on_no_front(make_study: Make) -> None:
    study = make_study()
    for step, hits in (("baseline", 200), ("training-recipe", 220), ("stage-ratio", 230)):
        study.add(step, hits)
    study.edit("result.json", "baseline", activations=None)
    study.edit(
        "result.json",
        "training-recipe",
        inference_ms_1=2.5,
        inference_ms_64=80.0,
        peak_memory_mb=90.0,
    )
    summary = Summary(read(study.root))
    table = costs.table(summary).set_index("name")
    assert table["front_inference_ms_1"].tolist() == [False, True, False]
    names = [cost.title for cost in costs.COSTS]
    section = costs.section(summary)
    assert section["rows"][0][0] == "[0 baseline](#runs-baseline)", "numbers lead to their runs"
    rows = {
        row[0].split("]")[0][1:]: dict(zip(names, row[2:], strict=True)) for row in section["rows"]
    }
    assert (
        rows["0 baseline"]["activations (M)"]
        == rows["2 stage-ratio"]["inference of 64 (ms)"]
        == "not measured"
    )
    assert rows["1 training-recipe"]["inference of 1 (ms)"] == "**2.50**"
    assert rows["1 training-recipe"]["memory of training (MB)"] == "**90.00**"


@pytest.mark.parametrize("value", ["fast", True, [1.0]])
def test_a_cost_that_is_no_number_is_a_damaged_run(make_study: Make, value: object) -> None:
    study = make_study()
    study.add("baseline", 200)
    study.add("stage-ratio", 200)
    study.edit("result.json", "baseline", inference_ms_1=value)
    assert [run.name for run in read(study.root).left_out] == ["baseline/seed-0"]


def test_the_page_marks_the_fronts_and_says_what_flops_do_not(make_study: Make) -> None:
    study = make_study()
    study.add("baseline", 200)
    study.add("training-recipe", 220)
    write(study.root)
    page = (study.root / "report" / "report.md").read_text()
    section = page.split("## What accuracy costs")[1].split("\n## ")[0]
    assert "**0.0290**" in section
    assert "FLOPs count arithmetic only and flatter depthwise networks" in section
    assert "+4 % (14.00)" in section
    assert (study.root / "report" / "costs.png").exists()
    table = pd.read_csv(study.root / "report" / "costs.csv")
    assert list(table["name"]) == ["baseline", "training-recipe"]
    assert table["train_hours"][0] == 100 / 3600
