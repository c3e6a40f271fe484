"""A plan is read as it was written, grows with requests, and states how it was changed."""

import json
from dataclasses import replace

import pytest

from studies.plan import Plan, deviations, merged_plans, note_plan, read_plans, revised

STEPS, OTHERS = {"steps": (("b", "a"),)}, {"others": (("d", "a"),)}


def fixed(families, seeds, **options) -> Plan:
    return revised(None, families, seeds, sequential=False, **options)


def analyses(plan: Plan) -> dict[str, tuple[int, ...]]:
    return {family.name: family.analyses for family in plan.families}


def test_a_plan_is_read_as_it_was_written(tmp_path) -> None:
    plan = revised(None, STEPS, range(4), sequential=True, runs_at_most=9)
    assert Plan.from_json(json.loads(json.dumps(plan.as_json()))) == plan
    assert analyses(plan) == {"steps": (2, 3, 4)}
    (tmp_path / "study.json").write_text("{}")
    note_plan(tmp_path, fixed(STEPS, [0]))
    note_plan(tmp_path, plan)  # without results, a plan may change without a trace
    assert read_plans(tmp_path) == (plan,)
    (tmp_path / "a/seed-0").mkdir(parents=True)
    (tmp_path / "a/seed-0/result.json").touch()
    later = replace(plan, margin=0.5)
    note_plan(tmp_path, later)
    assert read_plans(tmp_path) == (plan, later)
    assert [one.finished_runs for one in read_plans(tmp_path)] == [0, 1]


def test_the_digest_tells_plans_apart() -> None:
    plan = fixed(STEPS, range(3))
    others = [replace(plan, margin=0.5), replace(plan, level=0.01), replace(plan, families=())]
    assert len({one.digest for one in (plan, *others)}) == 4
    assert replace(plan, finished_runs=5).digest == plan.digest


def test_a_sequential_request_analyses_the_seeds_of_a_fixed_plan_first() -> None:
    before = fixed({**STEPS, **OTHERS}, range(3))
    now = revised(before, STEPS, range(5), sequential=True)
    assert analyses(now) == {"steps": (3, 4, 5), "others": (3,)}
    assert revised(now, STEPS, range(5), sequential=True) == now
    again = revised(now, STEPS, range(10), sequential=True)
    assert analyses(again)["steps"] == (3, 4, 5, 6, 8, 10)
    # Without more seeds, as if from the start.
    assert analyses(revised(before, STEPS, range(3), sequential=True))["steps"] == (2, 3)
    fresh = revised(fixed(OTHERS, range(3)), STEPS, range(5), sequential=True)
    assert analyses(fresh)["steps"] == (2, 3, 4, 5)


def test_a_fixed_request_takes_no_analysis_back() -> None:
    before = revised(None, STEPS, range(5), sequential=True)
    now = revised(before, OTHERS, (0, 1), sequential=False)
    assert analyses(now) == {"steps": (2, 3, 4, 5), "others": (2,)}
    assert revised(now, STEPS, range(3), sequential=False) == now
    more = revised(now, STEPS, range(7), sequential=False)
    assert analyses(more)["steps"] == (2, 3, 4, 5, 6, 7)


def test_each_fixed_family_has_its_own_number_of_seeds() -> None:
    now = revised(fixed(STEPS, range(5)), OTHERS, (0, 1), sequential=False)
    assert [now.sure_seeds(name) for name in "dbz"] == [(0, 1), tuple(range(5)), tuple(range(5))]
    sequential = revised(now, OTHERS, range(5), sequential=True)
    assert (sequential.sure_seeds("d"), sequential.sure_seeds("b")) == ((), tuple(range(5)))


def test_changes_since_the_first_plan_are_stated() -> None:
    first = fixed(STEPS, range(3))
    assert deviations(first, first) == ()
    now = replace(revised(first, {**STEPS, **OTHERS}, range(5), sequential=True), margin=0.5)
    assert deviations(first, now) == (
        "seeds: 0 1 2 planned, now 0 1 2 3 4",
        "margin: 0.3 planned, now 0.5",
        "family steps: 1 comparison analysed after 3 seeds planned, now 1 comparison analysed "
        "after 3 4 5 seeds",
        "family others: nothing planned, now 1 comparison analysed after 2 3 4 5 seeds",
    )


@pytest.mark.parametrize("change", [{"margin": 0.0}, {"margin": float("nan")}, {"runs_at_most": 0}])
def test_an_impossible_plan_is_refused(change) -> None:
    with pytest.raises(ValueError, match="give"):
        fixed(STEPS, range(3), **change)


def test_a_damaged_plan_is_refused() -> None:
    good = fixed(STEPS, range(3)).as_json()
    for bad in (good | {"seeds": None}, good | {"extra": 1}, good | {"families": [{"name": 1}]}):
        with pytest.raises(ValueError, match="damaged"):
            Plan.from_json(bad)


def test_parts_that_planned_their_own_seeds_and_variants_are_one_plan() -> None:
    one, other = fixed(STEPS, [2]), fixed(OTHERS, [0, 1])
    whole = (fixed({**STEPS, **OTHERS}, [0, 1, 2]),)
    assert merged_plans((one,), (other,)) == whole
    assert merged_plans(whole, (one,)) == whole
    assert merged_plans((), whole) == merged_plans(whole, ()) == whole


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ((fixed({}, [1], margin=0.5),), "judge differently"),
        ((replace(fixed({}, [1]), finished_runs=3),), "changed later"),
        ((fixed({}, [1]), fixed({}, [1, 2])), "changed later"),
        ((revised(None, STEPS, range(3), sequential=True),), "interim analyses"),
    ],
)
def test_plans_of_different_kinds_are_not_merged(other, why) -> None:
    one = (fixed({}, [0]),)
    assert merged_plans(other, other) == other
    for plans in ((one, other), (other, one)):
        with pytest.raises(ValueError, match=why):
            merged_plans(*plans)
