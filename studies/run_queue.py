"""Train runs one after the other, next to other processes that work on the same study.

There is no leader: each process takes the next run whose lock is free. Finished runs are skipped,
unfinished ones resumed, and a run whose process died is taken over.
"""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from studies.cost_estimate import CostEstimate, finished_line, memory_advice
from studies.run import Run, run_folders
from studies.study import (
    FAILURE,
    LAUNCH,
    LOCK,
    OVERWRITTEN,
    note_failure,
    read_failure,
    read_result,
)
from training import records
from training.checkpoint import Damaged
from training.device import code_version, empty_cache, first_line, is_out_of_memory
from training.execution import Execution, Stores
from training.helper import announce
from training.interrupt import DONE, FAILED, STOPPED, Stopped, StopRequest
from training.spec import RESULT
from training.train import NonFinite, train
from utils.locks import TIMEOUT, Busy, HeartbeatTracker, Lock, Lost, read_lock
from utils.text import plural

POLL_SECONDS = 2.0
"""Between two looks at the runs that other processes train."""
_WORKER_DIED = "DataLoader worker"
"""Beginning of torch's message about it."""

Others = Literal["wait", "leave", "refuse"]
"""What to do when other processes train all runs that are left: wait for them, leave the runs to
them, or raise Busy."""


@dataclass
class _Queue:
    """The runs of one command, and what it knows of them."""

    stores: Stores
    execution: Execution
    stop: StopRequest
    overwrite: Collection[str]
    estimate: CostEstimate | None
    before: dict[Path, tuple[bytes | None, bytes | None]]
    """Result and failure of each run's folder when the command began."""
    tracker: HeartbeatTracker = field(default_factory=HeartbeatTracker)
    mine: set[Path] = field(default_factory=set)
    """Folders of the runs that this process has held."""


def run_all(
    runs: Sequence[Run],
    stores: Stores,
    execution: Execution,
    stop: StopRequest,
    overwrite: Collection[str] = (),
    estimate: CostEstimate | None = None,
    others: Others = "wait",
) -> int:
    """Train `runs`, those of steps in `overwrite` from scratch, as far as no other process does.

    Runs of other processes are revisited until they are finished, or their process is dead and they
    are free. A run that diverges or whose files are damaged does not stop the others. After each
    run `estimate` says how much is left. Overwritten runs stay marked until the whole command is
    done: an interrupted command, given again with its `overwrite`, goes on.

    Returns:
        The exit code: done, a run failed (here or in another process), or stopped and resumable.

    Raises:
        OSError: the disk failed; the last good state of the run is kept.
        Busy: another process trains a run, and `others` is "refuse".
    """
    before = {run.folder: _outcome(run.folder) for run in runs}
    queue = _Queue(stores, execution, stop, overwrite, estimate, before)
    codes, left, waiting = {DONE}, list(runs), False
    while left:
        held = list[tuple[Run, str]]()
        for run in left:
            if stop.requested:  # while the previous run was finishing
                _log(f"stopped before {run.title}; the same command goes on with it")
                return STOPPED
            try:
                codes.add(_try_run(queue, run))
            except Busy as holder:
                held.append((run, str(holder)))
            except Lost as holder:
                _log(
                    f"{run.title} was taken over by {holder} while this process gave no sign of "
                    "life: left to it"
                )
                held.append((run, str(holder)))
            if STOPPED in codes:
                return STOPPED
        if held and others == "refuse":
            run, who = held[0]
            raise Busy(f"{run.folder} is being trained by {who}: wait for it, or stop it first")
        if held and len(held) == len(left):
            if not waiting and not execution.silent:
                _log_held(held, others)
            if others == "leave":
                break
            waiting = True
            time.sleep(POLL_SECONDS)
        left = [run for run, _ in held]
    for run in runs:
        if run.step in overwrite and run.folder in queue.mine:
            (run.folder / OVERWRITTEN).unlink(missing_ok=True)
    return FAILED if FAILED in codes else DONE


def _log_held(held: list[tuple[Run, str]], others: Others) -> None:
    count = plural(len(held), "run")
    names = ", ".join(f"{run.title} ({who})" for run, who in held[:3])
    if others == "leave":
        _log(f"left to other processes: {count}, among them {names}")
    else:
        _log(f"waiting for {count} that other processes train, among them {names}")


def _try_run(queue: _Queue, run: Run) -> int:
    """Train one run, unless another process holds it or it has ended. Returns its exit code."""
    result, failure = queue.before[run.folder]
    run.folder.mkdir(parents=True, exist_ok=True)
    with Lock(run.folder / LOCK, queue.tracker, {"code": code_version()}) as lock:
        if lock.previous_holder:
            _log(
                f"{run.title}: {lock.previous_holder}, which trained it, has vanished; going on "
                "with it"
            )
        queue.mine.add(run.folder)
        # A result that another process has written since this command began is kept.
        from_scratch = run.from_scratch(queue.overwrite) and _outcome(run.folder)[0] == result
        if not from_scratch and (reason := _failed_since(run, failure)):
            _log(f"{run.title} failed in another process: {reason}")
            return FAILED
        try:
            if from_scratch:
                _clear(run.folder)
            (run.folder / FAILURE).unlink(missing_ok=True)
            if _is_finished(run, queue.execution.silent):
                return DONE
            failed = _train(queue, run, lock)
        except Stopped as stopped:
            _log(str(stopped))
            return STOPPED
        except Damaged as damage:
            (run.folder / OVERWRITTEN).unlink(missing_ok=True)
            failed = f"{damage}: --overwrite {run.maker} trains this run from scratch"
        except OSError as error:
            if error.errno is None:  # it has a message already
                raise
            raise _interrupted(run, _disk_message(run, error)) from error
        if failed:
            note_failure(run.folder, failed, final=True)
            _log(failed)
            return FAILED
    lines = queue.estimate.progress() if queue.estimate else []
    if not queue.estimate and not queue.execution.silent:
        lines = [finished_line(run, read_result(run.folder) or {})]
    for line in lines:
        print(line, flush=True)
    return DONE


def _is_finished(run: Run, silent: bool) -> bool:
    """Whether a run has its results, or another row's run is or will be the same one."""
    try:
        result = read_result(run.result_dir)
    except ValueError as error:
        raise Damaged(f"{run.result_dir / RESULT} is damaged, it is no run's result") from error
    if run.alias_of:
        records.write_config(run.spec)
    if result and not silent:
        what = f"the run of {run.alias_of}" if run.alias_of else "finished"
        hint = f"--overwrite {run.maker} trains it from scratch"
        print(f"{run.title}: {what}, top-1 {result['top1']:.2f} % ({hint})", flush=True)
    return bool(result or run.alias_of)


def _train(queue: _Queue, run: Run, lock: Lock) -> str:
    """Train a run to its end. Returns why it failed, so that it would fail again anywhere."""
    try:
        announce(run.spec, queue.stores, queue.execution)
        train(run.spec, queue.stores, queue.execution, queue.stop, lock)
        return ""
    except NonFinite as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:
        if str(error).startswith(_WORKER_DIED):
            raise _interrupted(run, _worker_message(run, error)) from error
        words = first_line(error)
        if not is_out_of_memory(error):
            reason = f"{run.title} ended in an error of the program ({error})"
            note_failure(run.folder, reason, final=True)
            raise
    # Only now, for the traceback of the failure held the network and its activations.
    empty_cache(queue.execution.device)
    advice = memory_advice(run, queue.execution.device)
    failed = f"{run.title} ran out of memory: {advice} (torch: {words})"
    if queue.execution.processes.count > 1:  # the other processes are in the middle of this run
        note_failure(run.folder, failed, final=True)
        raise OSError(failed)
    return failed


def _clear(folder: Path) -> None:
    """Remove a run but for its lock, which the caller holds, and mark it as overwritten."""
    # The result goes first: what an interrupted removal leaves is no finished run.
    (folder / RESULT).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    (folder / OVERWRITTEN).touch()


def _outcome(folder: Path) -> tuple[bytes | None, bytes | None]:
    """The contents of a run's result and failure files."""
    paths = folder / RESULT, folder / FAILURE
    result, failure = (path.read_bytes() if path.is_file() else None for path in paths)
    return result, failure


def _failed_since(run: Run, before: bytes | None) -> str | None:
    """Why a run failed for good since this command or its launch began; earlier failures are tried
    again."""
    failure = read_failure(run.folder)
    if failure is None or not failure.get("final"):
        return None
    same_launch = failure.get("launch") is not None and failure["launch"] == os.environ.get(LAUNCH)
    return str(failure["reason"]) if same_launch or _outcome(run.folder)[1] != before else None


def _interrupted(run: Run, reason: str) -> OSError:
    """What ends this process but not its run; written down if the disk still takes it."""
    with contextlib.suppress(OSError):
        note_failure(run.folder, reason, final=False)
    return OSError(reason)


def _log(message: str) -> None:
    print(f"runner.py: {message}", file=sys.stderr, flush=True)


def _disk_message(run: Run, error: OSError) -> str:
    return (
        f"{run.title} was stopped by its disk: {error.filename or run.folder} could not be written "
        f"or read ({error.strerror}); what was saved before is kept, and once the disk works again "
        "the same command goes on from there"
    )


def _worker_message(run: Run, error: BaseException) -> str:
    return (
        f"{run.title} was stopped by the loss of a process that prepares images "
        f"({str(error).partition('. ')[0]}), as when memory or shared memory (/dev/shm, in docker "
        "--shm-size) runs out: free some or give fewer --workers, and the same command goes on "
        "from what was saved before"
    )


def other_versions(study: Path, code: str) -> list[str]:
    """Versions of the code, other than `code`, that trained finished runs of the study."""
    versions = set[str]()
    for folder in run_folders(study):
        with contextlib.suppress(ValueError):  # damaged results are reported elsewhere
            versions.add(str((read_result(folder) or {}).get("code_version", "unknown")))
    return [] if code == "unknown" else sorted(versions - {code, "unknown"})


def refuse_other_code(study: Path, code: str) -> None:
    """Raise ValueError while another version of the code trains in the study's folder.

    A process that has been silent for long, or is known to be dead, is no obstacle.
    """
    for path in (folder / LOCK for folder in run_folders(study)):
        if (lock := read_lock(path)) is None:
            continue
        other = lock.entries.get("code", code)
        if other == code or "unknown" in (code, other) or lock.alive is False:
            continue
        if lock.alive or time.time() - path.stat().st_mtime < TIMEOUT:
            raise ValueError(
                f"{path.parent} is being trained by {lock.holder} with version {other} of this "
                f"code, and this is {code}: a report takes the runs of one version, so use that "
                "one, wait until it is done, or give this study a name of its own with --study NAME"
            )
