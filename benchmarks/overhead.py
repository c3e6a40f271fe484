"""What a run costs beside its training: 54 trivial runs by one command, the report included.

A run here is two updates of a pocket network. Of the time of `runner.py all` what its runs computed
is taken off (images, updates, evaluations, as their result.json has them; with --jobs over all
jobs), and what the command takes before its first run (that of the same command with --dry-run:
Python, the plan, the bill). The rest, over all runs, is what a run costs: its lock or lease, its
files, its checkpoints, its share of the report. The goal is under a second.

    python -m benchmarks.overhead [any option of `runner.py all`, such as --jobs 2]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ablations import PAPER, get_regime
from benchmarks.measure import write

ROOT = Path(__file__).parents[1]
GOAL = 1.0
"""Seconds a run."""
_COMPUTED = ("data", "forward", "backward", "optimizer", "evaluation")


def draw(root: Path) -> None:
    """Three classes of 30 images of 40 x 40 pixels."""
    random = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        (root / name).mkdir(parents=True)
        for number in range(30):
            image = Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8))
            image.save(root / name / f"{number:02}.jpg")


def seconds_of(arguments: Sequence[str]) -> float:
    """Of a command of runner.py, whose output is shown if it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "runner.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", nargs="*", help="all rows of the roadmap if none is given")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--jobs", type=int, default=1, help="at once")
    parser.add_argument("--out", type=Path, help="folder for the result")
    options, further = parser.parse_known_args(arguments)
    if options.jobs > 1:
        further += ["--jobs", str(options.jobs)]
    steps = options.steps or [step.name for step in PAPER.steps_in(get_regime("pocket"))]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        draw(root / "images")
        study = [
            "--preset",
            "pocket",
            "--regime",
            "pocket",
            "--study",
            "trivial",
            "--data-dir",
            str(root),
            "--dataset",
            f"imagefolder:{root / 'images'}",
            "--runs",
            str(root / "runs"),
            "--device",
            "cpu",
            "--workers",
            "0",
            "--resolution",
            "32",
            "--epochs",
            "1",
            "--warmup-epochs",
            "0",
            "--batch-size",
            "32",
            "--no-trial",
            "--steps",
            *steps,
            "--seeds",
            *options.seeds,
            *further,
        ]
        start = seconds_of(["all", *study, "--dry-run"])
        whole = seconds_of(["all", *study])
        again = seconds_of(["all", *study])
        report = seconds_of(["report", "--study", str(root / "runs" / "trivial")])
        results = [
            json.loads(path.read_text()) for path in root.glob("runs/trivial/*/seed-*/result.json")
        ]
    computed = sum(result["seconds"][phase] for result in results for phase in _COMPUTED)
    other = sum(result["seconds"]["other"] for result in results)
    each = (whole - start - computed / options.jobs) / len(results)
    summary = {
        "runs": len(results),
        "seconds": round(whole, 2),
        "start": round(start, 2),
        "computed": round(computed, 2),
        "other_within_runs": round(other, 2),
        "report_with_its_start": round(report, 2),
        "the_command_again_when_all_is_done": round(again, 2),
        "overhead_of_a_run": round(each, 3),
        "goal": GOAL,
    }
    print(json.dumps(summary, indent=1))
    content = {
        "options": {"steps": steps, "seeds": options.seeds, "further": further},
        "summary": summary,
    }
    if options.out:
        write("overhead", torch.device("cpu"), content, folder=options.out)
    else:
        write("overhead", torch.device("cpu"), content)


if __name__ == "__main__":
    main()
