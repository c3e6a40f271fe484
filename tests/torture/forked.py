"""Commands of `runner.py` in processes forked from this one, which has imported torch already."""

import os
import sys
import time
import traceback
from pathlib import Path

import runner
import studies.train  # noqa: F401  so that forked processes have it already


def start(arguments: list[str], out: Path, errors: Path | None = None) -> int:
    """Start the command in a forked process with a session of its own; its id.

    Its output and errors are appended to the files; to `out` alone if there is one file.
    """
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for file, target in ((out, 1), (errors or out, 2)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), target)
        code = runner.main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def orphans(session: int, patience: float = 2.0) -> int:
    """Processes of a session that are still alive after so many seconds."""
    end = time.monotonic() + patience
    while True:
        alive = 0
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, owner = file.read_text().rpartition(")")[2].split()[:4]
            except OSError:  # it has just ended
                continue
            alive += int(owner) == session and state != "Z"
        if not alive or time.monotonic() > end:
            return alive
        time.sleep(0.01)
