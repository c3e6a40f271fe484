"""How far a study is, read from its folder."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import runner
from studies import run_queue
from studies.run_locks import LEASE, hold, note_failure
from studies.status import RunStatus, as_table, note_asked, status
from training.interrupt import StopRequest
from utils.locks import Lock


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "runs/s"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text("{}")
    return folder


def make(study: Path, step: str, seed: int = 0, **files: object) -> Path:
    folder = study / step / f"seed-{seed}"
    folder.mkdir(parents=True)
    for name, content in {"config": {"recipe": {"epochs": 3}}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_every_state_of_a_run_is_told_apart(study) -> None:
    note_asked(
        study,
        [
            (step, seed)
            for step in ("done", "running", "stopped", "failed", "queued")
            for seed in (0, 1)
        ],
    )
    make(
        study, "done", result={"top1": 84.25, "images_per_second": 1.0, "seconds": {"total": 60.0}}
    )
    stopped = make(study, "stopped")
    (stopped / "checkpoint.pt").touch()
    (stopped / "metrics.jsonl").write_text('{"epoch": 1}\n')
    note_failure(make(study, "failed"), "the loss is nan in epoch 2", final=True)
    make(
        study, "shared"
    )  # a row that shares another's run, and was not asked for as a run of its own
    with Lock(make(study, "running") / LEASE) as lease:
        lease.note = lambda: {"epoch": "2/3", "seconds_left": 90.0}
        lease._write(1)
        now = status(study)
        said = as_table(now)
    first = {run.step: run for run in now.runs if run.seed == 0}
    assert first == {
        "done": RunStatus("done", 0, "done", top1=84.25, seconds=60.0),
        "running": replace(
            first["running"],
            step="running",
            seed=0,
            state="running",
            epoch="2/3",
            seconds_left=90.0,
        ),
        "stopped": RunStatus("stopped", 0, "stopped", epoch="1/3"),
        "failed": RunStatus("failed", 0, "failed", why="the loss is nan in epoch 2"),
        "queued": RunStatus("queued", 0, "queued"),
    }
    assert {run.state for run in now.runs if run.seed == 1} == {"queued"}
    assert (
        now.seconds_left == 90 + 7 * 60
    )  # of the six that are queued and the one that was stopped
    assert (
        "10 runs, 1 failed, 1 running, 1 stopped, 6 queued, 1 done; about 8 min left with 1 at work"
        in said
    )
    assert "epoch 2/3, 90 s left" in said
    assert "done     done            seed 0" in said.replace("  top-1 84.25", "")


def test_a_process_that_vanished_or_fell_silent_is_named(study, monkeypatch) -> None:
    script = (
        "import pathlib, sys; from utils.locks import Lock; Lock(pathlib.Path(sys.argv[1])); "
        "sys.stdin.read()"
    )
    folder = make(study, "gelu")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder / LEASE)], stdin=subprocess.PIPE
    ) as holder:
        while not (folder / LEASE).exists() or status(study).runs[0].state != "running":
            time.sleep(0.05)
        holder.kill()
    (run,) = status(study).runs
    assert run.state == "stopped"
    assert str(run.why).startswith(f"process {holder.pid} on ")
    assert str(run.why).endswith(" has vanished")
    lease = folder / LEASE
    lease.write_text(
        json.dumps(json.loads(lease.read_bytes()) | {"here": "another start", "host": "node3"})
    )
    assert status(study).runs[0].state == "running"
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 600)
    assert (
        status(study).runs[0].why
        == f"process {holder.pid} on node3 has given no sign of life for 10 min"
    )


def test_clocks_that_differ_from_the_disks_are_told(study, monkeypatch) -> None:
    lease = make(study, "gelu") / LEASE
    lease.write_text(
        json.dumps({"here": "another start", "host": "node3", "pid": 7, "time": time.time() - 300})
    )
    assert status(study).warnings == (
        "the clock of node3 is 5 minutes behind that of the disk: nothing depends on it but the "
        "times in its records",
    )
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 300)
    assert "this machine's clock is 5 minutes behind that of the disk" in status(study).warnings[1]


def test_a_study_that_is_being_trained_is_followed_from_beside(
    make_run, stores, execution, monkeypatch
) -> None:
    """What was asked for is noted, and a real run says of itself how far it is."""
    run = make_run("13", epochs=2)
    note_asked(run.study.folder, [(run.step, 0), (run.step, 1)])
    seen = []

    def look(*arguments, real=run_queue.train) -> object:
        lease = arguments[-1]
        result = real(*arguments)
        lease._write(1)
        seen.extend(status(run.study.folder).runs)
        return result

    (run.folder / "result.json").unlink(missing_ok=True)
    monkeypatch.setattr(run_queue, "train", look)
    assert run_queue.run_all([run], stores, execution, StopRequest()) == 0
    assert [(one.seed, one.state) for one in seen] == [(1, "queued"), (0, "done")]
    with hold(run.folder, run_queue.Watch(), "abc"):
        assert status(run.study.folder).of("done")


def test_the_command_prints_a_table_or_json_and_refuses_what_is_no_study(study, capsys) -> None:
    note_asked(study, [("gelu", 0)])
    place = ["--study", "s", "--runs", str(study.parent)]
    assert runner.main(["status", *place]) == 0
    assert capsys.readouterr().out == f"{study}: 1 run, 1 queued\nqueued  gelu  seed 0\n"
    assert runner.main(["status", *place, "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["counts"] == {"failed": 0, "running": 0, "stopped": 0, "queued": 1, "done": 0}
    assert said["runs"][0]["step"] == "gelu"
    assert runner.main(["status", "--study", "t", "--runs", str(study.parent)]) == 2
    assert "holds no study (yet)" in capsys.readouterr().err


def test_it_needs_no_torch(study) -> None:
    program = "import sys, runner; runner.main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", program, "status", "--study", "s", "--runs", str(study.parent)]
    assert subprocess.run(command, cwd=Path(runner.__file__).parent, check=False).returncode == 0
