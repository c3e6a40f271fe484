"""The part of the processes other than the first: their share of a run's arithmetic."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from data.image_store import ImageStore
from training.device import before_device, find_device, is_out_of_memory
from training.execution import Execution, Stores
from training.interrupt import DONE, FAILED, STOPPED, Stopped, StopRequest
from training.processes import ALONE, Disconnected, Elsewhere, Processes
from training.spec import RankInfo, RunSpec
from training.train import NonFinite, train

_Images = tuple[tuple[Path, ...], tuple[str, ...]]
"""Folders of the decoded splits, names of the classes."""
_Task = tuple[RunSpec, _Images, Execution]


def announce(run: RunSpec, stores: Stores, execution: Execution) -> None:
    """Send the next run to the helpers, from the first process."""
    folders = tuple(store.folder for store in (stores.train, stores.validation, stores.test))
    task: _Task = run, (folders, stores.classes), replace(execution, processes=ALONE)
    execution.processes.from_first(lambda: task)


def dismiss(processes: Processes) -> None:
    """Tell the helpers that there are no more runs, from the first process."""
    processes.from_first(_nothing)


def help_with_runs(
    rank: RankInfo, processes: Processes, stop: StopRequest, prepare: Callable[[], object]
) -> int:
    """Help the first process with its runs until there are no more. Returns the exit code.

    `prepare` is called before the first run, when the first process has checked its request.

    Raises:
        ValueError: this machine has no device for this process.
        OSError: this process ran out of memory.
    """
    prepared, code = False, DONE
    with stop.handled():
        try:
            while task := processes.from_first(_nothing):
                run, images, execution = task
                if not prepared:
                    prepare()
                    before_device(execution.deterministic)
                    prepared = True
                device = find_device(execution.device.type, rank)
                own = replace(execution, device=device, processes=processes)
                try:
                    train(run, _open(*images), own, stop)
                except Stopped:
                    code = STOPPED
                except (NonFinite, Elsewhere):  # the first process reports it
                    continue
                except (RuntimeError, MemoryError) as failure:
                    if not is_out_of_memory(failure):
                        raise
                    raise OSError(
                        f"{run.title} ran out of memory: give more --micro-batches, or fewer "
                        "processes per device"
                    ) from failure
        except Disconnected:  # the first process reports it, or torchrun that it died
            return FAILED
    return code


def _nothing() -> _Task | None:
    return None


@lru_cache(maxsize=1)
def _open(folders: tuple[Path, ...], classes: tuple[str, ...]) -> Stores:
    """Open the splits that the first process has decoded."""
    train, validation, test = map(ImageStore, folders)
    return Stores(train, validation, test, classes)
