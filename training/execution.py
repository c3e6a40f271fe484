"""How one run is executed, and the decoded images it is trained on."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from data.image_store import ImageStore, open_store
from data.splits import Dataset
from models.convolution import rewrite
from training.device import depthwise_kernel, is_accelerator, threads
from training.processes import ALONE, Processes
from utils.text import first_few


@dataclass(frozen=True)
class ComputeOptions:
    """How a network is computed. Two choices differ in speed and by rounding alone."""

    channels_last: bool = True
    """Memory format of images and filters: channels innermost."""
    compile: bool = False
    """Use torch.compile."""
    threads: int | None = None
    """CPU threads of one operator; None for torch's default."""
    rewritten: bool = False
    """Compute 1x1 and depthwise convolutions in other ways (`models.convolution`)."""
    recorded: bool = False
    """Record the passes of a part once and replay them (CUDA graphs); not with several
    processes."""
    depthwise: str = "auto"
    """Kernel for depthwise convolutions: auto, cudnn or native, where torch lets one choose."""
    cast_once: bool = True
    """Cast weights once an update in mixed precision, not once a part."""

    def __str__(self) -> str:
        parts = ["channels last" if self.channels_last else "contiguous"]
        if self.rewritten:
            parts.append("rewritten")
        if self.compile:
            parts.append("compiled")
        if self.recorded:
            parts.append("recorded")
        if self.depthwise != "auto":
            parts.append(f"{self.depthwise} depthwise kernels")
        if not self.cast_once:
            parts.append("weights cast in every part")
        if self.threads is not None:
            parts.append(f"{self.threads} thread{'s' * (self.threads != 1)}")
        return ", ".join(parts)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block torch computes with these threads and kernels."""
        with threads(self.threads), depthwise_kernel(self.depthwise):
            yield

    def prepare(self, model: nn.Module) -> nn.Module:
        """Lay out the weights of `model`, in place, before its optimizer is created."""
        if self.rewritten:
            rewrite(model)
        return model.to(memory_format=self.memory_format)

    def forward_of(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """The prepared `model` as a function of images in any memory format."""
        function: Callable[[Tensor], Tensor] = model
        if self.compile:
            import torch._inductor.config as inductor

            inductor.fallback_random = True  # stochastic depth then draws as it does uncompiled
            torch.compiler.reset()  # torch compiles a function eight times, then gives up
            function = torch.compile(model)
        return lambda images: function(images.contiguous(memory_format=self.memory_format))


def has_compiler(device: torch.device) -> bool:
    """Check that torch.compile finds what it needs on this machine."""
    compilers = (os.environ.get("CXX"), "g++", "clang++")
    if not any(shutil.which(name) for name in compilers if name):
        return False
    return not is_accelerator(device) or importlib.util.find_spec("triton") is not None


@dataclass(frozen=True)
class Execution:
    """How a run is executed. Nothing here can change its result, rounding apart."""

    device: torch.device
    workers: int = 0
    """Processes that prepare training images; 0 prepares them between two updates."""
    options: ComputeOptions = field(default_factory=ComputeOptions)
    """Used where no trial chooses others."""
    trial: bool = False
    """Let a new run begin with a timed trial of compute options (`training.autotune`)."""
    checkpoint_minutes: float = 10
    """Time between checkpoints within an epoch, besides those at its end; 0: every update."""
    deterministic: bool = False
    """Use CUDA kernels that always round alike, where there are any. The CPU's do."""
    processes: Processes = ALONE
    """Those that share the run; this is one of them."""
    silent: bool = False
    """Print no progress: another process shows it."""


@dataclass(frozen=True)
class Stores:
    """The three splits, decoded."""

    train: ImageStore
    validation: ImageStore
    test: ImageStore
    classes: tuple[str, ...]

    @property
    def splits(self) -> dict[str, ImageStore]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def skipped(self) -> dict[str, tuple[str, ...]]:
        """Names of unreadable images that are left out, by split."""
        return {part: store.skipped for part, store in self.splits.items() if store.skipped}

    @property
    def contents(self) -> dict[str, list[int | None]]:
        """`data.splits.Source.content` of the images, by split."""
        return {part: store.contents for part, store in self.splits.items()}

    def copies(self) -> str:
        """A note about test images that are training images too; empty where there are none."""
        copies = self.test.copies(self.train)
        if not copies:
            return ""
        return (
            f"{len(copies):,} of {len(self.test):,} test images are copies of training images "
            f"({first_few(copies)})"
        )


def open_stores(
    dataset: Dataset, cache: Path, short_side: int, skip_unreadable: bool = False
) -> Stores:
    """Open the data set's splits, decoded into `cache` where needed."""
    train, validation, test = (
        open_store(split, cache, short_side, skip_unreadable=skip_unreadable)
        for split in dataset.splits.values()
    )
    return Stores(train, validation, test, dataset.classes)
