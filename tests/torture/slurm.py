"""A study on a real Slurm, which is started here for it: preempted, out of time, killed and
cancelled, one task each.

`runner.py all --launcher slurm` submits an array of four workers. One is preempted by a job of a
better partition and requeued; one runs into its time limit; the process of one is killed by
SIGKILL; one is cancelled. What they and the job after them make is compared with what one local
process makes, byte for byte but for times. The program is edited after the submission, to show that
jobs run the code that was submitted. Needs Debian's slurm-wlm and munge; without them it says so
and is skipped. Run as: python -m tests.torture.slurm, or `make test-slurm`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests import food101
from tests.torture.private_slurm import answer, missing, private_slurm
from tests.torture.sharing import differences, place, request

ROOT = Path(__file__).parents[2]
STEPS, SEEDS, WORKERS = ["training-recipe", "layer-norm"], 4, 4
SECONDS = 15.0
"""That a run takes alone, about: the study then lasts longer than Slurm takes to notice a time
limit."""


def main() -> int:
    """The whole of it."""
    if lacks := missing():
        print(
            f"skipped: this machine has no {', '.join(lacks)} (Debian: apt-get install slurm-wlm "
            "munge)"
        )
        return 0
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    os.environ |= {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    food101.write(folder / "images/food-101", train=12, test=4)
    code = folder / "program"
    shutil.copytree(ROOT, code, ignore=shutil.ignore_patterns(".venv", "runs", "datasets", "tests"))
    epochs = str(_epochs(folder, code))
    alone, shared = (place(folder / name, folder / "images") for name in ("alone", "shared"))
    more = ("--epochs", epochs, "--checkpoint-minutes", "0.1")
    _run(code, request(alone, STEPS, SEEDS, more))
    with private_slurm(folder / "slurm", cpus=WORKERS):
        found = _refusals(code, shared, more) + _torment(code, shared, more)
    found += differences(alone, shared)
    if not (shared / "runs/shared/report/report.md").exists():
        found.append("no report was written")
    print("\n".join(found) or "as one local process")
    if not found:
        shutil.rmtree(folder)
    return int(bool(found))


def _epochs(folder: Path, code: Path) -> int:
    """As many as make a run last."""
    taken = []
    for epochs in (2, 12):
        trial, started = place(folder / f"trial-{epochs}", folder / "images"), time.monotonic()
        _run(code, request(trial, STEPS[1:], 1, ("--epochs", str(epochs))))
        taken.append(time.monotonic() - started)
    return max(12, round(10 * SECONDS / max(taken[1] - taken[0], 1)))


def _run(code: Path, words: list[str]) -> str:
    """What `runner.py` says, all of it."""
    command = [sys.executable, "runner.py", *words]
    done = subprocess.run(
        command, cwd=code, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode not in (0, 2):
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def _refusals(code: Path, shared: Path, more: tuple[str, ...]) -> list[str]:
    """A partition that there is not is answered in Slurm's words, and leaves nothing behind."""
    said = _run(
        code,
        [*request(shared, STEPS, SEEDS, more), "--launcher", "slurm", "--partition", "nowhere"],
    )
    right = re.fullmatch(r"runner.py: Slurm refuses the jobs: .*nvalid partition.*\n", said)
    left = [
        str(path)
        for path in shared.rglob("*")
        if path.parts[-2:] != ("data", "food-101") and path.name != "data"
    ]
    return ([] if right else [f"of an unknown partition it says: {said}"]) + [
        f"{path} was left behind" for path in left
    ]


def _torment(code: Path, shared: Path, more: tuple[str, ...]) -> list[str]:
    """Submit the study and disturb its tasks; what went wrong."""
    words = [
        *request(shared, STEPS, SEEDS, more),
        "--launcher",
        "slurm",
        "--jobs",
        str(WORKERS),
        "--partition",
        "low",
        "--time-limit",
        "60",
        "--sbatch",
        "ntasks=1",
        "signal=B:USR1@20",
    ]
    said = _run(code, words)
    print(said, flush=True)
    array, closing = re.findall(r"job (\d+)", said)[:2]
    (jobs,) = (shared / "runs/shared/.jobs").iterdir()
    (code / "training/train.py").write_text(
        "raise RuntimeError('this code was edited after the submission')\n"
    )
    logs = [jobs / f"shared-{array}-{task}.log" for task in range(WORKERS)]
    found: list[str] = []

    def expect(what: str, there: Callable[[], object], seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not there():
            if time.monotonic() > end or not answer("squeue", "-h").strip():
                found.append(f"not within {seconds:.0f} seconds, or before all jobs ended: {what}")
                return
            time.sleep(0.5)
        print(f"{what}", flush=True)

    expect("all four workers train", lambda: len(_training(shared, array)) == WORKERS)
    answer("scontrol", "update", f"jobid={array}_1", "timelimit=1")
    answer("sbatch", "-p", "high", "-n1", "--output=/dev/null", "--wrap", "sleep 5")
    expect("a task was preempted and requeued", lambda: _restarts(array, range(WORKERS)))
    preempted = _restarts(array, range(WORKERS))
    victim = next(task for task in (0, 2, 3) if task not in preempted)
    if pid := _training(shared, array).get(victim):
        os.kill(pid, signal.SIGKILL)
    else:
        found.append(f"task {victim} trains nothing that could be killed")
    cancelled = next(task for task in (0, 2, 3) if task not in (*preempted, victim))
    answer("scancel", f"{array}_{cancelled}")
    expect(
        "the cancelled worker saved its run",
        lambda: "was stopped in epoch" in logs[cancelled].read_text(),
    )
    expect(
        "one ran into its time limit, saved its run and was requeued",
        lambda: 1 in _restarts(array, range(WORKERS)),
    )
    restarted = _restarts(array, range(WORKERS))
    if set(restarted) != {1, *preempted}:
        found.append(
            f"restarted were the tasks {sorted(restarted)} instead of 1 and {sorted(preempted)}"
        )
    expect("nothing is queued any more", lambda: not answer("squeue", "-h").strip(), 900)
    for name, text in [(log.name, log.read_text()) for log in jobs.glob("*.log")]:
        found += [
            f"{name}: {line}"
            for line in text.splitlines()
            if "edited after" in line or "Traceback" in line
        ]
    if "report:" not in (jobs / f"shared-{closing}.log").read_text():
        found.append("the closing job wrote no report")
    if found:
        print(
            *(f"== {log.name}\n{log.read_text()}" for log in sorted(jobs.glob("*.log"))), sep="\n"
        )
    return found


def _training(shared: Path, array: str) -> dict[int, int]:
    """Process of each of the array's tasks that trains, as `status` says."""
    from studies.status import read_status

    if not (shared / "runs/shared/study.json").exists():
        return {}
    running = read_status(shared / "runs/shared").of("running")
    holders = [run.holder or "" for run in running if run.epoch]
    matches = (
        re.fullmatch(rf"process (\d+) on \S+, job {array}_(\d+)", holder) for holder in holders
    )
    return {int(match[2]): int(match[1]) for match in matches if match}


def _restarts(array: str, tasks: range) -> set[int]:
    """Tasks of the array that were requeued."""
    shown = {task: answer("scontrol", "show", "job", f"{array}_{task}") for task in tasks}
    return {task for task, said in shown.items() if re.search(r"Restarts=[1-9]", said)}


if __name__ == "__main__":
    sys.exit(main())
