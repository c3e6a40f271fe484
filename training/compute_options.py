"""How the arithmetic of a network is laid out, for speed: memory format, rewritten convolutions,
compiler, threads."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.convolution import rewrite


@dataclass(frozen=True)
class ComputeOptions:
    """How the arithmetic of a network is laid out; two layouts differ by rounding alone."""

    channels_last: bool = True
    """Images and filters with their channels innermost in memory."""
    compile: bool = False
    """Whether torch.compile makes the kernels."""
    threads: int | None = None
    """CPU threads of one operator; None for as many as torch takes by itself."""
    rewritten: bool = False
    """Whether 1x1 and depthwise convolutions are computed in other ways (`models.convolution`)."""

    def __str__(self) -> str:
        words = ["channels last" if self.channels_last else "contiguous"]
        if self.rewritten:
            words.append("rewritten")
        if self.compile:
            words.append("compiled")
        if self.threads is not None:
            words.append(f"{self.threads} thread{'s' * (self.threads != 1)}")
        return ", ".join(words)


def memory_format(layout: ComputeOptions) -> torch.memory_format:
    return torch.channels_last if layout.channels_last else torch.contiguous_format


def lay_out(model: nn.Module, layout: ComputeOptions) -> nn.Module:
    """`model` itself, with its convolutions and the order of its weights in memory as the layout
    has them."""
    if layout.rewritten:
        rewrite(model)
    return model.to(memory_format=memory_format(layout))


def forward_of(model: nn.Module, layout: ComputeOptions) -> Callable[[Tensor], Tensor]:
    """`model`, which was laid out (`lay_out`), as a function that takes images in any."""
    into = memory_format(layout)
    function: Callable[[Tensor], Tensor] = model
    if layout.compile:
        import torch._inductor.config as inductor

        inductor.fallback_random = True  # stochastic depth then draws what it draws uncompiled
        torch.compiler.reset()  # torch compiles a function eight times; more networks than that come in one process
        function = torch.compile(model)
    return lambda images: function(images.contiguous(memory_format=into))


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile finds what it needs on this machine."""
    compilers = (os.environ.get("CXX"), "g++", "clang++")
    if not any(shutil.which(name) for name in compilers if name):
        return False
    return device.type == "cpu" or importlib.util.find_spec("triton") is not None
