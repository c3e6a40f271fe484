"""What accuracy costs: medians, fronts and changes."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from report import costs
from tests.report.conftest import SECONDS, StudyFolder

Make = Callable[..., StudyFolder]


def test_a_row_is_on_the_front_unless_another_is_as_good_for_less() -> None:
    cost = np.array([1.0, 2, 3, np.nan, 2, 2])
    accuracy = np.array([5.0, 6, 5.5, 9, 6, 5])
    assert costs.front(cost, accuracy).tolist() == [True, True, False, False, True, False]


def test_each_cost_has_its_own_front_and_change(make_study: Make) -> None:
    study = make_study()
    hits = {"baseline": 200, "training-recipe": 220, "stage-ratio": 210}
    for (step, right), seconds in zip(hits.items(), (100.0, 50.0, 50.2), strict=True):
        study.add(step, right)
        study.edit("result.json", step, seconds={**SECONDS, "total": seconds})
    study.edit("result.json", "baseline", activations=None)
    tables, text = study.report()
    table = tables["costs"].set_index("name")
    assert table["front_gflops"].tolist() == [True, True, False]
    assert table["front_train_hours"].tolist() == [False, True, False]
    assert table["front_mactivations"].tolist() == [False, True, True], "they fall here"
    assert table.loc["training-recipe", "change_gflops"] == pytest.approx(100 / 28)
    assert np.isnan(table.loc["baseline", "points"]), "it changes no step"
    section = text.split("## What accuracy costs")[1].split("\n## ")[0]
    assert "MFLOPs" in section
    assert "| **29.00** " in section, "on the front, in a unit that reads"
    assert re.search(r"\| +– \|", section), "what was not measured"
    assert "FLOPs flatter depthwise networks" in section
    assert "inference of" not in section


def test_a_disturbed_run_moves_no_time(make_study: Make) -> None:
    study = make_study()
    for seed, milliseconds in enumerate((2.0, 40.0, 2.2)):
        study.add("baseline", 200, seed=seed)
        study.edit("result.json", "baseline", seed, inference_ms_64=milliseconds)
    assert costs.table(study.summary())["inference_ms_64"].tolist() == [2.2]
