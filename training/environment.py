"""What the machine and the code are: what could explain a difference between two runs of one
config."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from training.device import threads_outside

_PROJECT = Path(__file__).parents[1]
_LIBRARIES = ("torch", "torchvision", "fvcore", "numpy", "pillow", "tensorboard", "safetensors")


def device_name(device: torch.device, processes: int = 1) -> str:
    """What a reader calls the device: the GPU's name, or the processor's and how many threads torch
    takes by itself.

    Of several `processes` that share a run each has such a device. The same within and without
    `device.threads`: runs with different layouts are runs on one device.
    """
    times = f"{processes} x " if processes > 1 else ""
    if device.type == "cuda":
        return times + torch.cuda.get_device_name(device)
    count = threads_outside()
    where = "" if device.type == "cpu" else f"{device.type}, "
    return f"{times}{where}{_processor()}, {count} thread{'s' * (count > 1)}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def code_version(project: Path = _PROJECT) -> str:
    """The commit of this project and, where files differ from it, a digest of the change; "unknown"
    outside of git.

    The change is that of tracked files, and Python files that are new and not ignored. A copy that
    was made for jobs says what it is of.
    """
    if (noted := project / "CODE_VERSION").is_file():
        return noted.read_text().strip()
    try:
        commit = _git(project, "rev-parse", "--short=12", "HEAD").decode().strip()
        change = _git(
            project, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--no-color"
        )
        for name in _git(
            project, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py"
        ).split(b"\0"):
            if name:
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
    return {
        "python": platform.python_version(),
        **versions,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "device": device_name(device, processes),
        "processes": processes,
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "tf32": device.type == "cuda" and torch.backends.cuda.matmul.fp32_precision == "tf32",
        "cudnn_benchmark": device.type == "cuda" and torch.backends.cudnn.benchmark,
        "deterministic": device.type == "cpu" or torch.are_deterministic_algorithms_enabled(),
        "platform": platform.platform(),
        "code_version": code_version(),
    }
