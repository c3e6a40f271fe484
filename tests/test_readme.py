"""Every command of README runs, one after the other, in a checkout with small images."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (make .*?)(?: +#.*)?$", README, re.MULTILINE)
COMMANDS += re.findall(r"`((?:make|python) [^`]*)`", README)
ELSEWHERE = ("make test", "python -m benchmarks.gpu --check")
"""Commands that other tests run, or that are this one."""
SMALL = (
    "DATA_DIR=data RESOLUTION=32 EPOCHS=1 WARMUP_EPOCHS=0 BATCH_SIZE=24 MICRO_BATCHES=2 TRIAL=no"
)
"""Options that make any run a matter of seconds."""
QUICKER = {
    "GPUS=8": "GPUS=2",
    "JOBS=8": "JOBS=2",
    "JOBS=16": "JOBS=16 DRY_RUN=yes",
    " EPOCHS=20 LR=2e-3": " LR=2e-3",
    "make demo": "make demo DATASET=imagefolder:my-images STEPS='1 4'",
    "make all-ablations": "make all-ablations DATASET=imagefolder:my-images STEPS=3 REGIME=small",
    "make ablation-step 3": "make ablation-step 3 DATASET=imagefolder:my-images REGIME=small",
    "make ablation-step 13": "make ablation-step 13 DATASET=imagefolder:my-images",
    "DESIGN=leave-one-out": "DESIGN=leave-one-out STEPS=without-gelu DATASET=imagefolder:my-images",
    "SWEEP=lr=0.5x,1x,2x": "SWEEP=lr=0.5x,1x,2x STEPS=4 DATASET=imagefolder:my-images",
    "ROADMAP=my.toml": "ROADMAP=my.toml DATASET=imagefolder:my-images",
    "STUDY=mine": "STUDY=mine STEPS=3 REGIME=small",
}
USAGE = (ROOT / "docs/usage.md").read_text(encoding="utf-8")
MY_TOML = re.findall(r"```toml\n(# my.toml\n.*?)```", USAGE, re.DOTALL)[0]


@pytest.fixture
def checkout(tmp_path: Path, images: Path) -> Path:
    """The repository as a reader has it, set up, with a photograph and images of their own."""
    for name in ("Makefile", "runner.py", "pyproject.toml", "constraints.txt", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(images, tmp_path / "my-images")
    shutil.copy(next(images.rglob("*.jpg")), tmp_path / "photo.jpg")
    (tmp_path / "my.toml").write_text(MY_TOML, encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    python = tmp_path / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".venv/run.stamp").touch()
    return tmp_path


def quick(command: str) -> str:
    """The same command with few small images and one epoch."""
    for text, other in QUICKER.items():
        command = command.replace(text, other)
    trains = re.match(r"make (demo|ablation|all-ablations)", command)
    return f"{command} {SMALL}" if trains else command


@pytest.mark.slow
def test_every_command_of_readme_runs(checkout: Path) -> None:
    assert len(COMMANDS) > 15
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    clean["PATH"] = f"{checkout}/.venv/bin:{clean['PATH']}"
    failed = []
    for command in COMMANDS:
        if command in ELSEWHERE:
            continue
        done = subprocess.run(
            ["sh", "-c", quick(command)],
            cwd=checkout,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            failed.append(f"{quick(command)}\n{done.stdout[-400:]}{done.stderr[-400:]}")
    assert not failed, "\n\n".join(failed)
    assert (checkout / "runs/pocket/report/report.html").is_file()
    assert (checkout / "runs/food101/patchify-stem/seed-0/result.json").is_file()
    assert (checkout / "my-model").is_dir()
