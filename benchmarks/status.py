"""How long `runner.py status` takes for a study of 1,000 runs: whole processes, from start to end.

The study is made up: 600 finished runs, 8 at work, 2 failed, 390 queued. Wall time counts what else
the machine does, so the CPU time of the process is given beside it. Run as: python -m
benchmarks.status [--write]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measure import write
from studies.run_locks import LOCK, note_failure
from studies.status import note_requested
from utils.locks import Lock

ROOT = Path(__file__).parents[1]
STEPS, SEEDS, DONE, RUNNING, FAILED = 50, 20, 600, 8, 2
TIMES = 11


def make(study: Path) -> list[Lock]:
    """A study's folder of 1,000 runs, and the leases of those at work."""
    runs = [(f"step-{step:02}", seed) for step in range(STEPS) for seed in range(SEEDS)]
    study.mkdir(parents=True)
    (study / "study.json").write_text("{}")
    note_requested(study, runs)
    leases = []
    for number, (step, seed) in enumerate(runs[: DONE + RUNNING + FAILED]):
        folder = study / step / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"recipe": {"epochs": 300}}))
        if number < DONE:
            result = {"top1": 84.2, "images_per_second": 900.0, "seconds": {"total": 3600.0}}
            (folder / "result.json").write_text(json.dumps(result))
        elif number < DONE + RUNNING:
            leases.append(Lock(folder / LOCK))
        else:
            note_failure(folder, "the loss is nan in epoch 3", final=True)
    return leases


def main() -> None:
    """Time it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/status.json")
    options = parser.parse_args()
    summary: dict[str, object] = {"runs": STEPS * SEEDS, "n": TIMES}
    with tempfile.TemporaryDirectory() as folder:
        leases = make(Path(folder) / "runs" / "large")
        for form in ("table", "json"):
            command = [
                sys.executable,
                "runner.py",
                "status",
                "--study",
                "large",
                "--runs",
                f"{folder}/runs",
                "--format",
                form,
            ]
            wall, cpu = [], []
            for _ in range(TIMES):
                before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
                subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                wall.append(time.perf_counter() - started)
                cpu.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
            summary[form] = {
                name: {
                    "min": round(min(times), 3),
                    "median": round(statistics.median(times), 3),
                    "max": round(max(times), 3),
                }
                for name, times in (("wall_seconds", wall), ("cpu_seconds", cpu))
            }
        for lease in leases:
            lease.release()
    print(json.dumps(summary, indent=2))
    if options.write:
        write("status", torch.device("cpu"), summary)


if __name__ == "__main__":
    main()
