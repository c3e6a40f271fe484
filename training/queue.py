"""Runs one after the other: finished ones are left alone, unfinished ones resumed."""

import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack

import torch

from models.builder import empty
from training import memory, records
from training.interrupt import STOPPED, Stopped, StopRequest
from training.loop import NonFinite, train
from training.run import Execution, Run, Stores
from training.study import Busy, one_trainer

DONE, FAILED = 0, 1
"""Exit codes."""


def carry_out(
    runs: Sequence[Run], stores: Stores, execution: Execution, stop: StopRequest, overwrite: Collection[str] = (),
    finished: Callable[[str, int, float], str] | None = None,
) -> int:  # fmt: skip
    """Train `runs`; those of steps named in `overwrite` are made again. One that diverges does not stop the others.

    `finished` is told of each run that ends (step, seed, seconds); what it answers is printed (see `bill.Bill`).

    Returns:
        The exit code: done, a run failed, or stopped on request and resumable.
    """
    code = DONE
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
            if (
                run.step in overwrite and (run.folder / records.RESULT).exists()
            ):  # an unfinished one is resumed, being made again already
                records.clear(run.folder)
            if result := run.result:
                again = f"--overwrite {run.step} makes it again"
                print(f"{run.title}: finished, top-1 {result['top1']:.2f} % ({again})", flush=True)
                continue
            started = time.monotonic()
            try:
                train(run, stores, execution, stop)
            except Stopped as stopped:
                print(f"runner.py: {stopped}{', without --overwrite' * bool(overwrite)}", file=sys.stderr)
                return STOPPED
            except NonFinite as failure:
                print(f"runner.py: {failure}", file=sys.stderr)
                code = FAILED
            except (RuntimeError, MemoryError) as failure:
                if not memory.is_out_of_memory(failure):
                    raise
                print(f"runner.py: {_out_of_memory(run, execution.device)}", file=sys.stderr)
                code = FAILED
            else:
                if finished is not None:
                    print(finished(run.step, run.seed, time.monotonic() - started), flush=True)
    return code


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
    return f"{run.title} ran out of memory: " + memory.too_large(run.step, recipe, per_picture, fixed, free)
