"""A short run of `tests.torture.fuzz`."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_wrong_requests_are_refused_in_one_line_and_change_nothing() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.torture.fuzz", "--requests", "25"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25 requests, 0 violations" in done.stdout
