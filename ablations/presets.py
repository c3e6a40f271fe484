"""Presets: what to train on, at which size, with which recipes."""

from collections.abc import Mapping
from dataclasses import dataclass

from training.recipe import CLASSIC, Recipe, StudyConfig
from utils.text import did_you_mean


@dataclass(frozen=True)
class Preset:
    """Defaults of a study."""

    description: str
    config: StudyConfig


# The modern recipe at strengths that a dozen epochs on a small network can bear
# (docs/decisions.md#short-presets), chosen on the validation images of both presets at both ends of
# the path (#small-study, #demo).
_SHORT = Recipe().change(
    lr=8e-3,
    lr_batch=128,
    min_lr=1e-5,
    drop_path=0.0,
    layer_scale=None,
    init="he",
    crop_scale=(0.7, 1.0),
    rand_augment_magnitude=0.0,
    color_jitter=0.0,
    random_erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
)
# Step 0 sees crops of the same sizes, or part of what step 1 gains would be the crops.
_SHORT_CLASSIC = CLASSIC.change(crop_scale=(0.7, 1.0))

PRESETS: Mapping[str, Preset] = {
    "food101": Preset(
        "the study: 101 dishes, 224x224, 300 epochs of the paper's recipe, on a GPU",
        # Parts for as many as eight GPUs: docs/decisions.md#food101-parts.
        StudyConfig(
            "food101",
            "tiny",
            224,
            recipe=Recipe(batch_size=512, micro_batches=8),
            classic=CLASSIC.change(micro_batches=8),
        ),
    ),
    "fashion-mnist": Preset(
        "60,000 real photographs, 32x32, small networks: 6 minutes a run and 2 hours a seed on "
        "one CPU core",
        StudyConfig(
            "fashion-mnist",
            "small",
            32,  # geometry, length and strengths: docs/decisions.md#small-study
            recipe=_SHORT.change(epochs=6, warmup_epochs=1, batch_size=128),
            classic=_SHORT_CLASSIC.change(epochs=6, step_epochs=2, batch_size=128),
        ),
    ),
    "pocket": Preset(
        "drawn images, 32x32, small networks: minutes on a laptop",
        StudyConfig(
            "pocket",
            "small",
            32,  # geometry and length: docs/decisions.md#demo
            recipe=_SHORT.change(epochs=10, warmup_epochs=2, batch_size=64),
            classic=_SHORT_CLASSIC.change(epochs=10, step_epochs=5, batch_size=64, lr=0.2),
        ),
    ),
}


def get_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: there is none, in one sentence that says which there are.
    """
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS, after=" ")
        raise ValueError(f"there is no preset {name!r}: {hint}choose {', '.join(PRESETS)}")
    return PRESETS[name]
