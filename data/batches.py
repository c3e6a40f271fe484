"""What a batch is, on its way: prepared as uint8 images by whoever has time, finished as floats on
the device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.augment import Draws, Mix, finish


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
        """How many rows are real."""
        return len(self.indices)


Place = tuple[int, int]
"""Epoch, and number of a micro-batch in it."""


@dataclass(frozen=True)
class Prepared:
    """A batch as a worker sends it: a quarter of the bytes of what `finish` makes of it."""

    images: Tensor  # uint8 (B, R, R, 3)
    labels: Tensor
    indices: npt.NDArray[np.int64]
    draws: Draws | None = None
    mix: Mix | None = None

    def pin_memory(self) -> Prepared:
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())

    def finish(self, device: torch.device) -> Batch:
        images, labels = (part.to(device, non_blocking=True) for part in (self.images, self.labels))
        normalised = finish(images, self.draws, self.mix)
        partner_labels, weight = labels, torch.ones(len(labels), device=device)
        if self.mix is not None:
            pairs = len(labels) // 2 * 2
            partner_labels = labels.clone()
            partner_labels[:pairs] = labels[:pairs].view(-1, 2).flip(1).flatten()
            weight[:pairs] = self.mix.weight
        return Batch(normalised, labels, partner_labels, weight, torch.from_numpy(self.indices))


Work = Dataset[Prepared]
"""What is to be prepared, by `Place`; two that are equal make the same."""


class PreparedImages:
    """Batches kept of the last work (store, augmentation, seed, batch) asked for, up to `limit`
    bytes of them.

    All steps of a study that share a recipe and a seed see the same images, so only the first has
    to make them.
    """

    def __init__(self, limit: int = 2**30) -> None:
        self.limit = limit
        self._work: Work | None = None
        self._batches: dict[Place, Prepared] = {}
        self._bytes = 0

    def has(self, work: Work, places: Iterable[Place]) -> bool:
        return work == self._work and all(place in self._batches for place in places)

    def get(self, work: Work, place: Place) -> Prepared | None:
        return self._batches.get(place) if work == self._work else None

    def keep(self, work: Work, place: Place, made: Prepared) -> None:
        """Remember `made`, if there is room."""
        if work != self._work:
            self._work, self._batches, self._bytes = work, {}, 0
        if place not in self._batches and self._bytes + made.images.nbytes <= self.limit:
            self._batches[place] = made
            self._bytes += made.images.nbytes
