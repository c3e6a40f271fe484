"""Layers that blocks have besides convolutions: (N, C, H, W) to the same shape, unless documented.

`part` builds them by the names that `Architecture` has for them.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import parts
from models.convolution import convolution, picked


class LayerNorm(nn.LayerNorm):
    """Layer normalization over the channels at each position; epsilon 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        channels_last = x.permute(0, 2, 3, 1)
        x = F.layer_norm(channels_last, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """x + weight * x * |x_c| / mean_c |x_c| + bias, norms over all positions.

    Both parameters start at 0, so it starts as the identity (ConvNeXt V2, arXiv 2301.00808,
    section 3 and algorithm 1).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        response = x.norm(p=2, dim=(2, 3), keepdim=True)
        relative = response / (response.mean(dim=1, keepdim=True) + 1e-6)
        return x + torch.addcmul(self.bias.view(-1, 1, 1), self.weight.view(-1, 1, 1), x * relative)


class SqueezeExcitation(nn.Module):
    """Channels weighted by a small network of their means (Hu et al., CVPR 2018, reduction 16).

    The hidden width is a multiple of 8, as in timm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, int(channels / 16 + 4) // 8 * 8)
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.conv2(F.relu(self.conv1(squeezed))))


class StarReLU(nn.Module):
    """scale * relu(x)^2 + bias, learnt numbers that start at 1 and 0 (arXiv 2210.13452)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.relu(x) ** 2 + self.bias


class InceptionConvolution(nn.Module):
    """A 3x3, a 1xk and a kx1 convolution on an eighth of the channels each; the others unchanged.

    (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)). InceptionNeXt, arXiv 2303.16900,
    section 3.2, where k is 11.
    """

    def __init__(
        self, channels: int, kernel_size: int, stride: int, *, depthwise: bool, bias: bool
    ) -> None:
        super().__init__()
        self.channels, self.kernel_size, self.stride = channels, kernel_size, (stride, stride)
        part = channels // 8
        groups = part if depthwise else 1
        self.sizes = [channels - 3 * part, part, part, part]
        self.square, self.wide, self.tall = (
            convolution(part, part, side, stride, groups=groups, bias=bias)
            for side in (3, (1, kernel_size), (kernel_size, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        same, square, wide, tall = torch.split(x, self.sizes, 1)
        same = picked(same, self.stride)
        return torch.cat((same, self.square(square), self.wide(wide), self.tall(tall)), 1)


class StochasticDepth(nn.Module):
    """In training, drop each image's branch with probability `p`, else scale it by 1 / (1 - p).

    Draws the same numbers as torchvision's (Huang et al., ECCV 2016), without importing it
    (docs/decisions.md#imports).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(1 - self.p)
        return x * kept.div_(1 - self.p)


_BUILT_IN: Mapping[tuple[str, str], Callable[..., nn.Module]] = {
    ("norm", "batch"): nn.BatchNorm2d,
    ("norm", "layer"): LayerNorm,
    ("activation", "relu"): nn.ReLU,
    ("activation", "gelu"): nn.GELU,
    ("activation", "star-relu"): StarReLU,
    ("before_last", "grn"): GlobalResponseNorm,
    ("branch_end", "se"): SqueezeExcitation,
}


def part(field: str, name: str, *arguments: int) -> nn.Module:
    """Build the part, built in or custom, that `Architecture` calls `name` in `field`."""
    return (parts.custom(field, name) or _BUILT_IN[field, name])(*arguments)
