"""The build of an image cache: plan every image's place, then decode chunk by chunk, in threads
(Pillow lets go of the interpreter's lock while it decodes and resizes).

All is written into `STORE.part`. Each finished chunk is flushed to disk and then noted in
`done.jsonl`, so that a build that was killed goes on with the next chunk; the folder is renamed
when it is complete.
"""

import contextlib
import io
import itertools
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.decode import UnreadableImage, resize, resized_shape
from data.splits import Split
from data.store import VERSION, names_digest
from utils.files import require_free, sync_folder, write_atomically
from utils.text import printable, readable_bytes

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

CHUNK_BYTES = 16_000_000
LISTED = 10
"""Unreadable images that an error names; the rest are in `unreadable.txt`."""


@dataclass(frozen=True)
class Places:
    """Where every image goes: `shapes` (N, 2) after resizing, `offsets` (N + 1,) in bytes.
    Unreadable: 0 x 0."""

    shapes: np.ndarray
    offsets: np.ndarray
    chunks: tuple[tuple[int, int], ...]  # image numbers, from and to
    bad: dict[int, str]  # image number: why its header cannot be read


@dataclass(frozen=True)
class Chunk:
    """A written chunk: the checksum of its bytes, and the images in it whose content could not be
    read."""

    number: int
    crc: int
    bad: dict[int, str]


def build(
    split: Split,
    stamps: np.ndarray,
    target: Path,
    short_side: int,
    workers: int,
    skip_unreadable: bool,
    announce: Callable[[str], None],
    progress: Progress | None,
) -> None:
    """Write the store `target` of `split`; see `data.cache.open_store`, which also holds the
    lock."""
    part = target.with_name(target.name + ".part")
    with ThreadPoolExecutor(workers) as pool:
        try:
            places = _plan(split, short_side, pool)
            key = {
                "version": VERSION,
                "names": names_digest(split),
                "stamps": zlib.crc32(stamps.tobytes()),
            }
            done = _take_up(part, key, places)
            total = int(places.offsets[-1])
            written = sum(
                int(places.offsets[places.chunks[n][1]] - places.offsets[places.chunks[n][0]])
                for n in done
            )
            require_free(target.parent, total - written, f"the image cache of {split.name}")
            announce(
                f"Decoding {len(split):,} images of {split.name} once, to {readable_bytes(total)} "
                f"in {target}"
                + (f" ({readable_bytes(written)} are there already)" if written else "")
            )
            for chunk in _decode(split, places, part, done, pool, progress):
                done[chunk.number] = chunk
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        bad = dict(places.bad)
        for chunk in done.values():
            bad |= chunk.bad
        if bad and (not skip_unreadable or len(bad) == len(split)):
            _refuse(split, bad, target.parent)
        _finish(
            split,
            stamps,
            places,
            [done[n].crc for n in range(len(places.chunks))],
            bad,
            part,
            target,
        )


def _plan(split: Split, short_side: int, pool: ThreadPoolExecutor) -> Places:
    bad: dict[int, str] = {}

    def shape(index: int) -> tuple[int, int]:
        try:
            return resized_shape(*split.source.size(index), short_side)
        except UnreadableImage as error:
            bad[index] = str(error)
            return 0, 0

    batches = [range(start, min(start + 256, len(split))) for start in range(0, len(split), 256)]
    rows = [
        row
        for batch in pool.map(lambda batch: [shape(index) for index in batch], batches)
        for row in batch
    ]
    shapes = np.array(rows, np.int64).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1) * 3)])
    edges = [*np.searchsorted(offsets, np.arange(0, offsets[-1], CHUNK_BYTES)).tolist(), len(split)]
    chunks = tuple((a, b) for a, b in itertools.pairwise(edges) if a < b)
    return Places(shapes, offsets, chunks, bad)


def _take_up(part: Path, key: dict[str, Any], places: Places) -> dict[int, Chunk]:
    """The chunks that an earlier, interrupted build of the very same images has finished; else a
    clean start.

    Chunks with unreadable images are not among them: what was wrong may have been put right since.
    """
    key = key | {"shapes": zlib.crc32(places.shapes.tobytes()), "chunk_bytes": CHUNK_BYTES}
    done: dict[int, Chunk] = {}
    try:
        if json.loads((part / "key.json").read_bytes()) != key:
            raise ValueError("of other images")
        with open(part / "images.bin", "rb") as images:
            for line in (part / "done.jsonl").read_text().splitlines():
                with contextlib.suppress(
                    ValueError, KeyError, TypeError
                ):  # a line cut short by a crash
                    row = json.loads(line)
                    chunk = Chunk(row["number"], row["crc"], {})
                    first, last = places.chunks[chunk.number]
                    images.seek(places.offsets[first])
                    if (
                        zlib.crc32(images.read(places.offsets[last] - places.offsets[first]))
                        == chunk.crc
                    ):
                        done[chunk.number] = chunk
    except (OSError, ValueError, IndexError):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        (part / "images.bin").touch()
        (part / "done.jsonl").touch()
        write_atomically(part / "key.json", json.dumps(key).encode())
        return {}
    return done


def _decode(
    split: Split,
    places: Places,
    part: Path,
    done: dict[int, Chunk],
    pool: ThreadPoolExecutor,
    progress: Progress | None,
) -> Iterator[Chunk]:
    """Decode the chunks that are not yet done, in any order; each is on disk and noted before it is
    yielded."""
    finished = sum(places.chunks[number][1] - places.chunks[number][0] for number in done)
    with (
        _bar(progress, len(split)) as show,
        open(part / "images.bin", "r+b") as file,
        open(part / "done.jsonl", "a") as log,
    ):
        show(finished, len(split))
        futures: list[Future[Chunk]] = [
            pool.submit(_decode_chunk, split, places, number, file.fileno())
            for number in range(len(places.chunks))
            if number not in done
        ]
        try:
            for future in as_completed(futures):
                chunk = future.result()
                if not chunk.bad:
                    log.write("\n" + json.dumps({"number": chunk.number, "crc": chunk.crc}))
                    log.flush()
                finished += places.chunks[chunk.number][1] - places.chunks[chunk.number][0]
                show(finished, len(split))
                yield chunk
        finally:  # nobody writes to the descriptor of a file that is closed, which by then may be another file's
            for future in futures:
                future.cancel()
            wait(futures)
        os.ftruncate(
            file.fileno(), int(places.offsets[-1])
        )  # exact size even if it ends with an unreadable image


def _decode_chunk(split: Split, places: Places, number: int, descriptor: int) -> Chunk:
    first, last = places.chunks[number]
    start = int(places.offsets[first])
    pixels = np.zeros(int(places.offsets[last]) - start, np.uint8)
    bad: dict[int, str] = {}
    for index in range(first, last):
        if not places.shapes[index].any():
            continue
        try:
            image = resize(
                split.read(index), (int(places.shapes[index, 0]), int(places.shapes[index, 1]))
            )
        except UnreadableImage as error:
            bad[index] = str(error)
            continue
        pixels[int(places.offsets[index]) - start : int(places.offsets[index + 1]) - start] = (
            image.reshape(-1)
        )
    view = pixels.data
    while view:  # a write may be a part of what was asked
        view = view[os.pwrite(descriptor, view, start + len(pixels) - len(view)) :]
    os.fsync(descriptor)
    return Chunk(number, zlib.crc32(pixels.data), bad)


def _finish(
    split: Split,
    stamps: np.ndarray,
    places: Places,
    crcs: list[int],
    bad: dict[int, str],
    part: Path,
    target: Path,
) -> None:
    good = np.array([index for index in range(len(split)) if index not in bad], np.int64)
    index_file = io.BytesIO()
    np.savez(
        index_file,
        offsets=places.offsets[good],
        shapes=places.shapes[good],
        labels=np.array(split.labels, np.int64)[good],
        stamps=stamps,
    )
    ids = json.dumps([split.ids[index] for index in good]).encode()
    meta = {
        "version": VERSION,
        "split": split.name,
        "names": names_digest(split),
        "bytes": int(places.offsets[-1]),
        "skipped": [split.ids[index] for index in sorted(bad)],
        "chunks": [  # first byte, end, checksum
            [int(places.offsets[first]), int(places.offsets[last]), crc]
            for (first, last), crc in zip(places.chunks, crcs, strict=True)
        ],
        "index_crc": zlib.crc32(index_file.getvalue()),
        "ids_crc": zlib.crc32(ids),
    }
    write_atomically(part / "index.npz", index_file.getvalue())
    write_atomically(part / "ids.json", ids)
    write_atomically(part / "meta.json", json.dumps(meta).encode())
    os.replace(part, target)
    sync_folder(target.parent)
    forget_notes(target)  # not before: without them a build that is killed here begins anew


def forget_notes(store: Path) -> None:
    """Remove what a build noted in case it is killed from the folder of a finished store."""
    for note in ("key.json", "done.jsonl"):
        with contextlib.suppress(OSError):  # there are none, or they may stay: nobody reads them
            (store / note).unlink()


def _refuse(split: Split, bad: dict[int, str], folder: Path) -> None:
    named = [
        f"{printable(split.ids[index])}: {printable(why)}" for index, why in sorted(bad.items())
    ]
    listed = "; ".join(named[:LISTED])
    if len(named) > LISTED:
        listing = folder / f"{split.name}-unreadable.txt"
        write_atomically(listing, ("\n".join(named) + "\n").encode())
        listed += f"; and {len(named) - LISTED:,} more, listed in {listing}"
    raise ValueError(
        f"{len(bad):,} of {len(split):,} images of {split.name} cannot be read ({listed}): repair "
        "or remove them, or "
        "allow the build to skip them (--skip-unreadable)"
    )


@contextlib.contextmanager
def one_sentence(target: Path) -> Iterator[None]:
    """A failure of the disk in one sentence."""
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # already a sentence
            raise
        raise OSError(
            f"the image cache {target} could not be written ({error.strerror}); what is done is "
            "kept and the next "
            "build goes on from there"
        ) from error


@contextlib.contextmanager
def _bar(progress: Progress | None, total: int) -> Iterator[Progress]:
    """The caller's progress, else a bar on a terminal."""
    if progress is not None:
        yield progress
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="image", desc="Decoding", disable=None, leave=False) as bar:
        yield lambda done, _: bar.update(done - bar.n) and None
