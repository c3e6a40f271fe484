"""Whether a batch fits: what a network keeps for its backward pass, and what the device has."""

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.device import autocast
from training.recipe import Precision, Recipe, StudyConfig
from utils.text import readable_bytes

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
"""Of the CPU's allocators, of CUDA and MPS, of CUDA's libraries."""
_SPARE = 1.3
"""Over the tensors themselves: scratch space, rounding, and what an allocator that keeps freed
memory leaves unused."""


def bytes_per_image(
    model: nn.Module, resolution: int, precision: Precision, device: torch.device
) -> int:
    """Bytes that autograd keeps of one training image between forward and backward pass, measured
    on a pair."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}  # by address; held until counted, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    images = torch.rand(2, 3, resolution, resolution, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved),
        autocast(precision, device),
    ):
        model(images).float().logsumexp(1).mean()
    # Casts of the weights, which autocast makes once, do not grow with the batch; few enough to
    # leave them in.
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // 2


def state_bytes(model: nn.Module, recipe: Recipe, processes: int = 1) -> int:
    """Bytes of the weights, their average, their gradients and the optimizer's moments.

    One of several `processes` also keeps the gradients of each of its parts, and sends and receives
    them.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    kept = 4 * math.ceil(recipe.micro_batches / processes) + 1 if processes > 1 else 0
    return weights * ((4 if recipe.optimizer == "adamw" else 3) + (recipe.ema is not None) + kept)


def available(device: torch.device) -> int | None:
    """Bytes that the device still has for this process; None where it does not say."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type == "mps":
        return None
    found = []
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(
            1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
        )
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        for group in _groups():
            with contextlib.suppress(OSError, ValueError):  # no container, or "max"
                free = int((group / limit).read_text()) - int((group / used).read_text())
                found.append(free + _counted((group / used).with_name("memory.stat"), cache))
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        limit_now, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit_now != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            found.append(limit_now - pages * os.sysconf("SC_PAGE_SIZE"))
    return min(found) if found else None


def _counted(file: Path, name: str) -> int:
    """The bytes that a memory.stat counts under a name: 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        return int(
            next(
                line for line in file.read_text().splitlines() if line.startswith(f"{name} ")
            ).split()[1]
        )
    return 0


def _groups() -> list[Path]:
    """The control groups that may limit this process: its own, and those that hold it, up to the
    container's."""
    root = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = root / next(line for line in lines if line.startswith("0::")).removeprefix("0::/")
        return [
            own,
            *(folder for folder in own.parents if folder == root or root in folder.parents),
        ]
    return [root]


def parts_that_fit(recipe: Recipe, per_image: int, fixed: int, free: int) -> int | None:
    """The fewest micro-batches, at least the recipe's, whose parts fit; None if not even the
    smallest part does."""
    for parts in range(recipe.micro_batches, recipe.batch_size + 1):
        rows, rest = divmod(recipe.batch_size, parts)
        parted = parts > 1 and recipe.augmentation.mixes and rows % 2
        if not rest and not parted and needed(rows, per_image, fixed) <= free:
            return parts
    return None


def needed(rows: int, per_image: int, fixed: int) -> int:
    return int(fixed + rows * per_image * _SPARE)


def require_fit(
    what: str, recipe: Recipe, config: StudyConfig, per_image: int, fixed: int, free: int | None
) -> None:
    """Raise ValueError unless one micro-batch of `recipe`, one of `config`'s, fits into `free`
    bytes; which would."""
    rows = recipe.batch_size // recipe.micro_batches
    if free is None or needed(rows, per_image, fixed) <= free:
        return
    raise ValueError(too_large(what, recipe, config, per_image, fixed, free))


def too_large(
    what: str, recipe: Recipe, config: StudyConfig, per_image: int, fixed: int, free: int
) -> str:
    """The sentence for a batch that does not fit."""
    rows = recipe.batch_size // recipe.micro_batches
    need = readable_bytes(needed(rows, per_image, fixed))
    parts = parts_that_fit(recipe, per_image, fixed, free)
    if parts is None:
        remedy = "not even its smallest part fits, choose a lower --resolution or another device"
    else:
        # Whose batch it is counts, the modern recipe's or the classic one's, and no longer which
        # step's.
        modern = (recipe.batch_size, recipe.micro_batches) == (
            config.recipe.batch_size,
            config.recipe.micro_batches,
        )
        option = "--micro-batches" if modern else "--classic.micro-batches"
        remedy = f"give {option} {parts}, parts of {recipe.batch_size // parts}"
    return (
        f"{rows} images of {what} at once need about {need} and {readable_bytes(free)} are "
        f"free: {remedy}"
    )


def too_large_for_two(what: str) -> str:
    """The sentence where not even the measurement found room."""
    return (
        f"{what} ran out of memory, even for two images: choose a lower --resolution or "
        "another device"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, or Python, ran out of memory: a class of its own for CUDA's tensors, a text
    for all else."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)
    )


def empty_cache(device: torch.device) -> Any:
    if device.type == "cuda":
        torch.cuda.empty_cache()
