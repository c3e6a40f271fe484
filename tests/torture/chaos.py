"""Kill runs with SIGKILL at random moments, resume them, and compare them with one never killed.

    python -m tests.torture.chaos --kills 100

A run is `runner.py train STEP` on a few small images. One is left alone. Another, with its own
number of workers and time between checkpoints, is killed again and again: at random moments, or as
soon as a file appears that shows what the run is doing. When it has finished at last, all that it
wrote is compared to the bit, except the fields in NOT_COMPARED, which are times. Exit code 1 if
anything differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from tests.torture.forked import orphans, start
from training import checkpoint

COMMON = [
    *("--preset", "pocket", "--regime", "pocket", "--no-trial", "--resolution", "32"),
    *("--batch-size", "16", "--epochs", "3", "--warmup-epochs", "1", "--study", "chaos"),
]
MIXED = ["--mixup", "0.8", "--cutmix", "1", "--drop-path", "0.3", "--random-erasing", "0.25"]
SETTINGS: dict[str, list[str]] = {
    "baseline": [],
    "separate-downsampling": [
        *(*MIXED, "--ema", "0.9", "--layer-scale", "1e-6", "--micro-batches", "2"),
    ],
    "training-recipe": [*MIXED, "--rand-augment-magnitude", "9"],
    "swin-pocket": [*MIXED, "--ema", "0.9"],
    "depthwise": ["--micro-batches", "4", "--drop-path", "0.2"],
    "layer-norm": [*MIXED, "--precision", "bf16"],
    "kernel-7": ["--color-jitter", "0.4", "--optimizer", "sgd", "--lr", "0.05"],
}
"""Options of each step: SGD and AdamW, batch and layer norm, stochastic depth, layer scale, mixing,
RandAugment, averaged weights, gradient accumulation, mixed precision."""
NOT_COMPARED = {
    "metrics.jsonl": {"seconds", "images_per_second"},
    "result.json": {
        *("seconds", "images_per_second", "inference_ms_1", "inference_ms_64", "finished"),
    },
}
"""Fields that are times."""
AIMS: dict[str, Callable[[Path, Path], object]] = {
    "cache": lambda data, run: sorted(data.glob("cache/*")),
    "checkpoint write": lambda data, run: (run / "checkpoint.pt.part").exists(),
    "checkpoint": lambda data, run: _version(run / "checkpoint.pt"),
    "weights": lambda data, run: (run / "model.safetensors.part").exists(),
    "metrics": lambda data, run: _version(run / "metrics.jsonl"),
    "predictions": lambda data, run: sorted(run.glob("predictions.*")),
}
"""Observations by name: a kill follows as soon as one changes."""


def _version(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_size


def draw_images(root: Path) -> None:
    """Three classes of 24 small images."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (root / name).mkdir(parents=True)
        for number in range(24):
            pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")


def one_life(
    root: Path, step: str, arguments: list[str], rng: random.Random, seconds: float | None
) -> tuple[int | None, str]:
    """Run the command and kill it at a random moment of `seconds`, or at an observation; never, if
    `seconds` is None.

    Returns its exit code, or None if it was killed, and what the kill was aimed at.
    """
    data, run = root / "data", root / "runs/chaos" / step / "seed-0"
    aim = "none" if seconds is None else rng.choice([*AIMS, *["random"] * len(AIMS)])
    observe = AIMS.get(aim, lambda data, run: None)
    before = observe(data, run)
    moment = float("inf")
    if seconds is not None and aim == "random":
        moment = time.monotonic() + 0.7 * seconds * rng.random()
    delay = rng.choice([0, 0.02 * rng.random()])
    process = start(arguments, root / "log.txt")
    while time.monotonic() < moment:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), aim
        if moment == float("inf") and observe(data, run) != before:
            moment = time.monotonic() + delay
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    if orphans(process):
        raise RuntimeError(f"workers of {step} outlived it")
    return None, aim


def contents(root: Path) -> dict[str, Any]:
    """All that must be equal of what a run wrote, by file."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        skipped = path.name.startswith("events.") or path.name == "log.txt"
        if path.is_file() and not skipped:
            found[name] = content(path)
    for result in root.rglob("result.json"):
        found[f"{result.parent.relative_to(root)}/events"] = events(result.parent)
    return found


def content(path: Path) -> Any:
    """The part of a file that is no time."""
    times = NOT_COMPARED.get(path.name)
    if times is not None:
        text = path.read_text()
        parts = [text] if path.name == "result.json" else text.splitlines()
        records = [json.loads(part) for part in parts]
        return [{k: v for k, v in record.items() if k not in times} for record in records]
    if path.name == "checkpoint.pt":
        saved = checkpoint.load(path)
        metrics = saved["state"].pop("metrics")
        del saved["state"]["seconds"]
        is_metrics = metrics == (path.parent / "metrics.jsonl").read_text()
        return {**dict(leaves(saved)), "metrics are those of metrics.jsonl": is_metrics}
    if path.name == "checkpoint.pt.previous":  # of some moment of the last epoch
        return checkpoint.load(path)["digest"]
    return path.read_bytes()


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf of a checkpoint by its path; tensors as type, shape and bytes."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for key, part in enumerate(value):
            yield from leaves(part, f"{name}/{key}")
    elif isinstance(value, torch.Tensor):
        raw = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        yield name, (str(value.dtype), tuple(value.shape), raw)
    else:
        yield name, value


def events(run: Path) -> list[tuple[str, int, float]]:
    """(tag, update, value) as TensorBoard shows them, without times."""
    log = EventAccumulator(str(run), {SCALARS: 0})
    log.Reload()
    tags = [tag for tag in log.Tags()[SCALARS] if "second" not in tag]
    return sorted((tag, event.step, event.value) for tag in tags for event in log.Scalars(tag))


def differences(whole: Path, killed: Path) -> list[str]:
    """The files in which two runs differ."""
    first, second = contents(whole), contents(killed)
    return [name for name in {**first, **second} if first.get(name) != second.get(name)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, kills, failures = random.Random(options.seed), Counter[str](), list[str]()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    draw_images(folder / "images")
    wholes: dict[str, tuple[Path, float]] = {}
    number = 0
    while kills.total() < options.kills:
        step = options.steps[number % len(options.steps)]
        number += 1
        command = ["train", step, *COMMON, *SETTINGS[step]]
        command += ["--dataset", f"imagefolder:{folder / 'images'}"]
        root = folder / f"{step}-{number}"
        for name in (root, folder / f"{step}-whole"):
            (name / "data").mkdir(parents=True, exist_ok=True)
        if step not in wholes:
            whole = folder / f"{step}-whole"
            began = time.monotonic()
            places = ["--runs", str(whole / "runs"), "--data-dir", str(whole / "data")]
            _, status = os.waitpid(start([*command, *places], whole / "log.txt"), 0)
            assert status == 0, (whole / "log.txt").read_text()
            wholes[step] = whole, time.monotonic() - began
        whole, seconds = wholes[step]
        command += ["--runs", str(root / "runs"), "--data-dir", str(root / "data")]
        wanted = kills.total() + rng.randint(5, 12)
        minutes = rng.choice(["0", "0.001", "0.003", "10"])
        code: int | None = None
        while code is None:
            workers = rng.choice(["0", "1", "2"])
            life = [*command, "--checkpoint-minutes", minutes, "--workers", workers]
            is_last = kills.total() >= min(wanted, options.kills)
            code, aim = one_life(root, step, life, rng, None if is_last else seconds)
            kills[aim] += code is None
        odd = differences(whole, root) if code == 0 else [(root / "log.txt").read_text()]
        failures += [f"{root.name}: {name}" for name in odd]
        print(f"{root.name}: {kills.total()} kills in all, differences: {odd}", flush=True)
        if not odd:
            shutil.rmtree(root)
    if not failures:
        shutil.rmtree(folder)
    print(f"kills: {kills.total()} {dict(kills)}; differences: {len(failures)} {failures}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
