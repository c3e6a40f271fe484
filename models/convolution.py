"""The convolutions that networks are built of, and faster ways to compute them, equal to rounding.

`rewrite` keeps a network's parameters, their names and its structure; `training.autotune` measures
whether it pays. Its limits were measured on a CPU with AVX512 (docs/decisions.md#pointwise).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_FEW_POSITIONS, _FEW_POSITIONS_16_BITS = 1 / 8, 16
"""Positions in all images, per channel, below which a matrix product computes a 1x1 convolution
faster on a CPU."""
_MIN_DEPTHWISE_KERNEL = 5
"""Side from which on the gradient of a depthwise filter is computed here."""
_NARROW = 16
"""Channels from which on torch's strided 1x1 convolutions are safe
(docs/decisions.md#narrow-1x1)."""


def convolution(
    c_in: int,
    c_out: int,
    side: int | tuple[int, int],
    stride: int = 1,
    *,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """A convolution of odd sides (height, width), padded so that stride 1 keeps the size."""
    height, width = (side, side) if isinstance(side, int) else side
    narrow = height == width == 1 and stride > 1 and groups == 1 and c_in < _NARROW
    kind = Narrow if narrow else nn.Conv2d
    padding = (height // 2, width // 2)
    return kind(c_in, c_out, (height, width), stride, padding, groups=groups, bias=bias)


def picked(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """(N, C, H, W) at the positions where a strided convolution has its centres."""
    return x if stride == (1, 1) else x[:, :, :: stride[0], :: stride[1]]


class Narrow(nn.Conv2d):
    """A strided 1x1 convolution of fewer than 16 input channels, which picks its positions first.

    The weight gradient of torch 2.15's own corrupts memory there (docs/decisions.md#narrow-1x1).
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(picked(input, self.stride), weight, bias)


def rewrite(model: nn.Module) -> None:
    """Let `model` compute its 1x1 and depthwise convolutions faster on channels-last images."""
    for module in model.modules():
        if type(module) not in (nn.Conv2d, Narrow):
            continue
        assert isinstance(module, nn.Conv2d)
        side, groups = module.kernel_size[0], module.groups
        regular = (
            module.kernel_size == (side, side)
            and module.padding == (side // 2, side // 2)
            and module.stride[0] == module.stride[1]
            and module.dilation == (1, 1)
            and module.padding_mode == "zeros"
        )
        depthwise = groups == module.in_channels == module.out_channels
        if regular and side == 1 and groups == 1:
            module.__class__ = Pointwise
        elif regular and side >= _MIN_DEPTHWISE_KERNEL and side % 2 and depthwise:
            module.__class__ = Depthwise


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, computed as a matrix product where the positions are few.

    (N, C, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        full = (_autocast_dtype(input) or input.dtype) == torch.float32
        limit = _FEW_POSITIONS if full else _FEW_POSITIONS_16_BITS
        positions = input.numel() / (self.in_channels * self.stride[0] * self.stride[1])
        few = positions < limit * min(self.in_channels, self.out_channels)
        if few or input.device.type != "cpu":
            channels_last = picked(input, self.stride).permute(0, 2, 3, 1)
            return F.linear(channels_last, weight.flatten(1), bias).permute(0, 3, 1, 2)
        # Dilation does nothing to a filter of one pixel, but without it torch takes a slower
        # algorithm in float32 on one thread for fewer than 16 images.
        if self.in_channels < _NARROW:
            return F.conv2d(picked(input, self.stride), weight, bias, dilation=2)
        return F.conv2d(input, weight, bias, self.stride, 0, dilation=2)


class Depthwise(nn.Conv2d):
    """A depthwise convolution of an odd kernel that computes its weight gradient faster."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not torch.is_grad_enabled() or input.device.type != "cpu":
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        if dtype := _autocast_dtype(input):  # autocast does not reach into a custom function
            input, weight = input.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        out: Tensor = _DepthwiseFunction.apply(input, weight, bias, self.stride[0])
        return out


class _DepthwiseFunction(torch.autograd.Function):
    """A depthwise convolution whose weight gradient is a depthwise convolution too: of the inputs
    by the output gradients, with the channels of all images side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.with_bias = stride, bias is not None
        return F.conv2d(x, weight, bias, stride, weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        padding, stride = weight.shape[2] // 2, ctx.stride
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            sizes = (stride, stride), (padding, padding), (1, 1), False, (0, 0), len(weight)
            only_x = (True, False, False)
            grad_x = torch.ops.aten.convolution_backward(grad, x, weight, None, *sizes, only_x)[0]
        if ctx.needs_input_grad[1]:
            grad_weight = _filter_gradient(x, grad, padding, stride).to(weight.dtype)
        if ctx.with_bias and ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None


def _filter_gradient(x: Tensor, grad: Tensor, padding: int, stride: int) -> Tensor:
    """(C, 1, K, K), K = 2 * padding + 1, of (N, C, H, W) inputs and their output gradients."""
    n, c, height, width = x.shape
    # Taps that lie outside the image wherever the filter is have no gradient.
    inner = min(padding, max(height, width) - 1)
    side = 2 * inner + 1
    inputs, filters = _side_by_side(x)[None], _side_by_side(grad)[:, None]
    taps = F.conv2d(inputs, filters, None, 1, inner, stride, groups=n * c)
    taps = taps[:, :, :side, :side].reshape(n, c, side, side)
    total = taps.sum(0, dtype=torch.promote_types(x.dtype, torch.float32))
    return F.pad(total, [padding - inner] * 4)[:, None]


def _side_by_side(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N x C, H, W), channels last in memory."""
    n, c, height, width = x.shape
    return x.permute(2, 3, 0, 1).reshape(height, width, n * c).permute(2, 0, 1)


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype in which autocast computes convolutions of `x`; None where autocast is off."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
