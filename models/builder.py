"""From an architecture to a network with its initial weights."""

from typing import Literal

import torch
from torch import nn

from models.architecture import Architecture, SwinArchitecture
from models.resnet import ResNet

Init = Literal["he", "truncated-normal"]


def build(
    architecture: Architecture | SwinArchitecture,
    *,
    drop_path: float = 0.0,
    layer_scale: float | None = None,
    init: Init = "truncated-normal",
) -> nn.Module:
    """Build a network with initial weights drawn from torch's global generator.

    Args:
        architecture: Swin is torchvision's own module, to which `layer_scale` and `init` do not
            apply.
        drop_path, layer_scale: see `ResNet`.
        init: "he": normal with variance 2 / fan-out for convolutions, torch's default for the
            classifier (He et al., 2016, as in torchvision's ResNet-50). "truncated-normal":
            standard deviation 0.02, cut at 2 units, biases 0, for both (the modern recipe).
    """
    if isinstance(architecture, SwinArchitecture):
        from torchvision.models.swin_transformer import SwinTransformer  # docs/decisions.md#imports

        swin: nn.Module = SwinTransformer(
            patch_size=[architecture.stem_stride] * 2,
            embed_dim=architecture.embed_dim,
            depths=list(architecture.depths),
            num_heads=list(architecture.num_heads),
            window_size=[architecture.window_size] * 2,
            stochastic_depth_prob=drop_path,
            num_classes=architecture.num_classes,
        )
        return swin
    model = ResNet(architecture, drop_path, layer_scale)
    initialize(model, init)
    return model


def outline(
    architecture: Architecture | SwinArchitecture, *, layer_scale: float | None = None
) -> nn.Module:
    """Build a network without weights, on the meta device, to count it."""
    with torch.device("meta"):
        if isinstance(architecture, SwinArchitecture):
            return build(architecture)
        return ResNet(architecture, layer_scale=layer_scale)


def empty(
    architecture: Architecture | SwinArchitecture, *, layer_scale: float | None = None
) -> nn.Module:
    """Build a network of zero weights quickly, to load weights into it."""
    model = outline(architecture, layer_scale=layer_scale).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    return model


@torch.no_grad()
def initialize(model: ResNet, init: Init) -> None:
    """Draw weights for convolutions and classifier; norms and layer scale keep theirs."""
    for module in model.modules():
        if init == "he" and isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif init == "truncated-normal" and isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if init == "truncated-normal" and isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
