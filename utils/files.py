"""Folders and files that survive a crash: beside, flushed, renamed; one writer at a time."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from io import BufferedWriter
from pathlib import Path
from typing import Any

from utils import locks
from utils.locks import Lock
from utils.text import readable_bytes

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".ppm",
    ".bmp",
    ".pgm",
    ".tif",
    ".tiff",
    ".webp",
    ".gif",
    ".avif",
)
"""What counts as an image in a folder: torchvision's `IMG_EXTENSIONS`, GIF and AVIF."""


def images_below(folder: Path) -> list[str]:
    """The images at any depth, relative to `folder`, in order of name; nothing that is hidden.

    A Mac leaves ._NAME.jpg beside NAME.jpg on foreign disks.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = (
            name
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        )
        found += [os.path.relpath(os.path.join(place, name), folder) for name in names]
    return sorted(found)


def require_folder(
    folder: Path, what: str, *, may_be_missing: bool = False, writable: bool = False
) -> None:
    """Raise ValueError unless `folder` is an existing folder (or a missing one that could be made,
    if allowed)."""
    if os.path.isdir(folder):
        if writable:
            require_writable(folder, what)
        return
    if os.path.lexists(folder):
        raise ValueError(f"{what} {folder} is not a folder; name a folder")
    if not may_be_missing:
        raise ValueError(
            f"{what} {folder} does not exist; create it first (mkdir -p) or name another"
        )
    existing = next(
        (parent for parent in folder.absolute().parents if os.path.lexists(parent)), folder
    )
    require_folder(existing, what)
    require_writable(existing, what)


def require_writable(folder: Path, what: str = "the folder") -> None:
    """Raise ValueError unless files can be made in `folder`. Leaves nothing behind (asks by an
    unnamed file)."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{what} {folder} cannot be written to ({error.strerror}); name one that can"
        ) from error


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises OSError where there is none: a pipe or a device might never
    end."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is no file")
    try:
        return path.read_bytes()
    except OSError as error:  # of a read that fails Python does not say which file it was
        raise OSError(error.errno, error.strerror, str(path)) from error


def require_free(folder: Path, needed: int, what: str) -> None:
    """Raise OSError unless the disk of `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{what} needs {readable_bytes(needed)} and the disk of {folder} has "
            f"{readable_bytes(free)} free; "
            "free some space or name a folder on another disk"
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, flush it to disk, rename. A reader sees the old file or the
    new one, whole.

    Of two processes that write the same file, one waits for the other. What could not be written
    whole is removed.

    Raises:
        OSError: the disk is full, gone or may not be written to; names `path`.
    """
    beside = path.with_name(path.name + ".part")
    try:
        with _open_alone(beside) as file:
            try:
                file.truncate()  # what a process that died left
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.replace(beside, path)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
        sync_folder(path.parent)
    except OSError as error:  # a failed write does not say of which file
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an indented JSON object atomically. Raises OSError as `write_atomically`."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def recall(path: Path) -> dict[str, Any]:
    """Read the JSON object of a cache file; empty where the file is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(read_bytes(path))
        if isinstance(content, dict):
            return content
    return {}


def _open_alone(path: Path) -> BufferedWriter:
    """`path` opened for writing, at a time when no other process writes it."""
    while True:
        file = open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb")  # noqa: SIM115
        try:
            with where_supported():
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            file.close()
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # the process before has renamed it away


@contextlib.contextmanager
def where_supported() -> Iterator[None]:
    """Go on without what is asked for here if the file system has no such thing, as some have that
    a network brings."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries (names just made or renamed) to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with where_supported():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(folder: Path) -> None:
    """Flush the files in `folder`, and its entries, to disk; not those of folders in it."""
    for path in folder.iterdir():
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    sync_folder(folder)


def one_writer(path: Path) -> Lock:
    """The lease on making `path`, a file or a folder; a second process waits here. A dead process
    is no obstacle."""
    return locks.wait_for(_lock(path))


def forget_dead_writer(path: Path) -> None:
    """Remove the lease of a process that made `path` and was killed before it gave the lease
    back."""
    if _lock(path).exists():
        with contextlib.suppress(
            locks.Busy, OSError
        ):  # it is alive, or the lease may stay: nobody waits for it
            Lock(_lock(path)).release()


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")
