"""Leases, between real processes; holders on other machines are leases whose `here` is
another's."""

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
    return tmp_path / "lease"


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def elsewhere(path: Path, **changes: object) -> None:
    """Make the lease at `path` one of a process on another machine."""
    entries = json.loads(path.read_bytes()) | {
        "here": "another start",
        "host": "node3",
        "pid": 7,
        **changes,
    }
    path.write_text(json.dumps(entries))


def abandoned(path: Path, **changes: object) -> None:
    """A lease that nobody renews, of a process on another machine."""
    Lock(path).release()
    path.write_text("{}")
    elsewhere(path, **changes)


def test_a_live_process_is_named_and_a_dead_one_is_no_obstacle(path) -> None:
    with start(HOLD, path) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(Busy, match=f"process {holder.pid} on "):
            Lock(path)
        holder.kill()
        holder.wait()
    with Lock(path) as mine:
        assert mine.from_dead is not None
        assert f"process {holder.pid} on " in mine.from_dead
    assert not path.exists()


def test_a_killed_process_that_nobody_has_waited_for_is_dead_too(path) -> None:
    with start(HOLD, path) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        Lock(path).release()


def test_a_lease_does_not_outlive_its_process_in_the_workers_that_it_forked(path) -> None:
    with start(HOLD, path, "fork") as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        holder.kill()
        holder.wait()
        os.kill(worker, 0)  # is there still
        Lock(path).release()


def test_a_lease_that_a_failing_disk_did_not_let_this_process_remove_is_free_at_once(
    path, monkeypatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    held = Lock(path)
    with pytest.raises(Busy):
        Lock(path)
    assert held.token in locks._held
    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", refuse)
        held.release()
    assert path.exists()
    assert not locks._held
    with Lock(path) as again:
        assert again.from_dead


def test_a_lease_that_could_not_be_written_leaves_nothing(path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left") as told:
            Lock(path)
        assert told.value.filename == str(path)
    assert not path.exists()
    assert not locks._held
    with Lock(path):
        assert locks._held
    assert not locks._held


def test_of_ten_processes_one_gets_the_lease_of_a_dead_one(path) -> None:
    for _ in range(3):
        with start(HOLD, path) as dead:
            assert dead.stdout is not None
            dead.stdout.readline()
            dead.kill()
        racers = [start(RACE, path) for _ in range(10)]
        for say in ("readline", "go", "readline"):
            answers = []
            for racer in racers:
                assert racer.stdin is not None
                assert racer.stdout is not None
                if say == "go":
                    racer.stdin.write("\n")
                    racer.stdin.flush()
                else:
                    answers.append(racer.stdout.readline())
        assert Counter(answers) == {"mine\n": 1, "theirs\n": 9}
        for racer in racers:
            racer.communicate("\n")
        assert [entry.name for entry in path.parent.iterdir()] == ["lease"]


def test_a_holder_on_another_machine_is_dead_after_two_minutes_of_silence(
    path, monkeypatch
) -> None:
    """By the clock of who watches: what the lease itself says of the time does not count."""
    clock = {"now": 1000.0}
    monkeypatch.setattr(time, "monotonic", lambda: clock["now"])
    abandoned(path, time=0.0)
    watch = HeartbeatTracker()
    for beat in range(4):
        elsewhere(path, beat=beat)
        clock["now"] += 100
        with pytest.raises(Busy, match="process 7 on node3"):
            Lock(path, watch)
    clock["now"] += 119
    with pytest.raises(Busy):
        Lock(path, watch)
    clock["now"] += 2
    Lock(path, watch).release()


def test_a_lease_that_was_never_written_runs_out_as_well(path, monkeypatch) -> None:
    path.touch()
    watch = HeartbeatTracker()
    with pytest.raises(Busy, match="another process"):
        Lock(path, watch)
    monkeypatch.setattr(locks, "UNSIGNED", 0.0)
    Lock(path, watch).release()


def test_a_holder_learns_that_its_lease_was_taken_over_and_leaves_the_new_one_alone(
    path, monkeypatch
) -> None:
    monkeypatch.setattr(locks, "RENEWED", 0.01)
    mine = Lock(path)
    mine.check()
    path.unlink()  # as whoever takes it over does
    with Lock(path, about={"code": "new"}) as theirs:
        time.sleep(0.1)
        with pytest.raises(Lost, match=f"process {os.getpid()} on "):
            mine.check()
        mine.release()
        theirs.check()
    with pytest.raises(Lost, match="which is done with it"):
        mine.check()


def test_a_lease_that_is_new_is_put_back_by_who_took_it_for_an_old_one(path, monkeypatch) -> None:
    abandoned(path)
    old = locks.read(path)
    assert old is not None
    elsewhere(path, pid=8)
    monkeypatch.setattr(
        locks, "read", lambda where, real=locks.read: old if where == path else real(where)
    )
    monkeypatch.setattr(locks, "SILENCE", -1.0)
    watch = HeartbeatTracker()
    watch.has_run_out(path, old)
    with pytest.raises(Busy, match="process 8 on node3"):
        Lock(path, watch)
    assert json.loads(path.read_bytes())["pid"] == 8


def test_readers_are_told_how_far_the_work_is(path, monkeypatch) -> None:
    monkeypatch.setattr(locks, "RENEWED", 0.01)
    with Lock(path, about={"code": "abc"}) as mine:
        mine.note = lambda: {"epoch": "2/3"}
        time.sleep(0.1)
        seen = locks.read(path)
    assert seen is not None
    assert seen.entries["note"] == {"epoch": "2/3"}
    assert seen.entries["code"] == "abc"


@pytest.mark.parametrize(
    ("minutes", "renewed", "said"),
    [
        (5, False, "the clock of node3 is 5 minutes ahead of"),
        (-5, True, "the clock of node3 is 5 minutes behind"),
        (-5, False, None),
        (0.5, True, None),
    ],
)
def test_clocks_that_differ_are_told_once_and_change_nothing(path, minutes, renewed, said) -> None:
    told: list[str] = []
    abandoned(path, time=time.time() + 60 * minutes)
    watch = HeartbeatTracker(told.append)
    for beat in range(1 + 2 * renewed):
        elsewhere(path, beat=beat)
        with pytest.raises(Busy):
            Lock(path, watch)
    assert [sentence.startswith(said) for sentence in told] == ([True] if said else [])
