"""Decode once: a split's store of decoded images, built where there is none and refused where it is
not its own."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.cache_build import Progress, build, forget_notes, one_sentence
from data.processes import cores
from data.splits import Split
from data.store import VERSION, ImageStore, names_digest, source_stamps, store_folder
from utils.files import forget_dead_writer, one_writer
from utils.text import first_few


def open_store(
    split: Split,
    folder: Path | str,
    short_side: int,
    *,
    workers: int | None = None,
    skip_unreadable: bool = False,
    announce: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> ImageStore:
    """The split's decoded images, shorter side at most `short_side` pixels; built under `folder`
    when missing.

    Images are resized by antialiased bicubic interpolation with their aspect ratio kept, and never
    enlarged. An interrupted build is taken up where it stopped. Of two processes, one builds and
    the other waits. Every byte is checked against its checksum each time: a damaged cache is found
    before training.

    Args:
        folder: holds one store for each split and size.
        workers: threads that decode and check; all cores by default.
        skip_unreadable: leave out images that cannot be read, instead of refusing to build.
        announce: told in one sentence what is going to be written, before it is; stderr by default.
        progress: called as the build goes on; by default a bar on a terminal.

    Raises:
        ValueError: images cannot be read (all of them are named and counted), or the images were
            changed since the store was built.
        OSError: not enough free disk, a failing disk, or a damaged store.
    """
    if short_side < 1:
        raise ValueError(
            f"images with a shorter side of {short_side} pixels are impossible; use at least 1"
        )
    target = store_folder(folder, split, short_side)
    stamps, threads = source_stamps(split), workers or cores()
    if not target.exists():
        say = announce or (lambda sentence: print(sentence, file=sys.stderr, flush=True))
        with one_sentence(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with one_writer(target):
                if not target.exists():
                    build(
                        split, stamps, target, short_side, threads, skip_unreadable, say, progress
                    )
    forget_notes(target)  # of a build that was killed between its last steps
    forget_dead_writer(target)
    store = ImageStore(target)
    _refuse_changed(store, split, stamps, skip_unreadable)
    store.verify(threads)
    return store


def _refuse_changed(
    store: ImageStore, split: Split, stamps: np.ndarray, skip_unreadable: bool
) -> None:
    remedy = f"delete {store.folder} to build it again"
    if store.meta.get("version") != VERSION:
        raise ValueError(
            f"the image cache {store.folder} was made by another version of this program; {remedy}"
        )
    if store.meta["names"] != names_digest(split):
        raise ValueError(
            f"images came, went or changed their class since {split.name} was cached; {remedy}"
        )
    changed = (store.stamps != stamps).any(axis=1)
    if changed.any():
        names = first_few(split.ids[index] for index in np.flatnonzero(changed))
        raise ValueError(
            f"{changed.sum():,} images changed since {split.name} was cached ({names}); {remedy}"
        )
    if len(store) < len(split) and not skip_unreadable:
        raise ValueError(
            f"the cache of {split.name} was built without {len(split) - len(store):,} unreadable "
            "images "
            f"({first_few(store.skipped)}); allow it to skip them, or repair them and {remedy}"
        )
