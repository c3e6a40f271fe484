"""A split's decoded images: uint8 RGB in one memory-mapped file, ready to be cropped.

A store is a folder: `images.bin` (the images, one after the other), `index.npz` (place, shape,
label and file stamp of each), `ids.json`, and `meta.json`, written last, with checksums of it all.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.splits import Split
from utils.files import read_bytes
from utils.text import readable_bytes

VERSION = 1
"""Of the store's format and of how images are decoded and resized; another version is built
anew."""


class ImageStore:
    """N decoded images of varied shape, read from a memory map; safe to hand to worker processes.

    `ids` are their names, `labels` an int64 tensor (N,), `shapes` an int64 tensor (N, 2) of
    (height, width).
    """

    def __init__(self, folder: Path | str) -> None:
        """Open a finished store.

        Raises:
            OSError: it is not complete or is damaged. One sentence.
        """
        self.folder = Path(folder)
        try:
            self.meta: dict[str, Any] = json.loads(read_bytes(self.folder / "meta.json"))
            index_bytes = read_bytes(self.folder / "index.npz")
            ids_bytes = read_bytes(self.folder / "ids.json")
            size = (self.folder / "images.bin").stat().st_size
            if (zlib.crc32(index_bytes), zlib.crc32(ids_bytes)) != (
                self.meta["index_crc"],
                self.meta["ids_crc"],
            ):
                raise ValueError("its index fails its checksum")
            if size != self.meta["bytes"]:
                raise ValueError(f"images.bin has {size:,} bytes instead of {self.meta['bytes']:,}")
            self._chunks: list[tuple[int, int, int]] = [
                (int(a), int(b), int(crc)) for a, b, crc in self.meta["chunks"]
            ]
            if [0, *(stop for _, stop, _ in self._chunks)] != [
                *(start for start, _, _ in self._chunks),
                size,
            ]:
                raise ValueError("its checksums are not of all its bytes")
            self.ids: tuple[str, ...] = tuple(json.loads(ids_bytes))
            with np.load(self.folder / "index.npz") as index:  # never unpickles
                self.labels = torch.from_numpy(index["labels"])
                self.shapes = torch.from_numpy(index["shapes"])
                self.stamps: np.ndarray = index["stamps"]
                self._offsets: list[int] = index["offsets"].tolist()
            self._shapes: list[list[int]] = self.shapes.tolist()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            damaged = (
                f"the image cache {self.folder} is damaged ({error}); delete it to build it again"
            )
            raise OSError(damaged) from error
        # Mapped copy-on-write: torch wants memory that it could write to, the file itself never
        # changes.
        try:
            self._pixels = torch.from_numpy(np.memmap(self.folder / "images.bin", np.uint8, "c"))
        except OSError as error:
            raise OSError(
                f"the image cache {self.folder} of {readable_bytes(size)} cannot be mapped into "
                "memory "
                f"({error.strerror}); raise the limit on address space (ulimit -v), or choose a "
                "lower --resolution"
            ) from error

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index` as uint8 (H, W, 3), a view of the memory map; not to be changed."""
        height, width = self._shapes[index]
        return self._pixels[self._offsets[index] :][: height * width * 3].view(height, width, 3)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def __reduce__(self) -> tuple[type["ImageStore"], tuple[Path]]:
        return ImageStore, (
            self.folder,
        )  # a worker process maps the same file instead of copying it

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the split's images that are not here, because they cannot be read."""
        return tuple(self.meta["skipped"])

    @property
    def nbytes(self) -> int:
        """Bytes of all images together."""
        return int(self.meta["bytes"])

    def verify(self, threads: int = 1) -> None:
        """Read every byte and compare checksums, 1 GB/s a thread or more.

        Raises:
            OSError: some pixels changed since the store was built; the message says where.
        """
        pixels = self._pixels.numpy()

        def is_damaged(chunk: tuple[int, int, int]) -> bool:
            start, stop, crc = chunk
            return zlib.crc32(pixels[start:stop].data) != crc

        with ThreadPoolExecutor(threads) as pool:  # checksums let go of the interpreter's lock
            damaged = [
                start
                for (start, _, _), bad in zip(
                    self._chunks, pool.map(is_damaged, self._chunks), strict=True
                )
                if bad
            ]
        if damaged:
            last = len(self) - 1
            image = next(
                (i for i, offset in enumerate(self._offsets) if damaged[0] <= offset), last
            )
            raise OSError(
                f"the image cache {self.folder} is damaged at {self.ids[image]} or soon after; "
                "delete it to build "
                "it again"
            )


def store_folder(folder: Path | str, split: Split, short_side: int) -> Path:
    """Where `open_store` keeps the split's store of that size."""
    return Path(folder) / f"{split.name}-{short_side}"


def source_stamps(split: Split) -> np.ndarray:
    """int64 (N, 2): bytes and modification time of every image's file, to notice a change under the
    cache."""
    return np.array([split.source.stamp(index) for index in range(len(split))], np.int64).reshape(
        -1, 2
    )


def names_digest(split: Split) -> str:
    """sha256 over names and labels, in order."""
    return hashlib.sha256(json.dumps([split.ids, split.labels]).encode()).hexdigest()
