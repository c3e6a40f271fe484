"""A roadmap: step N is step N-1 and what its row says, in the network and in the recipe."""

from dataclasses import replace

import pytest
import torch

from ablations import PAPER, REGIMES, RecipeOf, Setup, get_regime, paper_row
from ablations.designs import DesignSpec, build_design
from ablations.presets import PRESETS
from ablations.step import Step
from models import Architecture
from models.builder import build
from training.recipe import Recipe


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
def test_every_step_changes_exactly_what_it_says(regime) -> None:
    for step in PAPER.steps_in(regime)[:-1]:
        after = PAPER.architecture(step, regime)
        before = regime.baseline if step.after is None else PAPER.architecture(step.after, regime)
        assert after.difference(before) == step.changes(regime), step.name
        if step.name not in ("baseline", "training-recipe"):
            assert step.changes(regime), step.name


def test_numbers_are_0_to_13_and_names_are_unique() -> None:
    assert [step.number for step in PAPER.path] == list(range(14))
    for regime in REGIMES.values():
        assert len({step.name for step in PAPER.steps_in(regime)}) == 18


def test_the_recipe_changes_with_the_training_recipe_and_no_other_step() -> None:
    config, regime = PRESETS["pocket"], get_regime("mini")
    recipes = {
        step.name: PAPER.setup(step, regime, config).recipe for step in PAPER.steps_in(regime)
    }
    assert recipes.pop("baseline") == config.classic
    assert set(recipes.values()) == {config.recipe}
    assert PAPER.recipe("training-recipe", get_regime("mini")) == RecipeOf.MODERN.whole()


def test_all_decisions_combined_are_the_last_step_and_none_the_first() -> None:
    config = PRESETS["pocket"]
    for regime in REGIMES.values():
        decisions = [step.name for step in PAPER.path[1:]]
        assert PAPER.combine(decisions[::-1], regime, config) == PAPER.setup("13", regime, config)
        assert PAPER.combine([], regime, config, 7) == PAPER.setup("0", regime, config, 7)
        for k, name in enumerate(decisions, start=1):
            assert PAPER.combine(decisions[:k], regime, config) == PAPER.setup(name, regime, config)


def test_a_decision_alone_changes_what_its_row_says() -> None:
    config, regime = PRESETS["pocket"], get_regime("mini")
    assert PAPER.combine(["gelu"], regime, config) == Setup(
        replace(regime.baseline, activation="gelu"), config.classic
    )
    assert PAPER.combine(["training-recipe"], regime, config) == Setup(
        regime.baseline, config.recipe
    )


def closed_subsets() -> list[frozenset[str]]:
    """Every choice of decisions of the paper's path, recipe apart, that holds what it needs."""
    subsets = [frozenset[str]()]
    for step in PAPER.path[2:]:
        subsets += [subset | {step.name} for subset in subsets if set(step.needs) <= subset]
    return subsets


def test_every_choice_of_decisions_that_holds_what_it_needs_is_a_network() -> None:
    config, regime = PRESETS["pocket"], get_regime("mini")
    networks = {
        PAPER.combine(subset, regime, config, 7).architecture for subset in closed_subsets()
    }
    assert (
        len(networks) == 9 * 2**7
    )  # nine choices of depthwise and what needs it, seven steps at will
    for architecture in sorted(networks, key=repr)[::23]:
        with torch.device("meta"):
            assert build(architecture).eval()(torch.empty(2, 3, 32, 32)).shape == (2, 7)


def test_decisions_bring_what_they_need_and_take_along_what_needs_them() -> None:
    assert PAPER.needed(["kernel-7"]) == {
        "kernel-7",
        "depthwise-first",
        "inverted-bottleneck",
        "depthwise",
    }
    gone = PAPER.needing(["depthwise-first"])
    assert gone == {"depthwise-first", "kernel-5", "kernel-7", "kernel-9", "kernel-11"}
    assert PAPER.needing(["gelu"]) == PAPER.needed(["gelu"]) == {"gelu"}
    with pytest.raises(ValueError, match="'width' of the roadmap 'paper' needs depthwise"):
        PAPER.combine(["width"], get_regime("tiny"), PRESETS["pocket"])


def test_a_step_is_asked_for_by_number_or_name() -> None:
    regime = get_regime("tiny")
    assert PAPER.step("8", regime) is PAPER.step("kernel-7", regime)
    assert PAPER.step("swin-t", regime).after is None
    assert PAPER.architecture("0", regime, num_classes=101) == Architecture(num_classes=101)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_is_a_valid_study(preset) -> None:
    get_regime(preset.regime)
    assert (preset.recipe.optimizer, preset.classic.optimizer) == ("adamw", "sgd")


def test_the_study_uses_the_papers_recipe() -> None:
    assert PRESETS["food101"].recipe == Recipe(batch_size=512, micro_batches=8)
    large = PRESETS["food101-h200"]
    for recipe in (large.recipe, large.classic):
        assert recipe.batch_size // recipe.micro_batches == 256


def test_the_papers_rows_are_all_there() -> None:
    for regime in ("tiny", "base"):
        for step in PAPER.steps_in(get_regime(regime)):
            assert paper_row(regime, step.name) is not None
    assert paper_row("tiny", "separate-downsampling").top1 == 81.97
    assert paper_row("mini", "baseline") is None


def test_the_small_regimes_maps_stand_to_a_7x7_kernel_as_the_papers_last_stages() -> None:
    regime = get_regime("small")
    for row in PAPER.steps_in(regime):
        network = PAPER.architecture(row, regime)
        maps = [32 // network.stem_stride // 2**stage for stage in range(len(network.depths))]
        assert maps == [16, 8, 4], row.name  # the paper's are 56, 28, 14, 7


@pytest.mark.parametrize(
    ("regime", "description"), [("tiny", "4x4 stride-4 stem"), ("small", "2x2 stride-2 stem")]
)
def test_a_description_is_true_in_its_regime(regime, description) -> None:
    of = get_regime(regime)
    assert PAPER.step("patchify-stem", of).description == description
    assert build_design(PAPER, of, DesignSpec()).variant("patchify-stem").description == description
    assert (
        build_design(PAPER, of, DesignSpec("one-at-a-time", base="stage-ratio"))
        .variant("patchify-stem")
        .description
        == description
    )
    braces = Step("braces", "kernel {kernel_size} and {whatever}", architecture={"kernel_size": 5})
    assert braces.describe(Architecture(kernel_size=5)).description == "kernel 5 and {whatever}"
