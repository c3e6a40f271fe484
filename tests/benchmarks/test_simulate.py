"""Small studies of known truth: intervals cover, noise gets no verdict, and the tables say what
came out.

The full table is in docs/statistics.md; here the same code on so few and small studies that it
takes seconds.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from report.variance import Measured

from benchmarks.design_worlds import SEVERAL, DesignWorld
from benchmarks.simulate import (
    NONE,
    PAGE,
    RESULT,
    Scenario,
    designs,
    plan_of,
    simulate,
    tables,
    trained,
)
from benchmarks.worlds import World
from report.sequential import judge

SMALL = World(effects=NONE, seeds=3, images=600, deviation=1.0)


def by_way(
    world: World | DesignWorld, studies: int, **looks: tuple[int, ...]
) -> dict[str, dict[str, float]]:
    records = simulate(Scenario("a test", world, looks or {"fixed": (world.seeds,)}), studies)
    return {record["judged"]: record for record in records}


def test_a_world_is_what_it_says() -> None:
    world = World(effects=(2.0, -1.0), seeds=40, images=40_000, deviation=0.5, correlation=0.6)
    rng = np.random.default_rng(0)
    runs, levels = world.draw(rng)
    accuracy = np.array([100 * own.correct.mean(axis=1) for own in runs.values()])
    assert world.levels == pytest.approx([80, 82, 81])
    np.testing.assert_allclose(
        levels, world.levels, atol=4 * 40 / 40_000**0.5
    )  # images drawn by lot
    np.testing.assert_allclose(accuracy.mean(axis=1), levels, atol=4 * 0.53 / 40**0.5)
    # A run's spread is that of its seed and the chance of single images.
    chance = (
        100**2 * np.mean([own.correct.var(axis=0, ddof=1).mean() for own in runs.values()]) / 40_000
    )
    assert accuracy.var(axis=1, ddof=1).mean() == pytest.approx(0.5**2 + chance, rel=0.35)
    assert np.corrcoef(accuracy)[np.triu_indices(3, 1)].mean() == pytest.approx(
        0.6 * 0.25 / (0.25 + chance), abs=0.25
    )


def test_images_drawn_again_give_the_level_that_was_promised() -> None:
    world = World(effects=(1.5,), seeds=1, images=2000)
    levels = np.mean([world.draw(np.random.default_rng(seed))[1] for seed in range(300)], axis=0)
    np.testing.assert_allclose(levels, world.levels, atol=0.2)


# Of 16 differences in each study; they share rows and a spread, so 100 studies tell coverage to
# about 1 point.
@pytest.mark.parametrize(
    "world",
    [
        SMALL,
        replace(SMALL, seeds=2),
        replace(SMALL, correlation=0.5),
        replace(SMALL, images=150),
        replace(SMALL, deviation=0.1, seeds=5),
    ],
    ids=["usual", "two seeds", "seeds correlate", "few images", "seeds hardly matter"],
)
def test_both_intervals_cover_and_noise_gets_no_verdict(world: World) -> None:
    found = by_way(world, 100)
    for way in ("fixed, new images", "fixed, these images"):
        assert 0.93 <= found[way]["covered"] <= 0.975, way
    # 5 % of 100 is 5; 12 or more would happen once in 200.
    assert found["fixed, new images"]["any_false"] * 100 < 12


def test_what_is_there_is_found_more_often_than_before() -> None:
    effects = tuple(3.0 * (step % 2 * 2 - 1) for step in range(16))
    found = by_way(replace(SMALL, effects=effects, deviation=0.5), 60)
    new, before = found["fixed, new images"], found["fixed, the method before"]
    assert new["found"] > before["found"] + 0.03
    assert new["half_width"] < 0.9 * before["half_width"]


def test_one_seed_is_never_a_false_verdict() -> None:
    found = by_way(replace(SMALL, seeds=1, deviation=3.0), 30)
    assert found["fixed, new images"]["any_false"] == 0
    assert found["fixed, the method before"]["any_false"] > 0.3


def test_looking_again_and_again_keeps_the_level_and_saves_runs() -> None:
    found = by_way(replace(SMALL, seeds=8), 40, fixed=(8,), looked=(2, 3, 5, 8))
    looked, fixed = found["looked, new images"], found["fixed, new images"]
    assert (
        looked["any_false"] * 40 < 8
    )  # 2 are expected at most; 8 or more would happen once in 1,000
    assert looked["covered"] > 0.95
    assert looked["runs"] < 0.6 * fixed["runs"]


def test_no_difference_is_hardly_ever_said_of_what_is_as_large_as_the_margin() -> None:
    world = World(effects=(0.5,) * 6, seeds=6, images=2500, deviation=0.05, own_difficulty=0.1)
    rng = np.random.default_rng(1)
    plan = plan_of(world, (6,), margin=0.5)
    said = false = 0
    for _ in range(60):
        runs = trained(Measured.of(world.draw(rng)[0]), plan)
        false += any(one.verdict == "no difference" for one in judge(runs, plan).families["steps"])
        wide = plan_of(world, (6,), margin=2.5)
        said += any(
            one.new_images.p_margin_holm < 0.05
            for one in judge(runs, wide).families["steps"]
            if one.new_images
        )
    assert false < 10
    assert said > 40


@pytest.mark.parametrize("name", designs())
def test_designs_say_what_is_true_of_their_decisions(name: str) -> None:
    world = DesignWorld(designs()[name], SEVERAL, seeds=3, images=600)
    if (
        "networks" in name
    ):  # where runs vary little, it is seen whether what orders vary by is added
        world = replace(world, images=4000, deviation=0.1)
    found = by_way(world, 60)
    for way in ("design, new images", "design, these images"):
        assert 0.92 <= found[way]["covered"] <= 0.985, way
    # 5 % of 60 is 3; 9 or more would happen once in 350.
    assert found["design, new images"]["any_false"] * 60 < 9
    assert (found["design, new images"]["from_orders"] > 0) == ("networks" in name)


def test_the_truth_of_orders_drawn_by_lot_is_that_of_all_orders() -> None:
    request = designs()["orders of 7, 40 of 64 networks"]
    world = DesignWorld(request, SEVERAL, seeds=2)
    known = dict(zip((row.name for row in world.whole.variants), world.levels, strict=True))
    rng, points = np.random.default_rng(0), []
    for _ in range(150):
        design, runs, _ = replace(world, images=2).draw(rng)
        assert len(runs) == len(design.variants) <= 40
        points.append(
            [
                sum(weight * known[row] for row, weight in one.weights.items())
                for one in design.effects
            ]
        )
    assert np.std(points, axis=0).max() > 0.15  # they are other orders in every study
    np.testing.assert_allclose(np.mean(points, axis=0), world.effects(world.levels), atol=0.07)


def test_the_page_has_the_tables_of_the_committed_records() -> None:
    assert tables(json.loads(RESULT.read_text())) in PAGE.read_text()
