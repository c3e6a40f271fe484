"""Small studies of known truth: intervals cover, and noise gets no verdict.

The full tables are in docs/statistics. Here the same code judges so few and small studies that it
takes seconds.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.simulate import (
    NONE,
    RESULT,
    Scenario,
    designs,
    outcomes,
    plan_for,
    summary,
    tables,
    trained,
)
from benchmarks.worlds import SEVERAL, DesignWorld, World, measurements
from report.sequential import judge

SMALL = World(effects=NONE, seeds=3, images=600, deviation=1.0)


def simulate(
    world: World | DesignWorld, studies: int, **plans: tuple[int, ...]
) -> dict[tuple[str, str], dict[str, float]]:
    """Plan and question to what came out."""
    seeds = {"fixed": (world.seeds,)}
    scenario = Scenario("a test", world, plans or seeds)
    records = summary(scenario, outcomes(scenario, range(studies)))
    return {(record["plan"], record["question"]): record for record in records}


def test_a_world_has_the_levels_and_spreads_that_it_states() -> None:
    world = World(effects=(2.0, -1.0), seeds=40, images=40_000, deviation=0.5, correlation=0.6)
    correct, levels = world.draw(np.random.default_rng(0))
    accuracy = np.array([100 * own.mean(axis=1) for own in correct.values()])
    assert world.levels == pytest.approx([80, 82, 81])
    np.testing.assert_allclose(levels, world.levels, atol=4 * 40 / 40_000**0.5)
    np.testing.assert_allclose(accuracy.mean(axis=1), levels, atol=4 * 0.53 / 40**0.5)
    # A run's spread is that of its seed and the chance of single images.
    single = np.mean([own.var(axis=0, ddof=1).mean() for own in correct.values()])
    chance = 100**2 * single / 40_000
    assert accuracy.var(axis=1, ddof=1).mean() == pytest.approx(0.5**2 + chance, rel=0.35)
    correlation = np.corrcoef(accuracy)[np.triu_indices(3, 1)].mean()
    assert correlation == pytest.approx(0.6 * 0.25 / (0.25 + chance), abs=0.25)


# The 16 differences of a study share variants and a spread, so 100 studies tell coverage to about
# 1 point.
@pytest.mark.parametrize(
    "world",
    [
        SMALL,
        replace(SMALL, seeds=2),
        replace(SMALL, correlation=0.5),
        replace(SMALL, images=150),
        replace(SMALL, deviation=0.1, seeds=5),
        replace(SMALL, at_chance=5, apart=(4, 5)),
    ],
    ids=["usual", "two seeds", "seeds correlate", "few images", "seeds hardly matter", "odd run"],
)
def test_both_intervals_cover_and_noise_gets_no_verdict(world: World) -> None:
    records = simulate(world, 100)
    for question in ("new", "fixed"):
        assert 0.93 <= records["fixed", question]["covered"] <= 0.975, question
        assert records["fixed", question]["half_width"] < 15
    # 5 % of 100 is 5; 12 or more would happen once in 200.
    assert records["fixed", "new"]["any_false"] * 100 < 12


def test_one_seed_is_never_a_false_verdict() -> None:
    assert simulate(replace(SMALL, seeds=1, deviation=3.0), 30)["fixed", "new"]["any_false"] == 0


def test_interim_analyses_keep_the_level_and_save_runs() -> None:
    records = simulate(replace(SMALL, seeds=8), 40, fixed=(8,), interim=(2, 3, 5, 8))
    interim, fixed = records["interim", "new"], records["fixed", "new"]
    # 2 are expected at most; 8 or more would happen once in 1,000.
    assert interim["any_false"] * 40 < 8
    assert interim["covered"] > 0.95
    assert interim["runs"] < 0.6 * fixed["runs"]


def test_no_difference_is_hardly_ever_said_where_it_is_as_large_as_the_margin() -> None:
    world = World(effects=(0.5,) * 6, seeds=6, images=2500, deviation=0.05, own_difficulty=0.1)
    rng = np.random.default_rng(1)
    plan, wide = plan_for(world, (6,), margin=0.5), plan_for(world, (6,), margin=2.5)
    false = right = 0
    for _ in range(60):
        runs = trained(measurements(world.draw(rng)[0]), plan)
        false += any(one.verdict == "no difference" for one in judge(runs, plan))
        right += any(one.answers["new"].p_margin_holm < 0.05 for one in judge(runs, wide))
    assert false < 10
    assert right > 40


@pytest.mark.parametrize("name", designs())
def test_effects_of_designs_are_covered(name: str) -> None:
    sampled = "networks" in name
    world = DesignWorld(designs()[name], SEVERAL, seeds=3, images=600)
    if sampled:  # runs that vary little show whether the variance of orders is added
        world = replace(world, images=4000, deviation=0.1)
    records = simulate(world, 60)
    for question in ("new", "fixed"):
        assert 0.92 <= records["design", question]["covered"] <= 0.985, question
    # 5 % of 60 is 3; 9 or more would happen once in 350.
    assert records["design", "new"]["any_false"] * 60 < 9
    assert (records["design", "new"]["from_orders"] > 0) == sampled


def test_the_committed_records_keep_the_promises() -> None:
    records = json.loads(RESULT.read_text())
    steps = tables(records)["steps"]
    assert steps["covered"].dropna().between(92, 98).all()
    none = [one for one in records if one["scenario"].startswith("no effect")]
    assert np.mean([one["any_false"] for one in none if one["question"] == "new"]) <= 0.05
    odd = tables(records)["odd_worlds"]
    assert odd["covered"].between(94, 98).all()
    assert odd["any_false"].max() < 8
    assert odd["half_width"].max() < 0.8
