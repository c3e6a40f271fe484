"""Start workers of one command: local processes, one a GPU or group of cores, or a Slurm array."""

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import torch
from tqdm import tqdm

from data.processes import cores, end_with
from studies.cost_estimate import CostEstimate
from studies.study import LAUNCH
from training.device import find_device
from training.interrupt import DONE, STOPPED, StopRequest
from utils.text import one_line

ROOT = Path(__file__).parents[1]
_PARENT = "ABLATIONS_PARENT"
"""Environment variable of a worker: the process with which it ends."""
_WORKERS = "ABLATIONS_WORKERS"
"""Environment variable of a worker: how many share this machine."""
_LOOK_SECONDS = 1.0
"""Time between two looks at the runs of workers."""
_JOB = """\
#!/bin/bash
{options}
# Two minutes before the time limit Slurm sends USR1 to this script alone: the worker saves and
# stops, and this task of the array is requeued. A task that is cancelled or preempted gets TERM,
# as its worker does, which then saves and stops.
export {launch}={name}
requeue=
trap 'requeue=yes; kill -TERM $worker' USR1
trap : TERM
{command} "$@" &
worker=$!
wait $worker; code=$?
while kill -0 $worker 2>/dev/null; do wait $worker; code=$?; done
if [ -n "$requeue" ] && [ $code = {stopped} ]; then
  task=${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}
  scontrol requeue "${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}$task"
fi
exit $code
"""


def workers_here() -> int:
    """How many workers of one launch share this machine, this process included."""
    return int(os.environ.get(_WORKERS, "1"))


def end_with_parent() -> None:
    """Have this process, if it is a worker, end with the process that started it."""
    if parent := os.environ.pop(_PARENT, None):
        end_with(int(parent))


def run_workers(
    words: Sequence[str], device: str, estimate: CostEstimate, stop: StopRequest
) -> int:
    """Run `runner.py` with `words` and --worker in `estimate.jobs` processes; return the exit code.

    Prints a line for each run that finishes, and on a terminal a bar for all of them.

    Raises:
        ValueError: see `environments`.
    """
    # Known to this process too: a run that failed in a worker is not tried again by it.
    os.environ[LAUNCH] = secrets.token_hex(4)
    program = [sys.executable, str(ROOT / "runner.py"), *words, "--worker"]
    codes = run(program, environments(estimate.jobs, device), stop, estimate)
    return STOPPED if stop or STOPPED in codes else DONE


def environments(jobs: int, device: str) -> list[dict[str, str]]:
    """The environment of each of `jobs` processes on `device`, an option's value.

    Raises:
        ValueError: there are more processes than GPUs or cores, or the device is a single one.
    """
    if ":" in device:
        raise ValueError(f"--device {device} is for one process: leave out --jobs or the number")
    on_cuda = find_device(device).type == "cuda"
    return divide(jobs, torch.cuda.device_count() if on_cuda else 0)


def divide(jobs: int, gpus: int) -> list[dict[str, str]]:
    """The environment of each of `jobs` processes: its GPU, or without GPUs its share of the cores.

    Raises:
        ValueError: there are more processes than GPUs or cores.
    """
    most, what = (gpus, "CUDA devices") if gpus else (cores(), "cores")
    if not 1 <= jobs <= most:
        raise ValueError(
            f"--jobs is {jobs} and this process may use {most} {what}: give 1 to {most}"
        )
    if gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        return [{"CUDA_VISIBLE_DEVICES": name} for name in visible.split(",")[:jobs]]
    threads = [most // jobs + (number < most % jobs) for number in range(jobs)]
    return [{"OMP_NUM_THREADS": str(count)} for count in threads]


def run(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    stop: StopRequest,
    estimate: CostEstimate | None = None,
) -> list[int]:
    """Run `command` once in each environment, all at once; return the exit codes.

    Their output is printed, each line with the number of its process. The first request to stop is
    passed on to them, and they end with this process.
    """
    common = {**os.environ, _PARENT: str(os.getpid()), _WORKERS: str(len(environments))}
    with stop.handled():
        # In sessions of their own: a Ctrl-C goes to this process alone and reaches them once.
        processes = [
            subprocess.Popen(
                command,
                env={**common, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            for environment in environments
        ]
        printers = [
            threading.Thread(target=_print_lines, args=(f"{number}| ", process.stdout))
            for number, process in enumerate(processes, 1)
        ]
        for printer in printers:
            printer.start()
        _wait(processes, stop, estimate)
        for printer in printers:
            printer.join()
    return [process.returncode for process in processes]


def _wait(
    processes: Sequence[subprocess.Popen[str]], stop: StopRequest, estimate: CostEstimate | None
) -> None:
    """Wait for the processes, pass a request to stop on, and show how far their runs are."""
    total = len(estimate.runs) if estimate else 0
    passed_on, next_look, last = False, 0.0, time.monotonic()
    with tqdm(
        total=total,
        unit="run",
        leave=False,
        bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} runs{postfix}",
        disable=not estimate or not sys.stderr.isatty(),
    ) as bar:
        while any(process.poll() is None for process in processes):
            if stop and not passed_on:
                passed_on = True
                for process in processes:
                    process.send_signal(signal.SIGTERM)
            if estimate and time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK_SECONDS
                for line in estimate.progress():
                    tqdm.write(line)
                    last = time.monotonic()
                bar.n = total - estimate.left
                bar.set_postfix_str(estimate.time_left(time.monotonic() - last))
            time.sleep(0.05)
    for line in estimate.progress() if estimate else ():
        print(line, flush=True)


def _print_lines(prefix: str, lines: TextIO) -> None:
    with lines:
        for line in lines:
            tqdm.write(prefix + line.rstrip("\n"))
            sys.stdout.flush()


def slurm_options(given: Mapping[str, object], others: Sequence[str]) -> list[str]:
    """sbatch's options: those `given` that are not None, and `others`, NAME=VALUE or NAME each.

    Of an option that comes twice Slurm takes the last, so `others` win.
    """
    if wrong := [other for other in others if other.startswith("-") or "\n" in other]:
        raise ValueError(
            f"--sbatch has {wrong[0]!r}: give sbatch's options without dashes, such as account=mine"
        )
    options = [f"{name}={value}" for name, value in given.items() if value is not None]
    return [*options, "requeue", "open-mode=append", "signal=B:USR1@120", *others]


def submit(
    study: Path,
    words: Sequence[str],
    workers: int,
    options: Sequence[str],
    version: str,
    roadmap: Path | None,
    data_dir: Path,
) -> tuple[Path, str, str]:
    """Submit an array of `workers` jobs, `runner.py` with `words` and --worker, and a closing job.

    The closing job begins when the array has ended: it trains what is left and writes the report.
    The jobs run a copy of the code, whose version is `version`, and of the `roadmap`'s file, made
    now in a folder of the study.

    Returns:
        The folder of the launch (script, code, logs), the array's job number, the closing job's.

    Raises:
        ValueError: there is no Slurm here, or it refuses; nothing is left behind.
    """
    if workers < 1:
        raise ValueError(f"--jobs is {workers}: give how many jobs may run at once, 1 or more")
    if shutil.which("sbatch") is None:
        raise ValueError(
            "--launcher slurm was given and there is no sbatch on this machine: give it where "
            "Slurm's commands are, or --jobs to start processes here"
        )
    launch = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = (study / ".jobs" / launch).absolute()
    program = [sys.executable, str(folder / "code" / "runner.py"), *words]
    if roadmap:
        program += ["--roadmap", str(folder / roadmap.name)]
    named = (option.partition("=") for option in options)
    lines = [f"#SBATCH --{name}{is_}{value and shlex.quote(value)}" for name, is_, value in named]
    script = _JOB.format(
        options="\n".join(lines),
        launch=LAUNCH,
        name=launch,
        command=shlex.join(program),
        stopped=STOPPED,
    )
    array, job = f"--array=0-{workers - 1}", str(folder / "job.sbatch")
    _sbatch("--test-only", array, script=script)
    first_new = next(path for path in (folder, *folder.parents) if path.parent.exists())
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        copy_code(folder / "code", version)
        if roadmap:
            shutil.copy2(roadmap, folder)
        Path(job).write_text(script)
        number = _sbatch("--parsable", array, f"--output={folder}/%x-%A-%a.log", job, "--worker")
        try:
            after = f"--dependency=afterany:{number}"
            closing = _sbatch("--parsable", after, f"--output={folder}/%x-%A.log", job)
        except ValueError:
            subprocess.run(["scancel", number], check=False)
            raise
    except ValueError:
        shutil.rmtree(first_new, ignore_errors=True)
        raise
    return folder, number, closing


def _sbatch(*arguments: str, script: str | None = None) -> str:
    """The number of the job that sbatch has submitted."""
    done = subprocess.run(
        ["sbatch", *arguments], input=script, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"Slurm refuses the jobs: {one_line(done.stderr.strip())}")
    return done.stdout.strip().partition(";")[0]


def copy_code(folder: Path, version: str) -> None:
    """Copy the packages and runner.py, without tests, and write their version beside them."""
    for entry in ROOT.iterdir():
        if (entry / "__init__.py").exists() and entry.name not in ("tests", "benchmarks"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(entry, folder / entry.name, ignore=ignored)
        elif entry.suffix == ".py":
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(entry, folder / entry.name)
    (folder / "CODE_VERSION").write_text(version + "\n")
    if hasattr(os, "sync"):  # not on Windows
        os.sync()
