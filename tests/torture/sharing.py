"""Start several workers in the same second on one folder, kill some, and compare what they train
with one worker's runs.

    python -m tests.torture.sharing --workers 8 --kills 3

All are `runner.py all` on a few of the embedded images, which nobody has decoded yet. The images
are decoded once, each run is trained once, nobody waits for ever, and the results are those of one
worker, byte for byte but for times. Exit code 1 if anything else is seen.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

import report.page  # noqa: F401  so that forked processes have it already
from tests import food101
from tests.torture.chaos import COMMON, MIXED, content
from tests.torture.forked import start

SAME = "config.json metrics.jsonl model.safetensors predictions.csv result.json checkpoint.pt"
"""Files of a run that do not depend on who trained it."""


def request(root: Path, steps: list[str], seeds: int, more: tuple[str, ...] = ()) -> list[str]:
    """The command that every worker gets, without `runner.py`."""
    places = ["--runs", str(root / "runs"), "--data-dir", str(root / "data"), "--device", "cpu"]
    which = ["--steps", *steps, "--seeds", *map(str, range(seeds)), "--study", "shared"]
    return ["all", *COMMON, "--dataset", "food101", *MIXED, *which, *places, *more]


class Process:
    """A worker, forked from this process."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.pid, self.code = start(words, log), None

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        while not self.ended():
            time.sleep(0.001)


def place(root: Path, images: Path) -> Path:
    """A folder for runs and images, with nothing decoded yet."""
    (root / "data").mkdir(parents=True)
    (root / "data/food-101").symlink_to(images / "food-101")
    return root


def differences(alone: Path, shared: Path) -> list[str]:
    """What differs between the runs of two folders; empty if nothing does."""
    one, other = (
        sorted(run.relative_to(root) for run in root.glob("runs/*/*/seed-*"))
        for root in (alone, shared)
    )
    found = [] if one == other else [f"the runs are {other}, and of one worker {one}"]
    for file in (run / name for run in one for name in SAME.split()):
        there = (alone / file).exists() and (shared / file).exists()
        if not there or content(alone / file) != content(shared / file):
            found.append(f"{file} differs or is missing")
    patterns = (".lock*", "failure.json")
    left = [path for each in patterns for path in shared.glob(f"runs/*/*/*/{each}")]
    return found + [f"{path.relative_to(shared)} is left over" for path in left]


def share(
    root: Path, words: list[str], workers: int, kills: int, seconds: float, rng: random.Random
) -> tuple[list[str], int]:
    """Start the workers on `root` and kill some within `seconds`.

    Returns what went wrong, as far as their own words tell, and how many were killed.
    """
    processes = [Process(words, root / f"worker-{number}.txt") for number in range(workers)]
    started, killed = time.monotonic(), set[int]()
    victims = {
        number: started + rng.uniform(0, seconds) for number in rng.sample(range(workers), kills)
    }
    while not all(process.ended() for process in processes):
        for number, moment in victims.items():
            if time.monotonic() > moment and not processes[number].ended():
                processes[number].kill()
                killed.add(number)
        if time.monotonic() - started > 10 * seconds + 120:
            for process in processes:
                if not process.ended():
                    process.kill()
            return ["somebody still waited at the end"], len(killed)
        time.sleep(0.01)
    left = set(range(workers)) - killed
    found = [
        f"worker {each} ended with {processes[each].code}" for each in left if processes[each].code
    ]
    output = "".join((root / f"worker-{each}.txt").read_text() for each in left)
    decoded = Counter(re.findall(r"Decoding \d+ images of (\S+)", output))
    found += [f"{name} was decoded {count} times" for name, count in decoded.items() if count > 1]
    return found, len(killed)


def main() -> int:
    """Let one worker train the runs, then let several share them, round after round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    steps = ["training-recipe", "inverted-bottleneck", "layer-norm"]
    parser.add_argument("--steps", nargs="+", default=steps)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder, rng = Path(tempfile.mkdtemp(prefix="sharing-")), random.Random(options.seed)
    os.environ["XDG_CACHE_HOME"], os.environ["OMP_NUM_THREADS"] = str(folder / "cache"), "1"
    food101.write(folder / "images/food-101", train=12, test=4)
    alone = place(folder / "alone", folder / "images")
    started = time.monotonic()
    wrong, _ = share(alone, request(alone, options.steps, options.seeds), 1, 0, 600, rng)
    if wrong:
        print("\n".join(wrong), (alone / "worker-0.txt").read_text(), sep="\n")
        return 1
    seconds = time.monotonic() - started
    for number in range(options.rounds):
        shared = place(folder / f"shared-{number}", folder / "images")
        words = request(shared, options.steps, options.seeds)
        found, killed = share(shared, words, options.workers, options.kills, seconds / 2, rng)
        found += differences(alone, shared)
        # Each process that trains a run opens a file of events in its folder.
        first, files = (len(list(root.glob("runs/*/*/*/events.*"))) for root in (alone, shared))
        if files > first + killed:
            found.append(f"{files} files of events, and {first} of one worker")
        print(f"round {number}: {killed} killed, {found or 'as one worker'}", flush=True)
        wrong += found
        if not found:
            shutil.rmtree(shared)
    if not wrong:
        shutil.rmtree(folder)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
