"""Jobs of a check, each in a process beside this one: what crashes, hangs or fails ends neither the
check nor a job."""

import importlib.util
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
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


def run_all(jobs: Sequence[Job], processes: int, end: float) -> Iterator[Finding]:
    """Do the jobs, so many at once, in their order, until `end` (of time.monotonic); those that are
    late are killed.

    A job that ends in an exception or with its process is a finding that did not hold, and the next
    one gets a fresh process, for an error on a GPU spoils all that follows in its process.
    """
    left, busy, idle = deque(jobs), dict[Any, tuple[_Worker, Job]](), list[_Worker]()
    try:
        while left or busy:
            while left and len(busy) < processes:
                job = left.popleft()
                worker = next((each for each in idle if each.environment == job.environment), None)
                if worker is None:
                    worker = _Worker.start(job.environment)
                else:
                    idle.remove(worker)
                worker.pipe.send(job)
                busy[worker.pipe] = worker, job
            ready = wait(list(busy), max(0.0, end - time.monotonic()))
            if not ready:
                break
            for pipe in ready:
                worker, job = busy[pipe]
                try:
                    found = worker.pipe.recv()
                except EOFError:
                    worker.process.join()
                    code, found = worker.process.exitcode, _FAILED
                    yield Finding(job.what, False, f"its process ended with exit code {code}")
                if isinstance(found, Finding):
                    yield found
                    continue
                del busy[pipe]
                if found == _DONE:
                    idle.append(worker)
    finally:
        for worker in [*(worker for worker, _ in busy.values()), *idle]:
            worker.process.kill()
            worker.process.join(10)  # one that hangs in a driver does not even end by this
    for job in [*(job for _, job in busy.values()), *left]:
        yield Finding(job.what, None, f"{NOT_MEASURED}: out of time")


@dataclass(frozen=True)
class _Worker:
    """A process that does the jobs it is sent, one after the other."""

    process: Any
    pipe: Any
    environment: Mapping[str, str]

    @classmethod
    def start(cls, environment: Mapping[str, str]) -> "_Worker":
        context = multiprocessing.get_context("spawn")
        pipe, far = context.Pipe()
        process = context.Process(target=_serve, args=(far, environment))
        process.start()
        far.close()
        return cls(process, pipe, environment)


def _serve(pipe: Any, environment: Mapping[str, str]) -> None:
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
            pipe.send(
                Finding(
                    job.what, False, f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
                )
            )
            pipe.send(_FAILED)
            return
        pipe.send(_DONE)


def compiler_threads(processes: int) -> dict[str, str]:
    """Environment that shares the cores among processes that compile."""
    share = max(1, (os.cpu_count() or 1) // processes)
    return (
        {"TORCHINDUCTOR_COMPILE_THREADS": str(share)} if importlib.util.find_spec("triton") else {}
    )
