"""Decode once: a split's images as uint8 RGB in one memory-mapped file, ready to be cropped.

A store is a folder: `images.bin` (the images, one after the other), `index.npz` (offset, shape,
label and checksum of each image, stamp of each image file) and `meta.json`. It is built in
`STORE.part` and renamed when it is complete. A build that was killed starts again; finished splits
stay.
"""

import io
import json
import os
import shutil
import sys
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.decode import UnreadableImage, resize, resized_shape
from data.processes import cores
from data.sizes import estimate, store_folder
from data.splits import Split
from utils.files import one_writer, recall, require_free, sync_files, sync_folder
from utils.text import first_few, printable, readable_bytes

VERSION = 3
"""Version of the store's format and of decoding. A store of another version is built again."""
BLOCK = 512
"""Images that are decoded before they are written, and checked together."""


class ImageStore:
    """N decoded images of varied shape, read from a memory map; safe to hand to worker processes.

    `ids` are their names, `labels` an int64 tensor (N,), `shapes` an int64 tensor (N, 2) of
    (height, width), `contents` their `Source.content`, `skipped` the names of those that cannot be
    read.
    """

    def __init__(self, folder: Path | str) -> None:
        """Open a finished store.

        Raises:
            OSError: it is not complete or is damaged.
        """
        self.folder = Path(folder)
        try:
            meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_bytes())
            if meta["version"] != VERSION:
                raise ValueError("it was written by another version of this program")
            self.ids = tuple(meta["ids"])
            self.skipped = tuple(meta["skipped"])
            content = (self.folder / "index.npz").read_bytes()
            with np.load(io.BytesIO(content)) as index:  # never unpickles
                self.labels = torch.from_numpy(index["labels"])
                self.shapes = torch.from_numpy(index["shapes"])
                self.stamps: np.ndarray = index["stamps"]
                contents: list[int] = index["contents"].tolist()
                self.contents = [None if content < 0 else content for content in contents]
                self._checksums: list[int] = index["checksums"].tolist()
                self._offsets: list[int] = index["offsets"].tolist()
            self._shapes: list[list[int]] = self.shapes.tolist()
            # Copy-on-write: torch wants memory that it could write to. The file never changes.
            pixels = np.memmap(self.folder / "images.bin", np.uint8, "c")
            if len(pixels) != self._offsets[-1]:
                raise ValueError(f"images.bin has {len(pixels):,} bytes")
            self._pixels = torch.from_numpy(pixels)
        except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
            raise OSError(
                f"the image cache {self.folder} is damaged or of another version ({error}); "
                "delete it to build it again"
            ) from error

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index` as uint8 (H, W, 3), a view of the memory map; not to be changed."""
        height, width = self._shapes[index]
        return self._pixels[self._offsets[index] :][: height * width * 3].view(height, width, 3)

    def __reduce__(self) -> tuple[type["ImageStore"], tuple[Path]]:
        """A worker process maps the same file instead of copying it."""
        return ImageStore, (self.folder,)

    @property
    def nbytes(self) -> int:
        """Bytes of all images together."""
        return self._offsets[-1]

    def copies(self, of: "ImageStore") -> list[str]:
        """The names of images whose files are, byte for byte, those of images of another store."""

        def files(store: ImageStore) -> list[tuple[int | None, int]]:
            return list(zip(store.contents, store._checksums, strict=True))

        known = set(files(of))
        return [
            name
            for name, file in zip(self.ids, files(self), strict=True)
            if file in known and file[0] is not None
        ]

    def verify(self, threads: int = 1) -> None:
        """Compare every image with its checksum, 1 GB/s a thread or more.

        Raises:
            OSError: some pixels changed since the store was built; the message says where.
        """

        def damaged(first: int) -> list[int]:
            indices = range(first, min(first + BLOCK, len(self)))
            return [i for i in indices if zlib.crc32(self[i].numpy().data) != self._checksums[i]]

        with ThreadPoolExecutor(threads) as pool:  # crc32 releases the interpreter's lock
            found = [i for part in pool.map(damaged, range(0, len(self), BLOCK)) for i in part]
        if found:
            raise OSError(
                f"the image cache {self.folder} is damaged at {self.ids[found[0]]} "
                f"({len(found):,} images); delete it to build it again"
            )


def open_store(
    split: Split,
    folder: Path | str,
    short_side: int,
    *,
    workers: int | None = None,
    skip_unreadable: bool = False,
) -> ImageStore:
    """The split's decoded images, shorter side at most `short_side` pixels; built under `folder`
    when missing.

    Images are resized by antialiased bicubic interpolation with their aspect ratio kept, and never
    enlarged. Of two processes, one builds and the other waits. Every image is compared with its
    checksum each time.

    Args:
        folder: holds one store for each split and size.
        workers: threads that decode and check; all cores by default.
        skip_unreadable: leave out images that cannot be read, instead of refusing to build.

    Raises:
        ValueError: images cannot be read, or changed since the store was built.
        OSError: not enough free disk, a failing disk, or a damaged store.
    """
    target, threads = store_folder(folder, split, short_side), workers or cores()
    stamps = source_stamps(split)
    if not target.exists() or _is_outdated(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with one_writer(target):
                if _is_outdated(target):
                    shutil.rmtree(target)
                if not target.exists():
                    _build(split, stamps, target, short_side, threads, skip_unreadable)
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(
                f"the image cache {target} could not be written ({error.strerror}); free some "
                "space or name another folder (--cache-dir), then give the same command again"
            ) from error
    store = ImageStore(target)
    _refuse_changed(store, split, stamps, skip_unreadable)
    store.verify(threads)
    return store


def _is_outdated(store: Path) -> bool:
    """True if another version of this program built the store; False where it is damaged."""
    return bool(recall(store / "meta.json").get("version", VERSION) != VERSION)


def _refuse_changed(
    store: ImageStore, split: Split, stamps: np.ndarray, skip_unreadable: bool
) -> None:
    remedy = f"delete {store.folder} to build it again"
    skipped = set(store.skipped)
    left = [(name, label) for name, label in zip(split.ids, split.labels) if name not in skipped]
    if left != list(zip(store.ids, store.labels.tolist())):
        raise ValueError(
            f"images came, went or changed their class since {split.name} was cached; {remedy}"
        )
    changed = np.flatnonzero((store.stamps != stamps).any(axis=1))
    if len(changed):
        names = first_few(split.ids[index] for index in changed)
        raise ValueError(
            f"{len(changed):,} images changed since {split.name} was cached ({names}); {remedy}"
        )
    if store.skipped and not skip_unreadable:
        raise ValueError(
            f"the cache of {split.name} was built without {len(store.skipped):,} unreadable images "
            f"({first_few(store.skipped)}); give --skip-unreadable, or repair them and {remedy}"
        )


def source_stamps(split: Split) -> np.ndarray:
    """int64 (N, 2): bytes and modification time of every image's file, to notice a change."""
    stamps = [split.source.stamp(index) for index in range(len(split))]
    return np.array(stamps, np.int64).reshape(-1, 2)


def _build(
    split: Split,
    stamps: np.ndarray,
    target: Path,
    short_side: int,
    threads: int,
    skip_unreadable: bool,
) -> None:
    """Decode in threads: Pillow releases the interpreter's lock while it decodes and resizes."""
    expected = estimate(split, short_side)[0]
    require_free(target.parent, expected, f"the image cache of {split.name}")
    print(
        f"Decoding {len(split):,} images of {split.name} once, to {readable_bytes(expected)} in "
        f"{target}",
        file=sys.stderr,
        flush=True,
    )
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        bad = _decode(split, stamps, part, short_side, threads)
        if bad and (not skip_unreadable or len(bad) == len(split)):
            named = [f"{split.ids[index]}: {reason}" for index, reason in bad.items()]
            raise ValueError(
                f"{len(bad):,} of {len(split):,} images of {split.name} cannot be read "
                f"({first_few(named, 10)}): repair or remove them, or allow the build to skip them "
                "(--skip-unreadable)"
            )
        sync_files(part)
        os.replace(part, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _decode(
    split: Split, stamps: np.ndarray, part: Path, short_side: int, threads: int
) -> dict[int, str]:
    """Write the store's files into `part`. Returns the reasons why images cannot be read."""

    def decode(index: int) -> tuple[np.ndarray | str, int]:
        try:
            image = split.read(index)
        except UnreadableImage as error:
            return printable(error), -1
        content = split.source.content(index)
        shape = resized_shape(image.shape[0], image.shape[1], short_side)
        return resize(image, shape), -1 if content is None else content

    bad: dict[int, str] = {}
    good, shapes, checksums, offsets = list[int](), list[tuple[int, ...]](), list[int](), [0]
    contents = list[int]()
    with (
        ThreadPoolExecutor(threads) as pool,
        open(part / "images.bin", "wb") as file,
        tqdm(total=len(split), unit="image", desc="Decoding", disable=None, leave=False) as bar,
    ):
        for first in range(0, len(split), BLOCK):
            block = range(first, min(first + BLOCK, len(split)))
            for index, (image, content) in zip(block, pool.map(decode, block)):
                if isinstance(image, str):
                    bad[index] = image
                    continue
                file.write(image.data)
                good.append(index)
                contents.append(content)
                shapes.append(image.shape[:2])
                checksums.append(zlib.crc32(image.data))
                offsets.append(offsets[-1] + image.nbytes)
            bar.update(len(block))
    np.savez(
        part / "index.npz",
        labels=np.array(split.labels, np.int64)[good],
        shapes=np.array(shapes, np.int64).reshape(-1, 2),
        contents=np.array(contents, np.int64),
        checksums=np.array(checksums, np.int64),
        offsets=np.array(offsets, np.int64),
        stamps=stamps,
    )
    meta = {
        "version": VERSION,
        "ids": [split.ids[index] for index in good],
        "skipped": [split.ids[index] for index in bad],
    }
    (part / "meta.json").write_text(json.dumps(meta))
    return bad
