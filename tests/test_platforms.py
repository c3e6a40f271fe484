"""A study is trained and reported where none of the calls are that only POSIX has."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, os, signal, sys
import runner, report.page, studies.train
from utils import files
files.fcntl = None
for name in ("fork", "sched_getaffinity", "sync", "killpg", "setsid", "mkfifo"):
    delattr(os, name)
for name in ("SIGHUP", "SIGUSR1", "SIGPIPE"):
    delattr(signal, name)
multiprocessing.set_start_method("spawn", force=True)
sys.platform = "darwin"
sys.exit(runner.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_study_needs_no_posix_calls(quick_study, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "all", "--steps", "3", *quick_study, "--workers", "1"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/quick/report/report.html").is_file()
