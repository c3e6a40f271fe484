"""A lease: a file that says who works on what it lies beside, renewed as long as that process
lives.

Needs nothing of the disk but that a file is made by one process only (O_EXCL) and renamed at once,
as network disks do too where they have no locks. No two clocks are compared: a lease has run out
when its holder is known to be dead, or when its content did not change for `SILENCE` seconds of the
reader's own clock (`UNSIGNED` where it names nobody).
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

RENEWED = 5.0
"""Seconds from one sign of life to the next."""
SILENCE = 120.0
"""Seconds without one after which a holder counts as dead, wherever it is."""
UNSIGNED = 10.0
"""Seconds after which the maker of an empty lease counts as dead: its name follows within
milliseconds."""
CLOCKS = 60.0
"""Seconds by which two machines' clocks may differ before anybody is told."""
_LENGTH = 2000
"""Bytes of a lease: it is written in place, and a shorter text would leave the end of a longer
one."""


_held = set[str]()
"""Tokens of the leases that this process holds: one that a failing disk did not let it remove is
nobody's."""


class Busy(ValueError):
    """Another process holds the lease. One sentence, which names it."""


class Lost(Exception):
    """Another process has taken this one's lease over. One sentence, which names it."""


@dataclass(frozen=True)
class Seen:
    """A lease as somebody else reads it."""

    content: bytes

    @property
    def entries(self) -> dict[str, Any]:
        """Empty where the lease was just being written, or its holder died over that."""
        with contextlib.suppress(ValueError):
            entries = json.loads(self.content)
            if isinstance(entries, dict):
                return entries
        return {}

    @property
    def holder(self) -> str:
        entries = self.entries
        job = f", job {entries['job']}" if entries.get("job") else ""
        return (
            f"process {entries['pid']} on {entries['host']}{job}"
            if "pid" in entries
            else "another process"
        )

    @property
    def alive(self) -> bool | None:
        """Whether the holder is still there, as far as can be known at once: if it is a process of
        this machine."""
        entries, here = self.entries, _here()
        if here is None or entries.get("here") != here:
            return None
        if entries["pid"] == os.getpid() and entries.get("token") not in _held:
            return False
        return bool(entries.get("started") == _started(entries["pid"]))


def read(path: Path) -> Seen | None:
    """The lease at `path`, if there is one."""
    try:
        return Seen(path.read_bytes())
    except FileNotFoundError:
        return None


class HeartbeatTracker:
    """What one process has seen of others' leases, and since when, by its own clock."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        """`tell` hears once of each machine whose clock differs by a minute or more."""
        self._since: dict[Path, tuple[bytes, float]] = {}
        self._tell, self._told = tell, set[str]()

    def has_run_out(self, path: Path, lease: Seen) -> bool:
        now, (content, since) = time.monotonic(), self._since.get(path, (None, 0.0))
        if content != lease.content:
            self._since[path] = lease.content, now
            self._compare_clocks(lease.entries, renewed=content is not None)
            since = now
        return lease.alive is False or now - since > (SILENCE if lease.entries else UNSIGNED)

    def _compare_clocks(self, entries: Mapping[str, Any], *, renewed: bool) -> None:
        """A lease that was renewed a moment ago, or that comes from the future, shows what the
        holder's clock says."""
        ahead, host = entries.get("time", time.time()) - time.time(), str(entries.get("host"))
        if (
            self._tell
            and host not in self._told
            and (ahead > CLOCKS or (renewed and ahead < -CLOCKS - RENEWED))
        ):
            self._told.add(host)
            self._tell(
                f"the clock of {host} is {abs(ahead) / 60:.0f} minutes "
                f"{'ahead of' if ahead > 0 else 'behind'} this "
                "machine's: leases do not go by clocks and nothing is lost, but times of its runs "
                "are off by that much"
            )


class Lock:
    """The lease at `path`, taken by this process. Use it as a context, or `release` it."""

    def __init__(
        self,
        path: Path,
        watch: HeartbeatTracker | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """`about` is what readers are told beside who the holder is.

        Raises:
            Busy: another process holds it and gives signs of life, as far as `watch` has seen.
            OSError: the disk is full, gone or may not be written to.
        """
        self.path, self.token = path, secrets.token_hex(8)
        self.from_dead: str | None = None
        """Who held it and is dead."""
        self.note: Callable[[], Mapping[str, Any]] = dict
        """Asked at each sign of life how far the work is, for readers."""
        self._about = {"token": self.token, **_me(), **(about or {})}
        if (seen := read(path)) is not None:
            self._take_away(seen, watch or HeartbeatTracker())
        with contextlib.ExitStack() as undo:
            _held.add(self.token)  # before anybody can read it there
            undo.callback(_held.discard, self.token)
            try:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                raise Busy((read(path) or Seen(b"")).holder) from None
            undo.callback(path.unlink, missing_ok=True)
            undo.callback(os.close, self._file)
            self._write(0)
            undo.pop_all()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def _take_away(self, seen: Seen, watch: HeartbeatTracker) -> None:
        """Rename the lease away if it has run out. Raises Busy if not, or if another process was
        faster."""
        if not watch.has_run_out(self.path, seen):
            raise Busy(seen.holder)
        away = self.path.with_name(f"{self.path.name}.{self.token}")
        try:
            os.rename(self.path, away)
        except FileNotFoundError:
            return
        taken = read(away)
        if taken != seen:  # a new one by now, or its holder woke up: back with it
            with contextlib.suppress(
                OSError
            ):  # where it cannot be, its holder stops at `check` and comes again
                os.link(away, self.path)
        away.unlink(missing_ok=True)
        if taken != seen:
            raise Busy((taken or seen).holder)
        self.from_dead = seen.holder

    def _write(self, beat: int) -> None:
        entries = {**self._about, "beat": beat, "time": time.time(), "note": self.note()}
        try:
            os.pwrite(self._file, json.dumps(entries).encode().ljust(_LENGTH), 0)
            os.fsync(self._file)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _renew(self) -> None:
        beat = 0
        while not self._released.wait(RENEWED):
            beat += 1
            # Into the file that was made, not to its name: there another process's lease may be by
            # now. A disk that fails is told by those who write results.
            with contextlib.suppress(OSError):
                self._write(beat)

    def check(self) -> None:
        """To be called before each write. Raises Lost if the lease is another process's by now."""
        there = read(self.path)
        if there is None and not self.path.parent.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path.parent))
        if there is None or there.entries.get("token") != self.token:
            raise Lost(there.holder if there else "another process, which is done with it")

    def release(self) -> None:
        self._released.set()
        self._thread.join()
        os.close(self._file)
        with contextlib.suppress(
            Lost, OSError
        ):  # of a disk that is gone; elsewhere it would run out by itself
            self.check()
            self.path.unlink()
        _held.discard(self.token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def wait_for(path: Path, every: float = 0.1) -> Lock:
    """The lease at `path`, as soon as whoever holds it releases it or is dead."""
    watch = HeartbeatTracker()
    while True:
        try:
            return Lock(path, watch)
        except Busy:
            time.sleep(every)


def _me() -> dict[str, Any]:
    job = "_".join(
        filter(None, (os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")))
    )
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "here": _here(),
        "started": _started(os.getpid()),
        "job": job or os.environ.get("SLURM_JOB_ID"),
    }


def _here() -> str | None:
    """Where process numbers mean the same: a start of a machine's kernel, and a container in it.
    Known on Linux."""
    if sys.platform != "linux":
        return None
    return (
        f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} "
        f"{os.readlink('/proc/self/ns/pid')}"
    )


def _started(pid: int) -> int | None:
    """When the kernel says a process was started, in its own ticks; None of one that ended, waited
    for or not."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(rest[18])
