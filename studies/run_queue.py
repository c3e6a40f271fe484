"""Runs one after the other, beside other processes: finished ones are left alone, unfinished ones
resumed."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from studies.run import Run
from studies.run_locks import FAILURE, LAUNCH, LOCK, hold, note_failure, read_failure
from studies.study import MADE_AGAIN
from training import records
from training.autotune import Work, micro_batches_that_fit
from training.checkpoint import Damaged
from training.device import code_version, is_out_of_memory
from training.execution import Execution, Stores
from training.helper import announce
from training.interrupt import DONE, FAILED, STOPPED, Stopped, StopRequest
from training.spec import RESULT
from training.train import NonFinite, train
from utils.locks import Busy, HeartbeatTracker, Lock, Lost
from utils.text import plural

_LOOK_AGAIN = 2.0
"""Seconds between two looks at runs that other processes train."""
_WORKER_DIED = "DataLoader worker"
"""So begins what torch says of it, wherever the training process is at that moment."""


Others = Literal["wait", "leave", "refuse"]
"""What to do where other processes train all runs that are left: wait for them, leave it to them,
or name them."""


def run_all(
    runs: Sequence[Run],
    stores: Stores,
    execution: Execution,
    stop: StopRequest,
    overwrite: Collection[str] = (),
    finished: Callable[[str, int, float], str] | None = None,
    others: Others = "wait",
) -> int:
    """Train `runs`, as far as no other process does; those of steps named in `overwrite` are made
    again.

    A run that another process trains is passed over, and looked at again when all others are done:
    until it is finished, or its process dead and its run free. A run that diverges or whose files
    are damaged does not stop the others. `finished` is told of each run that ends (step, seed,
    seconds); what it answers is printed (`bill.CostEstimate`).

    What was made again stays marked until the whole command is done, so that a command that was
    interrupted, given again with its `overwrite`, goes on instead of making all again.

    Returns:
        The exit code: done, a run failed (here or in another process), or stopped on request and
            resumable.

    Raises:
        OSError: the disk failed; the run's last good state is kept.
        Busy: another process trains one of the runs, and the answer to that is to "refuse".
    """
    codes, mine, left, watch = {DONE}, set[Path](), list(runs), HeartbeatTracker()
    before = {run.folder: _ends(run.folder) for run in runs}
    waiting = False
    while left:
        held = list[tuple[Run, Busy]]()
        for run in left:
            if stop.requested:  # while the run before was finishing
                _tell(f"stopped before {run.title}; the same command goes on with it")
                return STOPPED
            try:
                with hold(run.folder, watch, code_version()) as lease:
                    if lease.previous_holder:
                        _tell(
                            f"{run.title}: {lease.previous_holder}, which trained it, has "
                            "vanished; going on with it"
                        )
                    mine.add(run.folder)
                    anew = (
                        run.begins_anew(overwrite) and _ends(run.folder)[0] == before[run.folder][0]
                    )
                    if (failure := _failed_since(run, before[run.folder][1])) and not anew:
                        _tell(f"{run.title} failed in another process: {failure}")
                        codes.add(FAILED)
                        continue
                    codes.add(
                        code := _carry_out(run, stores, execution, stop, lease, anew, finished)
                    )
                    if code == STOPPED:
                        return STOPPED
            except Busy as busy:
                if others == "refuse":
                    raise Busy(
                        f"{run.folder} is being trained by {busy}: wait for it, or stop it first"
                    ) from None
                held.append((run, busy))
            except Lost as lost:
                _tell(
                    f"{run.title} was taken over by {lost} while this process gave no sign of "
                    "life: left to it"
                )
                held.append((run, Busy(str(lost))))
        if len(held) == len(left):
            who = ", ".join(f"{run.title} ({busy})" for run, busy in held[:3])
            if others == "leave":
                _tell(f"left to other processes: {plural(len(held), 'run')}, among them {who}")
                break
            if not waiting:
                _tell(
                    f"waiting for {plural(len(held), 'run')} that other processes train, among "
                    f"them {who}"
                )
            waiting = True
            time.sleep(_LOOK_AGAIN)
        left = [run for run, _ in held]
    for run in runs:
        if run.step in overwrite and run.folder in mine:
            (run.folder / MADE_AGAIN).unlink(missing_ok=True)
    return FAILED if FAILED in codes else DONE


def _clear(folder: Path) -> None:
    """Remove a run, so that it can be trained again, and mark it with `MADE_AGAIN`.

    The run lock, held by the caller, stays.
    """
    # The result goes first: what is left of an interrupted removal is no finished run.
    (folder / RESULT).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    (folder / MADE_AGAIN).touch()


def _ends(folder: Path) -> tuple[bytes | None, bytes | None]:
    """A run's result and its failure, whichever there is."""
    result, failure = (
        path.read_bytes() if path.is_file() else None
        for path in (folder / RESULT, folder / FAILURE)
    )
    return result, failure


def _failed_since(run: Run, before: bytes | None) -> str | None:
    """Why a run failed for good since this command or its launch began; what failed earlier is
    tried again."""
    failure = read_failure(run.folder)
    if failure is None or not failure.get("final"):
        return None
    ours = failure.get("launch") is not None and failure["launch"] == os.environ.get(LAUNCH)
    return str(failure["reason"]) if ours or _ends(run.folder)[1] != before else None


def _carry_out(
    run: Run,
    stores: Stores,
    execution: Execution,
    stop: StopRequest,
    lease: Lock,
    anew: bool,
    finished: Callable[[str, int, float], str] | None,
) -> int:
    """Train one run, which is this process's, unless it is finished. Returns and raises as
    `run_all` does."""
    started, failed = time.monotonic(), ""
    try:
        if anew:
            _clear(run.folder)
        (run.folder / FAILURE).unlink(missing_ok=True)
        result = _result(run)
        if run.made_as:
            records.write_config(run.spec)
        if result:
            what = f"the run of {run.made_as}" if run.made_as else "finished"
            again = f"--overwrite {run.maker} makes it again"
            print(f"{run.title}: {what}, top-1 {result['top1']:.2f} % ({again})", flush=True)
        if result or run.made_as:
            return DONE
        announce(run.spec, stores, execution)
        train(run.spec, stores, execution, stop, lease)
    except Stopped as stopped:
        _tell(stopped)
        return STOPPED
    except NonFinite as failure:
        failed = str(failure)
    except Damaged as damage:
        (run.folder / MADE_AGAIN).unlink(missing_ok=True)
        failed = f"{damage}: --overwrite {run.maker} begins this run anew"
    except OSError as failure:
        if failure.errno is None:  # a sentence already
            raise
        raise _not_final(run, _disk_failed(run, failure)) from failure
    except (RuntimeError, MemoryError) as failure:
        if _WORKER_DIED in str(failure):
            raise _not_final(run, _worker_died(run, failure)) from failure
        if not is_out_of_memory(failure):
            note_failure(
                run.folder, f"{run.title} ended in an error of the program ({failure})", final=True
            )
            raise
    else:
        if finished is not None:
            print(finished(run.step, run.seed, time.monotonic() - started), flush=True)
        return DONE
    # Only now, for the failure's traceback held the network and all that was computed of it.
    said = failed or _out_of_memory(run, execution.device)
    note_failure(run.folder, said, final=True)
    if not failed and execution.processes.count > 1:  # its helpers are in the middle of this run
        raise OSError(said)
    _tell(said)
    return FAILED


def _not_final(run: Run, reason: str) -> OSError:
    """What ends this process, but not its run: noted for readers of the folder, if the disk still
    takes it."""
    with contextlib.suppress(OSError):
        note_failure(run.folder, reason, final=False)
    return OSError(reason)


def _tell(what: object) -> None:
    print(f"runner.py: {what}", file=sys.stderr, flush=True)


def _result(run: Run) -> dict[str, Any] | None:
    """The result of a finished run. Raises Damaged where it is no run's result."""
    try:
        return run.result
    except ValueError as error:
        raise Damaged(f"{run.home / RESULT} is damaged, it is no run's result") from error


def _disk_failed(run: Run, failure: OSError) -> str:
    """What to say of a disk that is full, read-only or gone."""
    where = failure.filename or run.folder
    return (
        f"{run.title} was stopped by its disk: {where} could not be written or read "
        f"({failure.strerror}); what was "
        "saved before is kept, and once the disk is well again the same command goes on from there"
    )


def _worker_died(run: Run, failure: BaseException) -> str:
    """What to say of a process that prepares images and that was killed, by the kernel most of the
    time."""
    said = str(failure).partition(". ")[0]
    return (
        f"{run.title} was stopped by the loss of a process that prepares images ({said}), as when "
        "memory or shared "
        "memory (/dev/shm, in docker --shm-size) runs out: make room or give fewer --workers, and "
        "the same command "
        "goes on from what was saved before"
    )


def _out_of_memory(run: Run, device: torch.device) -> str:
    """What to say of a run whose batch did not fit: which would, found by trying."""
    recipe, modern = run.recipe, run.study.config.recipe
    parts = micro_batches_that_fit(Work.of(run.spec, device))
    if parts is None:
        remedy = "not even the smallest part does: choose a lower --resolution or another device"
    else:
        # Whose batch it is counts, the modern recipe's or the classic one's.
        same = (recipe.batch_size, recipe.micro_batches) == (
            modern.batch_size,
            modern.micro_batches,
        )
        option = "--micro-batches" if same else "--classic.micro-batches"
        remedy = f"give {option} {parts}, parts of {recipe.batch_size // parts}"
    rows = recipe.batch_size // recipe.micro_batches
    return f"{run.title} ran out of memory: {rows} images at once do not fit, {remedy}"
