"""Who trains a run of a study, and how the last attempt at one failed: files in its folder. No
torch here."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studies.index import run_folders
from studies.study import read_result
from utils.files import recall, write_json
from utils.locks import RENEWED, HeartbeatTracker, Lock, read

LEASE, FAILURE = ".lease", "failure.json"
LAUNCH = "ABLATIONS_LAUNCH"
"""In the environment of workers that were started together: a name for that start."""


def hold(run: Path, watch: HeartbeatTracker, code: str) -> Lock:
    """Take a run's folder for this process, which runs the version `code`. Raises Busy if another
    one has it."""
    run.mkdir(parents=True, exist_ok=True)
    return Lock(run / LEASE, watch, {"code": code})


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


def refuse_other_code(
    study: Path, code: str, sleep: Callable[[float], object] = time.sleep
) -> None:
    """Raise ValueError while a process with another version of the code trains in the study's
    folder.

    One that gives no sign of life while it is looked at, ten seconds at most, is no obstacle.
    """
    watch = HeartbeatTracker()
    others = {
        path: lease
        for path in (folder / LEASE for folder in run_folders(study))
        if (lease := read(path))
        and "unknown" not in (code, there := lease.entries.get("code", code))
        and there != code
        and not watch.has_run_out(path, lease)
    }
    end = time.monotonic() + 2 * RENEWED
    while others and time.monotonic() < end:
        for path, first in others.items():
            if (lease := read(path)) and (lease.alive or lease != first):
                raise ValueError(
                    f"{path.parent} is being trained by {lease.holder} with version "
                    f"{first.entries['code']} of this "
                    f"code, and this is {code}: a report takes the runs of one version, so use "
                    "that one, wait until it "
                    "is done, or give this study a name of its own with --study NAME"
                )
        sleep(0.5)
