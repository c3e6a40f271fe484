"""Designs in the report: effects that are known beforehand, missing runs, rows that are one
network."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import ablations
from ablations.designs import Design, DesignSpec, build_design
from studies.plan import Family, Plan
from tests.report.conftest import StudyFolder

Make = Callable[..., StudyFolder]
WORTH = {"gelu": 6.0, "layer-norm": -4.0}
"""Points that a decision adds; all others add nothing."""
THREE = ("gelu", "layer-norm", "macro-design")


@pytest.fixture
def note(make_study: Make) -> Callable[..., tuple[StudyFolder, Design]]:
    """note(spec, seeds) -> a study with every row of that design, whose accuracies add up from
    WORTH."""

    def make(spec: DesignSpec, seeds: int = 3, missing: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
        study = make_study(test=2000)
        design = build_design(ablations.PAPER, ablations.get_regime("pocket"), spec)
        study.note(designs=[design.record])
        rng = np.random.default_rng(0)
        difficulty = rng.uniform(size=2000)
        for row in design.variants:
            level = 0.60 + sum(WORTH.get(name, 0.0) for name in row.decisions) / 100
            for seed in range(seeds if row.name not in missing else 0):
                study.add(row.name, difficulty + rng.normal(0, 0.02, 2000) < level, seed=seed)
        return study, design

    return make


def effects(study: StudyFolder, kind: str) -> pd.DataFrame:
    return study.report()[0][f"design_1_{kind}_effects"].set_index("effect")


SPECS = [
    DesignSpec("leave-one-out"),
    DesignSpec("one-at-a-time"),
    DesignSpec("orders", base="training-recipe", factors=THREE),
    DesignSpec("orders", variants_at_most=40),
    DesignSpec("factorial", base="training-recipe", factors=THREE),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{spec.variants_at_most}")
def test_known_effects_are_found_and_no_others(note, spec: DesignSpec) -> None:
    study, design = note(spec)
    tables, text = study.report()
    kind = spec.kind.replace("-", "_")
    found = tables[f"design_1_{kind}_effects"].set_index("effect")
    assert list(found.index) == [effect.name for effect in design.effects]
    for name, row in found.iterrows():
        assert row.difference == pytest.approx(WORTH.get(name, 0.0), abs=1.5), name
        expected = {"gelu": "gain", "layer-norm": "loss"}.get(name)
        if design.orders:  # three orders of thirteen decisions may leave anything open
            assert row.verdict in (expected, "not resolved"), name
        elif expected:
            assert row.verdict == expected, name
        else:
            assert row.verdict not in ("gain", "loss"), name
    assert f"(design_1_{kind}.png)" in text
    if spec.variants_at_most:
        assert "3 orders were drawn at random" in text
        assert "o few orders may happen to be alike" in text
        assert found["variance_from_orders"].notna().all()


def test_one_seed_gets_no_verdict_and_a_missing_run_is_named(note) -> None:
    study, _ = note(DesignSpec("leave-one-out"), seeds=1, missing=("without-gelu",))
    tables, text = study.report()
    found = tables["design_1_leave_one_out_effects"].set_index("effect")
    assert found.loc["gelu", "verdict"] == "a run is missing"
    assert "- Of the design leave-one-out, no finished run: without-gelu.\n" in text
    assert found.loc["layer-norm", "verdict"] == "one seed, no verdict"


def test_rows_that_are_one_network_and_recipe_have_no_effect(note) -> None:
    study, _ = note(DesignSpec("one-at-a-time"))
    for seed, file in itertools.product(range(3), ("config.json", "result.json")):
        study.edit(file, "only-gelu", seed, variant_digest="baseline")
    assert effects(study, "one_at_a_time").loc["gelu", "verdict"] == "changes nothing here"


def test_a_fixed_design_is_judged_alike_alongside_interim_analyses(note) -> None:
    study, design = note(DesignSpec("leave-one-out"))
    own, other = ("paper, leave-one-out", design.family), ("cumulative", (("width", "depthwise"),))
    for row, seed in itertools.product(("depthwise", "width"), range(3)):
        study.add(row, 800 + 300 * seed, seed=seed)  # they spread much, and are no rows of it
    answers = []
    for plan in (
        Plan((Family(*own, (3,)), Family(*other, (3,))), (0, 1, 2)),
        Plan((Family(*own, (3,)), Family(*other, (3, 4, 6, 10))), tuple(range(10))),
    ):
        study.note(plans=[plan.as_json()])
        answers.append(effects(study, "leave_one_out"))
    pd.testing.assert_frame_equal(*answers)
