"""Every step as a timm model: `timm.create_model("convnext_ablation_depthwise")`.

Importing this module registers them. A step's name is written as in the roadmap or with
underscores; `regime="base"` builds the larger network. Defaults are ImageNet's classes and the
paper's initial weights; `layer_scale=0` omits layer scale. There are no pretrained weights.
"""

import sys
from typing import Any

from timm.models import register_model
from torch import Tensor, nn

from ablations.presets import get_regime
from ablations.roadmaps import PAPER
from ablations.step import Step
from models import Architecture
from models.builder import Init, initialize
from models.resnet import ResNet

PREFIX = "convnext_ablation_"
_IGNORED = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


class TimmResNet(ResNet):
    """`ResNet` with the methods and attributes that timm's scripts need of a model."""

    def __init__(
        self, architecture: Architecture, drop_path: float, layer_scale: float | None, init: Init
    ) -> None:
        super().__init__(architecture, drop_path, layer_scale)
        initialize(self, init)
        mlp = isinstance(self.mlp, nn.Sequential)
        self.head_hidden_size = self.head.in_features
        self.num_features = (
            self.mlp.get_submodule("conv").in_channels if mlp else self.head_hidden_size
        )
        self.num_classes = architecture.num_classes
        self.default_cfg: dict[str, Any] = {}
        self.pretrained_cfg = self.default_cfg

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one for that many classes, or by none for 0."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool is {global_pool!r}: these networks have avg")
        self.num_classes = num_classes
        head: nn.Module = nn.Identity()
        if num_classes:
            head = nn.Linear(self.head_hidden_size, num_classes)
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.add_module("head", head)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the last stage's map (N, C, H / 32, W / 32)."""
        features: Tensor = self.stages(self.stem(x))
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map to logits (N, classes), or to the (N, C) before the classifier."""
        pooled: Tensor = self.mlp(self.norm(self.pool(x))).flatten(1)
        logits: Tensor = pooled if pre_logits else self.head(pooled)
        return logits

    def no_weight_decay(self) -> set[str]:
        """Layer scale has one number per channel; its shape only serves broadcasting."""
        return {name for name, _ in self.named_parameters() if name.endswith(".layer_scale")}


def _entry(name: str, step: Step) -> Any:
    def entry(
        pretrained: bool = False,
        *,
        regime: str = "tiny",
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        layer_scale: float | None = 1e-6,
        init: Init = "truncated-normal",
        img_size: int = 224,
        **others: Any,
    ) -> TimmResNet:
        if pretrained:
            raise ValueError(f"{name} has no pretrained weights: leave pretrained out")
        fixed = {"in_chans": 3, "global_pool": "avg"}
        for key, value in others.items():
            if key not in _IGNORED and value and value != fixed.get(key):
                raise ValueError(
                    f"{name} has no {key}={value!r}: give num_classes, drop_path_rate, "
                    "layer_scale, init, regime"
                )
        architecture = PAPER.architecture(step, get_regime(regime), num_classes or 1000)
        assert isinstance(architecture, Architecture)
        model = TimmResNet(architecture, drop_path_rate, layer_scale or None, init)
        if num_classes == 0:
            model.reset_classifier(0)
        model.default_cfg |= {
            "architecture": name,
            "url": "",
            "num_classes": num_classes,
            "input_size": (3, img_size, img_size),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "stem.conv",
            "classifier": "head",
        }
        return model

    entry.__name__ = entry.__qualname__ = name
    entry.__module__ = __name__
    entry.__doc__ = f"{step.describe(Architecture()).description} ({step.source})."
    setattr(sys.modules[__name__], name, entry)
    return entry


for _step in PAPER.steps:
    for _name in dict.fromkeys((PREFIX + _step.name.replace("-", "_"), PREFIX + _step.name)):
        if not _step.reference:
            register_model(_entry(_name, _step))
