"""How far a study is, from the files in its folder, while anything runs or nothing does. No torch
here."""

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from studies.index import run_folders, standing_of
from studies.run_locks import LEASE, read_failure
from studies.study import read_json, read_result
from utils.files import one_writer, write_atomically
from utils.locks import CLOCKS, SILENCE, Seen, read
from utils.text import duration, plural

State = Literal["failed", "running", "stopped", "queued", "done"]
"""stopped: begun, and trained by nobody at the moment; the same command goes on with it."""
_ASKED = ".asked.json"


@dataclass(frozen=True)
class RunStatus:
    """One run of a study."""

    step: str
    seed: int
    state: State
    where: str | None = None
    """Process, host and job of a run that is training, or was."""
    epoch: str | None = None
    """Such as 3/300: the one that is being trained, or the last that was finished."""
    seconds_left: float | None = None
    why: str | None = None
    """Of one that failed, or was stopped by something else than a request."""
    top1: float | None = None
    seconds: float | None = None
    """That a finished run took."""


@dataclass(frozen=True)
class Status:
    """All runs that a study was asked for, or that its folder holds."""

    study: str
    runs: tuple[RunStatus, ...]
    warnings: tuple[str, ...] = ()

    def of(self, state: State) -> list[RunStatus]:
        return [run for run in self.runs if run.state == state]

    @property
    def seconds_left(self) -> float | None:
        """Until all is done with as many processes as are at work, if queued runs take as long as
        finished ones did."""
        running, done, queued = (
            self.of("running"),
            self.of("done"),
            self.of("queued") + self.of("stopped"),
        )
        if (
            not running
            or not (done or not queued)
            or any(run.seconds_left is None for run in running)
        ):
            return None
        took: defaultdict[str, list[float]] = defaultdict(list)
        for run in done:
            took[run.step].append(run.seconds or 0)
        every = [seconds for some in took.values() for seconds in some]
        to_come = sum(sum(some := took.get(run.step) or every) / len(some) for run in queued)
        return (to_come + sum(run.seconds_left or 0 for run in running)) / len(running)


def note_asked(study: Path, runs: Iterable[tuple[str, int]]) -> None:
    """Write that runs (step, seed) were asked for, beside those that were before."""
    path = study / _ASKED
    with one_writer(path):
        asked = _asked(study)
        if (together := list(dict.fromkeys([*asked, *runs]))) != asked:
            steps: defaultdict[str, list[int]] = defaultdict(list)
            for step, seed in together:
                steps[step].append(seed)
            write_atomically(path, (json.dumps(steps) + "\n").encode())


def _asked(study: Path) -> list[tuple[str, int]]:
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        steps = json.loads((study / _ASKED).read_bytes())
        return [(str(step), int(seed)) for step, seeds in steps.items() for seed in seeds]
    return []


def status(study: Path) -> Status:
    """How all runs of a study are. Raises ValueError where the folder is no study's."""
    if not (study / "study.json").is_file():
        raise ValueError(f"{study} holds no study (yet): name another with --study or --preset")
    warnings: dict[str, None] = {}
    there = {
        (folder.parent.name, int(folder.name.removeprefix("seed-"))): folder
        for folder in run_folders(study)
    }
    asked = _asked(study)
    runs = []
    for step, seed in dict.fromkeys([*asked, *there]):
        run = _run(step, seed, there.get((step, seed)), warnings)
        if (
            run.state != "queued" or (step, seed) in asked
        ):  # else the folder of a row that shares another's run
            runs.append(run)
    order = get_args(State)
    return Status(
        str(study), tuple(sorted(runs, key=lambda run: order.index(run.state))), tuple(warnings)
    )


def _run(step: str, seed: int, folder: Path | None, warnings: dict[str, None]) -> RunStatus:
    if folder is None:
        return RunStatus(step, seed, "queued")
    try:
        if result := read_result(folder):
            return RunStatus(
                step, seed, "done", top1=result["top1"], seconds=result["seconds"]["total"]
            )
    except ValueError as damaged:
        return RunStatus(step, seed, "failed", why=str(damaged))
    why = None
    if lease := read(folder / LEASE):
        silent = _silence(folder / LEASE, lease, warnings)
        if lease.alive is not False and silent < SILENCE:
            note = lease.entries.get("note") or {}
            return RunStatus(
                step, seed, "running", lease.holder, note.get("epoch"), note.get("seconds_left")
            )
        gone = (
            "has vanished"
            if lease.alive is False
            else f"has given no sign of life for {duration(silent)}"
        )
        why = f"{lease.holder} {gone}"
    failure = read_failure(folder)
    if failure and failure.get("final"):
        return RunStatus(step, seed, "failed", why=failure["reason"])
    if why or failure or standing_of(folder) == "to resume":
        return RunStatus(
            step, seed, "stopped", epoch=_epochs(folder), why=failure["reason"] if failure else why
        )
    return RunStatus(step, seed, "queued")


def _silence(path: Path, lease: Seen, warnings: dict[str, None]) -> float:
    """Seconds since a lease was renewed, by the clock of the disk rather than its holder's, and
    this machine's."""
    try:
        renewed = path.stat().st_mtime
    except FileNotFoundError:  # released since
        return 0.0
    host, ahead, silent = (
        lease.entries.get("host"),
        lease.entries.get("time", renewed) - renewed,
        time.time() - renewed,
    )
    if abs(ahead) > CLOCKS:
        word = "ahead of" if ahead > 0 else "behind"
        warnings[
            f"the clock of {host} is {abs(ahead) / 60:.0f} minutes {word} that of the disk: "
            "nothing depends on it "
            "but the times in its records"
        ] = None
    if silent < -CLOCKS:
        warnings[
            f"this machine's clock is {-silent / 60:.0f} minutes behind that of the disk: "
            "processes that are gone "
            "may be shown as running so much longer"
        ] = None
    return silent


def _epochs(folder: Path) -> str | None:
    """How many epochs of a run are finished, of how many."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        finished = (
            (folder / "metrics.jsonl").read_bytes().count(b"\n")
            if (folder / "metrics.jsonl").exists()
            else 0
        )
        return f"{finished}/{read_json(folder / 'config.json')['recipe']['epochs']}"
    return None


def as_json(status: Status) -> str:
    counts = {state: len(status.of(state)) for state in get_args(State)}
    runs = [asdict(run) for run in status.runs]
    said = {
        "study": status.study,
        "counts": counts,
        "seconds_left": status.seconds_left,
        "warnings": status.warnings,
    }
    return json.dumps({**said, "runs": runs}, indent=1) + "\n"


def as_table(status: Status) -> str:
    """A line for each run that is at work or needs a look, one for each step's others."""
    counts = ", ".join(
        f"{len(found)} {state}" for state in get_args(State) if (found := status.of(state))
    )
    left = status.seconds_left
    all_left = (
        ""
        if left is None
        else f"; about {duration(left)} left with {len(status.of('running'))} at work"
    )
    lines = [
        f"{status.study}: {plural(len(status.runs), 'run')}, {counts or 'none asked for'}{all_left}"
    ]
    rows: list[tuple[str, ...]] = [
        (run.state, f"{run.step} seed {run.seed}", _far(run), run.why or run.where or "")
        for state in ("failed", "running", "stopped")
        for run in status.of(state)
    ]
    for state in ("queued", "done"):
        rows += [(state, step, *words) for step, *words in _by_step(status.of(state))]
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    for row in rows:
        lines.append(
            "  ".join([*(word.ljust(width) for word, width in zip(row, widths)), row[3]]).rstrip()
        )
    return "\n".join([*lines, *status.warnings]) + "\n"


def _far(run: RunStatus) -> str:
    epoch = f"epoch {run.epoch}" if run.epoch else "beginning" if run.state == "running" else ""
    return f"{epoch}, {duration(run.seconds_left)} left" if run.seconds_left is not None else epoch


def _by_step(runs: Sequence[RunStatus]) -> Iterator[tuple[str, str, str]]:
    steps: defaultdict[str, list[RunStatus]] = defaultdict(list)
    for run in runs:
        steps[run.step].append(run)
    for step, some in steps.items():
        top1 = " ".join(f"{run.top1:.2f}" for run in some if run.top1 is not None)
        yield (
            step,
            f"seed{'s' * (len(some) > 1)} {' '.join(str(run.seed) for run in some)}",
            top1 and f"top-1 {top1}",
        )
