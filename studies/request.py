"""What of a request can be refused before torch is imported, which takes a second or two."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.text import did_you_mean

_MOST_WORKERS = 256
_DRIVERS = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")
"""Of CUDA and ROCm under /dev: NVIDIA, its Jetsons, AMD, Windows' Linux."""


def check_machine(device: str, workers: int | None, checkpoint_minutes: float) -> None:
    """Raise ValueError for a device that no machine has, CUDA where there is none, or impossible
    workers or minutes."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", device):
        hint = did_you_mean(device, ("auto", "cpu", "cuda", "mps"), after=" ")
        raise ValueError(
            f"there is no device {device!r}: {hint}choose auto, cpu, cuda, cuda:N or mps"
        )
    if (
        device.startswith("cuda")
        and sys.platform == "linux"
        and not any(any(Path("/dev").glob(d)) for d in _DRIVERS)
    ):
        raise ValueError(
            f"device {device!r} was asked for and this machine has no CUDA device: choose auto or "
            "cpu"
        )
    if workers is not None and not 0 <= workers <= _MOST_WORKERS:
        raise ValueError(f"--workers is {workers}: give 0 to {_MOST_WORKERS}")
    if not checkpoint_minutes >= 0:  # nor NaN
        raise ValueError(f"--checkpoint-minutes is {checkpoint_minutes}: give 0 or more")


def check_choice(steps: Sequence[str], seeds: Sequence[int]) -> None:
    """Raise ValueError unless there are steps and seeds, none of them twice, and every seed is a
    possible one."""
    for seed in seeds:
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed is {seed}: give a whole number from 0 to {2**31 - 1}")
    for what, given in (("step", list(steps)), ("seed", [str(seed) for seed in seeds])):
        if not given:
            raise ValueError(f"no {what} was given: give at least one")
        if twice := next((value for value in given if given.count(value) > 1), None):
            raise ValueError(f"{what} {twice} was given twice: give each {what} once")
