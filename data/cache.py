"""Decode once: a split's pictures as uint8 RGB in one memory-mapped file, ready to be cropped.

A store is a folder: `pictures.bin` (the pictures, one after the other), `index.npz` (place, shape, label and file
stamp of each), `ids.json`, and `meta.json`, written last, with checksums of it all.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.files import one_writer, read_bytes, readable_bytes
from data.splits import Split, first_few

VERSION = 1
"""Of the store's format and of how pictures are decoded and resized; another version is built anew."""

Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""


class PictureStore:
    """N decoded pictures of varied shape, read from a memory map; safe to hand to worker processes.

    `ids` are their names, `labels` an int64 tensor (N,), `shapes` an int64 tensor (N, 2) of (height, width).
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
            size = (self.folder / "pictures.bin").stat().st_size
            if (zlib.crc32(index_bytes), zlib.crc32(ids_bytes)) != (self.meta["index_crc"], self.meta["ids_crc"]):
                raise ValueError("its index fails its checksum")
            if size != self.meta["bytes"]:
                raise ValueError(f"pictures.bin has {size:,} bytes instead of {self.meta['bytes']:,}")
            self._chunks: list[tuple[int, int, int]] = [(int(a), int(b), int(crc)) for a, b, crc in self.meta["chunks"]]
            if [0, *(stop for _, stop, _ in self._chunks)] != [*(start for start, _, _ in self._chunks), size]:
                raise ValueError("its checksums are not of all its bytes")
            self.ids: tuple[str, ...] = tuple(json.loads(ids_bytes))
            with np.load(self.folder / "index.npz") as index:  # never unpickles
                self.labels = torch.from_numpy(index["labels"])
                self.shapes = torch.from_numpy(index["shapes"])
                self.stamps: np.ndarray = index["stamps"]
                self._offsets: list[int] = index["offsets"].tolist()
            self._shapes: list[list[int]] = self.shapes.tolist()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            damaged = f"the picture cache {self.folder} is damaged ({error}); delete it to build it again"
            raise OSError(damaged) from error
        # Mapped copy-on-write: torch wants memory that it could write to, the file itself never changes.
        try:
            self._pixels = torch.from_numpy(np.memmap(self.folder / "pictures.bin", np.uint8, "c"))
        except OSError as error:
            raise OSError(
                f"the picture cache {self.folder} of {readable_bytes(size)} cannot be mapped into memory "
                f"({error.strerror}); raise the limit on address space (ulimit -v), or choose a lower --resolution"
            ) from error

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Tensor:
        """Picture `index` as uint8 (H, W, 3), a view of the memory map; not to be changed."""
        height, width = self._shapes[index]
        return self._pixels[self._offsets[index] :][: height * width * 3].view(height, width, 3)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def __reduce__(self) -> tuple[type[PictureStore], tuple[Path]]:
        return PictureStore, (self.folder,)  # a worker process maps the same file instead of copying it

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures together."""
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
                for (start, _, _), bad in zip(self._chunks, pool.map(is_damaged, self._chunks), strict=True)
                if bad
            ]
        if damaged:
            last = len(self) - 1
            picture = next((i for i, offset in enumerate(self._offsets) if damaged[0] <= offset), last)
            raise OSError(
                f"the picture cache {self.folder} is damaged at {self.ids[picture]} or soon after; delete it to build "
                "it again"
            )


def open_store(
    split: Split,
    folder: Path | str,
    short_side: int,
    *,
    workers: int | None = None,
    skip_unreadable: bool = False,
    announce: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> PictureStore:
    """The split's decoded pictures, shorter side at most `short_side` pixels; built under `folder` when missing.

    Pictures are resized by antialiased bicubic interpolation with their aspect ratio kept, and never enlarged. An
    interrupted build is taken up where it stopped. Of two processes, one builds and the other waits. Every byte is
    checked against its checksum each time: a damaged cache is found before training.

    Args:
        folder: holds one store for each split and size.
        workers: threads that decode and check; all cores by default.
        skip_unreadable: leave out pictures that cannot be read, instead of refusing to build.
        announce: told in one sentence what is going to be written, before it is; stderr by default.
        progress: called as the build goes on; by default a bar on a terminal.

    Raises:
        ValueError: pictures cannot be read (all of them are named and counted), or the pictures were changed since
            the store was built.
        OSError: not enough free disk, a failing disk, or a damaged store.
    """
    from data.cache_build import build, forget_notes, one_sentence

    if short_side < 1:
        raise ValueError(f"pictures with a shorter side of {short_side} pixels are impossible; use at least 1")
    target = store_folder(folder, split, short_side)
    stamps, threads = source_stamps(split), workers or os.cpu_count() or 1
    if not target.exists():
        say = announce or (lambda sentence: print(sentence, file=sys.stderr, flush=True))
        with one_sentence(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with one_writer(target):
                if not target.exists():
                    build(split, stamps, target, short_side, threads, skip_unreadable, say, progress)
    forget_notes(target)  # of a build that was killed between its last two steps
    store = PictureStore(target)
    _refuse_changed(store, split, stamps, skip_unreadable)
    store.verify(threads)
    return store


def store_folder(folder: Path | str, split: Split, short_side: int) -> Path:
    """Where `open_store` keeps the split's store of that size."""
    return Path(folder) / f"{split.name}-{short_side}"


def source_stamps(split: Split) -> np.ndarray:
    """int64 (N, 2): bytes and modification time of every picture's file, to notice a change under the cache."""
    return np.array([split.source.stamp(index) for index in range(len(split))], np.int64).reshape(-1, 2)


def names_digest(split: Split) -> str:
    """sha256 over names and labels, in order."""
    return hashlib.sha256(json.dumps([split.ids, split.labels]).encode()).hexdigest()


def _refuse_changed(store: PictureStore, split: Split, stamps: np.ndarray, skip_unreadable: bool) -> None:
    remedy = f"delete {store.folder} to build it again"
    if store.meta.get("version") != VERSION:
        raise ValueError(f"the picture cache {store.folder} was made by another version of this program; {remedy}")
    if store.meta["names"] != names_digest(split):
        raise ValueError(f"pictures came, went or changed their class since {split.name} was cached; {remedy}")
    changed = (store.stamps != stamps).any(axis=1)
    if changed.any():
        names = first_few(split.ids[index] for index in np.flatnonzero(changed))
        raise ValueError(f"{changed.sum():,} pictures changed since {split.name} was cached ({names}); {remedy}")
    if len(store) < len(split) and not skip_unreadable:
        raise ValueError(
            f"the cache of {split.name} was built without {len(split) - len(store):,} unreadable pictures "
            f"({first_few(store.meta['skipped'])}); allow it to skip them, or repair them and {remedy}"
        )
