"""The commands of README and of docs/usage.md run one after the other, on small images."""

import json
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
PAGE = USAGE.partition("## Your own steps")[2].partition("## Designs")[0]
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


def shell(command: str, checkout: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command as a reader would."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    clean["PATH"] = f"{checkout}/.venv/bin:{clean['PATH']}"
    words = ["sh", "-ec", command]
    return subprocess.run(
        words, cwd=checkout, env=clean, capture_output=True, text=True, check=False
    )


def quick(command: str) -> str:
    """The same command with few small images and one epoch."""
    for text, other in QUICKER.items():
        command = command.replace(text, other)
    trains = re.match(r"make (demo|ablation|all-ablations)", command)
    return f"{command} {SMALL}" if trains else command


@pytest.mark.slow
def test_every_command_of_readme_runs(checkout: Path) -> None:
    assert len(COMMANDS) > 15
    failed = []
    for command in COMMANDS:
        if command in ELSEWHERE:
            continue
        done = shell(quick(command), checkout)
        if done.returncode:
            failed.append(f"{quick(command)}\n{done.stdout[-400:]}{done.stderr[-400:]}")
    assert not failed, "\n\n".join(failed)
    assert (checkout / "runs/pocket/report/report.html").is_file()
    assert (checkout / "runs/food101/patchify-stem/seed-0/result.json").is_file()
    assert (checkout / "my-model").is_dir()


@pytest.mark.slow
def test_a_reader_who_does_what_the_page_says_has_two_reports(checkout) -> None:
    message = ""
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        if kind != "sh":
            name = block.splitlines()[0].removeprefix("# ")
            (checkout / name).write_text(block, encoding="utf-8")
            continue
        # Three epochs of ten: nothing here depends on how good networks are. runner.py, a link,
        # has its data sets elsewhere.
        command = block.replace("make ablation ", "make ablation EPOCHS=3 DATA_DIR=data ")
        done = shell(command, checkout)
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
