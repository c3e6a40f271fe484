"""Rewritten convolutions compute what torch's do: outputs and all gradients."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from ablations import get_regime
from models.builder import build
from models.convolution import Depthwise, Pointwise, rewrite


def outcome(layer: nn.Module, images: Tensor, half: bool = False) -> list[Tensor]:
    """Output, under autocast if `half`, and gradients of input and parameters, for output gradients all different."""
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = layer(images)
    out.backward(torch.cos(torch.arange(out.numel(), dtype=out.dtype)).view(out.shape))
    return [out, images.grad, *(parameter.grad for parameter in layer.parameters())]


# Positions and channels on both sides of the limits, pictures smaller than the filter, one row, odd sizes.
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 11])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_rewritten_layer_equals_torchs(kernel, stride) -> None:
    torch.manual_seed(0)
    for size, pictures, channels in itertools.product([(1, 1), (2, 2), (3, 5), (9, 1), (12, 10)], [1, 3, 17], [4, 40]):
        for groups in (1, channels):
            plain = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=groups, dtype=torch.float64)
            other = copy.deepcopy(plain)
            rewrite(other)
            images = torch.randn(pictures, channels, *size, dtype=torch.float64)
            images = images.contiguous(memory_format=torch.channels_last)
            for ours, truth in zip(outcome(other, images), outcome(plain, images), strict=True):
                assert ours.shape == truth.shape
                torch.testing.assert_close(ours, truth)


@pytest.mark.parametrize("kernel", [1, 7])
def test_a_rewritten_layer_follows_autocast(kernel) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(32, 32, kernel, padding=kernel // 2, groups=32 if kernel > 1 else 1)
    other = copy.deepcopy(plain)
    rewrite(other)
    images = torch.randn(4, 32, 8, 8).contiguous(memory_format=torch.channels_last)
    ours, truth = outcome(other, images, half=True), outcome(plain, images, half=True)
    assert [each.dtype for each in ours] == [each.dtype for each in truth]
    assert ours[0].dtype == torch.bfloat16
    for mine, theirs in zip(ours, truth, strict=True):
        assert torch.linalg.vector_norm(mine - theirs) < 0.01 * torch.linalg.vector_norm(theirs)


@pytest.mark.parametrize("step", ["baseline", "inverted-bottleneck", "kernel-7", "separate-downsampling"])
def test_a_rewritten_network_is_the_same_network(step) -> None:
    regime = get_regime("pocket")
    plain = build(regime.architecture(regime.step(step), 10))
    other = copy.deepcopy(plain)
    rewrite(other)
    rewritten = {type(module) for module in other.modules()} & {Pointwise, Depthwise}
    assert rewritten == ({Pointwise, Depthwise} if step in ("kernel-7", "separate-downsampling") else {Pointwise})
    assert str(list(other.state_dict())) == str(list(plain.state_dict()))
    assert [name for name, _ in other.named_modules()] == [name for name, _ in plain.named_modules()]
    images = torch.randn(3, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.testing.assert_close(other.eval()(images), plain.eval()(images))


def test_what_is_no_such_convolution_is_left_alone() -> None:
    kept = [
        nn.Conv2d(4, 8, 3, padding=1),
        nn.Conv2d(4, 8, 5, padding=2, groups=4),
        nn.Conv2d(4, 4, 5, groups=4),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.Conv2d(4, 4, 1, padding=1),
        nn.Conv2d(4, 4, 5, padding=4, groups=4, dilation=2),
        nn.Conv2d(4, 4, 5, padding=2, groups=4, padding_mode="reflect"),
        nn.Conv2d(4, 4, (5, 1), padding=2, groups=4),
        nn.Conv2d(4, 4, 5, (1, 2), padding=2, groups=4),
    ]
    layers = nn.Sequential(*kept)
    rewrite(layers)
    assert {type(layer) for layer in layers} == {nn.Conv2d}
