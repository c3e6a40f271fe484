"""Designs in the report: effects that are known beforehand, missing runs, rows that are one
network."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

import ablations
from ablations.designs import DesignSpec, build_design
from report import page
from studies.plan import Family, Plan

WORTH = {"gelu": 6.0, "layer-norm": -4.0}
"""Points that a decision adds; all others add nothing."""


@pytest.fixture
def note(make_study):
    """note(request, seeds) -> a study with every row of that design, whose accuracies add up from
    WORTH."""

    def make(request: DesignSpec, seeds: int = 3, missing: tuple[str, ...] = ()):
        study = make_study(test=2000)
        design = build_design(ablations.PAPER, ablations.REGIMES["mini"], request)
        path = study.root / "study.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"designs": [design.record]}))
        rng = np.random.default_rng(0)
        difficulty = rng.uniform(size=2000)
        for row in design.variants:
            level = 0.60 + sum(WORTH.get(name, 0.0) for name in row.decisions) / 100
            for seed in range(seeds if row.name not in missing else 0):
                study.add(row.name, difficulty + rng.normal(0, 0.02, 2000) < level, seed=seed)
        return study, design

    return make


def written(study, kind: str) -> pd.DataFrame:
    page.write(study.root)
    return pd.read_csv(study.root / f"report/design_1_{kind}_effects.csv").set_index("effect")


def effects(study, kind: str) -> pd.DataFrame:
    return study.report()[0][f"design_1_{kind}_effects"].set_index("effect")


REQUESTS = [
    DesignSpec("leave-one-out"),
    DesignSpec("one-at-a-time"),
    DesignSpec("orders", base="training-recipe", factors=("gelu", "layer-norm", "macro-design")),
    DesignSpec("orders", variants_at_most=40),
    DesignSpec("factorial", base="training-recipe", factors=("gelu", "layer-norm", "macro-design")),
]


@pytest.mark.parametrize(
    "request_", REQUESTS, ids=lambda request: f"{request.kind}-{request.variants_at_most}"
)
def test_known_effects_are_found_and_no_others(note, request_) -> None:
    study, design = note(request_)
    found = written(study, request_.kind.replace("-", "_"))
    assert list(found.index) == [effect.name for effect in design.effects]
    for name, row in found.iterrows():
        assert row.points == pytest.approx(WORTH.get(name, 0.0), abs=1.5), name
        expected = {"gelu": "gain", "layer-norm": "loss"}.get(name)
        if design.orders:  # three orders of thirteen decisions may leave anything open
            assert row.verdict in (expected, "not resolved"), name
        else:
            assert row.verdict == expected if expected else row.verdict not in ("gain", "loss"), (
                name
            )
    text = (study.root / "report/report.md").read_text()
    assert (study.root / f"report/design_1_{request_.kind.replace('-', '_')}.png").exists()
    short = text.partition("## In short")[2].partition("## The steps")[0]
    if request_.kind == "leave-one-out":  # the page begins with what the design found
        [line] = [
            line
            for line in short.splitlines()
            if line.startswith("- **Leave one out: roadmap paper**: ")
        ]
        assert "; gain: gelu (+" in line
        assert "; loss: layer-norm (−" in line
    if request_.variants_at_most:
        assert "3 orders were drawn at random" in text
        assert "so few orders may happen to be alike" in text
        assert found["variance_from_orders"].notna().all()


def test_one_seed_gets_no_verdict_and_a_missing_run_is_said(note) -> None:
    study, _ = note(DesignSpec("leave-one-out"), seeds=1, missing=("without-gelu",))
    tables, text = study.report()
    found = tables["design_1_leave_one_out_effects"].set_index("effect")
    assert found.loc["gelu", "verdict"] == "a run is missing"
    assert "- Of the design leave-one-out, no finished run: without-gelu.\n" in text
    assert found.loc["layer-norm", "verdict"] == "one seed, no verdict"


def test_rows_that_are_one_network_and_recipe_have_no_effect(note) -> None:
    study, _ = note(DesignSpec("one-at-a-time"))
    for seed in range(3):
        for file in ("config.json", "result.json"):
            study.edit(file, "only-gelu", seed, variant_digest="baseline")
    assert effects(study, "one_at_a_time").loc["gelu", "verdict"] == "changes nothing here"


def test_a_design_that_study_json_cannot_mean_is_refused(note) -> None:
    study, _ = note(DesignSpec("leave-one-out"), seeds=1)
    path = study.root / "study.json"
    path.write_text(
        json.dumps(
            json.loads(path.read_text()) | {"designs": [{"roadmap": "paper", "kind": "sideways"}]}
        )
    )
    with pytest.raises(ValueError, match="is damaged: --design is 'sideways'"):
        page.write(study.root)


def test_a_fixed_design_is_judged_alike_alongside_interim_analyses(note) -> None:
    study, design = note(DesignSpec("leave-one-out"))
    own, other = ("paper, leave-one-out", design.family), ("cumulative", (("width", "depthwise"),))
    for row, seed in itertools.product(
        ("depthwise", "width"), range(3)
    ):  # which spread much, and are no rows of it
        study.add(row, 800 + 300 * seed, seed=seed)
    path = study.root / "study.json"
    answers = []
    for plan in (
        Plan((Family(*own, (3,)), Family(*other, (3,))), (0, 1, 2)),
        Plan((Family(*own, (3,)), Family(*other, (3, 4, 6, 10))), tuple(range(10))),
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"plans": [plan.as_json()]}))
        answers.append(effects(study, "leave_one_out"))
    pd.testing.assert_frame_equal(*answers)
