"""Batches for training and evaluation. Their images, order and augmentation are a function of
(seed, epoch).

A batch is prepared as uint8 images, by this process between two updates or by workers, and finished
as floats on the device.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data import randomness
from data.augment import Draws, Mix, augment_batch, centre_crop, draw, draw_mix, finish
from data.augmentation import Augmentation
from data.processes import end_with
from data.randomness import Ints


@dataclass(frozen=True)
class Batch:
    """B images of R x R pixels.

    images: float32 (B, 3, R, R), channels_last, normalised, mixed. labels, partner_labels: int64
    (B,). weight: float32 (B,), the share of `labels`; 1 - weight is the share of `partner_labels`.
    indices: int64 (valid,), on the CPU: which images of their split the first rows are. The others
    pad the last batch of an evaluation and are to be ignored.
    """

    images: Tensor
    labels: Tensor
    partner_labels: Tensor
    weight: Tensor
    indices: Tensor

    @property
    def valid(self) -> int:
        """Number of real rows."""
        return len(self.indices)


@dataclass(frozen=True)
class Prepared:
    """A batch as a worker sends it: a quarter of the bytes of the finished one."""

    images: Tensor  # uint8 (B, R, R, 3)
    labels: Tensor
    indices: Ints
    draws: Draws | None = None
    mix: Mix | None = None

    def pin_memory(self) -> Prepared:
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())

    def finish(self, device: torch.device) -> Batch:
        # A copy that nobody waits for reads memory that must stay: pinned memory does, on CUDA.
        # MPS would read pageable memory that is used again.
        ahead = device.type == "cuda" and self.images.is_pinned() and self.labels.is_pinned()
        images, labels = (
            part.to(device, non_blocking=ahead) for part in (self.images, self.labels)
        )
        normalised = finish(images, self.draws, self.mix)
        partner_labels, weight = labels, torch.ones(len(labels), device=labels.device)
        if self.mix is not None:
            pairs = len(labels) // 2 * 2
            partner_labels = labels.clone()
            partner_labels[:pairs] = labels[:pairs].view(-1, 2).flip(1).flatten()
            weight[:pairs] = self.mix.weight
        return Batch(normalised, labels, partner_labels, weight, torch.from_numpy(self.indices))


Place = tuple[int, int]
"""Epoch, and number of a micro-batch in it."""


class Images(Protocol):
    """A store: uint8 images (H, W, 3) and an int64 label for each."""

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


def batches_per_epoch(images: int, batch_size: int) -> int:
    """Full batches in an epoch; the ragged rest is dropped. Raises ValueError when there is not
    even one."""
    if batch_size < 1:
        raise ValueError(f"batch size is {batch_size}; it must be at least 1")
    if images < batch_size:
        fits = (
            f"a batch size of {images} or less fits" if images else "there is nothing to train on"
        )
        raise ValueError(
            f"one batch of {batch_size} needs more than the {images} training images; {fits}"
        )
    return images // batch_size


def share(items: int, rank: int, world: int) -> range:
    """Which of `items` process `rank` of `world` has: neighbours, and nobody has more than one more
    than another."""
    return range(items * rank // world, items * (rank + 1) // world)


@lru_cache(maxsize=2)
def epoch_order(images: int, seed: int, epoch: int) -> Ints:
    """The order of an epoch: a permutation of range(images), not to be written to."""
    order = randomness.generator(randomness.ORDER, seed, epoch).permutation(images)
    order.flags.writeable = False
    return order


def train_batches(
    store: Images,
    augmentation: Augmentation,
    resolution: int,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    start: int = 0,
    epochs: int = 1,
    rank: int = 0,
    world: int = 1,
    micro_batches: int = 1,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Generator[Batch, None, None]:
    """The training batches of `epochs` epochs, from batch number `start` of `epoch` on; ragged last
    ones are dropped.

    Workers go on into the next epoch while the last batches of one are used. Close the iterator to
    stop its workers early.

    batch_size counts the images of one optimizer update over all processes. A batch consists of
    `micro_batches` equal parts. Process `rank` of `world` gets its share (`share`) of them one by
    one; together, the parts are the batch in one piece, byte for byte. The last steps (normalise,
    erase, mix) run on `device`.

    Raises ValueError, before anything is read, when the parts cannot be equal, when mixing would
    separate a pair, when there are fewer parts than processes, or when the store holds less than
    one batch.
    """
    count = batches_per_epoch(len(store), batch_size)
    pair = 2 if micro_batches > 1 and augmentation.mixes else 1
    if micro_batches < 1 or batch_size % (micro_batches * pair):
        raise ValueError(
            f"a batch of {batch_size} cannot consist of {micro_batches} micro-batches;"
            f" it must be a multiple of {max(micro_batches, 1) * pair}"
        )
    if world > micro_batches:
        raise ValueError(
            f"{world} processes cannot share a batch of {micro_batches} micro-batches; start fewer"
        )
    work = _Training(store, augmentation, resolution, seed, batch_size, micro_batches)
    places = (
        (each, batch * micro_batches + part)
        for each in range(epoch, epoch + epochs)
        for batch in range(start if each == epoch else 0, count)
        for part in share(micro_batches, rank, world)
    )
    return _batches(work, places, workers, torch.device(device))


def eval_batches(
    store: Images,
    resolution: int,
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Generator[Batch, None, None]:
    """The store in its own order: short side to resolution / 0.875, centre crop, normalise; the
    last batch padded.

    Process `rank` of `world` gets its share (`share`) of the batches, which are the same for any
    number of processes.
    """
    if batch_size < 1:
        raise ValueError(f"batch size is {batch_size}; it must be at least 1")
    count = math.ceil(len(store) / batch_size)
    places = [(0, number) for number in share(count, rank, world)]
    return _batches(
        _Evaluation(store, resolution, batch_size), places, workers, torch.device(device)
    )


@dataclass(frozen=True)
class _Training(Dataset[Prepared]):
    """The parts of all batches, by epoch and number."""

    store: Images
    augmentation: Augmentation
    resolution: int
    seed: int
    batch_size: int
    micro_batches: int

    def __getitem__(self, place: Place) -> Prepared:
        epoch, number = place
        rows = self.batch_size // self.micro_batches
        order = epoch_order(len(self.store), self.seed, epoch)
        indices = order[number * rows : (number + 1) * rows].copy()
        images = [self.store[index] for index in indices.tolist()]
        sizes = np.array([image.shape[:2] for image in images])
        draws = draw(self.augmentation, self.resolution, sizes, self.seed, epoch, indices)
        mixed = augment_batch(self.augmentation, self.resolution, draws, images)
        labels = self.store.labels[torch.from_numpy(indices)]
        mix = draw_mix(
            self.augmentation, self.resolution, self.seed, epoch, number // self.micro_batches
        )
        return Prepared(mixed, labels, indices, draws, mix)


@dataclass(frozen=True)
class _Evaluation(Dataset[Prepared]):
    """The batches of an evaluation, by number; all of them in epoch 0."""

    store: Images
    resolution: int
    batch_size: int

    def __getitem__(self, place: Place) -> Prepared:
        _, number = place
        size = self.resolution
        first, end = number * self.batch_size, min((number + 1) * self.batch_size, len(self.store))
        images = torch.zeros((self.batch_size, size, size, 3), dtype=torch.uint8)
        for target, index in zip(images.permute(0, 3, 1, 2), range(first, end), strict=False):
            target.copy_(centre_crop(self.store[index], size))
        labels = torch.zeros(self.batch_size, dtype=torch.int64)
        labels[: end - first] = self.store.labels[first:end]
        return Prepared(images, labels, np.arange(first, end))


def _batches(
    work: Dataset[Prepared], places: Iterable[Place], workers: int, device: torch.device
) -> Generator[Batch, None, None]:
    pin = device.type == "cuda"
    if workers:
        unfinished = _in_workers(work, places, workers, pin)
    else:
        unfinished = (work[place].pin_memory() if pin else work[place] for place in places)
    if not pin:
        for batch in unfinished:
            yield batch.finish(device)
        return
    # On a separate stream, so that copying and finishing a batch overlap the training on the one
    # before.
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    training = torch.cuda.current_stream(device)
    for batch in unfinished:
        with torch.cuda.stream(stream):
            finished = batch.finish(device)
        training.wait_stream(stream)
        for tensor in (finished.images, finished.labels, finished.partner_labels, finished.weight):
            tensor.record_stream(training)
        yield finished


def _in_workers(
    work: Dataset[Prepared], places: Iterable[Place], workers: int, pin: bool
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
        before = multiprocessing.active_children()
        try:
            batches = iter(loader)
        except OSError as error:
            # Those that did start ignore SIGTERM, and Python would wait for them at its end.
            for worker in set(multiprocessing.active_children()) - set(before):
                worker.kill()
            # The half-made iterator, which only the traceback holds, prints another when it goes.
            hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
            error.__traceback__ = None
            sys.unraisablehook = hook
            raise OSError(
                f"{workers} workers could not be started ({error.strerror}): give fewer --workers, "
                "or raise the limits of this machine (ulimit -n, ulimit -u)"
            ) from None
    failure = None
    for batch in batches:
        if isinstance(batch, Exception):
            failure = batch
            break
        yield batch
    del batches, loader  # ends the workers now, not when the failure's traceback is forgotten
    if failure is not None:
        raise failure


@dataclass(frozen=True)
class _Careful(Dataset["Prepared | Exception"]):
    """Returns an exception as it is: DataLoader would wrap its message in the worker's
    traceback."""

    work: Dataset[Prepared]

    def __getitem__(self, place: Place) -> Prepared | Exception:
        try:
            prepared = self.work[place]
        except Exception as failure:
            return failure
        try:
            # DataLoader would do the same in a thread, and wait forever for what fails there.
            for part in (prepared.images, prepared.labels):
                part.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            return OSError(
                f"a worker could not hand over its images ({error}): give the machine more shared "
                "memory (/dev/shm, in docker --shm-size), or give --workers 0"
            )
        return prepared


def _become_worker(_: int, parent: int) -> None:
    """End with the training process, and leave signals that reach the whole process group to it."""
    end_with(parent)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _unchanged(batch: Any) -> Any:
    return batch
