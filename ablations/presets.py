"""Presets: what to train on, at which size, with which changes to the recipes. Plain values, by field name."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Defaults of a study. `recipe` changes fields of the modern recipe, `classic` of step 0's."""

    sentence: str
    dataset: str
    regime: str
    resolution: int
    recipe: Mapping[str, Any] = field(default_factory=dict)
    classic: Mapping[str, Any] = field(default_factory=dict)


# The parts of the modern recipe, at strengths that a dozen epochs on a small network can bear: at full strength the
# last step reaches 48 % on `pocket` instead of 84 % (docs/decisions.md#short-presets).
_SHORT = {
    "lr": 4e-3,
    "lr_batch": 128,
    "min_lr": 1e-5,
    "drop_path": 0.0,
    "layer_scale": None,
    "init": "he",
    "crop_scale": (0.5, 1.0),
    "rand_augment_magnitude": 0.0,
    "color_jitter": 0.0,
    "random_erasing": 0.1,
    "mixup": 0.1,
    "cutmix": 0.1,
}
# Step 0 sees crops of the same sizes, or part of what step 1 gains would be the crops.
_SHORT_CLASSIC = {"crop_scale": _SHORT["crop_scale"]}

PRESETS: Mapping[str, Preset] = {
    "food101": Preset(
        "the study: 101 dishes, 224x224, 300 epochs of the paper's recipe, on a GPU",
        dataset="food101",
        regime="tiny",
        resolution=224,
        recipe={"batch_size": 512},
    ),
    "fashion-mnist": Preset(
        "60,000 real photographs, 32x32, pocket networks: a quarter of an hour on two CPU cores",
        dataset="fashion-mnist",
        regime="pocket",
        resolution=32,
        recipe={**_SHORT, "epochs": 4, "warmup_epochs": 1, "batch_size": 128},
        classic={**_SHORT_CLASSIC, "epochs": 4, "step_epochs": 2, "batch_size": 128},
    ),
    "pocket": Preset(
        "drawn pictures, 64x64, pocket networks: minutes on a laptop",
        dataset="pocket",
        regime="pocket",
        resolution=64,
        recipe={**_SHORT, "epochs": 14, "warmup_epochs": 2, "batch_size": 64},
        classic={**_SHORT_CLASSIC, "epochs": 14, "step_epochs": 6, "batch_size": 64},
    ),
}


def get_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: there is none, in one sentence that says which there are.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name.lower(), PRESETS, 1, 0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no preset {name!r}{hint} (choose {', '.join(PRESETS)})")
    return PRESETS[name]
