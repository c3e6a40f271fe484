"""Runs one after the other: finished ones are left alone, unfinished ones resumed."""

import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from models.builder import empty
from training import memory, records
from training.checkpoint import Damaged
from training.interrupt import DONE, FAILED, STOPPED, Stopped, StopRequest
from training.loop import NonFinite, train
from training.run import Execution, Run, Stores
from training.study import MADE_AGAIN, Busy, one_trainer

_WORKER_DIED = "DataLoader worker"
"""So begins what torch says of it, wherever the training process is at that moment."""


def carry_out(
    runs: Sequence[Run], stores: Stores, execution: Execution, stop: StopRequest, overwrite: Collection[str] = (),
    finished: Callable[[str, int, float], str] | None = None,
) -> int:  # fmt: skip
    """Train `runs`; those of steps named in `overwrite` are made again, finished or not.

    A run that diverges or whose files are damaged does not stop the others. `finished` is told of each run that ends
    (step, seed, seconds); what it answers is printed (see `bill.Bill`).

    What was made again stays marked until the whole command is done, so that a command that was interrupted, given
    again with its `overwrite`, goes on instead of making all again.

    Returns:
        The exit code: done, a run failed, or stopped on request and resumable.

    Raises:
        OSError: the disk failed; the run's last good state is kept.
    """
    code, mine = DONE, list[Run]()
    with ExitStack() as locks:
        for run in runs:
            locks.close()
            if stop.asked:  # while the run before was finishing
                print(f"runner.py: stopped before {run.title}; the same command goes on with it", file=sys.stderr)
                return STOPPED
            try:
                locks.enter_context(one_trainer(run.folder))
            except Busy as busy:
                if len(runs) == 1:
                    raise
                print(f"runner.py: {busy}", file=sys.stderr)
                continue
            mine.append(run)
            started, out_of_memory = time.monotonic(), False
            try:
                if run.begins_anew(overwrite):
                    records.clear(run.folder, MADE_AGAIN)
                result = _result(run)
                if run.made_as:
                    records.write_config(run)
                if result:
                    what = f"the run of {run.made_as}" if run.made_as else "finished"
                    again = f"--overwrite {run.maker} makes it again"
                    print(f"{run.title}: {what}, top-1 {result['top1']:.2f} % ({again})", flush=True)
                if result or run.made_as:
                    continue
                train(run, stores, execution, stop)
            except Stopped as stopped:
                print(f"runner.py: {stopped}", file=sys.stderr)
                return STOPPED
            except NonFinite as failure:
                print(f"runner.py: {failure}", file=sys.stderr)
                code = FAILED
            except Damaged as damage:
                (run.folder / MADE_AGAIN).unlink(missing_ok=True)
                print(f"runner.py: {damage}: --overwrite {run.maker} begins this run anew", file=sys.stderr)
                code = FAILED
            except OSError as failure:
                if failure.errno is None:  # a sentence already
                    raise
                raise OSError(_disk_failed(run, failure)) from failure
            except (RuntimeError, MemoryError) as failure:
                if _WORKER_DIED in str(failure):
                    raise OSError(_worker_died(run, failure)) from failure
                if not memory.is_out_of_memory(failure):
                    raise
                out_of_memory = True
            else:
                if finished is not None:
                    print(finished(run.step, run.seed, time.monotonic() - started), flush=True)
            if out_of_memory:  # only now: the failure's traceback held the network and all that was computed of it
                print(f"runner.py: {_out_of_memory(run, execution.device)}", file=sys.stderr)
                code = FAILED
        for run in mine:
            if run.step in overwrite:
                (run.folder / MADE_AGAIN).unlink(missing_ok=True)
    return code


def _result(run: Run) -> dict[str, Any] | None:
    """The result of a finished run. Raises Damaged where it is no run's result."""
    try:
        return run.result
    except ValueError as error:
        raise Damaged(f"{run.home / records.RESULT} is damaged, it is no run's result") from error


def _disk_failed(run: Run, failure: OSError) -> str:
    """What to say of a disk that is full, read-only or gone."""
    where = failure.filename or run.folder
    return (
        f"{run.title} was stopped by its disk: {where} could not be written or read ({failure.strerror}); what was "
        "saved before is kept, and once the disk is well again the same command goes on from there"
    )


def _worker_died(run: Run, failure: BaseException) -> str:
    """What to say of a process that prepares pictures and that was killed, by the kernel most of the time."""
    said = str(failure).partition(". ")[0]
    return (
        f"{run.title} was stopped by the loss of a process that prepares pictures ({said}), as when memory or shared "
        "memory (/dev/shm, in docker --shm-size) runs out: make room or give fewer --workers, and the same command "
        "goes on from what was saved before"
    )


def _out_of_memory(run: Run, device: torch.device) -> str:
    """What to say of a run whose batch did not fit after all: which would, by a measurement."""
    memory.empty_cache(device)
    resolution, recipe = run.study.config.resolution, run.recipe
    try:
        model = empty(run.architecture, layer_scale=recipe.layer_scale).to(device)
        per_picture = memory.bytes_per_picture(model, resolution, run.study.config.precision, device)
        fixed, free = memory.state_bytes(model, recipe), memory.available(device) or 0
    except (RuntimeError, MemoryError):
        return f"{run.title} ran out of memory, even for two pictures: choose a lower --resolution or another device"
    # That it did not fit is certain, whatever the count says: at most half of what was tried.
    free = min(free, memory.needed(recipe.batch_size // recipe.micro_batches // 2, per_picture, fixed))
    said = memory.too_large(run.step, recipe, run.study.config, per_picture, fixed, free)
    return f"{run.title} ran out of memory: {said}"
