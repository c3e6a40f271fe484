"""Lock files between real processes; a holder on another machine has another `namespace`."""

import errno
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from utils import locks
from utils.locks import Busy, HeartbeatTracker, Lock, Lost

HOLD = """
import os, pathlib, sys
from utils.locks import Lock
with Lock(pathlib.Path(sys.argv[1])):
    child = os.fork() if "fork" in sys.argv else 0
    if "fork" not in sys.argv or child:
        print(child, flush=True)
    sys.stdin.read()
"""
RACE = """
import pathlib, sys
from utils.locks import Busy, Lock
print(flush=True)
sys.stdin.readline()
try:
    Lock(pathlib.Path(sys.argv[1]))
    print("mine", flush=True)
except Busy:
    print("theirs", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def write_remote(path: Path, **entries: object) -> None:
    """Write the lock of a process on another machine."""
    remote = {"namespace": "another boot", "host": "node3", "pid": 7, "token": "theirs"}
    path.write_text(json.dumps(remote | entries))


@pytest.mark.parametrize("waited_for", [True, False])
def test_a_live_holder_is_named_and_a_dead_one_is_taken_over(path, waited_for) -> None:
    with start(HOLD, path) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(Busy, match=f"process {holder.pid} on "):
            Lock(path)
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | (0 if waited_for else os.WNOWAIT))
        with Lock(path) as mine:
            assert f"process {holder.pid} on " in str(mine.previous_holder)
    assert not path.exists()


def test_a_lock_does_not_outlive_its_process_in_the_workers_that_it_forked(path) -> None:
    with start(HOLD, path, "fork") as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        holder.kill()
        holder.wait()
        os.kill(worker, 0)  # still there
        Lock(path).release()


def test_a_lock_that_could_not_be_written_leaves_nothing(path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as failure:
        Lock(path)
    assert failure.value.filename == str(path)
    assert not path.exists()


def test_one_of_ten_processes_takes_over_the_lock_of_a_dead_one(path) -> None:
    for _ in range(2):
        with start(HOLD, path) as dead:
            assert dead.stdout is not None
            dead.stdout.readline()
            dead.kill()
        racers = [start(RACE, path) for _ in range(10)]
        results = []
        for racer in racers:
            assert racer.stdout is not None
            racer.stdout.readline()
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        for racer in racers:
            assert racer.stdout is not None
            results.append(racer.stdout.readline())
        assert Counter(results) == {"mine\n": 1, "theirs\n": 9}
        for racer in racers:
            racer.communicate("\n")
        assert [entry.name for entry in path.parent.iterdir()] == ["lock"]


def test_a_holder_on_another_machine_is_dead_after_two_minutes_of_silence(
    path, monkeypatch
) -> None:
    """By the clock of the reader: the time in the lock file does not count."""
    clock = {"now": 1000.0}
    monkeypatch.setattr(time, "monotonic", lambda: clock["now"])
    tracker = HeartbeatTracker()
    for beat in range(4):
        write_remote(path, beat=beat, time=0.0)
        clock["now"] += 100
        with pytest.raises(Busy, match="process 7 on node3"):
            Lock(path, tracker)
    clock["now"] += 119
    with pytest.raises(Busy):
        Lock(path, tracker)
    clock["now"] += 2
    Lock(path, tracker).release()


def test_an_empty_lock_expires_as_well(path, monkeypatch) -> None:
    path.touch()
    tracker = HeartbeatTracker()
    with pytest.raises(Busy, match="another process"):
        Lock(path, tracker)
    monkeypatch.setattr(locks, "EMPTY_TIMEOUT", 0.0)
    Lock(path, tracker).release()


def test_a_holder_notices_the_takeover_and_leaves_the_new_lock_alone(path, monkeypatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    mine = Lock(path)
    mine.check()
    path.unlink()  # as a takeover does
    with Lock(path, about={"code": "new"}) as theirs:
        time.sleep(0.1)
        with pytest.raises(Lost, match=f"process {os.getpid()} on "):
            mine.check()
        mine.release()
        theirs.check()
    with pytest.raises(Lost, match="which has finished"):
        mine.check()


def test_a_new_lock_is_restored_by_a_process_that_took_it_for_the_old_one(
    path, monkeypatch
) -> None:
    write_remote(path)
    old = locks.read_lock(path)
    assert old is not None
    write_remote(path, pid=8)
    read_lock = locks.read_lock
    monkeypatch.setattr(locks, "read_lock", lambda at: old if at == path else read_lock(at))
    monkeypatch.setattr(locks, "TIMEOUT", -1.0)
    with pytest.raises(Busy, match="process 8 on node3"):
        Lock(path)
    assert json.loads(path.read_bytes())["pid"] == 8


def test_readers_see_the_progress_of_the_work(path, monkeypatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    with Lock(path, about={"code": "abc"}) as mine:
        mine.progress = lambda: {"epoch": "2/3"}
        end = time.monotonic() + 30
        while time.monotonic() < end:
            record = locks.read_lock(path)
            if record and record.entries.get("progress"):
                break
    assert record is not None
    assert record.entries["progress"] == {"epoch": "2/3"}
    assert record.entries["code"] == "abc"
