"""The short version of `tests.torture.fuzz`; the long one's result is fuzz.json, beside it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_wrong_requests_by_the_hundred(tmp_path) -> None:
    """None ends in a traceback, hangs, or leaves a file behind; `tests.torture.fuzz` says what else
    is looked at."""
    made = tmp_path / "fuzz.json"
    command = [
        sys.executable,
        "-m",
        "tests.torture.fuzz",
        "--requests",
        "80",
        "--words-only",
        "--seed",
        "7",
    ]
    done = subprocess.run(
        [*command, "--out", made], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(made.read_text())["requests"] == 80
