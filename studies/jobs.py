"""Several processes of one command on this machine: one a GPU, or one a group of cores."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from data.processes import cores, end_with
from training.interrupt import StopRequest

_STARTER = "ABLATIONS_STARTER"
"""In a worker's environment: the process that it is to end with."""
_BESIDE = "ABLATIONS_BESIDE"
"""Likewise: how many workers there are."""


def beside() -> int:
    """Processes of one command that share this machine, this one included."""
    return int(os.environ.get(_BESIDE, "1"))


def end_with_starter() -> None:
    """Have this process end with the one that started it by `run`, however that ends."""
    if starter := os.environ.pop(_STARTER, None):
        end_with(int(starter))


def shares(jobs: int, gpus: int) -> list[dict[str, str]]:
    """What each of `jobs` processes finds in its environment: its GPU of `gpus`, or its number of
    threads.

    Raises:
        ValueError: there are more processes than GPUs, or, where there are none, than cores.
    """
    most, what = (gpus, "CUDA devices") if gpus else (cores(), "cores")
    if not 1 <= jobs <= most:
        raise ValueError(
            f"--jobs is {jobs} and this process may use {most} {what}: give 1 to {most}"
        )
    if not gpus:
        return [
            {"OMP_NUM_THREADS": str(most // jobs + (number < most % jobs))}
            for number in range(jobs)
        ]
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    visible = names if names != [""] else [str(number) for number in range(gpus)]
    return [{"CUDA_VISIBLE_DEVICES": visible[number]} for number in range(jobs)]


def run(
    command: Sequence[str], environments: Sequence[Mapping[str, str]], stop: StopRequest
) -> list[int]:
    """Carry out `command` once in each environment, all at once, and say what they say, each line
    with its number.

    The first request to stop is handed on to them; they end with this process, however it ends.
    Returns their exit codes, of one that was killed minus the signal's number.
    """
    with stop.handled():
        # In sessions of their own: a Ctrl-C is for this process, and reaches them once.
        mine = {**os.environ, _STARTER: str(os.getpid()), _BESIDE: str(len(environments))}
        processes = [
            subprocess.Popen(
                command,
                env={**mine, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            for environment in environments
        ]
        tellers = [
            threading.Thread(target=_tell, args=(f"{number}| ", process.stdout))
            for number, process in enumerate(processes, 1)
        ]
        for teller in tellers:
            teller.start()
        handed_on = False
        while any(process.poll() is None for process in processes):
            if stop and not handed_on:
                handed_on = True
                for process in processes:
                    process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        for teller in tellers:
            teller.join()
    return [process.returncode for process in processes]


def _tell(prefix: str, lines: TextIO) -> None:
    with lines:
        for line in lines:
            sys.stdout.write(prefix + line)
            sys.stdout.flush()
