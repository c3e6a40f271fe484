"""The recipe's roadmap: from ResNet's classic recipe to the modern one, on any network."""

import pytest

from ablations import PAPER, REGIMES, get_regime, get_roadmap
from ablations.designs import DesignSpec, build_design
from ablations.presets import PRESETS
from ablations.step import RECIPE
from studies.plan import comparisons


@pytest.mark.parametrize("network", ["baseline", "depthwise", "13"])
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_it_leads_from_the_classic_recipe_to_the_modern_one(network, preset) -> None:
    roadmap, config, regime = (
        get_roadmap("recipe", network),
        preset,
        get_regime(preset.regime),
    )
    setups = [roadmap.setup(step, regime, config) for step in roadmap.path]
    assert (setups[0].recipe, setups[-1].recipe) == (config.classic, config.recipe)
    end = PAPER.step("training-recipe" if network == "baseline" else network)
    assert setups[-1] == PAPER.setup(end, regime, config)
    assert {setup.architecture for setup in setups} == {PAPER.architecture(network, regime)}


def test_every_field_of_the_recipe_is_changed_by_exactly_one_decision() -> None:
    changed = [name for step in get_roadmap("recipe").path[1:] for name in step.recipe]
    assert sorted(changed) == sorted(RECIPE)


def test_any_recipe_that_a_study_asks_for_is_where_the_path_ends() -> None:
    config = PRESETS["pocket"]
    recipe = config.recipe.change(
        ema=0.9, micro_batches=2, color_jitter=0.3, betas=(0.8, 0.9), flip=0.0
    )
    roadmap, regime = get_roadmap("recipe"), get_regime("mini")
    assert (
        roadmap.setup(
            "layer-scale", regime, type(config)(recipe=recipe, classic=config.classic)
        ).recipe
        == recipe
    )


def test_the_moving_average_is_off_the_path_and_is_shorter_for_short_studies() -> None:
    roadmap = get_roadmap("recipe")
    assert roadmap.step("moving-average").off_path
    decays = {
        name: roadmap.recipe("moving-average", regime)["ema"] for name, regime in REGIMES.items()
    }
    assert decays == {"tiny": 0.9999, "base": 0.9999, "small": 0.99, "mini": 0.99}


def test_names_on_another_network_include_it() -> None:
    assert [step.name for step in get_roadmap("recipe", "4").steps][:2] == [
        "classic-on-depthwise",
        "optimizer-on-depthwise",
    ]
    names = [
        {step.name for step in get_roadmap("recipe", network).steps} for network in (None, "4", "5")
    ]
    assert not names[0] & names[1] | names[1] & names[2]
    with pytest.raises(ValueError, match="swin-t has a recipe of its own kind"):
        get_roadmap("recipe", "swin-t")


def test_a_decision_that_changes_nothing_in_a_study_is_not_among_its_comparisons() -> None:
    roadmap = get_roadmap("recipe")
    compared = {}
    for name, preset in PRESETS.items():
        design = build_design(roadmap, get_regime(preset.regime), DesignSpec())
        names = [variant.name for variant in design.variants]
        path, *_ = comparisons(design, preset, names).values()
        compared[name] = [row for row, _ in path]
    assert compared["pocket"] == ["optimizer", "schedule", "label-smoothing", "moving-average"]
    assert compared["food101"] == [
        step.name for step in roadmap.steps_in(get_regime("tiny"))[1:] if step.name != "crops"
    ]
