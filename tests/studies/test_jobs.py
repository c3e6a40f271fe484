"""Several workers on this machine, and the script for those on Slurm; tests.torture.slurm has a
real Slurm."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import save_file

import runner
from ablations import PAPER, get_regime
from models.builder import build
from studies import jobs, slurm
from tests.conftest import STUDY
from training.environment import code_version
from training.interrupt import STOPPED, StopRequest

pytestmark = pytest.mark.slow

ROOT = Path(runner.__file__).parent


def test_jobs_share_cores_or_get_a_gpu_each(monkeypatch) -> None:
    monkeypatch.setattr(jobs, "cores", lambda: 5)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert jobs.shares(2, 0) == [{"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "2"}]
    assert jobs.shares(2, 4) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert jobs.shares(2, 2)[1] == {"CUDA_VISIBLE_DEVICES": "5"}
    with pytest.raises(
        ValueError, match="--jobs is 3 and this process may use 2 CUDA devices: give 1 to 2"
    ):
        jobs.shares(3, 2)
    with pytest.raises(
        ValueError, match="--jobs is 6 and this process may use 5 cores: give 1 to 5"
    ):
        jobs.shares(6, 0)


def test_what_processes_say_has_their_number_and_a_request_to_stop_reaches_each_once(capfd) -> None:
    script = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked', flush=True), sys.exit(75)))\n"
        "print(os.environ['NUMBER'], flush=True)\n"
        "time.sleep(60)\n"
    )
    stop = StopRequest()
    threading.Timer(1, lambda: setattr(stop, "asked", True)).start()
    environments = [{"NUMBER": "first"}, {"NUMBER": "second"}]
    assert jobs.run([sys.executable, "-c", script], environments, stop) == [STOPPED, STOPPED]
    assert sorted(capfd.readouterr().out.splitlines()) == [
        "1| asked",
        "1| first",
        "2| asked",
        "2| second",
    ]


def test_workers_end_with_the_process_that_started_them(tmp_path) -> None:
    worker = (
        "import os, sys, time\nfrom training import jobs\njobs.end_with_starter()\n"
        "print(os.getpid(), flush=True)\ntime.sleep(60)\n"
    )
    starter = (
        "import sys\nfrom training import jobs\nfrom training.interrupt import StopRequest\n"
        f"jobs.run([sys.executable, '-c', {worker!r}], [{{}}], StopRequest())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().removeprefix("1| "))
        process.kill()
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_two_workers_train_a_study_and_the_command_writes_its_report(images, tmp_path) -> None:
    command = [
        sys.executable,
        "runner.py",
        "all",
        *STUDY,
        "--dataset",
        f"imagefolder:{images}",
        "--no-trial",
        "--data-dir",
        str(tmp_path),
        "--runs",
        str(tmp_path / "runs"),
        "--seeds",
        "0",
        "1",
        "--jobs",
        "2",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = [line for line in done.stdout.splitlines() if "test images in" in line]
    assert sorted(line.partition(": ")[0][3:] for line in made) == [
        "patchify-stem seed 0",
        "patchify-stem seed 1",
    ]
    assert done.stdout.endswith(f"report: {tmp_path / 'runs/s/report/report.md'}\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--jobs", "2", "--overwrite", "patchify-stem"], "--overwrite is for one process"),
        (["--jobs", "2", "--device", "cpu:1"], "--device cpu:1 is for one process"),
        (
            ["--partition", "gpu"],
            "--partition was given, which Slurm is told: add --launcher slurm, or leave it out",
        ),
        (["--launcher", "slurm"], "there is no sbatch on this machine"),
        (["--launcher", "slurm", "--jobs", "0"], "--jobs is 0: give how many jobs may run at once"),
        (
            ["--launcher", "slurm", "--gpus", "2"],
            "--gpus is 2: a job trains on one GPU, give --gpus 1 and more --jobs",
        ),
        (
            ["--launcher", "slurm", "--sbatch=-A"],
            "--sbatch has '-A': give sbatch's options without dashes",
        ),
    ],
)
def test_a_request_for_processes_that_cannot_be_is_refused(
    options, said, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    request = ["all", *STUDY, "--runs", str(tmp_path / "runs"), *options]
    assert runner.main(request) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def sbatch(tmp_path, monkeypatch) -> Path:
    """A Slurm that takes every job and notes its arguments in this file, a line a call."""
    called, program = tmp_path / "called", tmp_path / "bin/sbatch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >> {called}\necho 17\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return called


def test_a_dry_run_submits_nothing(sbatch, images, tmp_path, capsys) -> None:
    request = [
        "all",
        *STUDY,
        "--dataset",
        f"imagefolder:{images}",
        "--no-trial",
        "--data-dir",
        str(tmp_path),
        "--runs",
        str(tmp_path / "runs"),
        "--launcher",
        "slurm",
        "--dry-run",
    ]
    assert runner.main(request) == 0
    assert "expected in total" in capsys.readouterr().out
    assert not sbatch.exists()


def test_a_study_with_initial_weights_is_submitted_again(sbatch, images, tmp_path, capsys) -> None:
    weights = tmp_path / "model.safetensors"
    save_file(
        build(PAPER.architecture("patchify-stem", get_regime("small"), 3)).state_dict(), weights
    )
    place = [
        *STUDY,
        "--dataset",
        f"imagefolder:{images}",
        "--data-dir",
        str(tmp_path),
        "--runs",
        str(tmp_path / "a study"),
        "--init-weights",
        str(weights),
    ]
    assert runner.main(["all", *place, "--no-trial"]) == 0
    assert (
        runner.main(
            ["all", *place, "--launcher", "slurm", "--jobs", "2", "--sbatch", "comment=my study"]
        )
        == 0
    )
    assert "submitted: job 17, 2 at once" in capsys.readouterr().out
    (script,) = (tmp_path / "a study/s/.jobs").glob("*/job.sbatch")
    assert "\n#SBATCH --requeue\n" in script.read_text()
    assert "\n#SBATCH --comment='my study'\n" in script.read_text()
    tested, array, closing = sbatch.read_text().splitlines()
    assert "--test-only" in tested
    assert "--array=0-1 --output=" in array
    assert "/a study/" in array
    assert "--dependency=afterany:17" in closing


def test_workers_know_how_many_share_their_machine(capfd) -> None:
    assert jobs.beside() == 1
    command = [sys.executable, "-c", "from training import jobs; print(jobs.beside())"]
    jobs.run(command, [{"PYTHONPATH": str(ROOT)}] * 2, StopRequest())
    assert sorted(capfd.readouterr().out.splitlines()) == ["1| 2", "2| 2"]


def test_the_script_says_what_was_asked_and_other_options_of_sbatch_win() -> None:
    asked = slurm.options("s", "08:00:00", "gpu", 2, ("account=mine", "signal=B:USR1@300"))
    assert asked[:4] == ["job-name=s", "time=08:00:00", "partition=gpu", "gpus=2"]
    assert asked.index("signal=B:USR1@120") < asked.index("signal=B:USR1@300")
    with pytest.raises(ValueError, match="'--account=mine': give sbatch's options without dashes"):
        slurm.options("s", None, None, None, ("--account=mine",))


def test_jobs_run_a_copy_of_the_code_that_says_which_version_it_is(tmp_path) -> None:
    slurm.copy_code(tmp_path / "code", "abc+12345678")
    assert code_version(tmp_path / "code") == "abc+12345678"
    assert not (tmp_path / "code/tests").exists()
    command = [
        sys.executable,
        tmp_path / "code/runner.py",
        "steps",
        "--regime",
        "pocket",
        "--format",
        "json",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0
