"""Model sizes (the paper's regimes) and presets: what to train on, at which size, with which
recipes."""

from collections.abc import Mapping
from dataclasses import dataclass

from models import Architecture
from training.recipe import CLASSIC, LARGEST, Recipe, StudyConfig
from utils.text import did_you_mean


@dataclass(frozen=True)
class Regime:
    """A model size. What a step changes at this size is on the step's row."""

    name: str
    baseline: Architecture
    """The network before the first step."""
    paper: str
    """The regime of the paper's tables that its results are compared with."""


REGIMES: Mapping[str, Regime] = {
    # ResNet-50 to ConvNeXt-T, the paper's smaller regime.
    "tiny": Regime("tiny", Architecture(), paper="tiny"),
    # ResNet-200 to ConvNeXt-B, the paper's larger regime.
    "base": Regime("base", Architecture(depths=(3, 24, 36, 3)), paper="base"),
    # The same path for images of 32 pixels: three stages after a stem of half the stride.
    "small": Regime("small", Architecture(depths=(1, 1, 2), width=16, stem_stride=2), paper="tiny"),
    # The same path on networks small enough for a laptop CPU, in four stages.
    "mini": Regime("mini", Architecture(depths=(1, 1, 2, 1), width=16), paper="tiny"),
}
_EARLIER_NAMES = {"pocket": "mini"}
"""The preset of that name has another regime."""


def get_regime(name: str, resolution: int | None = None) -> Regime:
    """Return the regime of that name.

    Raises:
        ValueError: there is no such regime, or its networks cannot take images of `resolution`
            pixels.
    """
    name = _EARLIER_NAMES.get(name, name)
    if name not in REGIMES:
        hint = did_you_mean(name, REGIMES, after=" ")
        raise ValueError(f"there is no regime {name!r}: {hint}choose {', '.join(REGIMES)}")
    regime = REGIMES[name]
    least = regime.baseline.total_stride
    if resolution is not None and not least <= resolution <= LARGEST:
        raise ValueError(
            f"--resolution is {resolution}: regime {name} makes images {least} times smaller, "
            f"give {least} to {LARGEST}"
        )
    return regime


# The modern recipe at strengths that suit a dozen epochs on a small network
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
# Step 0 gets the same crops as step 1, so that step 1's gain is not the crops'.
_SHORT_CLASSIC = CLASSIC.change(crop_scale=(0.7, 1.0))

PRESETS: Mapping[str, StudyConfig] = {
    # The study: 101 dishes, 224x224, 300 epochs of the paper's recipe, on a GPU.
    "food101": StudyConfig(
        "food101",
        "tiny",
        224,
        # Enough micro-batches for eight GPUs: docs/decisions.md#food101-parts.
        recipe=Recipe(batch_size=512, micro_batches=8),
        classic=CLASSIC.change(micro_batches=8),
    ),
    # The same on one large GPU, in parts of 256: batch norm sees parts, so it is another study.
    "food101-h200": StudyConfig(
        "food101", "tiny", 224, recipe=Recipe(batch_size=512, micro_batches=2)
    ),
    # 60,000 real photographs, 32x32, small networks: 6 minutes a run and 2 hours a seed on one CPU
    # core. Geometry, length and strengths: docs/decisions.md#small-study.
    "fashion-mnist": StudyConfig(
        "fashion-mnist",
        "small",
        32,
        recipe=_SHORT.change(epochs=6, warmup_epochs=1, batch_size=128),
        classic=_SHORT_CLASSIC.change(epochs=6, step_epochs=2, batch_size=128),
    ),
    # Synthetic images, 24x24, small networks: minutes on a laptop. docs/decisions.md#demo.
    "pocket": StudyConfig(
        "pocket",
        "small",
        24,
        recipe=_SHORT.change(epochs=8, warmup_epochs=2, batch_size=64),
        classic=_SHORT_CLASSIC.change(epochs=8, step_epochs=4, batch_size=64, lr=0.2),
    ),
}


def get_preset(name: str) -> StudyConfig:
    """Return the study configuration of the preset of that name.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS, after=" ")
        raise ValueError(f"there is no preset {name!r}: {hint}choose {', '.join(PRESETS)}")
    return PRESETS[name]
