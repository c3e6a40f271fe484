"""Effects of designs: known games, and uncertainty by where it comes from."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from ablations.designs import Effect
from ablations.designs.precedence import Orders, passing
from report.judgement import judge_effects
from report.statistics import Measurements, VarianceComponents

Game = Callable[[int], float]


def runs_of(
    game: Game, sets: tuple[int, ...], deviation: float, seeds: int, rng: np.random.Generator
) -> VarianceComponents:
    """Runs whose accuracies are a game's values and seeds' noise; images do not differ."""
    row = np.repeat(np.arange(len(sets)), seeds)
    accuracy = np.array([game(sets[i]) for i in row]) + deviation * rng.standard_normal(len(row))
    nothing = np.zeros((len(row), len(row)))
    seed = np.tile(np.arange(seeds), len(sets))
    return VarianceComponents(
        Measurements(
            tuple(map(str, sets)), row, seed, np.arange(len(row)), accuracy, nothing, 10**6
        )
    )


def exact(orders: Orders) -> list[Effect]:
    weights: list[dict[str, float]] = [{} for _ in orders.needs]
    for (decision, done), share in orders.exact().items():
        for place, sign in ((done | 1 << decision, 1), (done, -1)):
            weights[decision][str(place)] = weights[decision].get(str(place), 0.0) + sign * share
    return [Effect(str(i), "", own) for i, own in enumerate(weights)]


def sampled(orders: Orders, drawn: list[tuple[int, ...]]) -> list[Effect]:
    found = []
    for decision in range(len(orders.needs)):
        each = []
        for order in drawn:
            before = passing(order)[order.index(decision)]
            each.append({str(before | 1 << decision): 1.0, str(before): -1.0})
        weights: dict[str, float] = {}
        for row, value in itertools.chain.from_iterable(own.items() for own in each):
            weights[row] = weights.get(row, 0.0) + value / len(drawn)
        found.append(Effect(str(decision), "", weights, tuple(each)))
    return found


def by_permutations(game: Game, needs: tuple[int, ...]) -> np.ndarray:
    """The average over all allowed orders, one by one."""
    worth = np.zeros(len(needs))
    count = 0
    for order in itertools.permutations(range(len(needs))):
        done = passing(order)
        if all(
            needs[decision] & ~before == 0 for decision, before in zip(order, done, strict=False)
        ):
            count += 1
            for decision, before in zip(order, done, strict=False):
                worth[decision] += game(before | 1 << decision) - game(before)
    return worth / count


def rough(done: int) -> float:
    return float(np.random.default_rng(done).normal(70, 3))


@pytest.mark.parametrize("needs", [(0, 0, 0, 0), (0, 1, 0, 4), (0, 1, 3, 0, 8), (0, 0, 3, 0, 0)])
def test_exact_effects_are_those_of_all_orders_one_by_one(needs) -> None:
    orders = Orders(needs)
    noise = runs_of(rough, orders.sets, 0.0, 2, np.random.default_rng(0))
    found = [one.points for one in judge_effects(noise, exact(orders), margin=0.3, level=0.05)]
    assert found == pytest.approx(by_permutations(rough, needs))
    assert sum(found) == pytest.approx(rough(orders.everything) - rough(0))


def test_sampled_effects_cover_what_all_orders_give() -> None:
    orders = Orders((0, 0, 1, 0, 0))
    truth = by_permutations(rough, orders.needs)
    rng = np.random.default_rng(2)
    covered = []
    for seed in range(150):
        drawn = orders.draw(12, seed=seed)
        sets = tuple(sorted({done for order in drawn for done in passing(order)}))
        found = judge_effects(
            runs_of(rough, sets, 1.0, 3, rng), sampled(orders, drawn), margin=0.3, level=0.05
        )
        for one, value in zip(found, truth, strict=True):
            answer = one.answers["new"]
            covered.append(answer.low <= value <= answer.high)
    assert 0.92 <= np.mean(covered) <= 0.985
