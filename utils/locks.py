"""Lock files with a heartbeat: who works on a file or folder, and the takeover of the dead.

Needs only that a disk creates a file for one process alone (O_EXCL) and renames at once, which
network disks without locks of their own do too. Clocks of two machines are never compared: a lock
has expired when its holder is known to be dead, or when its content has not changed for `TIMEOUT`
seconds by the reader's own clock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

HEARTBEAT = 5.0
"""Seconds between two heartbeats."""
TIMEOUT = 120.0
"""Seconds without a heartbeat after which a holder counts as dead, on any machine."""
EMPTY_TIMEOUT = 10.0
"""The same for an empty lock file, into which its holder writes within milliseconds."""
_LENGTH = 2000
"""Bytes of a lock file. It is written in place, so shorter texts are padded."""


class Busy(ValueError):
    """Another process holds the lock. The message names it."""


class Lost(Exception):
    """Another process has taken this process's lock over. The message names it."""


@dataclass(frozen=True)
class LockRecord:
    """The content of a lock file, as any process reads it."""

    content: bytes

    @property
    def entries(self) -> dict[str, Any]:
        """The entries of the file; none while its holder is writing the first ones."""
        with contextlib.suppress(ValueError):
            entries = json.loads(self.content)
            if isinstance(entries, dict):
                return entries
        return {}

    @property
    def holder(self) -> str:
        """The holder for messages: its process, host and Slurm job."""
        entries = self.entries
        if "pid" not in entries:
            return "another process"
        job = f", job {entries['job']}" if entries.get("job") else ""
        return f"process {entries['pid']} on {entries['host']}{job}"

    @property
    def alive(self) -> bool | None:
        """Whether the holder runs, if it is a process of this machine; otherwise None."""
        entries, namespace = self.entries, _pid_namespace()
        if namespace is None or entries.get("namespace") != namespace:
            return None
        return bool(entries.get("started") == _start_time(entries["pid"]))


def read_lock(path: Path) -> LockRecord | None:
    """The lock file at `path`, or None."""
    try:
        return LockRecord(path.read_bytes())
    except FileNotFoundError:
        return None


class HeartbeatTracker:
    """When the lock files of other processes last changed, by this process's clock."""

    def __init__(self) -> None:
        self._since: dict[Path, tuple[bytes, float]] = {}

    def has_expired(self, path: Path, record: LockRecord) -> bool:
        """Whether the holder of the lock at `path`, which now reads `record`, counts as dead."""
        now = time.monotonic()
        content, since = self._since.get(path, (None, now))
        if content != record.content:
            self._since[path] = record.content, now
            since = now
        timeout = TIMEOUT if record.entries else EMPTY_TIMEOUT
        return record.alive is False or now - since > timeout


class Lock:
    """The lock file at `path`, held by this process until `release` or the end of a `with` block.

    A thread renews it. `progress` is called at each heartbeat, and what it returns is written into
    the file for readers.
    """

    def __init__(
        self,
        path: Path,
        tracker: HeartbeatTracker | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Create the file, with the entries `about`, or take it over from a dead process.

        Raises:
            Busy: another process holds the lock and counts as alive, as far as `tracker` has seen.
            OSError: the disk is full, gone or read-only.
        """
        self.path, self.token = path, secrets.token_hex(8)
        self.previous_holder: str | None = None
        """The dead process from which the lock was taken over."""
        self.progress: Callable[[], Mapping[str, Any]] = dict
        self._about = {"token": self.token, **_this_process(), **(about or {})}
        if (record := read_lock(path)) is not None:
            self._take_over(record, tracker or HeartbeatTracker())
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            raise Busy((read_lock(path) or LockRecord(b"")).holder) from None
        try:
            self._write(0)
        except BaseException:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def _take_over(self, record: LockRecord, tracker: HeartbeatTracker) -> None:
        """Remove an expired lock. Raises Busy if it has not expired or another process was first.

        The file is renamed first: of several processes one succeeds.
        """
        if not tracker.has_expired(self.path, record):
            raise Busy(record.holder)
        aside = self.path.with_name(f"{self.path.name}.{self.token}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        renamed = read_lock(aside)
        if renamed != record:  # it is another process's new lock, or the holder woke up: restore it
            with contextlib.suppress(OSError):  # otherwise its holder stops at `check` and retries
                os.link(aside, self.path)
        aside.unlink(missing_ok=True)
        if renamed != record:
            raise Busy((renamed or record).holder)
        self.previous_holder = record.holder

    def _write(self, beat: int) -> None:
        entries = {**self._about, "beat": beat, "time": time.time(), "progress": self.progress()}
        try:
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, json.dumps(entries).encode().ljust(_LENGTH))
            os.fsync(self._file)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _renew(self) -> None:
        beat = 0
        while not self._released.wait(HEARTBEAT):
            beat += 1
            # Written through the open file, not by name: the name may be another process's by now.
            with contextlib.suppress(OSError):  # a failing disk is reported by who writes results
                self._write(beat)

    def check(self) -> None:
        """Raise Lost if the lock is another process's by now. To be called before each write."""
        record = read_lock(self.path)
        if record is None and not self.path.parent.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path.parent))
        if record is None or record.entries.get("token") != self.token:
            raise Lost(record.holder if record else "another process, which has finished")

    def release(self) -> None:
        """Remove the lock file, unless it is another process's by now."""
        self._released.set()
        self._thread.join()
        os.close(self._file)
        with contextlib.suppress(Lost, OSError):  # on a disk that fails it expires by itself
            self.check()
            self.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def wait_for(path: Path, every: float = 0.1) -> Lock:
    """Take the lock at `path` as soon as its holder releases it or counts as dead."""
    tracker = HeartbeatTracker()
    while True:
        try:
            return Lock(path, tracker)
        except Busy:
            time.sleep(every)


def _this_process() -> dict[str, Any]:
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "namespace": _pid_namespace(),
        "started": _start_time(os.getpid()),
        "job": f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID"),
    }


def _pid_namespace() -> str | None:
    """Where process ids mean the same: one boot of a kernel and one container. Known on Linux."""
    if sys.platform != "linux":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _start_time(pid: int) -> int | None:
    """The kernel's start time of a process, in its ticks; None for one that has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(rest[18])
