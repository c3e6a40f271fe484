"""Who trains a run and how its last attempt failed: files in its folder. Needs no torch."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from studies.index import run_folders
from studies.study import read_result
from utils.files import recall, write_json
from utils.locks import TIMEOUT, HeartbeatTracker, Lock, read_lock

LOCK, FAILURE = ".lock", "failure.json"
LAUNCH = "ABLATIONS_LAUNCH"
"""In the environment of workers that were started together: a name for that start."""


def hold(run: Path, tracker: HeartbeatTracker, code: str) -> Lock:
    """Take a run's folder for this process, which runs the version `code`. Raises Busy if another
    one has it."""
    run.mkdir(parents=True, exist_ok=True)
    return Lock(run / LOCK, tracker, {"code": code})


def note_failure(run: Path, reason: str, *, final: bool) -> None:
    """Write why a run ended without a result; `final` if it would end so again, in any process and
    on any machine."""
    write_json(run / FAILURE, {"reason": reason, "final": final, "launch": os.environ.get(LAUNCH)})


def read_failure(run: Path) -> dict[str, Any] | None:
    """What `note_failure` wrote, if the run's last attempt failed."""
    record = recall(run / FAILURE)
    return record if isinstance(record.get("reason"), str) else None


def other_versions(study: Path, code: str) -> list[str]:
    """The versions of this code, other than `code`, that made finished runs of the study."""
    made: set[str] = set()
    for folder in run_folders(study):
        with contextlib.suppress(ValueError):  # what is damaged is told elsewhere
            made.add(str((read_result(folder) or {}).get("code_version", "unknown")))
    return [] if code == "unknown" else sorted(made - {code, "unknown"})


def refuse_other_code(study: Path, code: str) -> None:
    """Raise ValueError while another version of the code trains in the study's folder.

    A process that has been silent for long, or is known to be dead, is no obstacle.
    """
    for path in (folder / LOCK for folder in run_folders(study)):
        if (lock := read_lock(path)) is None:
            continue
        other = lock.entries.get("code", code)
        if other == code or "unknown" in (code, other) or lock.alive is False:
            continue
        if lock.alive or time.time() - path.stat().st_mtime < TIMEOUT:
            raise ValueError(
                f"{path.parent} is being trained by {lock.holder} with version {other} of this "
                f"code, and this is {code}: a report takes the runs of one version, so use that "
                "one, wait until it is done, or give this study a name of its own with --study NAME"
            )
