"""Verdicts: what is there is found, noise is not, and nothing is said on one seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from report.contrast import holm
from report.variance import Measured, Runs
from scipy import stats
from statsmodels.stats.multitest import multipletests

from benchmarks.worlds import World
from report.judgement import Judgement
from report.sequential import judge, next_seeds
from studies.plan import Family, Plan, fixed


def levels(**rows: list[float]) -> Measured:
    """Runs of so many points each, on 100,000 images; which are right is drawn by lot but for the
    number."""
    rng = np.random.default_rng(0)
    runs = {}
    for name, points in rows.items():
        correct = np.zeros((len(points), 100_000), dtype=np.uint8)
        order = rng.permuted(np.tile(np.arange(100_000), (len(points), 1)), axis=1)
        for seed, value in enumerate(points):
            correct[seed, order[seed, : round(1000 * value)]] = 1
        runs[name] = Runs(tuple(range(len(points))), correct)
    return Measured.of(runs)


def chain(*names: str, **how: object) -> Plan:
    pairs = tuple(zip(names[1:], names[:-1]))
    return fixed([Family("steps", pairs)], range(3), **how)


def one(runs: Measured, plan: Plan) -> Judgement:
    return judge(runs, plan).families["steps"][0]


TIGHT = {"margin": 0.5, "images": "these"}


def test_the_four_verdicts() -> None:
    around = {"x": [70.0, 70.05, 69.95], "y": [70.02, 69.98, 70.0], "z": [70.03, 70.0, 69.97]}
    for row, verdict in (
        ([72.0, 72.05, 71.95], "gain"),
        ([68.0, 68.05, 67.95], "loss"),
        ([70.01, 70.0, 70.03], "no difference"),
        ([70.35, 70.3, 70.4], "gain"),
        ([69.6, 70.9, 70.6], "not resolved"),
    ):
        found = one(levels(row=row, **around), chain("x", "row", **TIGHT))
        assert found.verdict == verdict
        assert found.points == pytest.approx(np.mean(row) - 70.0)
    assert found.words == "not resolved"
    assert one(levels(row=[70.01, 70.0, 70.03], **around), chain("x", "row", **TIGHT)).words == (
        "no difference larger than 0.5"
    )


def test_the_interval_and_the_p_value_are_one_statement() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        rows = {name: list(70 + 0.3 * rng.standard_normal(3)) for name in "abcd"}
        found = judge(levels(**rows), chain("a", "b", "c", "d")).families["steps"]
        for judgement in found:
            for answer in (judgement.these_images, judgement.new_images):
                assert answer is not None
                assert (answer.p < 0.05) == (answer.low > 0 or answer.high < 0)
                assert answer.low < judgement.points < answer.high
            assert judgement.new_images.standard_error >= judgement.these_images.standard_error


def test_no_difference_needs_two_one_sided_tests() -> None:
    found = one(
        levels(a=[70.0, 70.1, 70.2], b=[70.1, 70.2, 70.0]), chain("a", "b", **TIGHT)
    ).these_images
    assert found is not None
    assert found.p_margin == pytest.approx(stats.t.sf(0.5 / found.standard_error, 4), rel=1e-6)


def test_one_seed_gets_a_description_and_no_verdict() -> None:
    runs = levels(a=[70.0], b=[80.0], c=[70.0, 70.1, 70.2], d=[80.0, 80.1, 80.2])
    plan = fixed([Family("steps", (("b", "a"), ("b", "c"), ("d", "c")))], range(3))
    single, half, full = judge(runs, plan).families["steps"]
    for described in (single, half):
        assert described.verdict == "one seed"
        assert described.words == "one seed, no verdict"
        assert described.sign == 0
        assert described.answer is None
        assert described.these_runs[0] < described.points < described.these_runs[1]
    assert full.verdict == "gain"


def test_holm_is_that_of_statsmodels_and_over_what_was_planned() -> None:
    p = list(np.random.default_rng(2).random(30) ** 3)
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    runs = levels(a=[70.0, 70.1, 70.2], b=[70.6, 70.7, 70.5])
    alone, planned = one(runs, chain("a", "b")), one(runs, chain("a", "b", "not", "run", "yet"))
    assert alone.answer is not None
    assert planned.answer is not None
    assert alone.answer.p_holm == alone.answer.p
    assert planned.answer.p_holm == pytest.approx(4 * planned.answer.p)


def test_what_could_be_found_and_how_many_seeds_it_takes_agree() -> None:
    runs = levels(a=[70.0, 70.3, 70.6], b=[70.6, 70.9, 70.3])
    answer = one(runs, chain("a", "b", images="these")).answer
    assert answer is not None
    needed = answer.seeds_needed
    assert needed is not None
    assert needed > 3
    error = answer.standard_error * (3 / needed) ** 0.5
    reach = (stats.t.isf(0.025, 2 * (needed - 1)) + stats.t.isf(0.2, 2 * (needed - 1))) * error
    assert reach <= 0.3 < reach * (needed / (needed - 1)) ** 0.5 * 1.02
    assert answer.detectable == pytest.approx(
        (stats.t.isf(0.025, 4) + stats.t.isf(0.2, 4)) * answer.standard_error
    )
    few = Measured.of(
        {name: Runs((0, 1), np.random.default_rng(3).random((2, 300)) < 0.7) for name in "ab"}
    )
    futile = one(few, chain("a", "b"))
    assert futile.answer is not None
    assert futile.answer.seeds_needed is None or futile.answer.seeds_needed > 50


def test_the_smallest_p_without_assumptions() -> None:
    five = one(levels(a=[70.0] * 5, b=[71.0] * 5), chain("a", "b"))
    assert five.smallest_p == 0.0625
    runs = levels(a=[70.0] * 3, b=[71.0] * 3)
    apart = replace(runs, seed=runs.seed + 10 * runs.row)
    assert one(apart, chain("a", "b")).smallest_p == pytest.approx(2 / 20)


WORLD = World(effects=(2.0, 0.0, 0.0, -1.5), seeds=8, images=4000, deviation=0.2)
LOOKS = Plan(
    (Family("steps", tuple((f"row-{i}", f"row-{i - 1}") for i in range(1, 5))),),
    tuple(range(8)),
    (2, 3, 5, 8),
    margin=1.0,
    images="these",
)


def walk(world: Measured, plan: Plan) -> tuple[Measured, list[dict[str, tuple[int, ...]]]]:
    """Train what the rule asks for until it asks for nothing more."""
    have: dict[str, set[int]] = {}
    asked = []
    runs = None
    while more := next_seeds(runs, plan):
        asked.append(dict(more))
        for row, seeds in more.items():
            have[row] = have.get(row, set()) | set(seeds)
        kept = [
            seed in have.get(world.rows[row], ())
            for row, seed in zip(world.row, world.seed, strict=True)
        ]
        runs = world.some(np.array(kept))
    assert runs is not None
    return runs, asked


def test_seeds_are_added_only_where_a_comparison_is_open() -> None:
    drawn, _ = WORLD.draw(np.random.default_rng(4))
    runs, asked = walk(Measured.of(drawn), LOOKS)
    assert asked[0] == {f"row-{i}": (0, 1) for i in range(5)}
    assert all(seeds == (2,) for seeds in asked[1].values())
    assert len(asked[-1]) < 5
    found = judge(runs, LOOKS)
    verdicts = [one.verdict for one in found.families["steps"]]
    assert (verdicts[0], verdicts[3]) == ("gain", "loss")
    assert not found.next_seeds
    assert found.looks == len(asked)
    assert max(one.look for one in found.families["steps"]) == found.looks
    assert len(runs.row) < 40


def test_the_runs_that_stopped_a_comparison_judge_it_and_not_later_ones() -> None:
    drawn, _ = WORLD.draw(np.random.default_rng(4))
    runs, _ = walk(Measured.of(drawn), LOOKS)
    stopped = judge(runs, LOOKS).families["steps"][0]
    assert stopped.seeds[0] == LOOKS.looks[stopped.look - 1]
    later = judge(Measured.of(drawn), LOOKS).families["steps"][0]
    assert (later.points, later.verdict, later.look) == (
        stopped.points,
        stopped.verdict,
        stopped.look,
    )


def test_the_rule_keeps_within_the_runs_it_may_have() -> None:
    drawn, _ = WORLD.draw(np.random.default_rng(4))
    for most in (4, 9, 12, 17):
        runs, _ = walk(Measured.of(drawn), Plan(**{**vars(LOOKS), "runs_at_most": most}))
        assert len(runs.row) <= most
        judged = judge(runs, Plan(**{**vars(LOOKS), "runs_at_most": most}))
        assert not judged.next_seeds
    assert not next_seeds(None, Plan(**{**vars(LOOKS), "runs_at_most": 3}))


def test_an_interval_of_a_look_is_wider_for_the_others() -> None:
    drawn, _ = WORLD.draw(np.random.default_rng(5))
    runs = Measured.of(drawn).of_seeds((0, 1))
    looked = judge(runs, LOOKS).families["steps"][0].these_images
    once = judge(runs, Plan(**{**vars(LOOKS), "looks": (2,)})).families["steps"][0].these_images
    assert looked is not None
    assert once is not None
    assert looked.high - looked.low > 1.1 * (once.high - once.low)
    assert looked.p > once.p


def test_a_family_with_one_look_is_judged_beside_one_with_several() -> None:
    runs = levels(a=[70.0, 70.1], b=[70.2, 70.0], c=[72.0, 72.1])
    steps, beside = Family("steps", (("b", "a"),)), Family("beside", (("c", "a"),), looks=(2,))
    judged = judge(runs, Plan((steps, beside), (0, 1, 2, 3), (3, 4), **TIGHT))
    assert list(judged.families) == ["steps", "beside"]
    ((waits,), (found,)) = judged.families.values()
    assert (waits.words, found.words, found.look) == ("not looked at yet", "gain", 1)
    assert judged.next_seeds == {"a": (2,), "b": (2,)}
    assert judged.looks == 0  # at what is looked at several times


def test_what_others_are_looked_at_for_adds_no_runs_to_a_fixed_family() -> None:
    runs = levels(a=[70.0, 70.1, 79.0], b=[70.2, 70.0, 79.0], c=[72.0, 72.1])
    steps, beside = Family("steps", (("b", "a"),)), Family("beside", (("c", "a"),), looks=(2,))
    (found,) = judge(runs, Plan((steps, beside), (0, 1, 2, 3), (3, 4), **TIGHT)).families["beside"]
    assert (found.seeds, found.points) == ((2, 2), pytest.approx(2.0))
    (alone,) = judge(runs, fixed([replace(beside, looks=None)], (0, 1), **TIGHT)).families["beside"]
    assert alone.seeds == (2, 3)


def test_the_runs_that_may_be_made_are_those_of_all_families_together() -> None:
    runs = levels(a=[70.0] * 2, b=[70.3] * 2, c=[70.0] * 2, d=[71.0] * 2)
    steps, beside = Family("steps", (("b", "a"),)), Family("beside", (("d", "c"),), looks=(5,))
    plan = Plan((steps, beside), (0, 1, 2, 3, 4), (3, 4, 5), **TIGHT, runs_at_most=10)
    assert judge(runs, plan).next_seeds == {"a": (2,), "b": (2,)}
    assert next_seeds(None, replace(plan, runs_at_most=None)) == {
        **dict.fromkeys("ab", (0, 1, 2)),
        **dict.fromkeys("cd", (0, 1, 2, 3, 4)),
    }


def test_two_seeds_of_which_one_is_missing_are_asked_for() -> None:
    runs = levels(a=[70.0, 70.1], b=[70.2])
    plan = fixed([Family("steps", (("b", "a"),))], (0, 1))
    assert judge(runs, plan).next_seeds == {"b": (1,)}
