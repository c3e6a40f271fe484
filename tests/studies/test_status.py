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
from studies.status import RunStatus, as_table, note_requested, read_status
from studies.study import LOCK, note_failure
from training.interrupt import StopRequest
from utils.locks import Lock


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "runs/s"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text("{}")
    return folder


def add_run(study: Path, step: str, seed: int = 0, **files: object) -> Path:
    folder = study / step / f"seed-{seed}"
    folder.mkdir(parents=True)
    for name, content in {"config": {"recipe": {"epochs": 3}}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_every_state_of_a_run_is_distinguished(study) -> None:
    steps = ("done", "running", "stopped", "failed", "queued")
    note_requested(study, [(step, seed) for step in steps for seed in (0, 1)])
    result = {"top1": 84.25, "images_per_second": 1.0, "seconds": {"total": 60.0}}
    add_run(study, "done", result=result | {"collapsed": "constant predictions"})
    stopped = add_run(study, "stopped")
    (stopped / "checkpoint.pt").touch()
    (stopped / "metrics.jsonl").write_text('{"epoch": 1}\n')
    note_failure(add_run(study, "failed"), "the loss is nan in epoch 2", final=True)
    add_run(study, "alias")  # of another row's run, so not requested as a run of its own
    with Lock(add_run(study, "running") / LOCK) as lock:
        lock.progress = lambda: {"epoch": "2/3", "seconds_left": 90.0}
        lock._write(1)
        status = read_status(study)
    first = {run.step: run for run in status.runs if run.seed == 0}
    running = replace(first["running"], state="running", epoch="2/3", seconds_left=90.0)
    assert first == {
        "done": RunStatus(
            "done", 0, "done", top1=84.25, seconds=60.0, collapsed="constant predictions"
        ),
        "running": running,
        "stopped": RunStatus("stopped", 0, "stopped", epoch="1/3"),
        "failed": RunStatus("failed", 0, "failed", reason="the loss is nan in epoch 2"),
        "queued": RunStatus("queued", 0, "queued"),
    }
    assert {run.state for run in status.runs if run.seed == 1} == {"queued"}
    assert status.seconds_left == 90 + 7 * 60  # of six queued runs and a stopped one
    table = as_table(status)
    counts = "10 runs, 1 failed, 1 running, 1 stopped, 6 queued, 1 done; about 8 min left"
    assert f"{counts} with 1 at work" in table
    assert "epoch 2/3, 90 s left" in table
    collapsed = "top-1 84.25; seed 0 collapsed: constant predictions"
    assert f"done     done            seed 0                {collapsed}" in table


def test_a_process_that_vanished_or_fell_silent_is_named(study, monkeypatch) -> None:
    script = (
        "import pathlib, sys; from utils.locks import Lock; Lock(pathlib.Path(sys.argv[1])); "
        "print(flush=True); sys.stdin.read()"
    )
    lock = add_run(study, "gelu") / LOCK
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert read_status(study).runs[0].state == "running"
        holder.kill()
    (run,) = read_status(study).runs
    assert run.state == "stopped"
    assert str(run.reason).startswith(f"process {holder.pid} on ")
    assert str(run.reason).endswith(" has vanished")
    remote = {"namespace": "another boot", "host": "node3"}
    lock.write_text(json.dumps(json.loads(lock.read_bytes()) | remote))
    assert read_status(study).runs[0].state == "running"
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 600)
    silent = f"process {holder.pid} on node3 has given no sign of life for 10 min"
    assert read_status(study).runs[0].reason == silent


def test_a_running_study_can_be_followed(make_run, stores, execution, monkeypatch) -> None:
    """Requested runs are noted, and a run writes its own progress."""
    run = make_run("13", epochs=2)
    note_requested(run.study.folder, [(run.step, 0), (run.step, 1)])
    seen = []

    def look(*arguments, real=run_queue.train) -> object:
        result = real(*arguments)
        (run.folder / "result.json").rename(run.folder / "kept")
        arguments[-1]._write(1)
        seen.extend(read_status(run.study.folder).runs)
        (run.folder / "kept").rename(run.folder / "result.json")
        return result

    monkeypatch.setattr(run_queue, "train", look)
    assert run_queue.run_all([run], stores, execution, StopRequest()) == 0
    assert [(each.seed, each.state, each.epoch) for each in seen] == [
        (0, "running", "2/2"),
        (1, "queued", None),
    ]
    assert read_status(run.study.folder).of("done")


def test_the_command_prints_a_table_or_json_and_refuses_a_folder_without_study(
    study, capsys
) -> None:
    note_requested(study, [("gelu", 0)])
    place = ["--study", "s", "--runs", str(study.parent)]
    assert runner.main(["status", *place]) == 0
    assert capsys.readouterr().out == f"{study}: 1 run, 1 queued\nqueued  gelu  seed 0\n"
    assert runner.main(["status", *place, "--format", "json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["counts"] == {"failed": 0, "running": 0, "stopped": 0, "queued": 1, "done": 0}
    assert status["runs"][0]["step"] == "gelu"
    assert runner.main(["status", "--study", "t", "--runs", str(study.parent)]) == 2
    assert f"holds no study: {study.parent} has s (--study" in capsys.readouterr().err


def test_status_needs_no_torch(study) -> None:
    program = "import sys, runner; runner.main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", program, "status", "--study", "s", "--runs", str(study.parent)]
    assert subprocess.run(command, cwd=Path(runner.__file__).parent, check=False).returncode == 0
