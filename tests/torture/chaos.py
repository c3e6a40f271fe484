"""Kill a run with SIGKILL again and again, start it again with the same command, compare it with
one never interrupted.

A run is `runner.py train STEP` on a few of the embedded images, laid out as Food-101. One is left
alone; others like it, with another number of workers and another time between checkpoints, are
killed: at random moments, or as soon as a file appears that says what the run is at. When they have
finished at last, everything they wrote is compared byte for byte, but for the fields in
`NOT_COMPARED`, which are times. Exit code 1 if anything differs.

Four of five processes are forked from this one, which has imported torch already (3 seconds each
time); they then call `runner.main` as the command line does. The others are whole processes, so
that the start is hit too.
Run as: python -m tests.torture.chaos --help
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which every optimizer imports
from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: F401

import runner
import studies.run_queue  # noqa: F401  so that forked processes have it already, as tensorboard's
from benchmarks.measure import write
from data import pocket
from tests.torture.chaos_compare import NOT_COMPARED, differences, phase

ROOT = Path(__file__).parents[2]
COMMON = (
    "--preset",
    "pocket",
    "--regime",
    "pocket",
    "--dataset",
    "food101",
    "--no-trial",
    "--resolution",
    "32",
    "--batch-size",
    "16",
    "--epochs",
    "3",
    "--warmup-epochs",
    "1",
)
MIXED = ("--mixup", "0.8", "--cutmix", "1", "--drop-path", "0.3", "--random-erasing", "0.25")
Setting = tuple[str, tuple[str, ...]]
# Step and options. Between them: SGD and AdamW, batch norm and layer norm, stochastic depth, layer
# scale, mixing, RandAugment, an average of the weights, gradient accumulation, mixed precision.
SETTINGS: tuple[Setting, ...] = (
    ("baseline", ()),
    (
        "separate-downsampling",
        (*MIXED, "--ema", "0.9", "--layer-scale", "1e-6", "--micro-batches", "2"),
    ),
    ("training-recipe", (*MIXED, "--rand-augment-magnitude", "9")),
    ("swin-pocket", (*MIXED, "--ema", "0.9")),
    ("depthwise", ("--micro-batches", "4", "--drop-path", "0.2")),
    ("layer-norm", (*MIXED, "--precision", "bf16")),
    ("inverted-bottleneck", ("--ema", "0.5", "--optimizer", "sgd", "--lr", "0.05")),
    ("stage-ratio", (*MIXED, "--precision", "fp16")),
    (
        "kernel-7",
        ("--color-jitter", "0.4", "--crop-scale", "0.08", "1", "--init", "truncated-normal"),
    ),
)
# One that decodes all pocket images.
WHOLE_SET: Setting = (
    "gelu",
    (
        "--preset",
        "pocket",
        "--regime",
        "pocket",
        "--no-trial",
        "--resolution",
        "64",
        "--epochs",
        "1",
        "--warmup-epochs",
        "0",
        "--batch-size",
        "120",
    ),
)


@dataclass(frozen=True)
class Place:
    """Where a run and its images are."""

    root: Path
    step: str

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def run(self) -> Path:
        return self.root / "runs" / "chaos" / self.step / "seed-0"

    def command(self, options: tuple[str, ...]) -> list[str]:
        return [
            "train",
            self.step,
            *options,
            "--study",
            "chaos",
            "--runs",
            str(self.root / "runs"),
            "--data-dir",
            str(self.data),
        ]


Trigger = Callable[[Place], object]
# What to wait for before a kill, by name; what it answers at the start must change. Some of these
# files live for a millisecond, so not every kill hits what it was aimed at: what it did hit is
# found out afterwards (`phase`).
AIMS: dict[str, Trigger] = {
    "cache": lambda at: sum(1 for _ in at.data.glob("cache/*")),
    "cache part": lambda at: [f.stat().st_size for f in at.data.glob("cache/*.part/images.bin")],
    "checkpoint write": lambda at: (at.run / "checkpoint.pt.part").exists(),
    "checkpoint": lambda at: _inode(at.run / "checkpoint.pt"),
    "weights": lambda at: (at.run / "model.safetensors.part").exists(),
    "metrics": lambda at: _inode(at.run / "metrics.jsonl"),
    "predictions": lambda at: (
        (at.run / "predictions.csv.part").exists() or (at.run / "predictions.csv").exists()
    ),
}
BEFORE_TRAINING = ("cache", "cache part")


def _inode(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_size


class Process:
    """One life of a run, in a session of its own."""

    def __init__(self, arguments: list[str], log: Path, plain: bool) -> None:
        self.started = time.time()
        self.code: int | None = None
        sys.stdout.flush()
        if plain:
            with log.open("ab") as file:
                command = [sys.executable, "runner.py", *arguments]
                self.popen = subprocess.Popen(
                    command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True
                )
            self.pid = self.popen.pid
            return
        self.pid = os.fork()
        if not self.pid:
            code = 99
            try:
                os.setsid()
                descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                code = runner.main(arguments)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                if hasattr(self, "popen"):
                    self.popen.returncode = self.code
        return self.code is not None

    def kill(self) -> None:
        """The process alone, as the kernel does when memory runs out: its workers have to notice by
        themselves."""
        os.kill(self.pid, signal.SIGKILL)
        while not self.ended():
            time.sleep(0.0005)

    def orphans(self, patience: float = 1.0) -> list[int]:
        """Processes of the session that outlive it by so many seconds."""
        end = time.monotonic() + patience
        while (left := _session(self.pid)) and time.monotonic() < end:
            time.sleep(0.01)
        return left


def _session(leader: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(session) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


@dataclass
class Tally:
    """What has been done and found."""

    kills: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    aims: Counter[str] = field(default_factory=Counter)
    plain: int = 0
    rounds: list[dict[str, Any]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def undisturbed(place: Place, options: tuple[str, ...], plain: bool) -> float:
    """Carry out a run from beginning to end; seconds."""
    process = Process(place.command(options), place.root / "log.txt", plain)
    while not process.ended():
        time.sleep(0.002)
    if process.code:
        raise RuntimeError(
            f"{' '.join(place.command(options))} ended with {process.code}:\n{_tail(place)}"
        )
    return time.time() - process.started


def torment(
    place: Place,
    options: tuple[str, ...],
    kills: int,
    seconds: float,
    rng: random.Random,
    tally: Tally,
    plain_share: float,
    aims: Sequence[str],
) -> int:
    """Kill the run up to `kills` times, then let it finish; how often it was killed. Each life has
    its own workers.

    `seconds` is what it takes from beginning to end; `aims` are of AIMS, or "random" for a moment
    in that time.
    """
    done, end = 0, time.monotonic() + 300
    while time.monotonic() < end:
        plain = done < kills and rng.random() < plain_share
        possible = [aim for aim in aims if aim not in BEFORE_TRAINING or not place.run.exists()]
        aim = rng.choice(possible or ["random"])
        before = AIMS[aim](place) if aim in AIMS else None
        process = Process(place.command(options), place.root / "log.txt", plain)
        # Random moments are earlier than the end, or few lives would be killed a second time.
        delay = (
            rng.random() * (0.7 * seconds + 3 * plain)
            if aim == "random"
            else rng.choice((0, rng.random() * 0.02))
        )
        moment = time.monotonic() + delay if aim == "random" else float("inf")
        while not process.ended() and not (done < kills and time.monotonic() >= moment):
            if aim in AIMS and moment == float("inf") and AIMS[aim](place) != before:
                moment = time.monotonic() + delay
            time.sleep(0.001)
        if process.code is not None:  # it ended by itself
            if process.code:
                tally.differences.append(f"{place.step}: exit code {process.code}: {_tail(place)}")
            return done
        process.kill()
        if left := process.orphans():
            tally.differences.append(f"{place.step}: {len(left)} worker processes outlived it")
        done += 1
        found = phase(place.data, place.run, process.started, options[-1] == "0")
        tally.plain += plain
        for counter, what in ((tally.kills, place.step), (tally.phases, found), (tally.aims, aim)):
            counter[what] += 1
        with (place.root / "log.txt").open("a") as log:
            log.write(f"killed: {found} (aimed at {aim}{', plain' * plain})\n")
    tally.differences.append(f"{place.step}: not finished after five minutes: {_tail(place)}")
    return done


def _tail(place: Place) -> str:
    return " | ".join((place.root / "log.txt").read_text().splitlines()[-3:])


def main() -> int:
    """The whole of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument(
        "--minutes", type=float, default=30, help="no new run is begun after so many"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps",
        nargs="+",
        default=[step for step, _ in SETTINGS],
        choices=[s for s, _ in SETTINGS],
    )
    parser.add_argument(
        "--plain",
        type=float,
        default=0.2,
        help="share of kills in whole processes, not forked ones",
    )
    parser.add_argument(
        "--whole-set",
        action="store_true",
        help="also one with all pocket images, drawn and decoded",
    )
    parser.add_argument(
        "--folder", type=Path, help="where to work; runs that differ are kept there"
    )
    parser.add_argument("--write", action="store_true", help="write tests/torture/chaos.json")
    options = parser.parse_args()

    torch.set_num_threads(1)
    started, rng, tally = time.monotonic(), random.Random(options.seed), Tally()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"], os.environ["OMP_NUM_THREADS"] = str(folder / "cache"), "1"
    pocket.write(folder / "images/food-101", train=12, test=4)

    def prepare(name: str, step: str, given: tuple[str, ...]) -> Place:
        place = Place(folder / name, step)
        place.data.mkdir(parents=True)
        if "food101" in given:
            (place.data / "food-101").symlink_to(folder / "images" / "food-101")
        return place

    def attack(
        number: int, setting: Setting, truth: Place, seconds: float, aims: Sequence[str]
    ) -> None:
        """Torment one run and compare it with its undisturbed twin."""
        step, given = setting
        minutes = rng.choice(("0", "0.001", "0.003", "10"))
        victim = prepare(f"{step}-{number}", step, given)
        wanted = min(rng.randint(8, 16), options.kills - sum(tally.kills.values()))
        how = (*given, "--checkpoint-minutes", minutes)
        done = torment(victim, how, wanted, seconds, rng, tally, options.plain, aims)
        found = differences(truth.root, victim.root)
        tally.differences += [f"{victim.root.name}: {what}" for what in found]
        tally.rounds.append(
            {
                "step": step,
                "checkpoint_minutes": float(minutes),
                "kills": done,
                "differences": len(found),
            }
        )
        print(
            f"{(time.monotonic() - started) / 60:5.1f} min  {victim.root.name:<26} {done} kills, "
            f"{sum(tally.kills.values())} in all, {len(found)} differences {found[:3]}",
            flush=True,
        )
        if not found:
            shutil.rmtree(victim.root)

    settings = [(step, (*COMMON, *more)) for step, more in SETTINGS if step in options.steps]
    truths: list[tuple[Place, float]] = []
    for step, given in settings:
        truth = prepare(f"{step}-undisturbed", step, given)
        truths.append((truth, undisturbed(truth, given, plain=False)))
    if options.plain:  # what is forked computes what a whole process does
        step, given = settings[0]
        whole = prepare(f"{step}-whole-process", step, given)
        undisturbed(whole, given, plain=True)
        tally.differences += [
            f"{whole.root.name}: {what}" for what in differences(truths[0][0].root, whole.root)
        ]
    if options.whole_set:
        truth = prepare("whole-set-undisturbed", WHOLE_SET[0], WHOLE_SET[1])
        attack(0, WHOLE_SET, truth, undisturbed(truth, WHOLE_SET[1], plain=False), BEFORE_TRAINING)
    aims, number = list(AIMS), 0
    aims += ["random"] * len(aims)
    while (
        sum(tally.kills.values()) < options.kills
        and time.monotonic() - started < 60 * options.minutes
    ):
        turn = number % len(settings)
        attack(number, settings[turn], *truths[turn], aims)
        number += 1

    taken = (time.monotonic() - started) / 60
    summary = {
        "seed": options.seed,
        "kills": sum(tally.kills.values()),
        "differences": tally.differences,
        "not_compared": NOT_COMPARED,
        "kills_by_step": dict(tally.kills),
        "kills_by_phase": dict(tally.phases),
        "kills_by_aim": dict(tally.aims),
        "kills_of_whole_processes": tally.plain,
        "minutes": round(taken, 1),
        "settings": {
            step: " ".join(given) for step, given in [*settings, *[WHOLE_SET] * options.whole_set]
        },
        "rounds": tally.rounds,
    }
    print(
        "\n".join(
            f"{name}: {value}"
            for name, value in summary.items()
            if name not in ("settings", "rounds")
        )
    )
    if options.write:
        write("chaos", torch.device("cpu"), summary, folder=Path(__file__).parent)
    if not options.folder and not tally.differences:
        shutil.rmtree(folder)
    return 1 if tally.differences else 0


if __name__ == "__main__":
    sys.exit(main())
