"""Processor cores, and helper processes that end with the process that started them."""

import ctypes
import multiprocessing
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def cores() -> int:
    """Cores that this process may use, as limited by Slurm or taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with(parent: int) -> None:
    """Have the kernel (Linux) end this process as soon as its parent, `parent`, is gone.

    Elsewhere torch's workers notice it themselves within seconds, as they do where Python's fork
    server, the default from Python 3.14 on, started them for `parent`.
    """
    if sys.platform != "linux":
        return
    starter = multiprocessing.parent_process()
    if os.getppid() != parent and starter and starter.pid == parent and starter.is_alive():
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it was gone before
        os._exit(1)
