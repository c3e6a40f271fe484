"""What a data set is: named pictures with labels in three splits, and a reader for each picture."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

HELD_OUT = 0.1
"""Share of each class's training pictures that is held out for selection where no validation split is given."""


class Source(Protocol):
    """Where the pictures of a split come from."""

    def read(self, index: int) -> np.ndarray:
        """uint8 RGB (H, W, 3); raises `data.decode.UnreadablePicture`."""

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of `read(index)`, found without decoding; raises `data.decode.UnreadablePicture`."""

    def stamp(self, index: int) -> tuple[int, int]:
        """(bytes, modification time in ns) of the picture's file; (-1, -1) where it cannot be asked."""

    def take(self, indices: Sequence[int]) -> Source:
        """The same source with only these pictures, in this order."""


@dataclass(frozen=True)
class Files:
    """Pictures that are one file each."""

    paths: tuple[Path, ...]

    def read(self, index: int) -> np.ndarray:
        from data.decode import read_picture

        return read_picture(self.paths[index])

    def size(self, index: int) -> tuple[int, int]:
        from data.decode import picture_size

        return picture_size(self.paths[index])

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
    """Pictures of one split: `ids[i]` is a stable name, `labels[i]` indexes the data set's `classes`."""

    name: str
    """Tells this split from all others in a cache folder, e.g. 'pocket-v1-train'; safe as a file name."""
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    source: Source

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.labels)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> np.ndarray:
        """Picture `index` as uint8 RGB (H, W, 3). Raises `data.decode.UnreadablePicture`, a ValueError."""
        return self.source.read(index)

    def take(self, indices: Sequence[int], name: str) -> Split:
        """The split of only these pictures, in this order, under a name of its own."""
        ids = tuple(self.ids[index] for index in indices)
        labels = tuple(self.labels[index] for index in indices)
        return Split(name, ids, labels, self.source.take(indices))


@dataclass(frozen=True)
class Dataset:
    """A data set as a study uses it. `test` is read once a run, at its end; `validation` selects."""

    name: str
    """As it was asked for: 'food101', 'imagefolder:PATH', ..."""
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    synthetic: bool
    """True if the pictures were drawn by a program; the report says so."""
    description: str
    """One sentence for the report."""

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def summary(self) -> dict[str, object]:
        """What a reader wants to know of it, for study.json."""
        sizes = {name: len(split) for name, split in self.splits.items()}
        about = {"name": self.name, "description": self.description, "synthetic": self.synthetic}
        return {**about, "classes": self.classes, **sizes}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over classes, and every split's names, labels and file sizes: tells two data sets apart."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for name, split in self.splits.items():
            digest.update(f"\n{name} {len(split)}\n".encode())
            sizes = (split.source.stamp(index)[0] for index in range(len(split)))
            for row in zip(split.ids, split.labels, sizes, strict=True):
                digest.update(json.dumps(row).encode())
        return digest.hexdigest()


def hold_out(split: Split, share: float = HELD_OUT) -> tuple[list[int], list[int]]:
    """Indices (kept, held out) of a fixed stratified split: in each class `share` of the pictures, at least one.

    A picture's rank is the hash of its name, so that the choice depends on no seed, no order and no library.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(split.labels):
        members[label].append(index)
    held: set[int] = set()
    for indices in members.values():
        ranked = sorted(indices, key=lambda index: hashlib.sha256(os.fsencode(split.ids[index])).digest())
        held.update(ranked[: max(1, round(share * len(indices)))])
    return [index for index in range(len(split)) if index not in held], sorted(held)


def printable(name: object) -> str:
    """A name from outside as it may be shown on a terminal: what cannot be printed as Python would escape it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def first_few(names: Iterable[str], limit: int = 3) -> str:
    """'a, b, c and 4 more' for messages."""
    listed = [printable(name) for name in names]
    rest = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {rest:,} more" if rest > 0 else "")
