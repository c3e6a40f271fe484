"""Our network with the few names that timm's scripts ask a model for."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models import Architecture, SwinArchitecture
from models.builder import Init, initialize
from models.resnet import ResNet


class TimmResNet(ResNet):
    """`ResNet` as a timm model. num_classes 0 leaves the classifier out, as everywhere in timm."""

    def __init__(
        self,
        architecture: Architecture | SwinArchitecture,
        drop_path: float,
        layer_scale: float | None,
        init: Init,
        name: str,
        num_classes: int,
        resolution: int,
    ) -> None:
        assert isinstance(architecture, Architecture)
        super().__init__(architecture, drop_path, layer_scale)
        initialize(self, init)
        self.head_hidden_size = self.head.in_features
        mlp = isinstance(self.mlp, nn.Sequential)
        self.num_features = (
            self.mlp.get_submodule("conv").in_channels if mlp else self.head_hidden_size
        )
        self.num_classes = architecture.num_classes
        self.grad_checkpointing = False
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
        head: nn.Module = (
            nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        )
        if isinstance(head, nn.Linear):
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.add_module("head", head)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the last stage's map (N, C, H / 32, W / 32)."""
        x = self.stem(x)
        for stage in self.stages:
            if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
                x = checkpoint(stage, x, use_reentrant=False)
            else:
                x = stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map to logits (N, classes), or to the (N, C) that the classifier sees."""
        pooled: Tensor = self.mlp(self.norm(self.pool(x))).flatten(1)
        if pre_logits:
            return pooled
        logits: Tensor = self.head(pooled)
        return logits

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep each stage's input alone for the backward pass and compute the rest again
        (train.py's option).

        As with timm's own models, batch norm then counts every batch twice in its running
        statistics.
        """
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that order the parameters by depth, for layer-wise learning rates
        (--layer-decay)."""
        blocks: list[tuple[str, tuple[int] | None]] = [(r"^stages\.(\d+)", None)]
        if not coarse:
            blocks = [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.block(\d+)", None)]
        return {"stem": r"^stem", "blocks": [*blocks, (r"^norm", (99999,))]}

    def no_weight_decay(self) -> set[str]:
        """Layer scale has one number per channel; its shape only serves broadcasting."""
        return {name for name, _ in self.named_parameters() if name.endswith(".layer_scale")}
