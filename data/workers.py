"""Who prepares batches: this process between two updates, or processes beside it."""

import os
import signal
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, Dataset

from data.batches import Place, Prepared, PreparedImages, Work
from data.processes import end_with

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def here(
    work: Work, places: Iterable[Place], pin: bool, kept: PreparedImages | None
) -> Iterator[Prepared]:
    for place in places:
        made = kept.get(work, place) if kept else None
        if made is None:
            made = work[place].pin_memory() if pin else work[place]
            if kept:
                kept.keep(work, place, made)
        yield made


def in_workers(
    work: Work, places: Iterable[Place], workers: int, pin: bool, kept: PreparedImages | None
) -> Iterator[Prepared]:
    with warnings.catch_warnings():  # more workers than cores are slow, but the user's choice
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader = DataLoader(
            _Careful(work),
            batch_size=None,
            sampler=places,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=pin,
            worker_init_fn=partial(_become_worker, parent=os.getpid()),
        )
        # Until it ignores them, a new worker would answer signals as if it were this process.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            batches = iter(loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    failure = None
    for (epoch, number), batch in batches:
        if isinstance(batch, Exception):
            failure = batch
            break
        if kept:
            kept.keep(
                work, (epoch, number), batch
            )  # a tuple again: older releases of torch pin tuples as lists
        yield batch
    del (
        batches,
        loader,
    )  # ends the workers before the failure is seen, not when its traceback is forgotten
    if failure is not None:
        raise failure


@dataclass(frozen=True)
class _Careful(Dataset["tuple[Place, Prepared | Exception]"]):
    """Hands over an exception as it is: DataLoader would wrap its one sentence in the worker's
    traceback."""

    work: Work

    def __getitem__(self, place: Place) -> tuple[Place, Prepared | Exception]:
        try:
            return place, _shared(self.work[place])
        except Exception as failure:
            return place, failure


def _shared(made: Prepared) -> Prepared:
    """`made` in shared memory. DataLoader would do the same in a thread, and wait forever for what
    fails there."""
    try:
        for part in (made.images, made.labels):
            part.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise OSError(
            f"a worker could not hand over its images ({error}): give the machine more shared "
            "memory (/dev/shm, in "
            "docker --shm-size), or give --workers 0"
        ) from error
    return made


def _become_worker(_: int, parent: int) -> None:
    """Ctrl-C and SIGTERM reach the whole process group, but the training process decides when its
    workers end.

    If it is killed they end with it: they would go on holding the run's lock until they notice (5
        seconds).
    """
    end_with(parent)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _unchanged(batch: Any) -> Any:
    return batch
