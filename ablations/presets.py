"""Presets: what to train on, at which size, with which recipes."""

from collections.abc import Mapping
from dataclasses import dataclass

from data.words import did_you_mean
from training.recipe import CLASSIC, Recipe, StudyConfig


@dataclass(frozen=True)
class Preset:
    """Defaults of a study."""

    sentence: str
    config: StudyConfig


# The parts of the modern recipe, at strengths that a dozen epochs on a small network can bear: at full strength the
# last step reaches 48 % on `pocket` instead of 84 % (docs/decisions.md#short-presets).
_SHORT = Recipe().change(
    lr=4e-3, lr_batch=128, min_lr=1e-5, drop_path=0.0, layer_scale=None, init="he", crop_scale=(0.5, 1.0),
    rand_augment_magnitude=0.0, color_jitter=0.0, random_erasing=0.1, mixup=0.1, cutmix=0.1,
)  # fmt: skip
# Step 0 sees crops of the same sizes, or part of what step 1 gains would be the crops.
_SHORT_CLASSIC = CLASSIC.change(crop_scale=(0.5, 1.0))

PRESETS: Mapping[str, Preset] = {
    "food101": Preset(
        "the study: 101 dishes, 224x224, 300 epochs of the paper's recipe, on a GPU",
        # Parts for as many as eight GPUs: docs/decisions.md#food101-parts.
        StudyConfig("food101", "tiny", 224, recipe=Recipe(batch_size=512, micro_batches=8),
                    classic=CLASSIC.change(micro_batches=8)),
    ),
    "fashion-mnist": Preset(
        "60,000 real photographs, 32x32, small networks: 6 minutes a run and 2 hours a seed on one CPU core",
        StudyConfig(
            "fashion-mnist", "small", 32,  # geometry, length and strengths: docs/decisions.md#small-study
            recipe=_SHORT.change(
                epochs=6, warmup_epochs=1, batch_size=128, lr=8e-3, crop_scale=(0.7, 1.0), random_erasing=0.0,
                mixup=0.0, cutmix=0.0,
            ),
            classic=_SHORT_CLASSIC.change(epochs=6, step_epochs=2, batch_size=128, crop_scale=(0.7, 1.0)),
        ),
    ),
    "pocket": Preset(
        "drawn pictures, 64x64, pocket networks: minutes on a laptop",
        StudyConfig(
            "pocket", "pocket", 64,
            recipe=_SHORT.change(epochs=14, warmup_epochs=2, batch_size=64),
            classic=_SHORT_CLASSIC.change(epochs=14, step_epochs=6, batch_size=64),
        ),
    ),
}  # fmt: skip


def get_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: there is none, in one sentence that says which there are.
    """
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS, after=" ")
        raise ValueError(f"there is no preset {name!r}: {hint}choose {', '.join(PRESETS)}")
    return PRESETS[name]
