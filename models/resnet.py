"""The builder: one block, one network, every flag of `Architecture` read in one place.

Where the paper is silent, docs/decisions.md#networks gives the reason for what is done here.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from models.architecture import Architecture
from models.convolution import convolution


class LayerNorm(nn.LayerNorm):
    """Layer normalization over the channels of (N, C, H, W), at each position on its own; epsilon 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


def _norm(a: Architecture, channels: int) -> nn.Module:
    return LayerNorm(channels) if a.norm == "layer" else nn.BatchNorm2d(channels)


def _activation(a: Architecture) -> nn.Module:
    return nn.GELU() if a.activation == "gelu" else nn.ReLU(inplace=True)


class Block(nn.Module):
    """A residual block: three convolutions, one of them spatial, and a shortcut.

    What each flag does, for a block of width C (norm and activation written as n and a):

        default                  1x1 n a  kxk n a  1x1 n  + a     channels in, C, C, 4C
        depthwise                the kxk has one filter per channel
        inverted_bottleneck      channels in, 4C, 4C, C
        depthwise_first          kxk n a  1x1 n a  1x1 n  + a     channels in, in, C, 4C (inverted: in, in, 4C, C)
        fewer_activations        only the `a` before the last 1x1 stays
        fewer_norms              only an `n` before the first 1x1 stays
        separate_downsampling    the kxk has stride 1 always

    Input (N, channels_in, H, W); output (N, C or 4C, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        a: Architecture,
        channels_in: int,
        width: int,
        stride: int,
        *,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        hidden, channels_out = (4 * width, width) if a.inverted_bottleneck else (width, 4 * width)
        spatial, first_1x1 = (1, 2) if a.depthwise_first else (2, 1)
        channels = (channels_in, channels_in if a.depthwise_first else hidden, hidden, channels_out)
        # Place i lies after convolution i; place 0 before them all.
        norms = {first_1x1 - 1} if a.fewer_norms else {1, 2, 3}
        activations = {2} if a.fewer_activations else {1, 2}

        branch: OrderedDict[str, nn.Module] = OrderedDict()
        if 0 in norms:
            branch["norm0"] = _norm(a, channels_in)
        for i, (c_in, c_out) in enumerate(pairwise(channels), start=1):
            # Batch norm takes the mean away again: a bias in front of it would do nothing.
            bias = not (i in norms and a.norm == "batch")
            if i == spatial:
                groups = c_in if a.depthwise else 1
                branch[f"conv{i}"] = convolution(c_in, c_out, a.kernel_size, stride, groups=groups, bias=bias)
            else:
                branch[f"conv{i}"] = convolution(c_in, c_out, 1, bias=bias)
            if i in norms:
                branch[f"norm{i}"] = _norm(a, c_out)
            if i in activations:
                branch[f"activation{i}"] = _activation(a)
        self.branch = nn.Sequential(branch)

        self.layer_scale = None
        if layer_scale is not None:
            self.layer_scale = nn.Parameter(torch.full((channels_out, 1, 1), layer_scale))
        self.drop_path = StochasticDepth(drop_path, "row") if drop_path else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            projection = convolution(channels_in, channels_out, 1, stride, bias=a.norm == "layer")
            self.shortcut = nn.Sequential(OrderedDict(conv=projection, norm=_norm(a, channels_out)))
        self.activation: nn.Module = nn.Identity() if a.fewer_activations else _activation(a)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.branch(x)
        if self.layer_scale is not None:
            out = out * self.layer_scale
        out = self.activation(self.shortcut(x) + self.drop_path(out))
        return out


def _stem(a: Architecture) -> nn.Sequential:
    bias = a.norm == "layer"
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if a.stem == "patchify":
        layers["conv"] = nn.Conv2d(3, a.width, a.stem_stride, a.stem_stride, bias=bias)
    elif a.stem_stride == 4:
        layers["conv"] = convolution(3, a.width, 7, 2, bias=bias)
    else:
        layers["conv"] = convolution(3, a.width, 3, bias=bias)
    layers["norm"] = _norm(a, a.width)
    if not a.fewer_activations:
        layers["activation"] = _activation(a)
    if a.stem == "classic" and a.stem_stride > 1:
        layers["pool"] = nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(layers)


class ResNet(nn.Module):
    """The network that an `Architecture` describes: (N, 3, H, W) float pictures to (N, num_classes) logits.

    Args:
        architecture: the paper's design decisions.
        drop_path: probability that the last block's branch is dropped for a picture; rises linearly with depth
            from 0 at the first block (Table 5 of the paper: 0.1 for the smaller regime, 0.5 for the larger).
        layer_scale: initial value of a learnt factor per channel on each branch (Table 5: 1e-6); None for no factor.
    """

    def __init__(self, architecture: Architecture, drop_path: float = 0.0, layer_scale: float | None = None) -> None:
        super().__init__()
        a = self.architecture = architecture
        blocks_before, last = 0, max(sum(a.depths) - 1, 1)
        self.stem = _stem(a)
        channels = a.width
        stages = []
        for index, depth in enumerate(a.depths):
            width = a.width * 2**index
            channels_out = width if a.inverted_bottleneck else 4 * width
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            stride = 1 if index == 0 else 2
            if a.separate_downsampling and stride == 2:
                downsample = nn.Conv2d(channels, channels_out, 2, 2)
                stage["downsample"] = nn.Sequential(OrderedDict(norm=_norm(a, channels), conv=downsample))
                channels, stride = channels_out, 1
            for number in range(1, depth + 1):
                rate = drop_path * blocks_before / last
                stage[f"block{number}"] = Block(a, channels, width, stride, drop_path=rate, layer_scale=layer_scale)
                channels, stride, blocks_before = channels_out, 1, blocks_before + 1
            stages.append(nn.Sequential(stage))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.norm = _norm(a, channels) if a.separate_downsampling else nn.Identity()
        self.head = nn.Linear(channels, a.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.norm(self.pool(self.stages(self.stem(x))))
        logits: Tensor = self.head(features.flatten(1))
        return logits
