import itertools
import json
import random
from collections import Counter

import numpy as np
import pytest

from ablations import PAPER, get_regime
from ablations.designs import Design, DesignSpec, build_design, recorded
from ablations.designs.precedence import Orders, passing
from ablations.roadmaps import recipe
from training.recipe import StudyConfig

POCKET = get_regime("mini")
GROUPS = ("macro-design", "resnext", "inverted-bottleneck", "large-kernels", "micro-design")


def designed(kind: str, **how: object) -> Design:
    return build_design(PAPER, POCKET, DesignSpec(kind, **how))  # type: ignore[arg-type]


def allowed(needs: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every order, by trying all permutations."""
    orders = []
    for order in itertools.permutations(range(len(needs))):
        sets = passing(order)
        if all(needs[decision] & ~done == 0 for decision, done in zip(order, sets)):
            orders.append(order)
    return orders


@pytest.mark.parametrize("seed", range(8))
def test_shares_of_transitions_are_those_of_all_permutations(seed):
    chance = random.Random(seed)
    needs = tuple(sum(1 << j for j in range(i) if chance.random() < 0.3) for i in range(6))
    counted = Counter(
        (d, done) for order in allowed(needs) for d, done in zip(order, passing(order))
    )
    exact = Orders(needs).exact()
    assert exact.keys() == counted.keys()
    for transition, share in exact.items():
        assert share == pytest.approx(counted[transition] / len(allowed(needs)))


def test_drawn_orders_are_allowed_and_equally_likely():
    needs = (0, 1, 0, 0b100, 0)
    every = allowed(needs)
    drawn = Counter(Orders(needs).draw(30 * len(every) * 10, seed=3))
    assert drawn.keys() == set(every)
    expected = 300
    chi2 = sum((drawn[order] - expected) ** 2 / expected for order in every)
    assert chi2 < 1.5 * len(every)


def shapley(value, needs: tuple[int, ...]) -> list[float]:
    effects = [0.0] * len(needs)
    for (decision, done), share in Orders(needs).exact().items():
        effects[decision] += share * (value(done | 1 << decision) - value(done))
    return effects


def test_known_games_have_their_shapley_values():
    # A glove for each of two left hands and one right: the right one is worth 2/3 (Shapley and
    # Shubik, 1969).
    gloves = shapley(lambda s: float(bool(s & 0b011) and bool(s & 0b100)), (0, 0, 0))
    assert gloves == pytest.approx([1 / 6, 1 / 6, 2 / 3])
    # A runway as long as the largest plane needs (Littlechild and Owen, 1973).
    costs = (1.0, 3.0, 7.0)
    runway = shapley(
        lambda s: max([costs[i] for i in range(3) if s >> i & 1], default=0.0), (0, 0, 0)
    )
    assert runway == pytest.approx([1 / 3, 1 / 3 + 1, 1 / 3 + 1 + 4])
    # With a need only one order is left: what comes first gets all that it brings alone.
    assert shapley(lambda s: {0: 0.0, 1: 2.0, 3: 3.0}[s], (0, 1)) == pytest.approx([2.0, 1.0])


def evaluated(design: Design, value) -> dict[str, float]:
    values = {variant.name: value(variant.decisions) for variant in design.variants}
    return {
        effect.name: sum(w * values[variant] for variant, w in effect.weights.items())
        for effect in design.effects
    }


def additive(decisions) -> float:
    return sum(
        {"stage-ratio": 1.0, "gelu": 2.0, "layer-norm": -3.0, "width": 0.5}.get(name, 0.0)
        for name in decisions
    )


def test_every_design_reads_an_additive_truth_exactly():
    for design in (
        designed("leave-one-out"),
        designed("one-at-a-time"),
        designed("orders", variants_at_most=80),
        designed("factorial", factors=("stage-ratio", "gelu", "layer-norm"), base=None),
    ):
        result = evaluated(design, additive)
        for name, truth in (("stage-ratio", 1.0), ("gelu", 2.0), ("layer-norm", -3.0)):
            assert result[name] == pytest.approx(truth), (design.spec.kind, name)


def test_effects_over_orders_add_up_to_the_whole_way():
    def value(decisions) -> float:
        return hash(tuple(sorted(decisions))) % 1000 / 10

    for design in (
        designed("orders", base="training-recipe", factors=GROUPS),
        designed("orders", variants_at_most=60),
    ):
        ends = {variant.name: value(variant.decisions) for variant in design.variants}
        start = "training-recipe" if design.spec.base else "baseline"
        whole = ends["separate-downsampling"] - ends[start]
        assert sum(evaluated(design, value).values()) == pytest.approx(whole)


def test_interactions_of_a_factorial_are_half_the_difference_of_effects():
    design = designed(
        "factorial", factors=("gelu", "layer-norm", "macro-design"), base="training-recipe"
    )
    result = evaluated(
        design, lambda d: 4.0 * ({"gelu", "layer-norm"} <= set(d)) + 1.0 * ("gelu" in d)
    )
    assert result["gelu x layer-norm"] == pytest.approx(2.0)
    assert result["gelu"] == pytest.approx(3.0)
    assert result["layer-norm"] == pytest.approx(2.0)
    assert result["gelu x macro-design"] == pytest.approx(0.0)
    assert len(design.variants) == 8
    assert not design.aliases


def test_a_fraction_says_what_it_cannot_tell_apart():
    factors = ("stage-ratio", "patchify-stem", "gelu", "fewer-norms")
    design = designed("factorial", factors=factors, base="training-recipe", fraction=2)
    assert len(design.variants) == 8
    assert "stage-ratio x patchify-stem = gelu x fewer-norms" in design.aliases
    result = evaluated(design, lambda d: float("gelu" in d and "fewer-norms" in d))
    assert result["stage-ratio x patchify-stem"] == pytest.approx(0.5)  # the alias, as announced


def test_rows_bring_what_they_need_and_say_so():
    design = designed("leave-one-out")
    variant = design.variant("without-depthwise")
    assert (
        variant.decisions
        & {"depthwise", "width", "inverted-bottleneck", "depthwise-first", "kernel-7"}
        == set()
    )
    assert "width" in variant.description
    assert "need it" in variant.description
    only = designed("one-at-a-time").variant("only-kernel-7")
    assert only.decisions == {"depthwise", "inverted-bottleneck", "depthwise-first", "kernel-7"}
    assert "which it needs" in only.description


def test_a_variant_that_is_a_step_is_that_step():
    assert designed("leave-one-out").variant("layer-norm").step is PAPER.step(
        "layer-norm"
    )  # all but the last
    assert designed("one-at-a-time").variant("training-recipe").step is PAPER.step(
        "training-recipe"
    )


@pytest.mark.parametrize("kind", ["cumulative", "leave-one-out", "one-at-a-time"])
def test_every_variant_is_a_network_and_a_recipe(kind):
    design, config = designed(kind), StudyConfig(regime="mini")
    setups = [design.setup(variant, POCKET, config, 10) for variant in design.variants]
    assert len(set(setups)) == len(design.variants)
    assert all(setup.architecture.num_classes == 10 for setup in setups)


def test_sampled_orders_keep_within_the_rows_allowed():
    design = designed("orders", variants_at_most=60)
    assert design.orders >= 2
    assert len(design.variants) <= 60
    for effect in design.effects:
        assert len(effect.sampled) == design.orders
        mean = Counter()
        for one in effect.sampled:
            mean.update({variant: weight / design.orders for variant, weight in one.items()})
        assert {
            variant: pytest.approx(weight) for variant, weight in effect.weights.items()
        } == dict(mean)


def test_weights_of_every_effect_add_up_to_nothing():
    for design in (
        designed("cumulative"),
        designed("orders", variants_at_most=40),
        designed("orders", base="training-recipe", factors=GROUPS),
    ):
        for effect in design.effects:
            assert np.isclose(sum(effect.weights.values()), 0)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"kind": "leave-one-in"}, "choose cumulative"),
        ({"kind": "orders"}, "give --runs-at-most"),
        ({"kind": "orders", "variants_at_most": 9}, "give 26 or more"),
        ({"kind": "orders", "factors": ("gelu",)}, "needs at least two"),
        ({"kind": "factorial", "factors": ("micro-design", "gelu")}, "share gelu"),
        ({"kind": "factorial", "factors": ("macro-desing", "gelu")}, "choose among"),
        ({"kind": "factorial"}, "make them one factor, resnext\\+inverted-bottleneck"),
        ({"kind": "factorial", "factors": ("gelu", "layer-norm"), "fraction": 2}, "at least four"),
        (
            {"kind": "factorial", "factors": ("gelu", "layer-norm"), "fraction": 3},
            "give 2 for a half",
        ),
        ({"kind": "orders", "fraction": 2}, "belongs to the design factorial"),
        ({"kind": "leave-one-out", "factors": ("gelu", "layer-norm")}, "belong to the designs"),
        ({"kind": "leave-one-out", "base": "layer-norm"}, "at least two"),
        ({"kind": "leave-one-out", "base": "kernel-9"}, "not on the path"),
        ({"kind": "leave-one-out", "base": "laier-norm"}, "did you mean 'layer-norm'"),
    ],
)
def test_impossible_designs_are_refused_in_one_line(request_, message):
    with pytest.raises(ValueError, match=message) as refusal:
        build_design(PAPER, POCKET, DesignSpec(**request_))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "roadmap", [PAPER, recipe("baseline"), recipe("depthwise")], ids=lambda roadmap: roadmap.name
)
def test_a_design_is_rebuilt_from_its_record(roadmap):
    design = build_design(roadmap, POCKET, DesignSpec("orders", variants_at_most=40))
    assert recorded(json.loads(json.dumps(design.record)), POCKET) == design
