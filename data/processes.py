"""Helper processes that leave no trace: they end with the process they help, however it ends; and
how many to have."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def cores() -> int:
    """Cores that this process may use: those that Slurm or taskset leave it, where the system
    says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with(parent: int) -> None:
    """Have the kernel end this process as soon as its parent, process `parent`, is gone. Does
    nothing but on Linux."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it was gone before
        os._exit(1)
