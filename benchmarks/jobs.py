"""Jobs of a check, in processes of their own: a crash, a hang or a failure ends one job alone."""

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """`function(*arguments)`, of a module's top level, returns findings as they come."""

    what: str
    function: Callable[..., Iterator[Finding]]
    arguments: tuple[Any, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of its process, from its start: torch reads some of it when it is imported."""


def run_all(jobs: Sequence[Job], processes: int, end: float) -> Iterator[Finding]:
    """Do the jobs in their order, so many at once, until `end` (of time.monotonic).

    Those that are late are killed. A job that ends in an exception or with its process is a finding
    that did not hold. The next one gets a fresh process, for an error on a GPU spoils all that
    follows in its process.
    """
    left, busy, idle = deque(jobs), dict[Any, tuple[_Worker, Job]](), list[_Worker]()
    try:
        while left or busy:
            while left and len(busy) < processes:
                job = left.popleft()
                worker = next((each for each in idle if each.environment == job.environment), None)
                if worker is None:
                    worker = _start(job.environment)
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


def _start(environment: Mapping[str, str]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    pipe, far = context.Pipe()
    process = context.Process(target=_serve, args=(far,))
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    far.close()
    return _Worker(process, pipe, environment)


def _serve(pipe: Any) -> None:
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        try:
            for found in job.function(*job.arguments):
                pipe.send(found)
        except Exception as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
            pipe.send(Finding(job.what, False, text))
            pipe.send(_FAILED)
            return
        pipe.send(_DONE)
