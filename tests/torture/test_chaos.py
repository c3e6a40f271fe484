"""A short run of `tests.torture.chaos`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_one_never_killed() -> None:
    command = [
        *(sys.executable, "-W", "ignore", "-m", "tests.torture.chaos"),
        *("--kills", "7", "--seed", "5", "--steps", "separate-downsampling"),
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
    assert "kills: 7 " in done.stdout
