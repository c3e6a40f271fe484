"""How far a study is, read from the files in its folder at any time. Needs no torch."""

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Literal, get_args

from studies.run import run_folders, state_of
from studies.study import LOCK, no_study, read_failure, read_json, read_result
from utils.files import one_writer, write_atomically
from utils.locks import TIMEOUT, read_lock
from utils.text import duration, plural

State = Literal["failed", "running", "stopped", "queued", "done"]
"""stopped: begun, and trained by nobody at the moment; the same command resumes it."""
STATES: tuple[State, ...] = get_args(State)
REQUESTED = ".requested.json"


@dataclass(frozen=True)
class RunStatus:
    """One run of a study."""

    step: str
    seed: int
    state: State
    holder: str | None = None
    """Process, host and job that train the run."""
    epoch: str | None = None
    """Such as 3/300: the epoch that is being trained, or the last one that was finished."""
    seconds_left: float | None = None
    reason: str | None = None
    """Why the run failed, or was stopped by anything else than a request."""
    top1: float | None = None
    seconds: float | None = None
    """How long a finished run took."""
    collapsed: str | None = None
    """Why a finished run counts as collapsed: it learned nothing."""


@dataclass(frozen=True)
class Status:
    """All runs that were requested of a study or that its folder holds."""

    study: str
    runs: tuple[RunStatus, ...]

    def of(self, state: State) -> list[RunStatus]:
        return [run for run in self.runs if run.state == state]

    @property
    def seconds_left(self) -> float | None:
        """Until all runs are done by as many processes as work now, if queued runs take as long as
        finished ones did. None where no run is being trained or nothing can be said yet."""
        running, waiting = self.of("running"), self.of("queued") + self.of("stopped")
        left = [run.seconds_left for run in running if run.seconds_left is not None]
        took: defaultdict[str, list[float]] = defaultdict(list)
        for run in self.of("done"):
            took[run.step].append(run.seconds or 0)
        if not running or len(left) < len(running) or (waiting and not took):
            return None
        average = mean(seconds for several in took.values() for seconds in several) if took else 0
        to_come = sum(mean(took[run.step]) if run.step in took else average for run in waiting)
        return (to_come + sum(left)) / len(running)


def note_requested(study: Path, runs: Iterable[tuple[str, int]]) -> None:
    """Add runs, each a step and a seed, to the requested runs of a study."""
    path = study / REQUESTED
    with one_writer(path):
        before = _requested(study)
        if (together := list(dict.fromkeys([*before, *runs]))) != before:
            steps: defaultdict[str, list[int]] = defaultdict(list)
            for step, seed in together:
                steps[step].append(seed)
            write_atomically(path, (json.dumps(steps) + "\n").encode())


def _requested(study: Path) -> list[tuple[str, int]]:
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        steps = json.loads((study / REQUESTED).read_bytes())
        return [(str(step), int(seed)) for step, seeds in steps.items() for seed in seeds]
    return []


def read_status(study: Path) -> Status:
    """The status of all runs of a study. Raises ValueError where the folder holds no study."""
    if not (study / "study.json").is_file():
        raise ValueError(no_study(study))
    folders = {
        (folder.parent.name, int(folder.name.removeprefix("seed-"))): folder
        for folder in run_folders(study)
    }
    requested = _requested(study)
    runs = []
    for step, seed in dict.fromkeys([*requested, *folders]):
        run = _run_status(step, seed, folders.get((step, seed)))
        # A folder that was not requested and holds nothing yet is an alias of another row's run.
        if run.state != "queued" or (step, seed) in requested:
            runs.append(run)
    return Status(str(study), tuple(sorted(runs, key=lambda run: STATES.index(run.state))))


def _run_status(step: str, seed: int, folder: Path | None) -> RunStatus:
    if folder is None:
        return RunStatus(step, seed, "queued")
    try:
        result = read_result(folder)
    except ValueError as damaged:
        return RunStatus(step, seed, "failed", reason=str(damaged))
    if result:
        seconds = result["seconds"]["total"]
        collapsed = result.get("collapsed")
        return RunStatus(
            step, seed, "done", top1=result["top1"], seconds=seconds, collapsed=collapsed
        )
    failure, vanished = read_failure(folder) or {}, None
    if lock := read_lock(folder / LOCK):
        silent = _seconds_since_change(folder / LOCK)
        if lock.alive is not False and silent < TIMEOUT:
            progress = lock.entries.get("progress") or {}
            epoch, left = progress.get("epoch"), progress.get("seconds_left")
            return RunStatus(step, seed, "running", lock.holder, epoch, left)
        dead = lock.alive is False
        vanished = f"{lock.holder} " + (
            "has vanished" if dead else f"has given no sign of life for {duration(silent)}"
        )
    if failure.get("final"):
        return RunStatus(step, seed, "failed", reason=failure["reason"])
    if vanished or failure or state_of(folder) == "to resume":
        reason = failure.get("reason", vanished)
        return RunStatus(step, seed, "stopped", epoch=_epochs(folder), reason=reason)
    return RunStatus(step, seed, "queued")


def _seconds_since_change(path: Path) -> float:
    """Seconds since a file was written, by the clock of the disk; 0 for one that is gone by now."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _epochs(folder: Path) -> str | None:
    """How many epochs of a run are finished, of how many."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        metrics = folder / "metrics.jsonl"
        finished = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        return f"{finished}/{read_json(folder / 'config.json')['recipe']['epochs']}"
    return None


def as_json(status: Status) -> str:
    content = {
        "study": status.study,
        "counts": {state: len(status.of(state)) for state in STATES},
        "seconds_left": status.seconds_left,
        "runs": [asdict(run) for run in status.runs],
    }
    return json.dumps(content, indent=1) + "\n"


def as_table(status: Status) -> str:
    """One line for each failed, running or stopped run, one for each step's other runs."""
    counts = [f"{len(runs)} {state}" for state in STATES if (runs := status.of(state))]
    title = f"{status.study}: {plural(len(status.runs), 'run')}, {', '.join(counts) or 'none'}"
    if (left := status.seconds_left) is not None:
        title += f"; about {duration(left)} left with {len(status.of('running'))} at work"
    rows: list[tuple[str, str, str, str]] = []
    for run in [*status.of("failed"), *status.of("running"), *status.of("stopped")]:
        name, detail = f"{run.step} seed {run.seed}", run.reason or run.holder or ""
        rows.append((run.state, name, _progress(run), detail))
    for state in ("queued", "done"):
        steps: defaultdict[str, list[RunStatus]] = defaultdict(list)
        for run in status.of(state):
            steps[run.step].append(run)
        for step, runs in steps.items():
            seeds = f"seed{'s' * (len(runs) > 1)} {' '.join(str(run.seed) for run in runs)}"
            top1 = " ".join(f"{run.top1:.2f}" for run in runs if run.top1 is not None)
            parts = [f"top-1 {top1}"] if top1 else []
            parts += [
                f"seed {run.seed} collapsed: {run.collapsed}" for run in runs if run.collapsed
            ]
            rows.append((state, step, seeds, "; ".join(parts)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    lines = [title]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        lines.append("  ".join([*cells, row[3]]).rstrip())
    return "\n".join(lines) + "\n"


def _progress(run: RunStatus) -> str:
    if not run.epoch:
        return "beginning" if run.state == "running" else ""
    left = "" if run.seconds_left is None else f", {duration(run.seconds_left)} left"
    return f"epoch {run.epoch}{left}"
