"""One block and one network, in which every flag of `Architecture` is read.

Where the paper is silent, docs/decisions.md#networks gives the reason for what is done here.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn

from models import parts
from models.architecture import Architecture
from models.convolution import convolution
from models.layers import InceptionConvolution, LayerNorm, StochasticDepth, part


class Block(nn.Module):
    """A residual block: a branch of three convolutions, one of them spatial, and a shortcut.

    What each flag does to a block of width C, with its widths (norm n, activation a, input I):

        default                 1x1 n a  kxk n a  1x1 n  + a      I, C, C, 4C
        depthwise               the kxk has one filter per channel
        inverted_bottleneck     the wide end is in the middle     I, 4C, 4C, C
        depthwise_first         kxk n a  1x1 n a  1x1 n  + a      I, I, C, 4C (or I, I, 4C, C)
        fewer_activations       keeps the `a` before the last 1x1 alone
        fewer_norms             keeps an `n` before the first 1x1 alone
        separate_downsampling   the kxk has stride 1 always
        expansion               another ratio than 4
        spatial                 inception: 3x3, 1xk and kx1 on an eighth of the channels each
        before_last             grn: before the last 1x1, after its `a`
        branch_end              se: at the end of the branch, before the +

    Input (N, I, H, W); output (N, C or 4C, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        a: Architecture,
        channels_in: int,
        width: int,
        stride: int,
        *,
        expansion: int = 4,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        wide = expansion * width
        hidden, channels_out = (wide, width) if a.inverted_bottleneck else (width, wide)
        spatial, first_1x1 = (1, 2) if a.depthwise_first else (2, 1)
        channels = (channels_in, channels_in if a.depthwise_first else hidden, hidden, channels_out)
        # Position i follows convolution i; position 0 precedes them all.
        norms = {first_1x1 - 1} if a.fewer_norms else {1, 2, 3}
        activations = {2} if a.fewer_activations else {1, 2}

        branch: OrderedDict[str, nn.Module] = OrderedDict()
        if 0 in norms:
            branch["norm0"] = _norm(a, channels_in)
        for i, (c_in, c_out) in enumerate(pairwise(channels), start=1):
            if i == 3 and a.before_last != "none":
                branch["before_last"] = part("before_last", a.before_last, c_in)
            bias = _bias(a, norm_follows=i in norms)
            if i == spatial:
                branch[f"conv{i}"] = _spatial(a, c_in, stride, bias)
            else:
                branch[f"conv{i}"] = convolution(c_in, c_out, 1, bias=bias)
            if i in norms:
                branch[f"norm{i}"] = _norm(a, c_out)
            if i in activations:
                branch[f"activation{i}"] = _activation(a)
        if a.branch_end != "none":
            branch["end"] = part("branch_end", a.branch_end, channels_out)
        self.branch = nn.Sequential(branch)

        self.layer_scale = None
        if layer_scale is not None:
            self.layer_scale = nn.Parameter(torch.full((channels_out, 1, 1), layer_scale))
        self.drop_path = StochasticDepth(drop_path) if drop_path else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            bias = _bias(a, norm_follows=True)
            projection = convolution(channels_in, channels_out, 1, stride, bias=bias)
            self.shortcut = nn.Sequential(OrderedDict(conv=projection, norm=_norm(a, channels_out)))
        self.activation: nn.Module = nn.Identity() if a.fewer_activations else _activation(a)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.branch(x)
        if self.layer_scale is not None:
            out = out * self.layer_scale
        out = self.activation(self.shortcut(x) + self.drop_path(out))
        return out


def _norm(a: Architecture, channels: int) -> nn.Module:
    return part("norm", a.norm, channels)


def _activation(a: Architecture) -> nn.Module:
    if a.activation == "relu":  # in place, unless a custom part needs its output for a gradient
        return nn.ReLU(inplace=not parts.used(a))
    return part("activation", a.activation)


def _bias(a: Architecture, norm_follows: bool) -> bool:
    # Batch norm subtracts the mean: a bias before it has no effect.
    return a.all_biases or not (norm_follows and a.norm == "batch")


def _spatial(a: Architecture, channels: int, stride: int, bias: bool) -> nn.Module:
    kernel = a.kernel_size
    if a.spatial == "convolution":
        groups = channels if a.depthwise else 1
        return convolution(channels, channels, kernel, stride, groups=groups, bias=bias)
    if a.spatial == "inception":
        return InceptionConvolution(channels, kernel, stride, depthwise=a.depthwise, bias=bias)
    return part("spatial", a.spatial, channels, kernel, stride)


def _stem(a: Architecture) -> nn.Sequential:
    width, bias = a.width, _bias(a, norm_follows=True)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if a.stem == "patchify":
        layers["conv"] = nn.Conv2d(3, width, a.stem_stride, a.stem_stride, bias=bias)
    elif a.stem == "overlap":
        first, second = {4: (2, 2), 2: (1, 2), 1: (1, 1)}[a.stem_stride]
        layers["conv"] = convolution(3, width, 3, first)
        layers["conv2"] = convolution(width, width, 3, second, bias=bias)
    else:
        side, stride = (7, 2) if a.stem_stride == 4 else (3, 1)
        layers["conv"] = convolution(3, width, side, stride, bias=bias)
    layers["norm"] = _norm(a, width)
    if not a.fewer_activations:
        layers["activation"] = _activation(a)
    if a.stem == "classic" and a.stem_stride > 1:
        layers["pool"] = nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(layers)


class ResNet(nn.Module):
    """The network of an `Architecture`: (N, 3, H, W) float images to (N, num_classes) logits.

    Args:
        architecture: the paper's design decisions.
        drop_path: probability that an image skips the last block's branch; rises linearly with
            depth from 0 at the first block (Table 5 of the paper: 0.1 in the smaller regime, 0.5 in
            the larger).
        layer_scale: initial value of a learnt factor per channel on each branch (Table 5: 1e-6);
            None for no factor.
    """

    def __init__(
        self, architecture: Architecture, drop_path: float = 0.0, layer_scale: float | None = None
    ) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.stem = _stem(a)
        channels, blocks_before, last = a.width, 0, max(sum(a.depths) - 1, 1)
        stages = []
        for index, (depth, expansion) in enumerate(zip(a.depths, a.expansions, strict=True)):
            width, stride = a.width * 2**index, 1 if index == 0 else 2
            channels_out = width if a.inverted_bottleneck else expansion * width
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            if a.separate_downsampling and stride == 2:
                norm, conv = _norm(a, channels), nn.Conv2d(channels, channels_out, 2, 2)
                stage["downsample"] = nn.Sequential(OrderedDict(norm=norm, conv=conv))
                channels, stride = channels_out, 1
            for number in range(1, depth + 1):
                stage[f"block{number}"] = Block(
                    a,
                    channels,
                    width,
                    stride,
                    expansion=expansion,
                    drop_path=drop_path * blocks_before / last,
                    layer_scale=layer_scale,
                )
                channels, stride, blocks_before = channels_out, 1, blocks_before + 1
            stages.append(nn.Sequential(stage))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.norm: nn.Module = nn.Identity()
        self.mlp: nn.Module = nn.Identity()
        if a.head == "mlp":
            conv = convolution(channels, 3 * channels, 1)
            channels *= 3
            layers = OrderedDict(conv=conv, activation=_activation(a), norm=LayerNorm(channels))
            self.mlp = nn.Sequential(layers)
        elif a.separate_downsampling:
            self.norm = _norm(a, channels)
        self.head = nn.Linear(channels, a.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.norm(self.pool(self.stages(self.stem(x))))
        logits: Tensor = self.head(self.mlp(features).flatten(1))
        return logits
