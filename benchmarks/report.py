"""What a report costs: time and memory of `runner.py report` on made-up studies, each in a process
of its own, and the size of the page and of the study's pack.

The studies are written as training writes them: all 18 networks of the roadmap, 300 epochs, and
what they say of Food-101's 25,250 test images; five seeds each, and then enough for 1,000 runs.
Processor time is user and system time of all threads: on a machine that does other things as well
it is the one to compare.

    python -m benchmarks.report [--seeds 5 56] [--folder FOLDER]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from ablations import PAPER, get_regime
from ablations.designs import DesignSpec, build_design
from ablations.presets import get_preset
from benchmarks.measure import write
from benchmarks.worlds import World
from studies.pack import pack
from studies.plan import note_plan, planned
from studies.run import Run
from studies.study import note_design, open_study
from training import records
from training.evaluation import Evaluation
from training.execution import Execution, Stores
from training.spec import METRICS, WEIGHTS

CPU = torch.device("cpu")
CLASSES, TRAIN, IMAGES = 101, 68_175, 25_250
STEPS = (2.0, 0.5, 0.0, -1.0, 1.0, 0.0, -0.5, 0.3, 0.2, 0.1, 0.0, 0.5, -0.3, 0.0, 1.0, 0.3, -2.0)
"""Points between each of the 18 rows and the one before it."""
_REPORT = """
import os, re, runner, sys
code = runner.main()
peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]
print(sum(os.times()[:4]), peak)
sys.exit(code)
"""
# From /proc: the peak that the parent gets for a child is at least its own size at the start.


def make(folder: Path, seeds: int) -> int:
    """A study in `folder`; how many runs it has."""
    config = get_preset("food101")
    regime = get_regime(config.regime)
    design = build_design(PAPER, regime, DesignSpec())
    names = [f"class-{number:03d}" for number in range(CLASSES)]
    sizes = {"train": TRAIN, "validation": 75_750 - TRAIN, "test": IMAGES}
    about = {
        "name": "food101",
        "description": "Made up.",
        "synthetic": True,
        "classes": names,
        **sizes,
        "skipped": {},
    }
    study = open_study(folder, config, about, "made up")
    note_design(folder, design.record)
    chosen = [row.name for row in design.variants]
    how: dict[str, Any] = {"until_resolved": False, "margin": None, "runs_at_most": None}
    note_plan(folder, planned(folder, design, config, chosen, range(seeds), **how))

    rng = np.random.default_rng(0)
    correct, _ = World(STEPS, seeds, IMAGES).draw(rng)
    labels = np.arange(IMAGES) % CLASSES
    ids = tuple(f"{names[label]}/{number:07d}" for number, label in enumerate(labels.tolist()))
    stores = cast(
        Stores, SimpleNamespace(train=range(TRAIN), test=SimpleNamespace(ids=ids), skipped={})
    )
    seconds = {
        "data": 1e3,
        "forward": 9e3,
        "backward": 2e4,
        "optimizer": 2e3,
        "evaluation": 2e3,
        "other": 1e2,
    }
    for row, own in zip(design.variants, correct.values(), strict=True):
        setup = design.setup(row, regime, config, CLASSES)
        for seed, right in enumerate(own):
            run = Run(study, row.name, row.number, seed, setup.architecture, setup.recipe)
            records.begin(run.spec, stores, Execution(CPU))
            lines = map(json.dumps, _epochs(setup.recipe.epochs, seconds, 100 * right.mean()))
            (run.folder / METRICS).write_text("".join(f"{line}\n" for line in lines))
            (run.folder / WEIGHTS).write_bytes(b"")
            test = _evaluation(labels, right.astype(bool), rng)
            costs = {"inference_ms_1": 9.0, "inference_ms_64": 300.0, "peak_memory_mb": 9000.0}
            records.finish(
                run.spec, stores, Execution(CPU), test, setup.recipe.epochs, seconds, costs
            )
    return len(correct) * seeds


def _epochs(count: int, seconds: dict[str, float], top1: float) -> list[dict[str, Any]]:
    spent = {phase: value / count for phase, value in seconds.items()}
    losses = {"lr": 1e-3, "train_loss": 2.0, "validation_loss": 1.0, "images_per_second": 640.0}
    return [
        {
            "epoch": epoch,
            "update": 133 * epoch,
            **losses,
            "validation_top1": top1 * epoch / count,
            "seconds": spent,
        }
        for epoch in range(1, count + 1)
    ]


def _evaluation(labels: np.ndarray, right: np.ndarray, rng: np.random.Generator) -> Evaluation:
    """What a network says that is right about these images."""
    start, stride = rng.integers(1, CLASSES, (2, len(labels), 1))
    stride = 1 + stride % 19  # of five classes none is met twice
    others = (labels[:, None] + start + stride * np.arange(5)) % CLASSES
    others = np.where(others == labels[:, None], (others - stride) % CLASSES, others)
    top = np.where(right[:, None], np.concatenate([labels[:, None], others[:, :4]], axis=1), others)
    best = rng.beta(np.where(right, 4.0, 2.0), 1.5)
    own = np.where(right, best, rng.beta(1.0, 20.0, len(labels)) * best)
    return Evaluation(
        *(torch.from_numpy(array) for array in (labels, top, own.astype("f4"), best.astype("f4")))
    )


def measure(folder: Path) -> dict[str, float]:
    """One report of the study in `folder`."""
    started = time.perf_counter()
    command = [sys.executable, "-c", _REPORT, "report", "--study", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    processor, kilobytes = map(float, done.stdout.splitlines()[-1].split())
    return {
        "wall_seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(processor, 1),
        "peak_megabytes": round(kilobytes * 1024 / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="*", default=[5, 56], help="one study each")
    parser.add_argument("--rounds", type=int, default=3, help="reports of each study")
    parser.add_argument(
        "--folder", type=Path, help="where studies are design, or found; a temporary one if none"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = []
        for seeds in options.seeds:
            study = (options.folder or Path(temporary)) / f"seeds-{seeds}"
            runs = len(list(study.glob("*/seed-*/result.json"))) or make(study, seeds)
            rounds = [measure(study) for _ in range(options.rounds)]
            files = {
                path.suffix[1:]: path.stat().st_size for path in (study / "report").glob("report.*")
            }
            packed = Path(temporary) / f"seeds-{seeds}.pack"
            pack(study, packed)
            sizes = {"bytes_of_report": files, "bytes_of_pack": packed.stat().st_size}
            found.append({"runs": runs, "images": IMAGES, **sizes, "reports": rounds})
            print(json.dumps(found[-1]), flush=True)
    load = {"load_average": [round(value, 1) for value in os.getloadavg()], "cores": os.cpu_count()}
    write(
        "report",
        CPU,
        {"goal": {"90": [15, 1000], "1000": [60]}, **load, "studies": found},
        "pandas",
        "matplotlib",
    )


if __name__ == "__main__":
    main()
