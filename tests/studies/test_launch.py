"""Workers on this machine and the script of Slurm jobs; tests.torture.slurm has a real Slurm."""

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
from studies import launch
from tests.conftest import STUDY
from training.device import code_version
from training.interrupt import STOPPED, StopRequest

ROOT = Path(runner.__file__).parent


def test_jobs_share_cores_or_get_a_gpu_each(monkeypatch) -> None:
    monkeypatch.setattr(launch, "cores", lambda: 5)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert launch.divide(2, 0) == [{"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "2"}]
    assert launch.divide(2, 4) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert launch.divide(2, 2)[1] == {"CUDA_VISIBLE_DEVICES": "5"}
    for jobs, gpus, most in ((3, 2, "2 CUDA devices"), (6, 0, "5 cores")):
        with pytest.raises(ValueError, match=f"--jobs is {jobs} and this process may use {most}"):
            launch.divide(jobs, gpus)


def test_lines_of_workers_are_numbered_and_a_request_to_stop_reaches_each_once(capfd) -> None:
    script = (
        "import os, signal, sys, time\n"
        "from studies import launch\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('stop', flush=True), sys.exit(75)))\n"
        "print(os.environ['NUMBER'], launch.workers_here(), flush=True)\n"
        "time.sleep(60)\n"
    )
    stop, output = StopRequest(), []

    def stop_when_started() -> None:
        while "".join(output).count("of") < 2:
            time.sleep(0.1)
            output.append(capfd.readouterr().out)
        stop.requested = True

    assert launch.workers_here() == 1
    threading.Thread(target=stop_when_started).start()
    environments = [{"NUMBER": each, "PYTHONPATH": str(ROOT)} for each in ("1 of", "2 of")]
    assert launch.run([sys.executable, "-c", script], environments, stop) == [STOPPED, STOPPED]
    output.append(capfd.readouterr().out)
    expected = ["1| 1 of 2", "1| stop", "2| 2 of 2", "2| stop"]
    assert sorted("".join(output).splitlines()) == expected


def test_workers_end_with_the_process_that_started_them(tmp_path) -> None:
    worker = (
        "import os, sys, time\nfrom studies import launch\nlaunch.end_with_parent()\n"
        "print(os.getpid(), flush=True)\ntime.sleep(60)\n"
    )
    starter = (
        "import sys\nfrom studies import launch\nfrom training.interrupt import StopRequest\n"
        f"launch.run([sys.executable, '-c', {worker!r}], [{{}}], StopRequest())\n"
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


@pytest.mark.slow
def test_two_workers_train_a_study_and_the_command_writes_its_report(images, tmp_path) -> None:
    place = ["--data-dir", str(tmp_path), "--runs", str(tmp_path / "runs")]
    options = [*STUDY, "--dataset", f"imagefolder:{images}", "--no-trial", *place]
    command = [sys.executable, "runner.py", "all", *options, "--seeds", "0", "1", "--jobs", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trained = [line for line in done.stdout.splitlines() if "test images in" in line]
    assert sorted(line.partition(": ")[0] for line in trained) == [
        "patchify-stem seed 0",
        "patchify-stem seed 1",
    ]
    assert done.stdout.endswith(f"report: {tmp_path / 'runs/s/report/report.md'}\n")
    left = [line.partition("; ")[2] for line in trained]
    assert left[0].startswith("1 run left, about")
    # What the workers took, each on its share of the cores, is what the next ones will take.
    command = [*command[:3], *options, "--seeds", "2", "3", "--jobs", "2", "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "from a finished run" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--jobs 2 --overwrite patchify-stem", "--overwrite is for one process"),
        ("--jobs 1000", "--jobs is 1000 and this process may use"),
        ("--partition gpu", "--partition"),
        ("--launcher slurm", "there is no sbatch on this machine"),
        ("--launcher slurm --jobs 0", "--jobs is 0: give how many jobs may run at once"),
        ("--launcher slurm --gpus 2", "--gpus is 2: a job has one GPU"),
        ("--launcher slurm --sbatch=-A", "--sbatch has '-A': give sbatch's options without dashes"),
    ],
)
def test_an_impossible_launch_is_refused(options, message, tmp_path, monkeypatch, capsys) -> None:
    code_version()  # it is kept, and must not be asked first where git is hidden
    monkeypatch.setenv("PATH", str(tmp_path))
    request = ["all", *STUDY, "--runs", str(tmp_path / "runs"), *options.split()]
    assert runner.main(request) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def sbatch(tmp_path, monkeypatch) -> Path:
    """A Slurm that takes every job and appends its arguments to this file, a line a call."""
    called, program = tmp_path / "called", tmp_path / "bin/sbatch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >> {called}\necho 17\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return called


def test_a_dry_run_submits_nothing(sbatch, images, tmp_path, capsys) -> None:
    place = ["--data-dir", str(tmp_path), "--runs", str(tmp_path / "runs")]
    options = [*STUDY, "--dataset", f"imagefolder:{images}", "--no-trial", *place]
    assert runner.main(["all", *options, "--launcher", "slurm", "--dry-run"]) == 0
    assert "expected in total" in capsys.readouterr().out
    assert not sbatch.exists()


@pytest.mark.slow
def test_a_study_with_initial_weights_is_submitted_and_its_jobs_use_a_copy_of_the_code(
    sbatch, images, tmp_path, capsys
) -> None:
    weights, runs = tmp_path / "model.safetensors", tmp_path / "a study"
    architecture = PAPER.architecture("patchify-stem", get_regime("small"), 3)
    save_file(build(architecture).state_dict(), weights)
    options = [*STUDY, "--dataset", f"imagefolder:{images}", "--data-dir", str(tmp_path)]
    options += ["--runs", str(runs), "--init-weights", str(weights), "--launcher", "slurm"]
    slurm = ["--jobs", "2", "--partition", "gpu", "--sbatch", "comment=my study", "signal=B:USR1@9"]
    assert runner.main(["all", *options, *slurm]) == 0
    assert "submitted: job 17, 2 at once" in capsys.readouterr().out
    (script,) = runs.glob("s/.jobs/*/job.sbatch")
    lines = script.read_text().splitlines()
    assert {"#SBATCH --requeue", "#SBATCH --partition=gpu"} < set(lines)
    assert "#SBATCH --comment='my study'" in lines
    assert lines.index("#SBATCH --signal=B:USR1@120") < lines.index("#SBATCH --signal=B:USR1@9")
    tested, array, closing = sbatch.read_text().splitlines()
    assert "--test-only" in tested
    assert "--array=0-1 --output=" in array
    assert "/a study/" in array
    assert "--dependency=afterany:17" in closing
    code = script.parent / "code"
    assert code_version(code) == code_version()
    assert not (code / "tests").exists()
    command = [sys.executable, code / "runner.py", "steps", "--regime", "mini"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
