"""Two cores, used three ways: one process of two threads, two processes that share a run, two runs
at once.

Every way trains the same networks on the same drawn images with the same batch of two
micro-batches, by runner.py itself; the ways take turns. A rate is the median over epochs of what
metrics.jsonl says, without the first epoch; of two runs at once, the sum of theirs. The goal is
that two processes of one run reach 0.95 of one process.

    taskset -c 0,1 python -m benchmarks.two_processes
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ablations import PAPER, get_regime
from benchmarks.measure import RESULTS, spread, write

ROOT = Path(__file__).parents[1]
GOAL = 0.95
RUNNER = [sys.executable, "runner.py"]
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
    "runner.py",
]
WAYS: Mapping[str, tuple[Sequence[str], int, int]] = {
    "one process of two threads": (RUNNER, 2, 1),
    "two processes of one run": (TORCHRUN, 1, 1),
    "two runs at once": (RUNNER, 1, 2),
}
"""How runner.py is started, threads of a process, runs."""


def rate(way: str, arguments: Sequence[str], runs: Path, step: str) -> float:
    """Images a second of all runs together."""
    start, threads, count = WAYS[way]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    commands = [
        [*start, "train", step, *arguments, "--runs", str(runs), "--seed", str(seed)]
        for seed in range(count)
    ]
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment, **pipe) for command in commands
    ]
    printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("\n".join(printed))
    rates = [
        statistics.median(
            json.loads(line)["images_per_second"] for line in metrics.read_text().splitlines()[1:]
        )
        for metrics in runs.glob("*/*/seed-*/metrics.jsonl")
    ]
    return float(sum(rates))


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    add = parser.add_argument
    add("--steps", nargs="+", default=["1", "13"])
    add("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    add("--regime", default="mini", choices=["mini", "small", "tiny"])
    add("--resolution", type=int, default=64, help="pixels")
    add("--batch", type=int, default=64, help="images")
    add("--epochs", type=int, default=4)
    add("--rounds", type=int, default=3)
    options = parser.parse_args()
    steps = [PAPER.step(step, get_regime(options.regime)).name for step in options.steps]
    rates: dict[str, dict[str, list[float]]] = {
        step: {way: [] for way in options.ways} for step in steps
    }
    fixed = "--preset pocket --device cpu --workers 0 --no-trial --warmup-epochs 1"
    own = (
        f"--regime {options.regime} --resolution {options.resolution} --epochs {options.epochs} "
        f"--batch-size {options.batch} --micro-batches 2"
    )
    with tempfile.TemporaryDirectory() as name:
        study = [*fixed.split(), *own.split(), "--data-dir", name]
        for number in range(options.rounds):
            for step in steps:
                for place, way in enumerate(options.ways):
                    found = rate(way, study, Path(name, "runs", f"{number}-{step}-{place}"), step)
                    rates[step][way].append(found)
                    print(f"{number + 1}  {step:<22} {way:<28} {found:8.1f} images/s", flush=True)
    rows = []
    for step, each in rates.items():
        spreads = {way: spread(values) for way, values in each.items()}
        one = spreads[options.ways[0]]["median"]
        ratios = {way: round(found["median"] / one, 3) for way, found in spreads.items()}
        rows.append({"step": step, "of_first_way": ratios, "images_per_second": spreads})
        print(step, ratios)
    content = {"options": vars(options), "goal": GOAL, "rows": rows}
    write(RESULTS / "two-processes.json", torch.device("cpu"), content)


if __name__ == "__main__":
    main()
