"""Batches for training and evaluation. Which images, in which order, changed how: a function of
(seed, epoch)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data import randomness
from data.augment import augment_batch, centre_crop, draw, draw_mix
from data.augmentation import Augmentation
from data.batches import Batch, Place, Prepared, PreparedImages, Work
from data.workers import here, in_workers


class Images(Protocol):
    """What a store must offer: uint8 images (H, W, 3) and an int64 label for each."""

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
def epoch_order(images: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
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
    kept: PreparedImages | None = None,
) -> Generator[Batch, None, None]:
    """The training batches of `epochs` epochs, from batch number `start` of `epoch` on; ragged last
    ones are dropped.

    Workers go on into the next epoch while the last batches of one are used, so that no epoch
    begins with a wait.

    batch_size counts the images of one optimizer update over all processes. A batch is made of
    `micro_batches` equal parts, of which process `rank` of `world` is handed its share (`share`)
    one by one; put together, the parts are the batch in one piece, byte for byte. The last touches
    (normalise, erase, mix) and the result are on `device`. Close the iterator to stop its workers
    early. Without workers, `kept` spares work already done.

    Raises ValueError, before anything is read, when the parts cannot be equal, when mixing would
    part a pair, when there are fewer parts than processes, or when the store holds less than one
    batch.
    """
    count = batches_per_epoch(len(store), batch_size)
    pair = 2 if micro_batches > 1 and augmentation.mixes else 1
    if micro_batches < 1 or batch_size % (micro_batches * pair):
        raise ValueError(
            f"a batch of {batch_size} cannot be made of {micro_batches} micro-batches;"
            f" it must be a multiple of {max(micro_batches, 1) * pair}"
        )
    if world > micro_batches:
        raise ValueError(
            f"{world} processes cannot share a batch of {micro_batches} micro-batches; start fewer"
        )
    if not 0 <= rank < world or not 0 <= start <= count:
        raise ValueError(
            f"rank {rank} of {world}, batch {start} of {count}: there is no such share of the epoch"
        )
    work = _Training(store, augmentation, resolution, seed, batch_size, micro_batches)
    places = (
        (each, batch * micro_batches + part)
        for each in range(epoch, epoch + epochs)
        for batch in range(start if each == epoch else 0, count)
        for part in share(micro_batches, rank, world)
    )
    return _batches(work, places, workers, torch.device(device), kept if workers == 0 else None)


def eval_batches(
    store: Images,
    resolution: int,
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    device: torch.device | str = "cpu",
    kept: PreparedImages | None = None,
) -> Generator[Batch, None, None]:
    """The store in its own order: short side to resolution / 0.875, centre crop, normalise; the
    last batch padded.

    Process `rank` of `world` is handed its share (`share`) of the batches, which are the same for
    any number of them. `kept` spares the work already done, and the workers too if all of it is.
    """
    if batch_size < 1:
        raise ValueError(f"batch size is {batch_size}; it must be at least 1")
    count = math.ceil(len(store) / batch_size)
    work, places = (
        _Evaluation(store, resolution, batch_size),
        [(0, number) for number in share(count, rank, world)],
    )
    if kept is not None and kept.has(work, places):
        workers = 0
    return _batches(work, places, workers, torch.device(device), kept)


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
        indices = epoch_order(len(self.store), self.seed, epoch)[
            number * rows : (number + 1) * rows
        ].copy()
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
    work: Work,
    places: Iterable[Place],
    workers: int,
    device: torch.device,
    kept: PreparedImages | None,
) -> Generator[Batch, None, None]:
    pin = device.type == "cuda"
    unfinished = (
        in_workers(work, places, workers, pin, kept) if workers else here(work, places, pin, kept)
    )
    if not pin:
        for batch in unfinished:
            yield batch.finish(device)
        return
    # On a stream of its own, so that copying and finishing a batch overlap the training on the one
    # before.
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
        # The host may be two batches ahead: without a limit, an evaluation would put all of its
        # split on the device.
        used.append(training.record_event())
        if len(used) > 2:
            used.popleft().synchronize()
