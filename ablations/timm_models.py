"""Every step as a timm model: `timm.create_model("convnext_ablation_depthwise")`, for others'
training scripts.

Importing this module registers them. The step's name is written as in the roadmap or with
underscores; `regime="base"` builds the larger network. ImageNet's classes and the paper's initial
weights are the defaults, `layer_scale=0` leaves layer scale out (timm drops arguments that are
None); there are no pretrained weights.
"""

import sys
from typing import Any

from timm.models import register_model

from ablations.presets import get_regime
from ablations.roadmaps import PAPER
from ablations.step import Step
from ablations.timm_network import TimmResNet
from models import Architecture
from models.builder import Init

PREFIX = "convnext_ablation_"


def _entry(name: str, step: Step) -> Any:
    def entry(
        pretrained: bool = False,
        *,
        regime: str = "tiny",
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        layer_scale: float | None = 1e-6,
        init: Init = "truncated-normal",
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 224,
        global_pool: str = "avg",
        **others: Any,
    ) -> Any:
        if pretrained:
            raise ValueError(f"{name} has no pretrained weights: leave pretrained out")
        if in_chans != 3:
            raise ValueError(f"in_chans is {in_chans}: {name} takes images of 3 channels")
        if global_pool != "avg":
            raise ValueError(f"global_pool is {global_pool!r}: {name} has avg")
        ignored = {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
        if odd := [key for key, value in others.items() if key not in ignored and value]:
            raise ValueError(
                f"{name} knows no {', '.join(odd)}: give num_classes, drop_path_rate, "
                "layer_scale, init, regime"
            )
        side = img_size if isinstance(img_size, int) else img_size[0]
        architecture = PAPER.architecture(step, get_regime(regime), num_classes or 1000)
        return TimmResNet(
            architecture, drop_path_rate, layer_scale or None, init, name, num_classes, side
        )

    entry.__name__ = entry.__qualname__ = name
    entry.__module__ = __name__
    entry.__doc__ = f"{step.describe(Architecture()).description} ({step.source})."
    setattr(sys.modules[__name__], name, entry)
    return entry


for _step in PAPER.steps:
    for _name in dict.fromkeys((PREFIX + _step.name.replace("-", "_"), PREFIX + _step.name)):
        if not _step.reference:
            register_model(_entry(_name, _step))
