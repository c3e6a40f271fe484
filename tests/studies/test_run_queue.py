"""Runs one after the other, beside other processes."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from studies import run_queue
from studies.run_queue import refuse_other_code
from studies.study import FAILURE, LAUNCH, LOCK, OVERWRITTEN, note_failure, read_result
from training import checkpoint
from training import train as loop
from training.interrupt import StopRequest
from utils.locks import Busy, Lock, Lost

HOLD = """
import pathlib, sys
from utils.locks import Lock
with Lock(pathlib.Path(sys.argv[1]), about={"code": sys.argv[2]}):
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(folder: Path, code: str = "same"):
    """One that holds the run, until it is killed or asked to end."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLD, str(folder / LOCK), code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        yield holder


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(run_queue, "POLL_SECONDS", 0.05)


@pytest.fixture
def run_all(stores, execution):
    return lambda runs, **options: run_queue.run_all(
        runs, stores, execution, StopRequest(), **options
    )


def test_a_run_that_another_process_trains_is_named_and_left_to_it(
    make_run, run_all, capsys
) -> None:
    theirs, ours = make_run("12", epochs=2), make_run("13", epochs=2)
    with another_process(theirs.folder) as holder:
        (theirs.folder / OVERWRITTEN).touch()  # as if that process makes it again
        steps = {theirs.step, ours.step}
        assert run_all([theirs, ours], overwrite=steps, others="leave") == 0
        with pytest.raises(Busy, match=f"is being trained by process {holder.pid} on "):
            run_all([theirs], others="refuse")
    said = capsys.readouterr().err
    assert (
        f"left to other processes: 1 run, among them layer-norm seed 0 (process {holder.pid} on "
        in said
    )
    assert read_result(ours.folder)
    assert not read_result(theirs.folder)
    assert (theirs.folder / OVERWRITTEN).exists()
    assert not (ours.folder / OVERWRITTEN).exists()


def test_a_run_whose_process_dies_is_waited_for_and_taken_over(make_run, run_all, capsys) -> None:
    theirs = make_run("12", epochs=2)
    with another_process(theirs.folder) as holder:
        threading.Timer(0.5, holder.kill).start()
        assert run_all([theirs]) == 0
    said = capsys.readouterr().err
    assert (
        "waiting for 1 run that other processes train, among them layer-norm seed 0 (process"
        in said
    )
    assert f"layer-norm seed 0: process {holder.pid} on " in said
    assert "which trained it, has vanished; going on with it" in said
    assert read_result(theirs.folder)
    assert not (theirs.folder / LOCK).exists()


def test_a_run_that_another_process_finishes_is_waited_for_and_left_as_it_is(
    make_run, run_all, capsys
) -> None:
    run = make_run("13", epochs=2)
    assert run_all([run]) == 0
    result = run.folder / "result.json"
    made = result.read_bytes()
    result.unlink()
    with another_process(run.folder) as holder:

        def finish() -> None:
            result.write_bytes(made)
            holder.stdin.close()

        threading.Timer(0.5, finish).start()
        assert run_all([run], overwrite={run.step}) == 0
    assert "finished, top-1" in capsys.readouterr().out
    assert result.read_bytes() == made


def test_a_holder_whose_run_was_taken_over_writes_nothing_more(
    make_run, stores, execution, monkeypatch
) -> None:
    """As a machine that stood still for minutes finds it, in mid-epoch, at an epoch's end and
    before its result."""
    save, robbers = checkpoint.Writer.save, list[Lock]()

    def save_at_once(writer, *what) -> None:
        save(writer, *what)
        writer.wait()

    monkeypatch.setattr(checkpoint.Writer, "save", save_at_once)  # none is being written then
    for number, (what, call) in enumerate((("update", 1), ("update", 6), ("evaluate", 3))):
        run, found, calls = (
            make_run("13", study=f"study-{number}", epochs=2),
            dict[Path, bytes](),
            count(1),
        )
        run.folder.mkdir(parents=True)

        def rob(
            *arguments, real=getattr(loop, what), call=call, calls=calls, run=run, found=found
        ) -> object:
            if next(calls) == call:
                (run.folder / LOCK).unlink()
                robbers.append(Lock(run.folder / LOCK))
                found |= {path: path.read_bytes() for path in run.folder.iterdir()}
            return real(*arguments)

        with Lock(run.folder / LOCK) as lease, monkeypatch.context() as patch:
            patch.setattr(loop, what, rob)
            with pytest.raises(Lost, match=f"process {os.getpid()}"):
                loop.train(
                    run.spec, stores, replace(execution, checkpoint_minutes=0), StopRequest(), lease
                )
        assert {path: path.read_bytes() for path in run.folder.iterdir()} == found
        robbers[-1].release()


def test_a_run_that_was_lost_to_another_process_is_waited_for(
    make_run, run_all, monkeypatch, capsys
) -> None:
    run, real, calls = make_run("13", epochs=2), run_queue.train, 0

    def lose_once(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Lost("process 7 on node3")
        return real(*arguments)

    monkeypatch.setattr(run_queue, "train", lose_once)
    assert run_all([run]) == 0
    assert (
        "was taken over by process 7 on node3 while this process gave no sign of life"
        in capsys.readouterr().err
    )
    assert read_result(run.folder)


def test_a_failure_is_kept_and_not_repeated_by_the_processes_beside(
    make_run, run_all, monkeypatch, capsys
) -> None:
    run = make_run("13", epochs=2, lr=1e30)
    assert run_all([run]) == 1
    first = (run.folder / FAILURE).read_bytes()
    assert "the loss is" in json.loads(first)["reason"]
    with another_process(run.folder) as holder:

        def fail() -> None:
            note_failure(run.folder, "the loss is nan once more", final=True)
            holder.stdin.close()

        threading.Timer(0.5, fail).start()
        assert run_all([run]) == 1
    assert "failed in another process: the loss is nan once more" in capsys.readouterr().err
    # A later command tries it again, but not a worker that was started together with the one that
    # failed.
    monkeypatch.setenv(LAUNCH, "one")
    assert run_all([run]) == 1
    made = (run.folder / FAILURE).stat().st_mtime_ns
    assert run_all([run]) == 1
    assert (run.folder / FAILURE).stat().st_mtime_ns == made


def test_another_version_of_the_code_is_refused_beside_a_live_process_and_not_after_a_dead_one(
    make_run, monkeypatch
) -> None:
    run = make_run("13", epochs=2)
    study = run.study.folder
    with another_process(run.folder, code="abc") as holder:
        refuse_other_code(study, "abc")
        refuse_other_code(study, "unknown")
        said = (
            rf"{run.folder} is being trained by process {holder.pid} on \S+ with version abc "
            rf"of this code, and this"
        )
        with pytest.raises(ValueError, match=said):
            refuse_other_code(study, "def")
        holder.kill()
        holder.wait()
        refuse_other_code(study, "def")
    lock = run.folder / LOCK
    entries = json.loads(lock.read_bytes()) | {"namespace": "another boot", "host": "node3"}
    lock.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match="on node3 with version abc"):
        refuse_other_code(study, "def")
    os.utime(lock, (0, 0))
    refuse_other_code(study, "def")
