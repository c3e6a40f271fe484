"""Folders and files that survive a crash: beside, flushed, renamed; one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def require_folder(folder: Path, what: str, *, may_be_missing: bool = False) -> None:
    """Raise ValueError unless `folder` is an existing folder (or a missing one that could be made, if allowed)."""
    if os.path.isdir(folder):
        return
    if os.path.lexists(folder):
        raise ValueError(f"{what} {folder} is not a folder; name a folder")
    if not may_be_missing:
        raise ValueError(f"{what} {folder} does not exist; create it first (mkdir -p) or name another")
    existing = next((parent for parent in folder.absolute().parents if os.path.lexists(parent)), folder)
    require_folder(existing, what)
    require_writable(existing, what)


def require_writable(folder: Path, what: str = "the folder") -> None:
    """Raise ValueError unless files can be made in `folder`. Leaves nothing behind (asks by an unnamed file)."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{what} {folder} cannot be written to ({error.strerror}); name one that can") from error


def require_free(folder: Path, needed: int, what: str) -> None:
    """Raise OSError unless the disk of `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{what} needs {readable_bytes(needed)} and the disk of {folder} has {readable_bytes(free)} free; "
            "free some space or name a folder on another disk"
        )


def readable_bytes(count: int) -> str:
    """`count` bytes for a reader: '812 bytes', '3.2 MB', '19.8 GB' (decimal units)."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, flush it to disk, rename. A reader sees the old file or the new one, whole."""
    beside = path.with_name(path.name + ".part")
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries (names just made or renamed) to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[int]:
    """Hold the lock on making `folder`; a second process waits here. A dead process's lock is gone with it.

    Yields the lock's file descriptor: a helper process that inherits it holds the lock too.
    """
    with open(folder.with_name(f".{folder.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
