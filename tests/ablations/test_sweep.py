"""Sweeps: which variants they make of a design, and what each trains."""

import json
from dataclasses import replace

import pytest

from ablations import PAPER, REGIMES, get_roadmap
from ablations.designs import DesignSpec, build_design, recorded
from ablations.presets import get_preset
from ablations.sweep import Sweep
from training.recipe import follow

POCKET, PRESET = REGIMES["mini"], get_preset("pocket")
CONFIG = replace(
    PRESET, recipe=PRESET.recipe.change(lr=4e-3), classic=PRESET.classic.change(lr=0.1)
)


def swept(text: str, roadmap=PAPER, **request):
    return build_design(roadmap, POCKET, DesignSpec(sweep=Sweep.parse(text), **request))


def recipe(design, variant: str):
    return design.setup(design.variant(variant), POCKET, CONFIG).recipe


def test_every_variant_is_followed_by_one_for_each_value():
    design = swept("lr=0.5x,1x,2x")
    names = [variant.name for variant in design.variants]
    assert names[:5] == [
        "baseline",
        "baseline-lr-0.5x",
        "baseline-lr-1x",
        "baseline-lr-2x",
        "training-recipe",
    ]
    assert len(names) == 4 * 18
    assert "gelu-lr-0.5x" in names


def test_a_factor_is_of_the_variants_own_value_and_a_plain_value_is_itself():
    design = swept("lr=0.5x,1x,0.03")
    assert (
        recipe(design, "gelu").lr,
        recipe(design, "gelu-lr-0.5x").lr,
        recipe(design, "gelu-lr-0.03").lr,
    ) == (4e-3, 2e-3, 0.03)
    assert recipe(design, "gelu-lr-1x") == recipe(design, "gelu")
    assert recipe(design, "baseline-lr-0.5x").lr == 0.05
    assert recipe(design, "baseline-lr-0.5x").optimizer == "sgd"


@pytest.mark.parametrize(
    ("text", "variant", "field", "value"),
    [
        ("crop_scale=0.25:1,0.5:1", "gelu-crop-scale-0.25-1", "crop_scale", (0.25, 1)),
        ("layer-scale=none,1e-6", "gelu-layer-scale-1e-06", "layer_scale", 1e-6),
        ("optimizer=adamw,sgd", "gelu-optimizer-sgd", "optimizer", "sgd"),
        ("decay_all=true,false", "gelu-decay-all-true", "decay_all", True),
        ("epochs=0.5x,1x,2x", "gelu-epochs-0.5x", "epochs", 4),
        # In decimals: 0.1 * 4e-3 is 0.0004000000000000001.
        ("lr=1.0x,.10x", "gelu-lr-0.1x", "lr", 4e-4),
        ("mixup=0,0.20", "gelu-mixup-0.2", "mixup", 0.2),
    ],
)
def test_any_field_of_a_recipe_can_be_swept(text, variant, field, value):
    assert recipe(swept(text), variant).values()[field] == value


def test_a_longer_training_is_that_of_a_longer_study():
    """Else the classic recipe, its rate at nothing long before the end, gained nothing by longer
    training."""
    design, classic = swept("epochs=0.5x,2x,7"), CONFIG.classic
    for name, epochs in (
        ("baseline-epochs-2x", 16),
        ("baseline-epochs-0.5x", 4),
        ("baseline-epochs-7", 7),
    ):
        studys = follow(classic, CONFIG.recipe, CONFIG.recipe.change(epochs=epochs))
        assert recipe(design, name) == studys
        assert studys.step_epochs == {16: 8, 4: 2, 7: 4}[epochs]
    assert recipe(design, "gelu-epochs-2x") == CONFIG.recipe.change(epochs=16)


@pytest.mark.parametrize("kind", ["leave-one-out", "factorial"])
def test_variants_of_every_design_and_roadmap_are_swept(kind):
    factors = {"factors": ("gelu", "layer-norm")} if kind == "factorial" else {}
    plain = build_design(PAPER, POCKET, DesignSpec(kind, **factors))
    design = swept("weight_decay=0.05,0.3", kind=kind, **factors)
    assert [variant.name for variant in design.variants if variant.of is None] == [
        variant.name for variant in plain.variants
    ]
    assert design.effects == plain.effects
    design.check(design.variants, POCKET, CONFIG)
    of_recipe = swept("label_smoothing=0,0.1", get_roadmap("recipe"))
    assert recipe(of_recipe, "moving-average-label-smoothing-0.1").label_smoothing == 0.1


def test_a_swept_design_is_rebuilt_from_its_record():
    for design in (swept("lr=0.5x,2x"), swept("crop_scale=0.25:1,0.5:1", kind="leave-one-out")):
        assert recorded(json.loads(json.dumps(design.record)), POCKET) == design


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "give a field of the recipe and its values, such as"),
        ("lrr=1,2", "no field 'lrr': did you mean 'lr'?"),
        ("lr=1x", "lr has one value: give two or more"),
        ("lr=1x,1.0x", "has the value 1x twice"),
        ("lr=0.004,4e-3", "has the value 0.004 twice"),
        ("lr=,1", "lr is '': give a number"),
        ("epochs=7.5,8", "epochs is 7.5: give a whole number"),
        ("optimizer=0.5x,1x", "optimizer is no number, so it has no 0.5x"),
        ("crop_scale=0.5x,1x", "crop_scale is no number"),
        ("crop_scale=0.5,1", "a colon the two numbers of one"),
    ],
)
def test_what_can_be_no_sweep_is_refused(text, message):
    with pytest.raises(ValueError, match=r"^--sweep") as refused:
        Sweep.parse(text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "layer_scale=0.5x,1x",
            "layer_scale=0.5x of the variant 'baseline': layer_scale is none there",
        ),
        ("lr=0x,1x", "lr=0x of the variant 'baseline': lr is 0.0: give a number above 0"),
        (
            "warmup_epochs=2,20",
            "warmup_epochs=20 of the variant 'baseline': warmup_epochs is 20 and epochs is 8",
        ),
        (
            "epochs=0.3x,1x",
            "epochs=0.3x of the variant 'baseline': epochs is 8 there, and 0.3x of it no whole "
            "number",
        ),
        (
            "drop_path=1x,2x",
            "drop_path=1x and drop_path=2x are the same for the variant 'baseline'",
        ),
        ("lr=0.5x,2e-3", "lr=0.5x and lr=0.002 are the same for the variant 'training-recipe'"),
    ],
)
def test_a_value_that_a_variant_cannot_have_is_refused_with_its_name(text, message):
    design = swept(text)
    with pytest.raises(ValueError, match=r"^--sweep") as refused:
        design.check(design.variants, POCKET, CONFIG)
    assert message in str(refused.value)
