"""Files that survive a crash: written aside, flushed, renamed; one writer at a time."""

import contextlib
import errno
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path
from typing import Any

from utils import locks
from utils.locks import Lock
from utils.text import readable_bytes

fcntl = importlib.import_module("fcntl") if os.name == "posix" else None  # Windows has none


def require_folder(
    folder: Path, what: str, *, may_be_missing: bool = False, writable: bool = False
) -> None:
    """Raise ValueError unless `folder` is a folder or, if allowed, could be created."""
    if may_be_missing and not os.path.lexists(folder):
        existing = next(parent for parent in folder.absolute().parents if os.path.lexists(parent))
        require_folder(existing, what, writable=True)
        return
    if not os.path.isdir(folder):
        reason = "is not a folder" if os.path.lexists(folder) else "does not exist"
        raise ValueError(f"{what} {folder} {reason}; create it first (mkdir -p) or name another")
    if writable:
        require_writable(folder, what)


def require_writable(folder: Path, what: str = "the folder") -> None:
    """Raise ValueError unless files can be created in `folder`. Leaves nothing behind."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{what} {folder} cannot be written to ({error.strerror}); name one that can"
        ) from error


def require_free(folder: Path, needed: int, what: str) -> None:
    """Raise OSError unless the disk of `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{what} needs {readable_bytes(needed)} and the disk of {folder} has "
            f"{readable_bytes(free)} free; free some space or name a folder on another disk"
        )


def read_bytes(path: Path) -> bytes:
    """Read a regular file. Raises OSError, with the file's name, for anything else: a pipe or a
    device might never end."""
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    try:
        return path.read_bytes()
    except OSError as error:  # a failed read does not name its file
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`.part, flush it to disk, rename it. A reader sees the old file or
    the new one, whole.

    Of two processes that write the same file, one waits for the other.

    Raises:
        OSError: the disk is full, gone or may not be written to; names `path`.
    """
    part = path.with_name(path.name + ".part")
    try:
        with _open_alone(part) as file:
            try:
                file.truncate()  # left by a process that died
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                if fcntl is None:  # Windows renames no open file
                    file.close()
                os.replace(part, path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        sync_folder(path.parent)
    except OSError as error:  # a failed write does not name its file
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
    """Open `path` for writing while no other process writes it."""
    while True:
        file = open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb")  # noqa: SIM115
        if fcntl is None:
            return file
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # the process before has renamed it away


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries (names that were created or renamed) to disk."""
    if os.name == "nt":  # Windows opens no folders
        return
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some network file systems cannot
            raise


def sync_files(folder: Path) -> None:
    """Flush the files in `folder`, and its entries, to disk; not those of folders in it."""
    for path in folder.iterdir():
        if path.is_file():
            _sync(path)
    sync_folder(folder)


def sync_tree(folder: Path) -> None:
    """Flush all that is below `folder` to disk."""
    if hasattr(os, "sync"):  # once for all, where there is that
        os.sync()
        return
    for place, _, _ in os.walk(folder):
        sync_files(Path(place))


def _sync(path: Path) -> None:
    # Windows flushes only what is open for writing, and opens no folder.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def one_writer(path: Path) -> Lock:
    """Take the lock on writing `path`, a file or a folder. A second process waits here; a dead one
    is no obstacle."""
    return locks.wait_for(path.with_name(f".{path.name}.lock"))
