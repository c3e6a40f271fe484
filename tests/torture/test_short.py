"""Short runs of the scripts in this folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("chaos --kills 7 --seed 5 --steps separate-downsampling", "kills: 7 "),
        ("sharing --workers 3 --kills 1 --rounds 1 --steps layer-norm", "1 killed, as one worker"),
        ("fuzz --requests 25", "25 requests, 0 violations"),
    ],
)
def test_a_script_finds_nothing(command: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *f"tests.torture.{command}".split()],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert expected in done.stdout
