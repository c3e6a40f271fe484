"""Rewritten convolutions compute what torch's do: outputs and all gradients."""

import copy
import ctypes.util
import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from models.architecture import Architecture
from models.builder import build
from models.convolution import Depthwise, Narrow, Pointwise, convolution, rewrite
from models.naming import _CONVNEXT as CONVNEXT


def outcome(layer: nn.Module, images: Tensor, half: bool = False) -> list[Tensor]:
    """Output, under autocast if `half`, and gradients, for output gradients that all differ."""
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = layer(images)
    out.backward(torch.cos(torch.arange(out.numel(), dtype=out.dtype)).view(out.shape))
    return [out, images.grad, *(parameter.grad for parameter in layer.parameters())]


# Both sides of the limits, images smaller than the filter, one row, odd sides.
@pytest.mark.parametrize("kernel", [1, 5, 7, 11])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_rewritten_layer_equals_torchs(kernel, stride) -> None:
    torch.manual_seed(0)
    for size, images, channels in itertools.product(
        [(1, 1), (2, 2), (3, 5), (9, 1), (12, 10)], [1, 3, 17], [4, 40]
    ):
        groups = channels if kernel > 1 else 1
        plain = nn.Conv2d(
            channels, channels, kernel, stride, kernel // 2, groups=groups, dtype=torch.float64
        )
        other = copy.deepcopy(plain)
        rewrite(other)
        assert type(other) in (Pointwise, Depthwise)
        batch = torch.randn(images, channels, *size, dtype=torch.float64)
        batch = batch.contiguous(memory_format=torch.channels_last)
        for ours, truth in zip(outcome(other, batch), outcome(plain, batch), strict=True):
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


@pytest.mark.parametrize("architecture", [Architecture(), CONVNEXT])
def test_a_rewritten_network_is_the_same_network(architecture) -> None:
    plain = build(architecture)
    other = copy.deepcopy(plain)
    rewrite(other)
    rewritten = {type(module) for module in other.modules()} & {Pointwise, Depthwise}
    assert rewritten == ({Pointwise} if architecture == Architecture() else {Pointwise, Depthwise})
    assert list(other.state_dict()) == list(plain.state_dict())
    images = torch.randn(3, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.testing.assert_close(other.eval()(images), plain.eval()(images))


def test_only_regular_convolutions_are_rewritten() -> None:
    kept = [
        nn.Conv2d(4, 8, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
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


_CRASH = """
import sys
import torch
from models.convolution import convolution, rewrite

torch.set_num_threads(2)
torch.manual_seed(0)
for channels in (10, 12, 8):
    conv = convolution(channels, 6, 1, 2)
    if sys.argv[1] == "rewritten":
        rewrite(conv)
    images = torch.randn(3, channels, 14, 14).contiguous(memory_format=torch.channels_last)
    for _ in range(100):
        conv(images).sum().backward()
"""


@pytest.mark.parametrize("kind", ["built", "rewritten"])
def test_a_narrow_strided_convolution_leaves_the_heap_intact(kind) -> None:
    """torch's own ends here with "free(): invalid pointer" on processors with AVX512."""
    if ctypes.util.find_library("c_malloc_debug") is None:
        pytest.skip("glibc's libc_malloc_debug is not installed")
    debug = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3", "OMP_NUM_THREADS": "2"}
    process = subprocess.run(
        [sys.executable, "-c", _CRASH, kind],
        env={**os.environ, **debug},
        stderr=subprocess.PIPE,
        check=False,
    )
    assert process.returncode == 0, process.stderr.decode()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_narrow_strided_convolution_equals_torchs(layout) -> None:
    torch.manual_seed(0)
    sizes = [(1, 1), (2, 2), (7, 5), (14, 14)]
    for size, channels, images, bias in itertools.product(sizes, (1, 15), (2, 4), (False, True)):
        ours = convolution(channels, 6, 1, 2, bias=bias).double()
        theirs = nn.Conv2d(channels, 6, 1, 2, bias=bias, dtype=torch.float64)
        assert type(ours) is Narrow
        theirs.load_state_dict(ours.state_dict())
        batch = torch.randn(images, channels, *size, dtype=torch.float64)
        batch = batch.contiguous(memory_format=layout)
        for mine, truth in zip(outcome(ours, batch), outcome(theirs, batch), strict=True):
            torch.testing.assert_close(mine, truth)


def test_only_narrow_strided_1x1_convolutions_pick_their_positions() -> None:
    others = convolution(16, 6, 1, 2), convolution(10, 6, 1), convolution(10, 6, 3, 2)
    assert {type(conv) for conv in others} == {nn.Conv2d}
