"""make: its words and variables reach the runner as they were given, and its set-up says what it
fetches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import command_line
import runner

ROOT = Path(__file__).parents[1]
ECHO = """
import json, os, sys, command_line, runner
print(json.dumps(command_line.from_make(runner.COMMANDS, sys.argv[3:], os.environ)))
"""


@pytest.fixture
def make(tmp_path: Path):
    """Runs make with a virtual environment whose Python answers with `script`, or with the runner's
    command line."""

    def run(
        *words: str, script: str = ECHO, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        python = tmp_path / "venv/bin/python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{script}' \"$@\"\n")
        python.chmod(0o755)
        for stamp in ("run", "dev"):
            (tmp_path / f"venv/{stamp}.stamp").touch()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        command = ["make", "--no-print-directory", *words, f"VENV={tmp_path}/venv"]
        return subprocess.run(
            command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False
        )

    return run


HANDED_ON = [
    (["ablation-step", "3"], ["train", "3"]),
    (
        ["ablation-step", "N=3", "PRESET=pocket", "SEED=1"],
        ["train", "3", "--preset=pocket", "--seed=1"],
    ),
    (
        ["ablation-step", "width", "LR=1e-3", "BATCH_SIZE=64"],
        ["train", "width", "--lr=1e-3", "--batch-size=64"],
    ),
    (["ablation-step", "3", "4", "N=5"], ["train", "3", "4", "5"]),
    (
        ["all-ablations", "SEEDS=0 1 2", "CLASSIC.EPOCHS=9"],
        ["all", "--seeds", "0", "1", "2", "--classic.epochs=9"],
    ),
    (
        ["all-ablations", "LR=1e-3", "CROP_SCALE=0.1 1"],
        ["all", "--lr=1e-3", "--crop-scale", "0.1", "1"],
    ),
    (
        ["all-ablations", "DATASET=imagefolder:/my images; it's"],
        ["all", "--dataset=imagefolder:/my images; it's"],
    ),
    (
        ["all-ablations", "DATASET=a$b $(shell touch made)"],
        ["all", "--dataset=a$b $(shell touch made)"],
    ),
    (
        ["all-ablations", "STUDY=a\\ b\\", "DATASET=a\n$$\t\"'"],
        ["all", "--study=a\\ b\\", "--dataset=a\n$$\t\"'"],
    ),
    (["-j2", "-k", "report", "STUDY=--", "RUNS="], ["report", "--study=--", "--runs="]),
    (["demo"], ["all", "--preset", "pocket"]),
    (
        ["ablation", "ROADMAP=my.toml", "DESIGN=orders"],
        ["all", "--roadmap=my.toml", "--design=orders"],
    ),
    (
        ["all-ablations", "DRY_RUN=1", "SKIP_UNREADABLE=yes"],
        ["all", "--dry-run", "--skip-unreadable"],
    ),
    (
        ["all-ablations", "DRY_RUN=no", "CLASSIC.DECAY_ALL=0"],
        ["all", "--no-dry-run", "--classic.no-decay-all"],
    ),
    (["steps", "REGIME=base"], ["steps", "--regime=base"]),
    (["check", "README.md"], ["check", "README.md"]),  # files that exist are words too
    (["pack", "pocket", "OUT=p.pack"], ["pack", "pocket", "--out=p.pack"]),
    (["unpack", "README.md", "STUDY=again"], ["unpack", "README.md", "--study=again"]),
    (
        ["merge", "README.md", "LICENSE", "OUT=both.pack"],
        ["merge", "README.md", "LICENSE", "--out=both.pack"],
    ),
    (["show", "5", "REGIME=base"], ["show", "5", "--regime=base"]),
    (
        ["predict", "IMAGE=a.jpg b$x;'", "RUN=one two", "TOP=3", "JSON=yes"],
        ["predict", "a.jpg", "b$x;'", "--run=one", "--run=two", "--top=3", "--json"],
    ),
    (
        ["predict", "IMAGE=docs/images/p*.???", "RUN=one"],
        ["predict", "docs/images/images.png", "docs/images/pocket.jpg", "--run=one"],
    ),
    (
        ["export", "RUN=one", "OUT=there", "FOLD_LAYER_SCALE=yes", "IMAGES=a.jpg b"],
        ["export", "--run=one", "--out=there", "--fold-layer-scale", "--images", "a.jpg", "b"],
    ),
]


@pytest.mark.parametrize(("words", "expected"), HANDED_ON)
def test_words_and_variables_arrive_as_they_were_given(words, expected, make) -> None:
    done = make(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
    assert not (ROOT / "made").exists()


def test_gpus_are_processes_that_torchrun_starts(make) -> None:
    done = make(
        "ablation-step", "3", "GPUS=8", "PRESET=pocket", script="import sys; print(*sys.argv[1:])"
    )
    assert done.stdout.split() == [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=8",
        "runner.py",
        "--from-make",
        "train",
    ]
    words = {"MAKEFLAGS": "-- PRESET=pocket GPUS=8", "WORDS": "3"}
    assert command_line.from_make(runner.COMMANDS, ["train"], words) == [
        "train",
        "3",
        "--preset=pocket",
    ]
    for wrong in ("0", "many", "2 3"):
        done = make("ablation-step", "3", f"GPUS={wrong}")
        assert done.returncode == 2
        assert (
            f"GPUS is {wrong}: give how many processes are to share the run, one for each GPU"
            in done.stderr
        )
        assert done.stdout == ""


def test_the_environment_yields_to_the_recipe_and_the_recipe_to_what_make_is_given(make) -> None:
    around = {
        "PRESET": "food101",
        "SEEDS": "0 1",
        "SEED": "7",
        "DEVICE": "$(shell touch made)",
        "LR": "1",
    }
    assert json.loads(make("demo", "SEEDS=2", **around).stdout) == [
        "all",
        "--preset=food101",
        "--device=$(shell touch made)",
        "--preset",
        "pocket",
        "--seeds",
        "2",
    ]
    assert json.loads(make("steps", **around).stdout) == [
        "steps"
    ]  # which has none of these options
    assert not (ROOT / "made").exists()


def test_a_word_that_is_a_target_is_refused_instead_of_being_made(make) -> None:
    done = make("pack", "demo", script="print('ran')")
    assert done.returncode == 2
    assert (
        "demo is a target of this Makefile: python runner.py pack takes it as a name" in done.stderr
    )
    assert "ran" not in done.stdout


def test_a_path_that_is_there_is_one_path_blanks_and_all(tmp_path, make) -> None:
    image = tmp_path / "my photo.jpg"
    image.touch()
    assert json.loads(make("predict", f"IMAGE={image}").stdout) == ["predict", str(image)]


def test_make_before_4_leaves_the_dashes_out() -> None:
    """What GNU make 3.81, macOS's, puts into MAKEFLAGS."""
    for flags in ("W= A.B=l1\\ l2 Y=$$x", "sk --jobserver-fds=3,4 -j -- W= A.B=l1\\ l2 Y=$$x"):
        words = command_line.from_make({"report": runner.Report}, ["report"], {"MAKEFLAGS": flags})
        assert words == ["report", "--y=$x", "--a.b=l1 l2", "--w="]


REFUSED = {
    ("ablation-step",): "runner.py: no step was given: train needs it",
    ("ablation-step", "3", "N=4"): "runner.py: '4' is one word too many: train takes one step",
    (
        "ablation-step",
        "3",
        "EPOCH=4",
    ): "runner.py: train has no option '--epoch': did you mean '--epochs'?",
    ("all-ablations", "LR=x"): "runner.py: --lr: 'x' is not a number",
    ("demo", "DRY_RUN=maybe"): "runner.py: DRY_RUN is 'maybe': give DRY_RUN=yes or DRY_RUN=no",
    ("report", "STUDY="): "runner.py: --study: '' is not a word",
    ("report", "STUDY=it's $x"): "runner.py: the study's name is \"it's $x\"",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_wrong_request_is_one_sentence_and_exit_code_2(words, make) -> None:
    done = make(*words, script="import runner, sys; sys.exit(runner.main(sys.argv[2:]))")
    assert done.returncode == 2
    complaints = [line for line in done.stderr.splitlines() if line.startswith("runner.py: ")]
    assert len(complaints) == 1
    assert complaints[0].startswith(REFUSED[words])
    assert done.stdout == ""
