"""Step N is step N-1 and one named change."""

import re

import pytest

from ablations import REGIMES, STEPS, get_regime, paper_row
from ablations.presets import PRESETS, get_preset
from models import Architecture
from training.recipe import CLASSIC, Recipe, StudyConfig

LAST = {
    "stem": "patchify", "depthwise": True, "inverted_bottleneck": True, "depthwise_first": True, "kernel_size": 7,
    "activation": "gelu", "fewer_activations": True, "fewer_norms": True, "norm": "layer",
    "separate_downsampling": True,
}  # fmt: skip


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
def test_every_step_changes_exactly_what_it_says(regime) -> None:
    for step in STEPS:
        after = regime.architecture(step)
        before = regime.baseline if step.after is None else regime.architecture(regime.step(step.after))
        assert after.difference(before) == regime.changes(step), step.name
        if step.name not in ("baseline", "training-recipe"):
            assert regime.changes(step), step.name


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
def test_the_path_ends_in_convnext(regime) -> None:
    last = regime.architecture(regime.step("13"))
    assert {name: getattr(last, name) for name in LAST} == LAST


def test_numbers_are_0_to_13_and_names_are_unique() -> None:
    assert [step.number for step in STEPS if step.number is not None] == list(range(14))
    assert len({step.name for step in STEPS}) == 17
    assert [step.name for step in STEPS if step.classic_recipe] == ["baseline"]


def test_other_kernel_sizes_start_from_step_7() -> None:
    regime = get_regime("tiny")
    for k in (5, 9, 11):
        architecture = regime.architecture(regime.step(f"kernel-{k}"))
        assert architecture.difference(regime.architecture(regime.step("7"))) == {"kernel_size": k}


def test_a_step_is_asked_for_by_number_or_name() -> None:
    regime = get_regime("tiny")
    assert regime.step("8") is regime.step("kernel-7")
    assert regime.step("swin-t").after is None
    assert regime.architecture(regime.step("0"), num_classes=101) == Architecture(num_classes=101)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("14", "numbered 0 to 13"),
        ("-1", "numbered 0 to 13"),
        ("depthwse", "did you mean 'depthwise'"),
        ("", "no step ''"),
    ],
)
def test_an_unknown_step_is_refused_in_a_sentence(asked, message) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        get_regime("tiny").step(asked)


def test_unknown_regimes_and_presets_are_refused() -> None:
    with pytest.raises(ValueError, match="choose tiny, base, pocket"):
        get_regime("huge")
    with pytest.raises(ValueError, match="did you mean 'food101'"):
        get_preset("food-101")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_is_a_valid_study(preset) -> None:
    get_regime(preset.regime)
    config = StudyConfig(recipe=Recipe().change(**preset.recipe), classic=CLASSIC.change(**preset.classic))
    assert config.classic.optimizer == "sgd"


def test_the_study_uses_the_papers_recipe() -> None:
    recipe = Recipe().change(**PRESETS["food101"].recipe)
    assert {name: value for name, value in vars(recipe).items() if value != getattr(Recipe(), name)} == {
        "batch_size": 512
    }


def test_the_papers_rows_are_all_there() -> None:
    for regime in ("tiny", "base"):
        for step in get_regime(regime).steps:
            assert paper_row(regime, step.name) is not None
    assert paper_row("tiny", "separate-downsampling").top1 == 81.97
    assert paper_row("pocket", "baseline") is None
