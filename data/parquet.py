"""Images in Parquet files as Hugging Face ships them, read where they lie. Needs pyarrow.

A row has an image as {bytes, path} and a label; the schema's metadata names the classes. The split
is in the name of a file or of its folder: `train-00000-of-00008.parquet`, `train/0000.parquet`.
"""

import bisect
import importlib
import json
import os
import re
import threading
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data.decode import UnreadableImage, image_size, read_image
from data.splits import Dataset, Source, Split, complete, prefix, split_roles

_READING = threading.Lock()
"""Threads that decode neighbouring images need the same group of rows: it is read once."""


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError("Parquet files need pyarrow: pip install pyarrow") from None


@dataclass(frozen=True)
class Rows(Source):
    """Images in rows of Parquet files; `items` are their numbers, counted over all `files`."""

    files: tuple[Path, ...]
    column: str

    def encoded(self, index: int) -> bytes:
        """The image as it was encoded, such as the contents of a JPEG file."""
        row = self.items[index]
        with _READING:
            starts, places = _row_groups(self.files)
            number = bisect.bisect_right(starts, row) - 1
            content = _read_group(*places[number], self.column)[row - starts[number]].as_py()
        if content is None:
            raise UnreadableImage("a row without an image")
        return bytes(content)

    def read(self, index: int) -> np.ndarray:
        return read_image(self.encoded(index))

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self.encoded(index))

    def stamp(self, index: int) -> tuple[int, int]:
        starts, places = _row_groups(self.files)
        file, _ = places[bisect.bisect_right(starts, self.items[index]) - 1]
        status = os.stat(file)
        return status.st_size, status.st_mtime_ns

    def content(self, index: int) -> int:
        return zlib.crc32(self.encoded(index))


@lru_cache(maxsize=8)
def _row_groups(files: tuple[Path, ...]) -> tuple[list[int], list[tuple[Path, int]]]:
    """The number of the first row of each group of rows, and its file and place in it."""
    starts, places, rows = list[int](), list[tuple[Path, int]](), 0
    for file in files:
        metadata = _open(file).metadata
        for group in range(metadata.num_row_groups):
            starts.append(rows)
            places.append((file, group))
            rows += metadata.row_group(group).num_rows
    return starts, places


@lru_cache(maxsize=2)
def _read_group(file: Path, group: int, column: str) -> Any:
    table = _open(file).read_row_group(group, columns=[f"{column}.bytes"])
    return table.column(column).combine_chunks().field("bytes")


def _open(file: Path) -> Any:
    """Raises ValueError where the file is damaged."""
    pyarrow = _pyarrow()
    try:
        return pyarrow.ParquetFile(file)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these
        raise ValueError(f"{file} is damaged or half downloaded ({error}); get it again") from error


def find(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files below `folder` by the split that their names state."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        words = re.split(r"[^a-z]+", file.relative_to(folder).as_posix().lower())
        known = next((word for word in words if split_roles([word])[0]), None)
        if known:
            found.setdefault(known, []).append(file)
    return found


def dataset(path: Path, files: dict[str, list[Path]]) -> Dataset:
    """The data set of the Parquet `files` below `path`.

    Raises:
        ValueError: pyarrow is missing, a file is damaged, or has no images and labels.
    """
    roles, notes = split_roles(files)
    if "train" not in roles:
        raise ValueError(f"{path} has Parquet files of {', '.join(files)}, but none of train")
    classes: tuple[str, ...] = ()
    parts = {}
    for part, name in roles.items():
        image, label, named = _columns(files[name][0])
        names, labels = list[str | None](), list[Any]()
        for file in files[name]:
            table = _open(file).read(columns=[f"{image}.path", label])
            names += table.column(image).combine_chunks().field("path").to_pylist()
            labels += table.column(label).to_pylist()
        classes = classes or named or tuple(sorted(set(map(str, labels))))
        numbers = {kind: number for number, kind in enumerate(classes)}
        kinds = [classes[each] if named else str(each) for each in labels]
        ids = [f"{kind}/{Path(each or '').stem}" for kind, each in zip(kinds, names)]
        if len(set(ids)) < len(ids):
            ids = [f"{part}/{row:06}" for row in range(len(ids))]
        source = Rows(tuple(range(len(ids))), tuple(files[name]), image)
        parts[part] = Split(
            f"{prefix(path)}-{part}", tuple(ids), tuple(numbers[kind] for kind in kinds), source
        )
    return complete(
        "parquet",
        classes,
        parts,
        description=f"{path.name}: images in Parquet files, in {len(classes)} classes.",
        notes=notes,
    )


def _columns(file: Path) -> tuple[str, str, tuple[str, ...]]:
    """The columns of images and labels, and the names of the classes where the file has them."""
    schema = _open(file).schema_arrow
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    kinds = {each.get("_type"): name for name, each in features.items() if isinstance(each, dict)}
    image, label = kinds.get("Image", "image"), kinds.get("ClassLabel", "label")
    if missing := [name for name in (image, label) if name not in schema.names]:
        raise ValueError(f"{file} has no column {' and '.join(missing)}: give images with labels")
    return image, label, tuple(features.get(label, {}).get("names", ()))
