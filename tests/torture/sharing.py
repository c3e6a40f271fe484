"""Start several workers in the same second on one folder, kill some, and compare what they make
with one worker's.

All are `runner.py all` on a few of the embedded images, which nobody has decoded yet. Shown: the
cache is built once, every run is made once, nobody waits for ever, and the results are those of one
worker, byte for byte but for times. Exit code 1 if anything else is seen. Run as: python -m
tests.torture.sharing --help
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
from typing import Any

import torch

import report.page  # noqa: F401  so that forked processes have it already
from benchmarks.measure import write
from data import pocket
from tests.torture.chaos import COMMON, MIXED, content, start

SAME = (
    "config.json",
    "metrics.jsonl",
    "model.safetensors",
    "predictions.csv",
    "result.json",
    "checkpoint.pt",
)
"""Files of a run that do not depend on who made it."""


def request(root: Path, steps: list[str], seeds: int, more: tuple[str, ...] = ()) -> list[str]:
    """The command that every worker gets, without `runner.py`."""
    return [
        "all",
        *COMMON,
        *("--dataset", "food101"),
        *MIXED,
        *more,
        "--steps",
        *steps,
        "--seeds",
        *map(str, range(seeds)),
        "--study",
        "shared",
        "--runs",
        str(root / "runs"),
        "--data-dir",
        str(root / "data"),
        "--device",
        "cpu",
    ]


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
    found, folders = (
        [],
        [
            sorted(p.relative_to(root) for p in root.glob("runs/*/*/seed-*"))
            for root in (alone, shared)
        ],
    )
    if folders[0] != folders[1]:
        found.append(f"the runs are {folders[1]}, and of one worker {folders[0]}")
    for folder in folders[0]:
        for name in SAME:
            there = [(root / folder / name).exists() for root in (alone, shared)]
            if there != [True, True] or content(alone / folder / name) != content(
                shared / folder / name
            ):
                found.append(f"{folder / name} differs or is missing")
    left = [
        path
        for pattern in (".lock*", "failure.json")
        for path in shared.glob(f"runs/*/*/*/{pattern}")
    ]
    return found + [f"{path.relative_to(shared)} is left over" for path in left]


def share(
    root: Path, words: list[str], workers: int, kills: int, seconds: float, rng: random.Random
) -> tuple[list[str], int]:
    """Start the workers on `root` and kill some within `seconds`.

    Returns what went wrong, as far as their own words tell, and how many were killed.
    """
    processes = [Process(words, root / f"worker-{number}.txt") for number in range(workers)]
    victims = dict(
        zip(
            rng.sample(range(workers), kills), sorted(rng.uniform(0, seconds) for _ in range(kills))
        )
    )
    started, end, killed = time.monotonic(), time.monotonic() + 10 * seconds + 120, set[int]()
    while not all(process.ended() for process in processes):
        for number, moment in victims.items():
            if (
                time.monotonic() - started > moment
                and number not in killed
                and not processes[number].ended()
            ):
                processes[number].kill()
                killed.add(number)
        if time.monotonic() > end:
            for process in processes:
                if not process.ended():
                    process.kill()
            return [f"somebody still waited after {end - started:.0f} seconds"], len(killed)
        time.sleep(0.01)
    found = [
        f"worker {number} ended with {process.code}"
        for number, process in enumerate(processes)
        if number not in killed and process.code
    ]
    said = {number: (root / f"worker-{number}.txt").read_text() for number in range(workers)}
    for what, pattern in (
        ("decoded", r"Decoding \d+ images of (\S+)"),
        ("made", r"(\S+ seed \d+): top-1"),
    ):
        done = Counter(
            name
            for number in said
            if number not in killed
            for name in re.findall(pattern, said[number])
        )
        found += [f"{name} was {what} {count} times" for name, count in done.items() if count > 1]
    return found, len(killed)


def main() -> int:
    """The whole of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--steps", nargs="+", default=["training-recipe", "inverted-bottleneck", "layer-norm"]
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--write", action="store_true", help="write tests/torture/sharing.json")
    options = parser.parse_args()

    torch.set_num_threads(1)
    folder, rng, rounds = (
        Path(tempfile.mkdtemp(prefix="sharing-")),
        random.Random(options.seed),
        list[dict[str, Any]](),
    )
    os.environ["XDG_CACHE_HOME"], os.environ["OMP_NUM_THREADS"] = str(folder / "cache"), "1"
    pocket.write(folder / "images/food-101", train=12, test=4)
    alone = place(folder / "alone", folder / "images")
    started = time.monotonic()
    wrong, _ = share(alone, request(alone, options.steps, options.seeds), 1, 0, 600, rng)
    if wrong:
        print("\n".join(wrong), (alone / "worker-0.txt").read_text(), sep="\n")
        return 1
    seconds = time.monotonic() - started
    for number in range(options.rounds):
        shared, started = place(folder / f"shared-{number}", folder / "images"), time.monotonic()
        words = request(shared, options.steps, options.seeds)
        found, killed = share(shared, words, options.workers, options.kills, seconds / 2, rng)
        found += differences(alone, shared)
        rounds.append(
            {"killed": killed, "seconds": round(time.monotonic() - started, 1), "found": found}
        )
        print(
            f"round {number}: {killed} killed, {rounds[-1]['seconds']} s, "
            f"{found or 'as one worker'}",
            flush=True,
        )
        if not found:
            shutil.rmtree(shared)
    summary = {
        "workers": options.workers,
        "kills": options.kills,
        "runs": len(options.steps) * options.seeds,
        "seconds_of_one_worker": round(seconds, 1),
        "rounds": rounds,
    }
    if options.write:
        write("sharing", torch.device("cpu"), summary, folder=Path(__file__).parent)
    wrong = [what for one in rounds for what in one["found"]]
    if not wrong:
        shutil.rmtree(folder)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
