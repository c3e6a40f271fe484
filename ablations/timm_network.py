"""Our network with the few names that timm's scripts ask a model for."""

from typing import Any

from torch import Tensor, nn

from models import Architecture, SwinArchitecture
from models.builder import initialize
from models.resnet import ResNet


class TimmResNet(ResNet):
    """`ResNet` as a timm model. num_classes 0 leaves the classifier out, as everywhere in timm."""

    def __init__(
        self, architecture: Architecture | SwinArchitecture, drop_path: float, layer_scale: float | None, name: str,
        num_classes: int, resolution: int,
    ) -> None:  # fmt: skip
        assert isinstance(architecture, Architecture)
        super().__init__(architecture, drop_path, layer_scale)
        initialize(self, "truncated-normal")
        self.num_features = self.head_hidden_size = self.head.in_features
        self.num_classes = architecture.num_classes
        if num_classes == 0:
            self.reset_classifier(0)
        self.pretrained_cfg: dict[str, Any] = {
            "architecture": name,
            "url": "",
            "num_classes": num_classes,
            "input_size": (3, resolution, resolution),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "stem.conv",
            "classifier": "head",
        }
        self.default_cfg = self.pretrained_cfg

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier for that many classes, or none for 0."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool is {global_pool!r}: these networks have avg")
        self.num_classes = num_classes
        head: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if isinstance(head, nn.Linear):
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.add_module("head", head)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the last stage's map (N, C, H / 32, W / 32)."""
        features: Tensor = self.stages(self.stem(x))
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map to logits (N, classes), or to the (N, C) that the classifier sees."""
        pooled: Tensor = self.norm(self.pool(x)).flatten(1)
        if pre_logits:
            return pooled
        logits: Tensor = self.head(pooled)
        return logits

    def no_weight_decay(self) -> set[str]:
        """Layer scale has one number per channel; its shape only serves broadcasting."""
        return {name for name, _ in self.named_parameters() if name.endswith(".layer_scale")}
