"""The short version of `tests.torture.sharing`; the long one's result is
tests/torture/sharing.json."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_workers_started_at_once_of_which_one_is_killed_make_what_one_worker_makes() -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.torture.sharing",
        "--workers",
        "3",
        "--kills",
        "1",
        "--rounds",
        "1",
        "--steps",
        "layer-norm",
        "--seeds",
        "3",
    ]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "round 0: 1 killed" in done.stdout
    assert "as one worker" in done.stdout
