"""Workers as an array of Slurm jobs: a readable script, the code as it is now, and sbatch."""

import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.run_locks import LAUNCH
from utils.text import one_line

CODE_VERSION = "CODE_VERSION"
"""A file beside the code of a launch: the version that it is."""
_SCRIPT = """\
#!/bin/bash
{options}
# Two minutes before its time limit Slurm sends USR1 to this script alone: the worker saves and
# stops, and this task, no other one of its array, goes back into the queue. A task that is
# cancelled or preempted gets TERM, with its worker, which saves and stops as well; what happens
# then is Slurm's.
export {launch}={name}
again=
trap 'again=yes; kill -TERM $worker' USR1
trap : TERM
{command} "$@" &
worker=$!
wait $worker; code=$?
while kill -0 $worker 2>/dev/null; do wait $worker; code=$?; done
if [ -n "$again" ] && [ $code = 75 ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}"
fi
exit $code
"""


@dataclass(frozen=True)
class Launch:
    """What was submitted."""

    folder: Path
    """The script, the code, and what the jobs say."""
    workers: str
    """The array's job number."""
    closing: str
    """The job that begins when the array has ended, trains what is left, and writes the report."""


def options(
    name: str,
    time_limit: str | None,
    partition: str | None,
    gpus: int | None,
    others: Sequence[str],
) -> list[str]:
    """sbatch's options. Of `others`, NAME=VALUE or NAME each, those that are given here too win."""
    given = {"job-name": name, "time": time_limit, "partition": partition, "gpus": gpus}
    mine = [f"{key}={value}" for key, value in given.items() if value is not None]
    if wrong := [other for other in others if other.startswith("-") or "\n" in other]:
        raise ValueError(
            f"--sbatch has {wrong[0]!r}: give sbatch's options without dashes, such as account=mine"
        )
    return [*mine, "requeue", "open-mode=append", "signal=B:USR1@120", *others]


def submit(
    study: Path,
    options: Sequence[str],
    workers: int,
    command: Sequence[str],
    version: str,
    roadmap: Path | None,
    data: Path,
) -> Launch:
    """Submit `workers` workers, each `command` (the words after runner.py) and --worker, and a job
    that closes.

    The code that they run, `version`, is a copy made now in a folder of the study, and so is the
    file of the roadmap. `data` is the folder of data sets.

    Raises:
        ValueError: there is no Slurm here, or it refuses; nothing is left behind.
    """
    if shutil.which("sbatch") is None:
        raise ValueError(
            "--launcher slurm was given and there is no sbatch on this machine: give it where "
            "Slurm's "
            "commands are, or --jobs to start processes here"
        )
    launch = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = (study / ".jobs" / launch).absolute()
    if roadmap:
        command = [*command, "--roadmap", str(folder / roadmap.name)]
    program = [sys.executable, str(folder / "code" / "runner.py"), *command]
    named = (option.partition("=") for option in options)
    lines = "\n".join(
        f"#SBATCH --{name}{equals}{shlex.quote(value) if value else ''}"
        for name, equals, value in named
    )
    script = _SCRIPT.format(options=lines, launch=LAUNCH, name=launch, command=shlex.join(program))
    array = f"--array=0-{workers - 1}"
    _sbatch(["--test-only", array], script)
    made = next(path for path in (folder, *folder.parents) if path.parent.exists())
    try:
        data.mkdir(parents=True, exist_ok=True)
        copy_code(folder / "code", version)
        if roadmap:
            shutil.copy2(roadmap, folder)
        (folder / "job.sbatch").write_text(script)
        job = _sbatch(
            [
                "--parsable",
                array,
                f"--output={folder}/%x-%A-%a.log",
                str(folder / "job.sbatch"),
                "--worker",
            ]
        )
        try:
            after = _sbatch(
                [
                    "--parsable",
                    f"--dependency=afterany:{job}",
                    f"--output={folder}/%x-%A.log",
                    str(folder / "job.sbatch"),
                ]
            )
        except ValueError:
            subprocess.run(["scancel", job], check=False)
            raise
    except ValueError:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return Launch(folder, job, after)


def _sbatch(arguments: Sequence[str], script: str | None = None) -> str:
    answer = subprocess.run(
        ["sbatch", *arguments], input=script, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise ValueError(f"Slurm refuses the jobs: {one_line(answer.stderr.strip())}")
    return answer.stdout.strip().partition(";")[0]


def copy_code(folder: Path, version: str) -> None:
    """Copy this program, without its tests and documents, and note its version beside it."""
    home = Path(__file__).parents[1]
    for entry in home.iterdir():
        if (entry / "__init__.py").exists() and entry.name not in ("tests", "benchmarks"):
            shutil.copytree(
                entry, folder / entry.name, ignore=shutil.ignore_patterns("__pycache__")
            )
        elif entry.suffix == ".py":
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(entry, folder / entry.name)
    (folder / CODE_VERSION).write_text(version + "\n")
    os.sync()
