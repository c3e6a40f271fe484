"""Jobs of a check, each in a process beside this one: what crashes, hangs or fails ends neither the check nor a job."""

import importlib.util
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

NOT_MEASURED = "not measured"
_DONE, _FAILED = "done", "failed"
"""What a process sends after the findings of a job; it ends itself after a failure."""


@dataclass(frozen=True)
class Finding:
    """What a job found."""

    what: str
    held: bool | None
    """None where nothing can be said: not measured, or a figure without a bound."""
    said: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """`function(*arguments)`, of a module's top level, returns findings as they come."""

    what: str
    function: Callable[..., Iterator[Finding]]
    arguments: tuple[Any, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Set in its process before anything is computed."""


def carry_out(jobs: Sequence[Job], processes: int, end: float) -> Iterator[Finding]:
    """Do the jobs, so many at once, in their order, until `end` (of time.monotonic); those that are late are killed.

    A job that ends in an exception or with its process is a finding that did not hold, and the next one gets a fresh
    process, for an error on a GPU spoils all that follows in its process.
    """
    left, busy = deque(jobs), dict[Connection, tuple[Any, Job]]()
    idle = list[tuple[Any, Connection, Mapping[str, str]]]()
    try:
        while left or busy:
            while left and len(busy) < processes:
                job = left.popleft()
                process, pipe = next(
                    ((process, pipe) for process, pipe, given in idle if given == job.environment), (None, None)
                )
                if process is None or pipe is None:
                    process, pipe = _process(job.environment)
                idle = [each for each in idle if each[1] is not pipe]
                pipe.send(job)
                busy[pipe] = process, job
            ready = wait(list(busy), max(0.0, end - time.monotonic()))
            if not ready:
                break
            for pipe in ready:
                assert isinstance(pipe, Connection)
                process, job = busy[pipe]
                try:
                    found = pipe.recv()
                except EOFError:
                    process.join()
                    del busy[pipe]
                    yield Finding(job.what, False, f"its process ended with exit code {process.exitcode}")
                    continue
                if isinstance(found, Finding):
                    yield found
                    continue
                del busy[pipe]
                if found == _DONE:
                    idle.append((process, pipe, job.environment))
    finally:
        for process in [*(process for process, _ in busy.values()), *(process for process, *_ in idle)]:
            process.kill()
            process.join()
    for job in [*(job for _, job in busy.values()), *left]:
        yield Finding(job.what, None, f"{NOT_MEASURED}: out of time")


def _process(environment: Mapping[str, str]) -> tuple[Any, Connection]:
    """A process that does the jobs it is sent, and its pipe."""
    context = multiprocessing.get_context("spawn")
    pipe, far = context.Pipe()
    process = context.Process(target=_serve, args=(far, environment))
    process.start()
    far.close()
    return process, pipe


def _serve(pipe: Connection, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        try:
            for found in job.function(*job.arguments):
                pipe.send(found)
        except Exception as error:
            pipe.send(Finding(job.what, False, f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"))
            pipe.send(_FAILED)
            return
        pipe.send(_DONE)


def compiler_threads(processes: int) -> dict[str, str]:
    """So that several processes that compile leave each other room."""
    share = max(1, (os.cpu_count() or 1) // processes)
    return {"TORCHINDUCTOR_COMPILE_THREADS": str(share)} if importlib.util.find_spec("triton") else {}
