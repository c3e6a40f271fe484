"""The design orders: the average effect of each decision over the orders that it can be taken
in."""

import itertools
from collections.abc import Sequence

from ablations.designs.design import Design, DesignSpec, Effect, Variant
from ablations.designs.parts import Combinations, Parts
from ablations.designs.precedence import Orders, passing
from ablations.presets import Regime
from ablations.roadmap import Roadmap
from utils.text import listed

_MOST_EXACT = 64
"""Sets of decisions that are all trained if nothing else is said."""


def orders(roadmap: Roadmap, regime: Regime, spec: DesignSpec, seed: int = 0) -> Design:
    """Every set of decisions that an order passes through, or those of orders drawn at random.

    `seed` is that of the draw: 0 in every study, another where many are simulated.
    """
    parts = Parts(roadmap, regime, spec)
    factors = parts.factors() if spec.factors else parts.singles()
    combinations = Combinations(parts, factors)
    names = combinations.names
    needs = [
        sum(1 << i for i, other in enumerate(names) if factors[other] & combinations.needs(name))
        for name in names
    ]
    _require_no_circle(names, needs)
    allowed = Orders(tuple(needs))
    most = spec.variants_at_most
    drawn: list[tuple[int, ...]] = []
    if most is not None and len(allowed.sets) > most:
        drawn = allowed.within(most, seed)
        if len(drawn) < 2:
            raise ValueError(
                f"--runs-at-most leaves {most} networks: two orders of {len(names)} decisions "
                "pass through more, give "
                f"{2 * len(names)} or more"
            )
    elif most is None and len(allowed.sets) > _MOST_EXACT:
        raise ValueError(
            f"{len(names)} decisions can be combined in {len(allowed.sets):,} ways: give "
            "--runs-at-most for as many "
            "orders as that allows, or --factors for fewer decisions (groups: "
            f"{', '.join(parts.groups)})"
        )
    sets = sorted({done for order in drawn for done in passing(order)}) if drawn else allowed.sets
    variants = {
        done: combinations.variant([name for i, name in enumerate(names) if done >> i & 1])
        for done in sets
    }
    weights: list[dict[str, float]] = [{} for _ in names]
    samples: list[list[dict[str, float]]] = [[] for _ in names]
    if drawn:
        for order in drawn:
            for decision, (before, after) in zip(
                order, itertools.pairwise(passing(order)), strict=True
            ):
                _add(weights[decision], variants[before], variants[after], 1 / len(drawn))
                samples[decision].append({variants[after].name: 1.0, variants[before].name: -1.0})
    else:
        for (decision, done), share in allowed.exact().items():
            _add(weights[decision], variants[done], variants[done | 1 << decision], share)
    over = f"{len(drawn)} orders drawn at random" if drawn else "all orders"
    effects = [
        Effect(name, f"average effect over {over}", weights[i], tuple(samples[i]))
        for i, name in enumerate(names)
    ]
    return parts.design(variants.values(), effects, notes=combinations.notes, orders=len(drawn))


def _add(weights: dict[str, float], before: Variant, after: Variant, share: float) -> None:
    weights[after.name] = weights.get(after.name, 0.0) + share
    weights[before.name] = weights.get(before.name, 0.0) - share


def _require_no_circle(names: Sequence[str], needs: Sequence[int]) -> None:
    done = 0
    while more := sum(
        1 << i for i, needed in enumerate(needs) if not done >> i & 1 and needed & ~done == 0
    ):
        done |= more
    if stuck := [name for i, name in enumerate(names) if not done >> i & 1]:
        raise ValueError(
            f"the factors {listed(stuck)} need each other in a circle: make them one, as "
            f"{'+'.join(stuck)}"
        )
