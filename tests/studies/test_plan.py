"""A plan is read as it was written, has a digest, and says how it was changed."""

import json
from dataclasses import replace

import pytest

from studies.plan import Family, Noted, Plan, deviations, fixed, revised, together

PLAN = Plan(
    (Family("steps", (("b", "a"), ("c", "b"))),), seeds=(0, 1, 2, 3), looks=(2, 4), runs_at_most=9
)


def test_a_plan_is_read_as_it_was_written() -> None:
    assert Plan.from_json(json.loads(json.dumps(PLAN.as_json()))) == PLAN
    assert PLAN.rows == ("b", "a", "c")
    assert PLAN.schedule(0) == (0, 1)


def test_what_changes_a_plan_changes_its_digest() -> None:
    others = [
        replace(PLAN, margin=0.5),
        replace(PLAN, looks=(4,)),
        replace(PLAN, families=()),
        replace(PLAN, level=0.01),
    ]
    assert len({plan.digest for plan in (PLAN, *others)}) == 5
    assert PLAN.digest == Plan.from_json(PLAN.as_json()).digest


def test_a_fixed_plan_has_one_look_at_all_its_seeds() -> None:
    plan = fixed(PLAN.families, (0, 1, 2))
    assert not plan.sequential
    assert plan.schedule(0) == (0, 1, 2)


def test_what_was_changed_later_is_said() -> None:
    more = replace(PLAN, margin=0.5, families=(Family("steps", (("b", "a"), ("d", "c"))),))
    assert deviations(PLAN, PLAN) == ()
    assert set(deviations(PLAN, more)) == {
        "margin: 0.3 was planned, 0.5 came to be",
        "added to the family steps: d against c",
        "taken from the family steps: c against b",
    }


STEPS, OTHERS = Family("steps", (("b", "a"),)), Family("others", (("d", "a"),))


def test_a_study_that_goes_on_until_it_is_resolved_has_looked_at_the_seeds_of_its_fixed_plan() -> (
    None
):
    before = fixed([STEPS, OTHERS], (0, 1, 2))
    now = revised(before, [STEPS], range(5), sequential=True)
    assert [now.looks_at(family) for family in now.families] == [(3, 4, 5), (3,)]
    said = (
        "seeds: 0 1 2 was planned, 0 1 2 3 4 came to be",
        "looks at steps: after 3 seeds was planned, 3 4 5 came to be",
    )
    assert deviations(before, now) == said
    alone = fixed([STEPS], (0, 1, 2))
    assert deviations(alone, revised(alone, [STEPS], range(5), sequential=True)) == said
    assert Plan.from_json(json.loads(json.dumps(now.as_json()))) == now
    again = revised(now, [STEPS], range(10), sequential=True)
    assert again.looks_at(again.families[0]) == (3, 4, 5, 6, 8, 10)
    assert revised(now, [STEPS], range(5), sequential=True) == now
    assert revised(before, [STEPS], range(3), sequential=True).looks == (
        2,
        3,
    )  # no more seeds: as if from the start
    assert revised(None, [STEPS], range(5), sequential=True).looks == (2, 3, 4, 5)
    assert revised(fixed([OTHERS], (0, 1, 2)), [STEPS], range(5), sequential=True).looks == (
        2,
        3,
        4,
        5,
    )


def test_a_fixed_request_takes_no_look_back() -> None:
    before = revised(None, [STEPS], range(5), sequential=True)
    now = revised(before, [OTHERS], (0, 1), sequential=False)
    assert [now.looks_at(family) for family in now.families] == [(2, 3, 4, 5), (2,)]
    assert deviations(before, now) == ("added the family others (1 comparison)",)
    assert revised(now, [STEPS], (0, 1, 2), sequential=False) == now
    more = revised(now, [STEPS], range(7), sequential=False)
    assert [more.looks_at(family) for family in more.families] == [(2, 3, 4, 5, 6, 7), (2,)]
    assert revised(more, [STEPS], range(10), sequential=True).looks == (2, 3, 4, 5, 6, 7, 8, 10)


def test_each_fixed_family_has_its_own_number_of_seeds() -> None:
    now = revised(
        revised(None, [STEPS], range(5), sequential=False), [OTHERS], (0, 1), sequential=False
    )
    assert [now.looks_at(family) for family in now.families] == [(5,), (2,)]
    assert (now.sure_seeds("d"), now.sure_seeds("b"), now.sure_seeds("z")) == (
        (0, 1),
        (0, 1, 2, 3, 4),
        (0, 1, 2, 3, 4),
    )
    more = revised(now, [OTHERS], range(4), sequential=False)
    assert deviations(now, more) == ("looks at others: after 2 seeds was planned, 4 came to be",)
    assert more.sure_seeds("d") == (0, 1, 2, 3)
    goes_on = revised(now, [OTHERS], range(5), sequential=True)
    assert goes_on.looks_at(goes_on.families[1]) == (2, 3, 4, 5)
    assert (goes_on.sure_seeds("d"), goes_on.sure_seeds("b")) == ((), (0, 1, 2, 3, 4))
    assert goes_on.looked_at_again == {"others"}
    other_seeds = revised(goes_on, [Family("more", (("e", "a"),))], (7, 8), sequential=False)
    assert other_seeds.looks_at(other_seeds.families[2]) == (
        7,
    )  # which are all up to those that were asked for


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("looks", ()),
        ("looks", (3, 2)),
        ("looks", (0, 2)),
        ("looks", (5,)),
        ("seeds", (0, 0, 1, 2)),
        ("margin", 0.0),
        ("margin", float("nan")),
        ("level", 0.9),
        ("images", "other"),
        ("spending", "all"),
        ("runs_at_most", 0),
    ],
)
def test_an_impossible_plan_is_refused_in_a_sentence(field: str, value: object) -> None:
    with pytest.raises(ValueError, match="give"):
        replace(PLAN, **{field: value})


def test_a_damaged_plan_is_refused() -> None:
    good = PLAN.as_json()
    for bad in (
        None,
        [],
        good | {"seeds": None},
        good | {"extra": 1},
        {"looks": [2]},
        good | {"families": [{"name": 1}]},
    ):
        with pytest.raises(ValueError, match="damaged"):
            Plan.from_json(bad)
    with pytest.raises(ValueError, match="margin"):
        Plan.from_json(good | {"margin": -1})


def test_parts_that_planned_their_own_seeds_and_rows_are_one_plan() -> None:
    micro, macro = (
        Family("micro", (("gelu", "kernel-7"),)),
        Family("macro", (("width", "depthwise"),)),
    )
    one, other = fixed([micro], [2]), fixed([macro], [0, 1])
    whole = (Noted(fixed([micro, macro], [0, 1, 2]), 0),)
    assert together((Noted(one, 0),), (Noted(other, 0),)) == whole
    assert together(whole, (Noted(one, 0),)) == whole
    assert together((), whole) == together(whole, ()) == whole


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ((Noted(fixed([], [1], margin=0.5), 0),), "judge differently"),
        ((Noted(fixed([], [1]), 3),), "changed later or looks several times"),
        (
            (Noted(fixed([], [1]), 0), Noted(fixed([], [1, 2]), 1)),
            "changed later or looks several times",
        ),
        ((Noted(Plan((), (0, 1, 2), (2, 3)), 0),), "changed later or looks several times"),
    ],
)
def test_plans_that_are_not_of_one_kind_are_not_put_together(other, why) -> None:
    one = (Noted(fixed([], [0]), 0),)
    assert together(other, other) == other
    for plans in ((one, other), (other, one)):
        with pytest.raises(ValueError, match=why):
            together(*plans)
