"""The device and the machine: where a run computes, torch's settings, memory, and their record."""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from data.processes import cores
from training.recipe import Precision
from training.torchrun import RankInfo

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "ALLOC_FAILED",
    "unable to find an engine",
)
"""Messages of the CPU's allocators, of CUDA and MPS, of CUDA's libraries, of cuDNN."""
_PROJECT = Path(__file__).parents[1]
_LIBRARIES = ("torch", "torchvision", "fvcore", "numpy", "pillow", "tensorboard", "safetensors")
_default_threads: list[int] = []
"""CPU threads outside each open block of `threads`."""


def find_device(name: str, rank: RankInfo = RankInfo()) -> torch.device:
    """The device of that name; `auto` is CUDA if there is any, else the CPU.

    Each process on a machine gets the CUDA device of its local rank; the CPU is shared.

    Raises:
        ValueError: torch knows no such device, this machine has none, or there are more processes
            than devices.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    count = torch.cuda.device_count()
    if rank.count > 1 and name not in ("cpu", "cuda"):
        raise ValueError(
            f"--device is {name!r} and {rank.count} processes share the run: give auto, cuda or cpu"
        )
    if rank.count > 1 and name == "cuda":
        if rank.local_count > count:
            raise ValueError(
                f"{rank.local_count} processes were started and this machine has {count} CUDA "
                f"devices, one for each process: start {count or 'them elsewhere'}, or give "
                "--device cpu"
            )
        name = f"cuda:{rank.local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"there is no device {name!r}: choose auto, cpu, cuda, cuda:N or mps")
    there = {"cuda": count, "mps": int(torch.backends.mps.is_available())}.get(device.type, 1)
    if device.type != "cpu" and (device.index or 0) >= there:
        have = f"{there} {device.type} device{'s' * (there > 1)}" if there else "none"
        raise ValueError(
            f"device {name!r} was requested and this machine has {have}: choose another, such as "
            "auto"
        )
    return device


def find_precision(requested: Precision, device: torch.device) -> Precision:
    """Resolve "auto": bf16 on CUDA devices that have it, fp16 on others, fp32 elsewhere."""
    if requested != "auto":
        return requested
    if device.type != "cuda":
        return "fp32"
    # Cards before compute capability 8.0 emulate bf16, slowly; is_bf16_supported() counts that.
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


def find_workers(requested: int | None, device: torch.device, trainers: int = 1) -> int:
    """Processes that prepare images for each of the machine's `trainers`.

    None for a CPU that trains, which has no core to spare; up to eight for a GPU.
    """
    if requested is not None:
        return requested
    return max(1, min(cores() // trainers, 8)) if device.type == "cuda" else 0


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """torch's automatic mixed precision; nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def before_cuda(deterministic: bool) -> None:
    """Prepare `deterministic` before CUDA is first used: cuBLAS then adds in one order."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def set_up(device: torch.device, precision: Precision, deterministic: bool = False) -> None:
    """Set torch's options that change speed or rounding. Safe to repeat.

    fp32 means fp32: TF32 multiplies only what autocast leaves in float32. `deterministic` selects
    kernels that always round alike, where the device has them; call `before_cuda` as well.
    """
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = deterministic
    if device.type == "cpu":
        keep_memory()
    if device.type == "cuda":
        if device.index is not None:  # events and pinned memory belong to the current device
            torch.cuda.set_device(device)
        allow_tf32(precision != "fp32")
        # Batches have one shape, so timing cuDNN's kernels pays; another process may choose others.
        torch.backends.cudnn.benchmark = not deterministic


def allow_tf32(allowed: bool) -> None:
    """Switch TF32 on or off for matrix products and convolutions on CUDA."""
    # By the older names, which set the newer ones too: torch.compile fails after the newer ones.
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def keep_memory() -> None:
    """Let this process keep freed memory, because the next update asks for the same again.

    glibc returns large blocks at once and the kernel then clears every page again: 20,000 page
    faults an update, a seventh of the time (docs/decisions.md#kept-memory). No effect elsewhere.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_M_MMAP_MAX, 0)
        allocator.mallopt(_M_TRIM_THRESHOLD, -1)


def wait_for(device: torch.device) -> None:
    """Return when `device` has finished its work, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Within the block torch computes with `count` CPU threads; None leaves them as they are."""
    before = torch.get_num_threads()
    _default_threads.append(before)
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        _default_threads.pop()
        torch.set_num_threads(before)


def is_out_of_memory(error: BaseException) -> bool:
    """Recognize that torch or Python ran out of memory: by class, or by the text of the error."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def empty_cache(device: torch.device) -> None:
    """Return the allocator's unused memory to a CUDA device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def device_name(device: torch.device, processes: int = 1) -> str:
    """The GPU's name, or the processor's and its default number of threads.

    It has a factor where several `processes` share a run. It does not depend on `threads`: runs
    with different options are runs on one device.
    """
    factor = f"{processes} x " if processes > 1 else ""
    if device.type == "cuda":
        return factor + torch.cuda.get_device_name(device)
    count = _default_threads[0] if _default_threads else torch.get_num_threads()
    kind = "" if device.type == "cpu" else f"{device.type}, "
    return f"{factor}{kind}{_processor()}, {count} thread{'s' * (count > 1)}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def code_version(project: Path = _PROJECT) -> str:
    """The commit of this project and a digest of uncommitted changes; "unknown" outside git.

    Changes are those of tracked files and new Python files that git does not ignore. A snapshot
    of the code for Slurm jobs has its version in the file CODE_VERSION.
    """
    if (noted := project / "CODE_VERSION").is_file():
        return noted.read_text().strip()
    try:
        commit = _git(project, "rev-parse", "--short=12", "HEAD").decode().strip()
        plain = ("--binary", "--no-ext-diff", "--no-textconv", "--no-color")
        change = _git(project, "diff", "HEAD", *plain)
        new = _git(project, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py")
        for name in filter(None, new.split(b"\0")):
            change += b"\0" + name + b"\0" + (project / os.fsdecode(name)).read_bytes()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}+{hashlib.sha256(change).hexdigest()[:8]}" if change else commit


def _git(project: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(project), *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=10).stdout


def environment(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """What could explain a difference between two runs of one config, for environment.json."""
    versions = {}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        **versions,
        "cuda": torch.version.cuda if cuda else None,
        "device": device_name(device, processes),
        "processes": processes,
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "tf32": cuda and torch.backends.cuda.matmul.fp32_precision == "tf32",
        "cudnn_benchmark": cuda and torch.backends.cudnn.benchmark,
        "deterministic": device.type == "cpu" or torch.are_deterministic_algorithms_enabled(),
        "platform": platform.platform(),
        "code_version": code_version(),
    }
