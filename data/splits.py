"""What a data set is: named images with labels in three splits, a reader for each, and where they
come from."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

HELD_OUT = 0.1
"""Share of each class's training images that is held out for selection where no validation split is
given."""


class Source(Protocol):
    """Where the images of a split come from."""

    def read(self, index: int) -> np.ndarray:
        """uint8 RGB (H, W, 3); raises `data.decode.UnreadableImage`."""

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of `read(index)`, found without decoding; raises
        `data.decode.UnreadableImage`."""

    def stamp(self, index: int) -> tuple[int, int]:
        """(bytes, modification time in ns) of the image's file; (-1, -1) where it cannot be
        asked."""

    def take(self, indices: Sequence[int]) -> Source:
        """The same source with only these images, in this order."""


@dataclass(frozen=True)
class Files:
    """Images that are one file each."""

    paths: tuple[Path, ...]

    def read(self, index: int) -> np.ndarray:
        from data.decode import read_image

        return read_image(self.paths[index])

    def size(self, index: int) -> tuple[int, int]:
        from data.decode import image_size

        return image_size(self.paths[index])

    def stamp(self, index: int) -> tuple[int, int]:
        try:
            status = self.paths[index].stat()
        except OSError:
            return -1, -1
        return status.st_size, status.st_mtime_ns

    def take(self, indices: Sequence[int]) -> Files:
        return Files(tuple(self.paths[index] for index in indices))


@dataclass(frozen=True)
class Split:
    """Images of one split: `ids[i]` is a stable name, `labels[i]` indexes the data set's
    `classes`."""

    name: str
    """Tells this split from all others in a cache folder, e.g. 'pocket-v1-train'; safe as a file
    name."""
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    source: Source

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.labels)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> np.ndarray:
        """Image `index` as uint8 RGB (H, W, 3). Raises `data.decode.UnreadableImage`, a
        ValueError."""
        return self.source.read(index)

    def take(self, indices: Sequence[int], name: str) -> Split:
        """The split of only these images, in this order, under a name of its own."""
        ids = tuple(self.ids[index] for index in indices)
        labels = tuple(self.labels[index] for index in indices)
        return Split(name, ids, labels, self.source.take(indices))


@dataclass(frozen=True)
class Dataset:
    """A data set as a study uses it. `test` is read once a run, at its end; `validation`
    selects."""

    name: str
    """As it was asked for: 'food101', 'imagefolder:PATH', ..."""
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    synthetic: bool
    """True if the images were drawn by a program; the report says so."""
    description: str
    """One sentence for the report."""
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the images that were left out because they cannot be read, by split: those of
    `splits` are others."""

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def summary(self) -> dict[str, object]:
        """What a reader wants to know of it, for study.json."""
        sizes = {name: len(split) for name, split in self.splits.items()}
        about = {"name": self.name, "description": self.description, "synthetic": self.synthetic}
        return {**about, "classes": self.classes, **sizes, "skipped": self.skipped}

    def without(self, unreadable: Mapping[str, Collection[str]]) -> Dataset:
        """The data set without these images, by split and name."""
        left: dict[str, Any] = {}
        for part, names in unreadable.items():
            split, out = self.splits[part], set(names)
            left[part] = split.take(
                [i for i, name in enumerate(split.ids) if name not in out], split.name
            )
        skipped = {part: tuple(names) for part, names in unreadable.items() if names}
        return replace(self, **left, skipped=skipped) if skipped else self

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over classes, and every split's names, labels and file sizes: tells two data sets
        apart."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for name, split in self.splits.items():
            digest.update(f"\n{name} {len(split)}\n".encode())
            sizes = (split.source.stamp(index)[0] for index in range(len(split)))
            for row in zip(split.ids, split.labels, sizes, strict=True):
                digest.update(json.dumps(row).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Published:
    """What is known of a data set that is not there yet, and how to get it."""

    train: int
    """Images to train on, those that will be held out among them."""
    test: int
    classes: int
    bytes: int
    """Disk that getting them takes."""
    height: int
    width: int
    """Of a typical image, in pixels."""
    fetch: Callable[[Path], None]
    """Puts the images into the data folder. Raises OSError (no network, a full disk) in one
    sentence."""


@dataclass(frozen=True)
class Origin:
    """A data set by name: how it is found in a folder and, where it may be missing, what is
    published of it."""

    name: str
    """As it is asked for: 'food101'; 'imagefolder:PATH' if it lies in a folder of the user's."""
    read: Callable[[Path], Dataset | None]
    """The data set in the data folder (in PATH), None where it is not there yet. Opens no image,
    imports nothing heavy and writes nothing. Raises ValueError, in one sentence, where it is
    damaged or half downloaded."""
    published: Published | None = None
    """Needed unless `read` always finds a data set or refuses the folder."""

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    @property
    def is_the_users(self) -> bool:
        return ":" in self.name


def hold_out(split: Split, share: float = HELD_OUT) -> tuple[list[int], list[int]]:
    """Indices (kept, held out) of a fixed stratified split: in each class `share` of the images, at
    least one.

    An image's rank is the hash of its name, so that the choice depends on no seed, no order and no
    library.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(split.labels):
        members[label].append(index)
    held: set[int] = set()
    for indices in members.values():
        ranked = sorted(
            indices, key=lambda index: hashlib.sha256(os.fsencode(split.ids[index])).digest()
        )
        held.update(ranked[: max(1, round(share * len(indices)))])
    return [index for index in range(len(split)) if index not in held], sorted(held)
