"""What blocks are made of beside convolutions: (N, C, H, W) to the same shape, unless said
otherwise."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import parts
from models.convolution import convolution, picked


class LayerNorm(nn.LayerNorm):
    """Layer normalization over the channels, at each position on its own; epsilon 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return x.permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Each channel scaled by its norm over all positions, relative to the channels' mean norm, and
    added to itself.

    x + weight * x * |x_c| / mean_c |x_c| + bias; both start at 0, so it starts as the identity
    (ConvNeXt V2, arXiv 2301.00808, section 3 and algorithm 1).
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
    """Channels weighted by what a small network sees in their means (Hu et al., CVPR 2018,
    reduction 16).

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
    """scale * relu(x)^2 + bias, two learnt numbers that start at 1 and 0 (MetaFormer baselines,
    arXiv 2210.13452)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.relu(x) ** 2 + self.bias


class InceptionConvolution(nn.Module):
    """An eighth of the channels each through a 3x3, a 1xk and a kx1 convolution; the others as they
    are, picked at the strided positions (InceptionNeXt, arXiv 2303.16900, section 3.2, where k is
    11).

    (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self, channels: int, kernel_size: int, stride: int, *, depthwise: bool, bias: bool
    ) -> None:
        super().__init__()
        self.channels, self.kernel_size, self.stride = channels, kernel_size, (stride, stride)
        part = channels // 8
        self.sizes = [channels - 3 * part, part, part, part]
        make = partial(
            convolution, part, part, stride=stride, groups=part if depthwise else 1, bias=bias
        )
        self.square, self.wide, self.tall = make(3), make((1, kernel_size)), make((kernel_size, 1))

    def forward(self, x: Tensor) -> Tensor:
        same, square, wide, tall = torch.split(x, self.sizes, 1)
        return torch.cat(
            (picked(same, self.stride), self.square(square), self.wide(wide), self.tall(tall)), 1
        )


class StochasticDepth(nn.Module):
    """In training, each image's branch is left out with probability `p` and otherwise scaled by 1 /
    (1 - p).

    Draws what torchvision's draws (Huang et al., ECCV 2016), without importing it
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


_MAKERS: Mapping[tuple[str, str], Callable[..., nn.Module]] = {
    ("norm", "batch"): nn.BatchNorm2d,
    ("norm", "layer"): LayerNorm,
    ("activation", "relu"): nn.ReLU,
    ("activation", "gelu"): nn.GELU,
    ("activation", "star-relu"): StarReLU,
    ("before_last", "grn"): GlobalResponseNorm,
    ("branch_end", "se"): SqueezeExcitation,
}


def part(field: str, name: str, *values: int) -> nn.Module:
    """The part, built in or registered, that `Architecture` calls by `name` in `field`; see
    `models.parts`."""
    return (parts.own(field, name) or _MAKERS[field, name])(*values)
