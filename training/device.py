"""The device and the machine: where a run computes, torch's settings, memory, and their record.

No other file names a kind of device. What torch offers for every accelerator (torch.accelerator,
torch.Stream, torch.Event) is used as it is; what is left for single kinds is here.
"""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from data.processes import cores
from training.recipe import Precision
from training.spec import RankInfo

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

    Each process on a machine gets the device of its local rank; the CPU is shared.

    Raises:
        ValueError: torch knows no such device, this machine has none, or there are more processes
            than devices.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    kind = found.type if found else "cpu"
    if name == "auto":
        name = "cuda" if kind == "cuda" else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu":
        return device
    if device.type == "meta":
        raise ValueError(f"there is no device {name!r}: choose auto, cpu, cuda, cuda:N, mps or xpu")
    count = torch.accelerator.device_count() if device.type == kind else 0
    if (device.index or 0) >= count:
        have = f"{count} {device.type} device{'s' * (count > 1)}" if count else "none"
        raise ValueError(
            f"device {name!r} was requested and this machine has {have}: choose another, such as "
            "auto"
        )
    if rank.count > 1:
        return _shared_device(device, rank, count)
    return device


def _shared_device(device: torch.device, rank: RankInfo, count: int) -> torch.device:
    """The device of this process, one of several that share a run. Raises ValueError."""
    kind = device.type
    if device != torch.device(kind):
        raise ValueError(
            f"--device is '{device}' and {rank.count} processes share the run: give auto, {kind} "
            "or cpu"
        )
    backend = dist.get_default_backend_for_device(kind)
    if not dist.is_backend_available(backend):
        raise ValueError(
            f"{rank.count} processes share the run and this torch has no {backend}, by which they "
            f"exchange gradients on {kind}: start one process, or give --device cpu"
        )
    if rank.local_count <= count:
        return torch.device(kind, rank.local_rank)
    if count == 1 and "CUDA_VISIBLE_DEVICES" in os.environ:  # a launcher gave each process its own
        return torch.device(kind, 0)
    raise ValueError(
        f"{rank.local_count} processes were started and this machine has {count} {kind} devices, "
        f"one for each process: start {count}, or give --device cpu"
    )


def exchange_backends() -> str:
    """The backends of torch.distributed for this machine's devices."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return "gloo"
    backend = dist.get_default_backend_for_device(found.type)
    return f"cpu:gloo,{found.type}:{backend}" if dist.is_backend_available(backend) else "gloo"


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
    return max(1, min(cores() // trainers, 8)) if is_accelerator(device) else 0


def is_accelerator(device: torch.device) -> bool:
    """Tell a device with memory of its own, which computes while the host goes on, from the CPU."""
    return device.type != "cpu"


def updates_ahead(device: torch.device) -> int:
    """Updates that the host may be ahead of its knowledge of the losses."""
    return 0 if device.type in ("cpu", "mps") else 2


class InFlight:
    """Keeps the host at most two batches ahead of the device, where their images lie.

    Call `add` when all work with a batch is queued. Without a limit, an evaluation would put all of
    its split on the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._events = device, deque[torch.Event]()

    def add(self) -> None:
        """Count one more batch, and wait for the oldest of more than two."""
        if not updates_ahead(self._device):
            return
        event = torch.Event(self._device)
        event.record()
        self._events.append(event)
        if len(self._events) > 2:
            self._events.popleft().synchronize()


def sum_dtype(device: torch.device) -> torch.dtype:
    """The finest precision of a sum on the device."""
    return torch.float32 if device.type == "mps" else torch.float64


def notes(device: torch.device, precision: Precision) -> list[str]:
    """What a user should know of the device before a run begins, a line each."""
    lines = []
    if device.type not in ("cpu", "cuda"):
        lines.append(f"device {device.type} was never tried with this program")
    if device.type == "cpu" and precision == "bf16":
        rates = [_products_per_second(dtype) for dtype in (torch.float32, torch.bfloat16)]
        if rates[1] < rates[0] / 4:
            lines.append(
                f"--precision bf16 is emulated by this CPU: {rates[1]:.1f} GFLOP/s instead of "
                f"{rates[0]:.0f} in fp32; give --precision fp32"
            )
    return lines


def _products_per_second(dtype: torch.dtype, side: int = 192) -> float:
    """GFLOP/s of a matrix product on the CPU, the best of three."""
    matrix = torch.ones(side, side, dtype=dtype)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return 2e-9 * side**3 / min(times)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """torch's automatic mixed precision; nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def before_device(deterministic: bool) -> None:
    """Prepare `deterministic` before a device is first used: cuBLAS then adds in one order."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def set_up(
    device: torch.device, precision: Precision, deterministic: bool = False, search: bool = True
) -> None:
    """Set torch's options that change speed or rounding. Safe to repeat.

    fp32 means fp32: TF32 multiplies only what autocast leaves in float32. `deterministic` selects
    kernels that always round alike, where the device has them; call `before_device` as well.
    `search` lets cuDNN time its kernels for each new shape, which pays where a shape comes often.
    """
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.deterministic = deterministic
    if device.type == "cpu":
        keep_memory()
        return
    if device.index is not None:  # events and pinned memory belong to the current device
        torch.accelerator.set_device_index(device.index)
    allow_tf32(precision != "fp32", device)
    torch.backends.cudnn.benchmark = search and not deterministic


def allow_tf32(allowed: bool, device: torch.device) -> None:
    """Switch TF32 on or off for matrix products and convolutions on CUDA."""
    if device.type != "cuda":
        return
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
    if is_accelerator(device):
        torch.accelerator.synchronize(device)


@contextlib.contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Within the block torch raises RuntimeError where the host waits for CUDA unasked."""
    torch.cuda.set_sync_debug_mode("error" if device.type == "cuda" else "default")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def can_record(device: torch.device) -> bool:
    """Check that torch can record work on the device and replay it (CUDA graphs)."""
    return device.type == "cuda" and hasattr(torch.accelerator, "Graph")


def record(work: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Record the kernels that `work` starts; the returned function starts them again.

    `work` runs three times: twice for kernels to be chosen and memory to be found.
    """
    current, stream = torch.accelerator.current_stream(device), torch.Stream(device)
    stream.wait_stream(current)
    graph = torch.accelerator.Graph()
    with stream:
        work()
        work()
        with graph:
            work()
    current.wait_stream(stream)
    return graph.replay


def depthwise_kernels(device: torch.device) -> tuple[str, ...]:
    """The kernels for depthwise convolutions among which torch lets one choose, but its own."""
    has_choice = device.type == "cuda" and hasattr(torch.backends.cudnn, "depthwise_kernel")
    return ("cudnn", "native") if has_choice else ()


@contextlib.contextmanager
def depthwise_kernel(name: str) -> Iterator[None]:
    """Within the block depthwise convolutions use this kernel; "auto" leaves it to torch."""
    if name == "auto":
        yield
        return
    before = torch.backends.cudnn.depthwise_kernel
    torch.backends.cudnn.depthwise_kernel = name
    try:
        yield
    finally:
        torch.backends.cudnn.depthwise_kernel = before


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


def first_line(error: BaseException) -> str:
    """The beginning of an error's text, for a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def empty_cache(device: torch.device) -> None:
    """Return the allocator's unused memory to the device."""
    if is_accelerator(device):
        with contextlib.suppress(RuntimeError):  # an accelerator without torch's allocator
            torch.accelerator.empty_cache()


def forget_peak(device: torch.device) -> None:
    """Begin to measure `peak_memory` from here."""
    if is_accelerator(device):
        with contextlib.suppress(RuntimeError):
            torch.accelerator.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that tensors took on the device; None where torch does not count them."""
    if is_accelerator(device):
        with contextlib.suppress(RuntimeError):
            return torch.accelerator.max_memory_allocated(device)
    return None


def free_memory(device: torch.device) -> int:
    """Bytes of the device's memory that nothing uses."""
    return int(torch.accelerator.get_memory_info(device)[0])


def device_name(device: torch.device, processes: int = 1) -> str:
    """The GPU's name, or the processor's and its default number of threads.

    It has a factor where several `processes` share a run. It does not depend on `threads`: runs
    with different options are runs on one device.
    """
    factor = f"{processes} x " if processes > 1 else ""
    if name_of := getattr(getattr(torch, device.type, None), "get_device_name", None):
        return factor + str(name_of(device))
    count = _default_threads[0] if _default_threads else torch.get_num_threads()
    kind = f"{device.type}, " if is_accelerator(device) else ""
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
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


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
