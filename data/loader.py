"""Batches for training and evaluation. Which pictures, in which order, changed how: a function of (seed, epoch)."""

from __future__ import annotations

import math
import os
import signal
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data import randomness
from data.augment import Draws, Mix, augment_batch, centre_crop, draw, draw_mix, finish
from data.augmentation import Augmentation
from data.processes import end_with

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Pictures(Protocol):
    """What a store must offer: uint8 pictures (H, W, 3) and an int64 label for each."""

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Batch:
    """B pictures of R x R pixels.

    images: float32 (B, 3, R, R), channels_last, normalised, mixed. labels, partner_labels: int64 (B,).
    weight: float32 (B,), the share of `labels`; 1 - weight is the share of `partner_labels`.
    valid: how many rows are real; the rest pad the last batch of an evaluation and are to be ignored.
    """

    images: Tensor
    labels: Tensor
    partner_labels: Tensor
    weight: Tensor
    valid: int


def batches_per_epoch(pictures: int, batch_size: int) -> int:
    """Full batches in an epoch; the ragged rest is dropped. Raises ValueError when there is not even one."""
    if batch_size < 1:
        raise ValueError(f"batch size is {batch_size}; it must be at least 1")
    if pictures < batch_size:
        fits = f"a batch size of {pictures} or less fits" if pictures else "there is nothing to train on"
        raise ValueError(f"one batch of {batch_size} needs more than the {pictures} training pictures; {fits}")
    return pictures // batch_size


@lru_cache(maxsize=2)
def epoch_order(pictures: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of an epoch: a permutation of range(pictures), not to be written to."""
    order = randomness.generator(randomness.ORDER, seed, epoch).permutation(pictures)
    order.flags.writeable = False
    return order


def train_batches(
    store: Pictures, augmentation: Augmentation, resolution: int, *, seed: int, epoch: int, batch_size: int,
    start: int = 0, epochs: int = 1, rank: int = 0, world: int = 1, micro_batches: int = 1, workers: int = 0,
    device: torch.device | str = "cpu", memory: Memory | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """The training batches of `epochs` epochs, from batch number `start` of `epoch` on; ragged last ones are dropped.

    Workers go on into the next epoch while the last batches of one are used, so that no epoch begins with a wait.

    batch_size counts the pictures of one optimizer update over all processes. Process `rank` of `world` gets the
    rank-th contiguous share of each batch, handed out in `micro_batches` equal parts in turn; put together, shares and
    parts are the single-process batch, byte for byte. The last touches (normalise, erase, mix) and the result are on
    `device`. Close the iterator to stop its workers early. Without workers, `memory` spares work already done.

    Raises ValueError, before anything is read, when the shares cannot be equal, when mixing would part a pair, or when
    the store holds less than one batch.
    """
    count = batches_per_epoch(len(store), batch_size)
    parts = world * micro_batches
    pair = 2 if parts > 1 and augmentation.mixes else 1
    if parts < 1 or batch_size % (parts * pair):
        raise ValueError(
            f"a batch of {batch_size} cannot be shared by {world} processes in {micro_batches} micro-batches;"
            f" it must be a multiple of {max(parts, 1) * pair}"
        )
    if not 0 <= rank < world or not 0 <= start <= count:
        raise ValueError(f"rank {rank} of {world}, batch {start} of {count}: there is no such share of the epoch")
    work = _Training(store, augmentation, resolution, seed, batch_size, rank, world, micro_batches)
    places = (
        (each, number)
        for each in range(epoch, epoch + epochs)
        for number in range(start * micro_batches if each == epoch else 0, count * micro_batches)
    )
    return _batches(work, places, workers, torch.device(device), memory if workers == 0 else None)


def eval_batches(
    store: Pictures, resolution: int, *, batch_size: int, workers: int = 0,
    device: torch.device | str = "cpu", memory: Memory | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """The store in its own order: short side to resolution / 0.875, centre crop, normalise; the last batch padded.

    `memory` spares the work already done, and the workers too if all of it is.
    """
    if batch_size < 1:
        raise ValueError(f"batch size is {batch_size}; it must be at least 1")
    count = math.ceil(len(store) / batch_size)
    work, places = _Evaluation(store, resolution, batch_size), [(0, number) for number in range(count)]
    if memory is not None and memory.has(work, places):
        workers = 0
    return _batches(work, places, workers, torch.device(device), memory)


_Place = tuple[int, int]
"""Epoch, and number of a micro-batch in it."""


@dataclass(frozen=True)
class _Unfinished:
    """What a worker sends: a quarter of the bytes of the batch that `finish` makes of it."""

    pictures: Tensor  # uint8 (B, R, R, 3)
    labels: Tensor
    valid: int
    draws: Draws | None = None
    mix: Mix | None = None

    def pin_memory(self) -> _Unfinished:
        return replace(self, pictures=self.pictures.pin_memory(), labels=self.labels.pin_memory())

    def finish(self, device: torch.device) -> Batch:
        pictures, labels = (part.to(device, non_blocking=True) for part in (self.pictures, self.labels))
        images = finish(pictures, self.draws, self.mix)
        partner_labels, weight = labels, torch.ones(len(labels), device=device)
        if self.mix is not None:
            pairs = len(labels) // 2 * 2
            partner_labels = labels.clone()
            partner_labels[:pairs] = labels[:pairs].view(-1, 2).flip(1).flatten()
            weight[:pairs] = self.mix.weight
        return Batch(images, labels, partner_labels, weight, self.valid)


@dataclass(frozen=True)
class _Training(Dataset[_Unfinished]):
    """One process's micro-batches, by epoch and number."""

    store: Pictures
    augmentation: Augmentation
    resolution: int
    seed: int
    batch_size: int
    rank: int
    world: int
    micro_batches: int

    def __getitem__(self, place: _Place) -> _Unfinished:
        epoch, number = place
        batch, part = divmod(number, self.micro_batches)
        rows = self.batch_size // (self.world * self.micro_batches)
        first = batch * self.batch_size + (self.rank * self.micro_batches + part) * rows
        indices = epoch_order(len(self.store), self.seed, epoch)[first : first + rows].copy()
        pictures = [self.store[index] for index in indices.tolist()]
        sizes = np.array([picture.shape[:2] for picture in pictures])
        draws = draw(self.augmentation, self.resolution, sizes, self.seed, epoch, indices)
        mixed = augment_batch(self.augmentation, self.resolution, draws, pictures)
        labels = self.store.labels[torch.from_numpy(indices)]
        mix = draw_mix(self.augmentation, self.resolution, self.seed, epoch, batch)
        return _Unfinished(mixed, labels, rows, draws, mix)


@dataclass(frozen=True)
class _Evaluation(Dataset[_Unfinished]):
    """The batches of an evaluation, by number; all of them in epoch 0."""

    store: Pictures
    resolution: int
    batch_size: int

    def __getitem__(self, place: _Place) -> _Unfinished:
        _, number = place
        size = self.resolution
        first, end = number * self.batch_size, min((number + 1) * self.batch_size, len(self.store))
        pictures = torch.zeros((self.batch_size, size, size, 3), dtype=torch.uint8)
        for target, index in zip(pictures.permute(0, 3, 1, 2), range(first, end), strict=False):
            target.copy_(centre_crop(self.store[index], size))
        labels = torch.zeros(self.batch_size, dtype=torch.int64)
        labels[: end - first] = self.store.labels[first:end]
        return _Unfinished(pictures, labels, end - first)


_Work = _Training | _Evaluation


class Memory:
    """Prepared pictures of the last work (store, augmentation, seed, batch) asked for, up to `limit` bytes of them.

    All steps of a study that share a recipe and a seed see the same pictures, so only the first has to make them.
    """

    def __init__(self, limit: int = 2**30) -> None:
        self.limit = limit
        self._work: _Work | None = None
        self._batches: dict[_Place, _Unfinished] = {}
        self._bytes = 0

    def has(self, work: _Work, places: Iterable[_Place]) -> bool:
        return work == self._work and all(place in self._batches for place in places)

    def get(self, work: _Work, place: _Place) -> _Unfinished | None:
        return self._batches.get(place) if work == self._work else None

    def keep(self, work: _Work, place: _Place, made: _Unfinished) -> None:
        """Remember `made`, if there is room."""
        if work != self._work:
            self._work, self._batches, self._bytes = work, {}, 0
        if place not in self._batches and self._bytes + made.pictures.nbytes <= self.limit:
            self._batches[place] = made
            self._bytes += made.pictures.nbytes


def _batches(
    work: _Work, places: Iterable[_Place], workers: int, device: torch.device, memory: Memory | None
) -> Iterator[Batch]:
    pin = device.type == "cuda"
    unfinished = _in_workers(work, places, workers, pin, memory) if workers else _here(work, places, pin, memory)
    if not pin:
        for batch in unfinished:
            yield batch.finish(device)
        return
    # On a stream of its own, so that copying and finishing a batch overlap the training on the one before.
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    training = torch.cuda.current_stream(device)
    used: deque[torch.cuda.Event] = deque()
    for batch in unfinished:
        with torch.cuda.stream(stream):
            finished = batch.finish(device)
        training.wait_stream(stream)
        for tensor in (finished.images, finished.labels, finished.partner_labels, finished.weight):
            tensor.record_stream(training)
        yield finished
        # The host may be two batches ahead: without a limit, an evaluation would put all of its split on the device.
        used.append(training.record_event())
        if len(used) > 2:
            used.popleft().synchronize()


def _here(work: _Work, places: Iterable[_Place], pin: bool, memory: Memory | None) -> Iterator[_Unfinished]:
    for place in places:
        made = memory.get(work, place) if memory else None
        if made is None:
            made = work[place].pin_memory() if pin else work[place]
            if memory:
                memory.keep(work, place, made)
        yield made


def _in_workers(
    work: _Work, places: Iterable[_Place], workers: int, pin: bool, memory: Memory | None
) -> Iterator[_Unfinished]:
    with warnings.catch_warnings():  # more workers than cores are slow, but the user's choice
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader = DataLoader(
            _Careful(work), batch_size=None, sampler=places, num_workers=workers, collate_fn=_unchanged,
            pin_memory=pin, worker_init_fn=partial(_become_worker, parent=os.getpid()),
        )  # fmt: skip
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
        if memory:
            memory.keep(work, (epoch, number), batch)  # a tuple again: older releases of torch pin tuples as lists
        yield batch
    del batches, loader  # ends the workers before the failure is seen, not when its traceback is forgotten
    if failure is not None:
        raise failure


@dataclass(frozen=True)
class _Careful(Dataset["tuple[_Place, _Unfinished | Exception]"]):
    """Hands over an exception as it is: DataLoader would wrap its one sentence in the worker's traceback."""

    work: _Work

    def __getitem__(self, place: _Place) -> tuple[_Place, _Unfinished | Exception]:
        try:
            return place, _shared(self.work[place])
        except Exception as failure:
            return place, failure


def _shared(made: _Unfinished) -> _Unfinished:
    """`made` in shared memory. DataLoader would do the same in a thread, and wait forever for what fails there."""
    try:
        for part in (made.pictures, made.labels):
            part.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise OSError(
            f"a worker could not hand over its pictures ({error}): give the machine more shared memory (/dev/shm, in "
            "docker --shm-size), or give --workers 0"
        ) from error
    return made


def _become_worker(_: int, parent: int) -> None:
    """Ctrl-C and SIGTERM reach the whole process group, but the training process decides when its workers end.

    If it is killed they end with it: they would go on holding the run's lock until they notice (5 seconds).
    """
    end_with(parent)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _unchanged(batch: Any) -> Any:
    return batch
