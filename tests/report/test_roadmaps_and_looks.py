"""A study of several roadmaps whose plan has several looks: each is judged by what it needs
itself."""

import json
from dataclasses import replace

import numpy as np
import pytest
from report.until import missing

import ablations
from ablations.designs import DesignSpec, build_design
from ablations.roadmaps import own
from report.collect import read
from report.tables import Summary
from studies.plan import Family, Noted, Plan

MORE = """
description = "another"
start = "depthwise"

[[step]]
name = "finer"
description = "a stem of stride 1"
architecture.stem_stride = 1

[[step]]
name = "more"
description = "a kernel of 5"
architecture.kernel_size = 5
"""


@pytest.fixture
def study(make_study, tmp_path):
    """Two seeds of depthwise and of width, 5 points better; a plan of two looks that names another
    roadmap's rows."""
    made = make_study(test=2000)
    rng = np.random.default_rng(0)
    for row, level in (("depthwise", 0.7), ("width", 0.75)):
        for seed in (0, 1):
            made.add(row, rng.uniform(size=2000) < level, seed=seed)
    regime = ablations.REGIMES["pocket"]
    (tmp_path / "more.toml").write_text(MORE)
    other = own.read(tmp_path / "more.toml")
    designs = [build_design(roadmap, regime, DesignSpec()) for roadmap in (ablations.PAPER, other)]
    families = (Family("paper", (("width", "depthwise"),)), Family("more", (("more", "finer"),)))
    plan = Plan(families, (0, 1, 2), (2, 3))
    file = made.root / "study.json"
    content = json.loads(file.read_text())
    content |= {"designs": [one.record for one in designs], "plans": [Noted(plan, 0).as_json()]}
    file.write_text(json.dumps(content))
    return made, plan, designs


def test_the_other_roadmaps_missing_runs_take_no_verdict_away(study) -> None:
    made, _, _ = study
    summary = Summary(read(made.root))
    assert summary.judged.looks == 1
    assert summary.differences["width"].verdict == "gain"
    assert [family.name for family in summary.plan.families] == [
        "paper",
        "more",
    ]  # the page tells the whole plan


def test_each_design_is_asked_for_its_own_rows(study) -> None:
    made, plan, (paper, other) = study
    assert missing(made.root, plan, paper) == {}
    assert missing(made.root, plan, other) == {"more": (0, 1), "finer": (0, 1)}


def test_the_page_says_what_is_looked_at_when(study) -> None:
    made, plan, _ = study
    file = made.root / "study.json"
    steps, more = plan.families
    own = replace(plan, families=(steps, replace(more, looks=(1,))))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"plans": [Noted(own, 0).as_json()]}))
    _, text = made.told()
    assert "in families (paper: 1; more: 1, 1 seed, one look), level 0.05" in text
    assert "looks after 2, 3 seeds (pocock spending); 1 look taken." in text


def test_a_page_of_fixed_comparisons_in_a_study_that_goes_on_elsewhere(study) -> None:
    made, plan, _ = study
    file = made.root / "study.json"
    steps, more = plan.families
    own = replace(plan, families=(replace(steps, looks=(2,)), more))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"plans": [Noted(own, 0).as_json()]}))
    made.add("depthwise", 1400, seed=2)
    _, text = made.told()
    assert "looked at several times" not in text
    assert "over all looks" not in text
    assert "taken." not in text
    assert "eed 2 was not run" not in text
    assert "not run for any step" not in text
    assert "| gain" in text
    fewer = replace(plan, families=(replace(steps, looks=(3,)), more))
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"plans": [Noted(fewer, 0).as_json()]})
    )
    assert "- Seed 2 was not run for 5 width." in made.told()[1]


def test_a_comparison_before_its_first_look_is_no_result(study) -> None:
    made, _, _ = study
    (made.folder("width", 1) / "result.json").unlink()
    made.add("width", 1600, seed=2)
    _, text = made.told()
    assert "not looked at yet" in text
    assert "| 1.00" not in text
