"""What the processes of a run other than the first do: their share of its arithmetic, and nothing
else."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from data import ImageStore, PreparedImages
from training import memory
from training.device import before_cuda, find_device
from training.execution import Execution, Stores
from training.interrupt import DONE, STOPPED, Stopped, StopRequest
from training.loop import NonFinite, train
from training.processes import ALONE, Elsewhere, Processes
from training.spec import RunSpec
from training.torchrun import RankInfo

_Images = tuple[tuple[Path, ...], tuple[str, ...], tuple[int, int]]
"""Folders of the decoded splits, names of the classes, bytes of prepared images that may be
remembered."""
_Told = tuple[RunSpec, _Images, Execution]
"""A run, its images, and how it is carried out."""


def tell(run: RunSpec, stores: Stores, execution: Execution) -> None:
    """The first process says to its helpers which run is next."""
    folders = tuple(store.folder for store in (stores.train, stores.validation, stores.test))
    limits = stores.augmented.limit, stores.evaluated.limit
    told: _Told = run, (folders, stores.classes, limits), replace(execution, processes=ALONE)
    execution.processes.from_first(lambda: told)


def dismiss(processes: Processes) -> None:
    """The first process says that there are no more runs."""
    processes.from_first(_nothing)


def help_with_runs(
    place: RankInfo, processes: Processes, stop: StopRequest, prepare: Callable[[], object]
) -> int:
    """Help the first process with run after run, until it says that there are no more. Returns the
    exit code.

    `prepare` is called before the first run: by then the first process has found all that it asks
    for sound.

    Raises:
        ValueError: this machine has no device for this process.
        OSError: this process failed. Both in a sentence.
    """
    prepared, code = False, DONE
    with stop.handled():
        while told := processes.from_first(_nothing):
            run, images, execution = told
            if not prepared:
                prepare()
                before_cuda(execution.deterministic)
                prepared = True
            device = find_device(execution.device.type, place)
            try:
                train(
                    run,
                    _open(*images),
                    replace(execution, device=device, processes=processes),
                    stop,
                )
            except Stopped:
                code = STOPPED
            except (NonFinite, Elsewhere):  # the first process tells of it
                continue
            except (RuntimeError, MemoryError) as failure:
                if not memory.is_out_of_memory(failure):
                    raise
                raise OSError(
                    f"{run.title} ran out of memory: give more --micro-batches, or fewer "
                    "processes a "
                    "device"
                ) from failure
    return code


def _nothing() -> _Told | None:
    return None


@lru_cache(maxsize=1)
def _open(folders: tuple[Path, ...], classes: tuple[str, ...], limits: tuple[int, int]) -> Stores:
    """The splits that the first process has decoded; the same object for runs on the same ones, for
    what it keeps."""
    train, validation, test = map(ImageStore, folders)
    return Stores(train, validation, test, classes, *map(PreparedImages, limits))
