"""The convolutions that networks are built of, and other ways to compute them: the same function to
rounding.

`rewrite` makes some of them much faster on some processors: a network then keeps its parameters,
their names and its structure, and `training.autotune` finds out whether it is worth it. The limits
below were measured on a CPU with AVX512 (docs/decisions.md#pointwise).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_POSITIONS_PER_CHANNEL, _IN_16_BITS = 1 / 8, 16
"""On a CPU, a matrix product is the faster 1x1 convolution where fewer positions, in all images,
face a channel."""
_SMALLEST_KERNEL = 5
"""Side of a depthwise filter from which on its gradient is computed here."""
_NARROW = 16
"""Channels from which on torch's strided 1x1 convolutions are sound
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
    return kind(
        c_in, c_out, (height, width), stride, (height // 2, width // 2), groups=groups, bias=bias
    )


class Narrow(nn.Conv2d):
    """A strided 1x1 convolution that picks its positions first, because torch 2.15's own corrupts
    memory where the channels are fewer than 16, in the gradient of the weights
    (docs/decisions.md#narrow-1x1)."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(picked(input, self.stride), weight, bias)


def rewrite(model: nn.Module) -> None:
    """Let `model`, which is to be fed channels-last images, compute its 1x1 and its depthwise
    convolutions anew."""
    for module in model.modules():
        if type(module) is not nn.Conv2d and type(module) is not Narrow:
            continue
        side, stride, groups = module.kernel_size[0], module.stride[0], module.groups
        usual = (side, side), (stride, stride), (side // 2, side // 2), (1, 1), "zeros"
        if (
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.padding_mode,
        ) != usual:
            continue
        if side == 1 and groups == 1:
            module.__class__ = Pointwise
        elif (
            side >= _SMALLEST_KERNEL
            and side % 2
            and groups == module.in_channels == module.out_channels
        ):
            module.__class__ = Depthwise


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, as a matrix product where the positions are few.

    (N, C, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        full = (_autocast_dtype(input) or input.dtype) == torch.float32
        positions = input.numel() / (self.in_channels * self.stride[0] * self.stride[1])
        channels = min(self.in_channels, self.out_channels)
        few = positions < channels * (_POSITIONS_PER_CHANNEL if full else _IN_16_BITS)
        if few or input.device.type != "cpu":
            positions_last = picked(input, self.stride).permute(0, 2, 3, 1)
            return F.linear(positions_last, weight.flatten(1), bias).permute(0, 3, 1, 2)
        # A dilated filter of one pixel is the filter itself. But torch takes a slower algorithm for
        # 1x1 convolutions in float32 on one thread where images are fewer than 16, unless they are
        # dilated.
        if self.in_channels < _NARROW:
            return F.conv2d(picked(input, self.stride), weight, bias, dilation=2)
        return F.conv2d(input, weight, bias, self.stride, 0, dilation=2)


def picked(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """(N, C, H, W) at the positions that a strided convolution has its centres on."""
    return x if stride == (1, 1) else x[:, :, :: stride[0], :: stride[1]]


class Depthwise(nn.Conv2d):
    """A depthwise convolution of an odd kernel, padded to keep the size, with another gradient of
    its filters."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not torch.is_grad_enabled() or input.device.type != "cpu":
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        if dtype := _autocast_dtype(
            input
        ):  # by hand: autocast does not look into _DepthwiseFunction
            input, weight, bias = (
                input.to(dtype),
                weight.to(dtype),
                None if bias is None else bias.to(dtype),
            )
        out: Tensor = _DepthwiseFunction.apply(input, weight, bias, self.stride[0])
        return out


class _DepthwiseFunction(torch.autograd.Function):
    """A depthwise convolution whose filters' gradients are a depthwise convolution too: of the
    inputs, by the outputs' gradients, with the channels of all images side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.with_bias = stride, bias is not None
        return F.conv2d(x, weight, bias, stride, weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (n, c, height, width), side, stride = x.shape, weight.shape[2], ctx.stride
        padding = side // 2
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = torch.ops.aten.convolution_backward(
                gradient,
                x,
                weight,
                None,
                (stride, stride),
                (padding, padding),
                (1, 1),
                False,
                (0, 0),
                c,
                (True, False, False),
            )[0]
        if ctx.needs_input_grad[1]:
            # Taps that lie outside the image from wherever they are used have no gradient.
            reach = min(padding, max(height, width) - 1)
            inner = 2 * reach + 1
            taps = F.conv2d(
                _side_by_side(x)[None],
                _side_by_side(gradient)[:, None],
                None,
                1,
                reach,
                stride,
                n * c,
            )
            taps = taps[:, :, :inner, :inner].reshape(n, c, inner, inner)
            taps = taps.sum(0, dtype=torch.promote_types(x.dtype, torch.float32))
            of_weight = F.pad(taps, [padding - reach] * 4)[:, None].to(weight.dtype)
        if ctx.with_bias and ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None


def _side_by_side(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N x C, H, W), channels last in memory."""
    n, c, height, width = x.shape
    return x.permute(2, 3, 0, 1).reshape(height, width, n * c).permute(2, 0, 1)


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast computes convolutions of `x` in, if it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
