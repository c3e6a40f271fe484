"""A data set: named images with labels in three splits, and a source that reads them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from data.decode import image_size, read_image
from utils.text import first_few

HELD_OUT = 0.1
"""Share of each class's training images to hold out where no validation split is given."""
_ROLES = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid"),
    "test": ("test", "testing"),
}
"""Names of splits on disk, in lower case, the preferred one first."""


@dataclass(frozen=True)
class Source:
    """Where the images of a split come from."""

    items: tuple[Any, ...]
    """What defines each image: a path or a number."""

    def read(self, index: int) -> np.ndarray:
        """uint8 RGB (H, W, 3); raises `data.decode.UnreadableImage`."""
        raise NotImplementedError

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of `read(index)`, found without decoding; raises
        `data.decode.UnreadableImage`."""
        raise NotImplementedError

    def stamp(self, index: int) -> tuple[int, int]:
        """(bytes, modification time in ns) of the image's file; (-1, -1) where it is missing."""
        raise NotImplementedError

    def content(self, index: int) -> int | None:
        """crc32 of the encoded image; None where its name defines it, as in a published file."""
        return None

    def take(self, indices: Sequence[int]) -> Self:
        """The same source with only these images, in this order."""
        return replace(self, items=tuple(self.items[index] for index in indices))


class Files(Source):
    """Images that are one file each; `items` are their paths."""

    def read(self, index: int) -> np.ndarray:
        return read_image(self.items[index])

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self.items[index])

    def stamp(self, index: int) -> tuple[int, int]:
        try:
            status = os.stat(self.items[index])
        except OSError:
            return -1, -1
        return status.st_size, status.st_mtime_ns

    def content(self, index: int) -> int | None:
        try:
            return zlib.crc32(self.items[index].read_bytes())
        except OSError:
            return None


@dataclass(frozen=True)
class Split:
    """Images of one split: `ids[i]` is a stable name, `labels[i]` indexes the data set's
    `classes`."""

    name: str
    """Unique in a cache folder, e.g. 'food101-train', and safe as a file name."""
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
    """As it was requested: 'food101', 'imagefolder:PATH', ..."""
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
    notes: tuple[str, ...] = ()
    """What a user should know of how the images were found, a sentence each."""

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def summary(self) -> dict[str, object]:
        """Facts for study.json."""
        sizes = {name: len(split) for name, split in self.splits.items()}
        about = {"name": self.name, "description": self.description, "synthetic": self.synthetic}
        notes = {"notes": self.notes} if self.notes else {}
        return {**about, "classes": self.classes, **sizes, "skipped": self.skipped, **notes}

    def without(self, unreadable: Mapping[str, Collection[str]]) -> Dataset:
        """The data set without these images, by split and name."""
        left = self.splits
        for part, names in unreadable.items():
            split, out = left[part], set(names)
            kept = [index for index, name in enumerate(split.ids) if name not in out]
            left[part] = split.take(kept, split.name)
        return replace(
            self,
            train=left["train"],
            validation=left["validation"],
            test=left["test"],
            skipped={part: tuple(names) for part, names in unreadable.items() if names},
        )

    def fingerprint(self, contents: Mapping[str, Sequence[int | None]] | None = None) -> str:
        """sha256 over classes, and every split's names, labels, file sizes and contents; not over
        the path.

        Args:
            contents: `Source.content` of each image by split, where they are known already; else
                all images are read.
        """
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for name, split in self.splits.items():
            digest.update(f"\n{name} {len(split)}\n".encode())
            for index in range(len(split)):
                source = split.source
                content = contents[name][index] if contents else source.content(index)
                row = [split.ids[index], split.labels[index], source.stamp(index)[0]]
                digest.update(json.dumps(row if content is None else [*row, content]).encode())
        return digest.hexdigest()


def hold_out(split: Split, share: float = HELD_OUT) -> tuple[list[int], list[int]]:
    """Indices (kept, held out) of a fixed stratified split: in each class `share` of the images, at
    least one.

    An image's rank is the hash of its name, so the choice depends on no seed, order or library.
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


def complete(
    name: str,
    classes: tuple[str, ...],
    parts: Mapping[str, Split],
    description: str,
    synthetic: bool = False,
    notes: Sequence[str] = (),
) -> Dataset:
    """A data set of the splits `parts`: train, and what is given of validation and test.

    A split that is not given is held out from train: 10 % of all its images.
    """
    splits = dict(parts)
    stem = splits["train"].name.removesuffix("-train")
    share = HELD_OUT
    for part in ("test", "validation"):
        if part in splits:
            continue
        kept, held = hold_out(splits["train"], share)
        splits[part] = splits["train"].take(held, f"{stem}-{part}")
        splits["train"] = splits["train"].take(kept, f"{stem}-train")
        share /= 1 - HELD_OUT  # the rest is smaller
    notes = [*notes, *(_single_images(classes, part, splits[part]) for part in ("train", "test"))]
    train, validation, test = splits["train"], splits["validation"], splits["test"]
    said = tuple(note for note in notes if note)
    return Dataset(name, classes, train, validation, test, synthetic, description, notes=said)


def _single_images(classes: Sequence[str], part: str, split: Split) -> str:
    """A note about the classes that have one image in a split, if there are any."""
    counts = np.bincount(split.labels, minlength=len(classes))
    few = [name for name, count in zip(classes, counts) if count == 1]
    return f"{len(few):,} of {len(classes):,} classes have one {part} image ({first_few(few)})" * (
        len(few) > 0
    )


def split_roles(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Which of the folders or files `names` is which split, by train, validation and test; notes.

    Where there is no test set, val serves as one, as in ImageNet's folders.
    """
    lower = {name.lower(): name for name in names}
    roles = {
        role: lower[name] for role, known in _ROLES.items() for name in known[::-1] if name in lower
    }
    if "train" not in roles or "test" in roles or "validation" not in roles:
        return roles, []
    name = roles["test"] = roles.pop("validation")
    return roles, [f"{name} serves as the test set; validation images are held out of train"]


def prefix(path: Path) -> str:
    """The beginning of the names of the splits below `path`, safe as a file name.

    Two folders of one name are two data sets, so it has a digest of the full path.
    """
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9._-]", "_", path.name) + "-" + digest
