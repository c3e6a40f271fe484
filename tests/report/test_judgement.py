"""Verdicts: real differences are detected, noise is not, and one seed gets no verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

import ablations
from ablations.designs import DesignSpec, build_design
from ablations.roadmaps import get_roadmap
from benchmarks.worlds import World, measurements
from report.collect import read
from report.judgement import Judgement
from report.sequential import (
    judge,
    missing_seeds,
    next_seeds,
    nominal_level,
    nominal_levels,
    whole_level,
)
from report.statistics import Measurements
from report.tables import Summary
from studies.plan import Family, Plan


def levels(**variants: list[float]) -> Measurements:
    """Runs of these points on 100,000 images; which images are right is drawn at random."""
    rng = np.random.default_rng(0)
    correct = {
        name: np.stack([rng.permutation(np.arange(100_000) < round(1000 * p)) for p in points])
        for name, points in variants.items()
    }
    return measurements(correct)


def chain(*names: str, **options: object) -> Plan:
    """One analysis of three seeds, each name against the one before."""
    pairs = tuple(zip(names[1:], names[:-1]))
    return Plan((Family("steps", pairs, (3,)),), (0, 1, 2), **options)


def one(runs: Measurements, plan: Plan) -> Judgement:
    return judge(runs, plan)[0]


TIGHT = {"margin": 0.5, "images": "fixed"}
AROUND = {"x": [70.0, 70.05, 69.95], "y": [70.02, 69.98, 70.0], "z": [70.03, 70.0, 69.97]}


@pytest.mark.parametrize(
    ("points", "verdict", "text"),
    [
        ([72.0, 72.05, 71.95], "gain", "gain"),
        ([68.0, 68.05, 67.95], "loss", "loss"),
        ([70.01, 70.0, 70.03], "no difference", "no difference larger than 0.5"),
        ([70.35, 70.3, 70.4], "gain", "gain"),
        ([69.6, 70.9, 70.6], "not resolved", "not resolved"),
    ],
)
def test_the_four_verdicts(points: list[float], verdict: str, text: str) -> None:
    judged = one(levels(row=points, **AROUND), chain("x", "row", **TIGHT))
    assert (judged.verdict, judged.text) == (verdict, text)
    assert judged.points == pytest.approx(np.mean(points) - 70.0)


def test_no_difference_needs_two_one_sided_tests() -> None:
    runs = levels(a=[70.0, 70.1, 70.2], b=[70.1, 70.2, 70.0])
    answer = one(runs, chain("a", "b", **TIGHT)).answers["fixed"]
    assert answer.p_margin == pytest.approx(stats.t.sf(0.5 / answer.standard_error, 4), rel=1e-6)


def test_one_seed_gets_a_description_and_no_verdict() -> None:
    runs = levels(a=[70.0], b=[80.0], c=[70.0, 70.1, 70.2], d=[80.0, 80.2, 80.1])
    pairs = (("b", "a"), ("b", "c"), ("d", "c"))
    single, half, full = judge(runs, Plan((Family("steps", pairs, (3,)),), (0, 1, 2)))
    for described in (single, half):
        assert (described.verdict, described.text) == ("one seed", "one seed, no verdict")
        assert described.sign == 0
        assert described.answer is None
        assert described.these_runs[0] < described.points < described.these_runs[1]
    assert full.verdict == "gain"


def test_planned_comparisons_without_runs_count_for_holm() -> None:
    runs = levels(a=[70.0, 70.1, 70.2], b=[70.6, 70.7, 70.5])
    alone = one(runs, chain("a", "b")).answers["new"]
    planned = one(runs, chain("a", "b", "not", "run", "yet")).answers["new"]
    assert alone.p_holm == alone.p
    assert planned.p_holm == pytest.approx(4 * planned.p)


def test_the_smallest_p_without_assumptions() -> None:
    assert one(levels(a=[70.0] * 5, b=[71.0] * 5), chain("a", "b")).smallest_p == 0.0625
    runs = levels(a=[70.0] * 3, b=[71.0] * 3)
    apart = replace(runs, seed=runs.seed + 10 * runs.variant)
    assert one(apart, chain("a", "b")).smallest_p == pytest.approx(2 / 20)


WORLD = World(effects=(2.0, 0.0, 0.0, -1.5), seeds=8, images=4000, deviation=0.2)
PAIRS = tuple((f"variant-{i}", f"variant-{i - 1}") for i in range(1, 5))
SEQUENTIAL = Plan(
    (Family("steps", PAIRS, (2, 3, 5, 8)),), tuple(range(8)), margin=1.0, images="fixed"
)


def train(every: Measurements, plan: Plan) -> tuple[Measurements, list[Mapping[str, object]]]:
    """Train what the rule requests until it requests nothing more."""
    kept, requests, runs = np.zeros(len(every.seed), bool), [], None
    while more := next_seeds(runs, plan):
        requests.append(more)
        for name, seeds in more.items():
            kept |= (every.variant == every.variants.index(name)) & np.isin(every.seed, seeds)
        runs = every.select(kept)
    assert runs is not None
    return runs, requests


def test_seeds_are_added_only_where_a_comparison_is_open() -> None:
    every = measurements(WORLD.draw(np.random.default_rng(4))[0])
    runs, requests = train(every, SEQUENTIAL)
    assert requests[0] == {f"variant-{i}": (0, 1) for i in range(5)}
    assert all(seeds == (2,) for seeds in requests[1].values())
    assert len(requests[-1]) < 5
    assert len(runs.seed) < 40
    judged = judge(runs, SEQUENTIAL)
    assert (judged[0].verdict, judged[3].verdict) == ("gain", "loss")
    assert max(one.analyses for one in judged) == len(requests)
    # Later runs do not change a verdict that stopped a comparison.
    later = judge(every, SEQUENTIAL)[0]
    assert later.seeds[0] == (2, 3, 5, 8)[later.analyses - 1]
    assert (later.points, later.verdict) == (judged[0].points, judged[0].verdict)


@pytest.mark.parametrize("most", [4, 9, 12, 17])
def test_the_rule_keeps_within_its_runs(most: int) -> None:
    every = measurements(WORLD.draw(np.random.default_rng(4))[0])
    runs, _ = train(every, replace(SEQUENTIAL, runs_at_most=most))
    assert len(runs.seed) <= most
    assert not next_seeds(None, replace(SEQUENTIAL, runs_at_most=3))


STEPS = Family("steps", (("b", "a"),), (3, 4))


def test_seeds_that_another_family_requested_are_not_added_to_a_fixed_one() -> None:
    runs = levels(a=[70.0, 70.1, 79.0], b=[70.2, 70.0, 79.0], c=[72.0, 72.1])
    fixed = Family("fixed", (("c", "a"),), (2,))
    *_, judged = judge(runs, Plan((STEPS, fixed), (0, 1, 2, 3), **TIGHT))
    assert (judged.seeds, judged.points) == ((2, 2), pytest.approx(2.0))
    assert one(runs, Plan((fixed,), (0, 1), **TIGHT)).seeds == (2, 3)


def test_all_families_share_the_limit_of_runs() -> None:
    runs = levels(a=[70.0] * 2, b=[70.3] * 2, c=[70.0] * 2, d=[71.0] * 2)
    families = (Family("steps", (("b", "a"),), (3, 4, 5)), Family("fixed", (("d", "c"),), (5,)))
    plan = Plan(families, (0, 1, 2, 3, 4), **TIGHT, runs_at_most=10)
    assert next_seeds(runs, plan) == {"a": (2,), "b": (2,)}
    unlimited = next_seeds(None, replace(plan, runs_at_most=None))
    assert unlimited == {**dict.fromkeys("ab", (0, 1, 2)), **dict.fromkeys("cd", (0, 1, 2, 3, 4))}


def test_bounds_are_the_published_ones() -> None:
    """Jennison and Turnbull (2000), section 7.2: five equal analyses, two-sided 0.05."""
    bounds = [-special.ndtri(level / 2) for level in nominal_levels(0.05, (1, 2, 3, 4, 5))]
    assert bounds == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=0.002)


def test_all_analyses_together_err_as_often_as_promised() -> None:
    analyses = (2, 3, 4, 5, 6, 8, 10)
    bounds = -special.ndtri(np.array(nominal_levels(0.05, analyses)) / 2)
    steps = np.random.default_rng(0).standard_normal((200_000, 10)).cumsum(axis=1)
    z = steps[:, np.array(analyses) - 1] / np.sqrt(analyses)
    assert (np.abs(z) > bounds).any(axis=1).mean() == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize("level", [1e-6, 0.003, 0.05, 0.4])
@pytest.mark.parametrize("analysis", range(3))
def test_whole_level_inverts_nominal_level(level: float, analysis: int) -> None:
    own = nominal_level(level, analysis, (2, 4, 7))
    assert own < level
    assert whole_level(own, analysis, (2, 4, 7)) == pytest.approx(level, rel=1e-6)
    assert nominal_level(level, 0, (5,)) == whole_level(level, 0, (5,)) == level


OTHER_ROADMAP = """
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
def two_roadmaps(make_study, tmp_path):
    """A study with two seeds of depthwise and width, and a second roadmap without runs."""
    study, rng = make_study(test=2000), np.random.default_rng(0)
    for name, level in (("depthwise", 0.7), ("width", 0.75)):
        for seed in (0, 1):
            study.add(name, rng.uniform(size=2000) < level, seed=seed)
    (tmp_path / "more.toml").write_text(OTHER_ROADMAP)
    regime = ablations.get_regime("mini")
    roadmaps = ablations.PAPER, get_roadmap(str(tmp_path / "more.toml"))
    designs = [build_design(roadmap, regime, DesignSpec()) for roadmap in roadmaps]
    return study, designs


def test_each_roadmap_is_judged_by_its_own_runs(two_roadmaps) -> None:
    study, designs = two_roadmaps
    pairs = {"paper": (("width", "depthwise"),), "more": (("more", "finer"),)}
    plan = Plan(tuple(Family(*item, (2, 3)) for item in pairs.items()), (0, 1, 2))
    study.note(designs=[one.record for one in designs], plans=[plan.as_json()])
    summary = Summary(read(study.root))
    assert summary.interim_analyses == 1
    assert summary.differences["width"].verdict == "gain"
    assert missing_seeds(study.root, plan, designs[0]) == {}
    assert missing_seeds(study.root, plan, designs[1]) == {"more": (0, 1), "finer": (0, 1)}
