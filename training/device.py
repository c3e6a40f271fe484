"""Where and how a run computes: device, precision, CPU threads, settings of torch and of the
allocator."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch

from data.processes import cores
from training.recipe import Precision
from training.torchrun import RankInfo

_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_outside: list[int] = []
"""CPU threads outside of each block of `threads` that is open."""


def find_device(asked: str, place: RankInfo = RankInfo()) -> torch.device:
    """The device of that name; `auto` is a CUDA device if there is one, else the CPU.

    Each process on a machine has a CUDA device of its own there, by its number; the CPU is shared.

    Raises:
        ValueError: torch knows no such device, this machine has none, or there are more processes
            than devices.
    """
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    if place.count > 1 and asked not in ("cpu", "cuda"):
        raise ValueError(
            f"--device is {asked!r} and {place.count} processes share the run: give auto, cuda or "
            "cpu"
        )
    if place.count > 1 and asked == "cuda":
        most = torch.cuda.device_count()
        if place.local_count > most:
            raise ValueError(
                f"{place.local_count} processes were started and this machine has {most} CUDA "
                "devices, of which each "
                f"process needs one: start {most or 'them elsewhere'}, or give --device cpu"
            )
        asked = f"cuda:{place.local_rank}"
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"there is no device {asked!r}: choose auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        have = (
            f"{count} CUDA device{'s' * (count > 1)}, numbered from 0"
            if count
            else "no CUDA device"
        )
        raise ValueError(
            f"device {asked!r} was asked for and this machine has {have}: choose another, such as "
            "auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            "device 'mps' was asked for and this machine has none: choose another, such as auto"
        )
    return device


def find_precision(asked: Precision, device: torch.device) -> Precision:
    """`asked`, or for "auto" the mixed precision that the device has: bf16, else fp16, on CUDA;
    fp32 elsewhere."""
    if asked != "auto":
        return asked
    if device.type != "cuda":
        return "fp32"
    # From compute capability 8.0 on. Older cards emulate it, slowly, which
    # torch.cuda.is_bf16_supported() counts too.
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


def find_workers(asked: int | None, device: torch.device, trainers: int = 1) -> int:
    """Processes that prepare images for each of the machine's `trainers`.

    A CPU that trains has no core to spare; a GPU is fed by the machine's others.
    """
    if asked is not None:
        return asked
    return max(1, min(cores() // trainers, 8)) if device.type == "cuda" else 0


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """torch's automatic mixed precision; nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_PRECISIONS[precision])


def before_cuda(deterministic: bool) -> None:
    """What `deterministic` takes before CUDA is used for the first time: cuBLAS then adds in one
    order."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def set_up(device: torch.device, precision: Precision, deterministic: bool = False) -> None:
    """Put settings that change speed or rounding where this project wants them, whatever they were.
    Safe to repeat.

    fp32 means fp32: TF32, which keeps 10 of its 23 bits of mantissa, multiplies only what autocast
    leaves in float32. `deterministic` asks for kernels that always round alike; torch warns of an
    operator that has none on the device (docs/reliability.md), and `before_cuda` has to be called
    as well.
    """
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = deterministic
    if device.type == "cpu":
        keep_memory()
    if device.type == "cuda":
        if (
            device.index is not None
        ):  # events and workers' pinned memory belong to the current device, or to cuda:0
            torch.cuda.set_device(device)
        # torch's older names for this: some of torch.compile still asks by them, and fails where
        # the newer ones (fp32_precision) were set; these set both.
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
        # Training batches have one shape, so timing cuDNN's kernels once pays; but the next process
        # may choose others.
        torch.backends.cudnn.benchmark = not deterministic


def keep_memory() -> None:
    """Let this process keep the memory that it frees: the next update asks for the same again.

    Left to itself glibc gives large blocks back at once, and the system clears every page of them
    anew: 20,000 page faults an update, a seventh of the time (docs/decisions.md#kept-memory).
    Elsewhere than on glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_M_MMAP_MAX, 0)
        allocator.mallopt(_M_TRIM_THRESHOLD, -1)


def wait_for(device: torch.device) -> None:
    """Return when `device` has computed all it was given, as a clock that is read then takes for
    granted."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Within the block torch computes with `count` CPU threads; None leaves them as they are."""
    before = torch.get_num_threads()
    _outside.append(before)
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        _outside.pop()
        torch.set_num_threads(before)


def threads_outside() -> int:
    """How many CPU threads torch takes by itself, asked within or without `threads`."""
    return _outside[0] if _outside else torch.get_num_threads()
