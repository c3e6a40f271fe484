"""docs/usage.md works block by block for custom steps and parts."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
USAGE = (ROOT / "docs/usage.md").read_text(encoding="utf-8")
PAGE = USAGE.partition("## Your own steps")[2].partition("## Designs")[0]


@pytest.fixture
def checkout(tmp_path: Path, images: Path) -> Path:
    """The repository as a reader has it, set up, with images of their own in it."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("Makefile", "runner.py", "pyproject.toml", "constraints.txt"):
        (checkout / name).symlink_to(ROOT / name)
    shutil.copytree(images, checkout / "my-images")
    (checkout / "datasets").mkdir()
    (checkout / ".venv/bin").mkdir(parents=True)
    python = checkout / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (checkout / ".venv/run.stamp").touch()
    return checkout


def test_a_reader_who_does_what_the_page_says_has_two_reports(checkout) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    message = ""
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        if kind != "sh":
            (checkout / block.splitlines()[0].removeprefix("# ")).write_text(
                block, encoding="utf-8"
            )
            continue
        # Three epochs of ten: nothing here depends on how good networks are. runner.py, a link,
        # has its datasets elsewhere.
        command = block.replace("make ablation ", "make ablation EPOCHS=3 DATA_DIR=datasets ")
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=checkout,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        message += done.stdout
    assert PAGE.count("\nmake ablation ROADMAP=") == 4  # which the options above are put into
    assert "kernel-13: kernel_size 7 to 13" in message
    assert "6 runs, 6 to train" in message
    study = checkout / "runs/mine"
    page = (study / "report/report.md").read_text()
    rows = ("convnext", "kernel-13", "channel-attention", "only-channel-attention")
    assert all((study / row / "seed-1/result.json").exists() for row in rows)
    assert all(re.search(rf"\| \d {row} ", page) for row in rows[:3])
    assert "\n## One at a time: roadmap my\n" in page
    assert "does a norm need the mean" in (study / "report/rms/report.md").read_text()
    assert (study / "report/report.html").exists()
    config = json.loads((study / "rms-norm/seed-0/config.json").read_text())
    assert (config["architecture"]["norm"], list(config["custom_parts"])) == ("rms", ["norm"])
    assert "convnext seed 1: finished" in message.partition("rms-norm")[2]  # not trained again
