"""make hands its words and variables to the runner as they were given."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ECHO = "import json, sys; print(json.dumps(sys.argv[1:]))"
Make = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Runs make with a virtual environment whose Python prints its arguments."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        python = tmp_path / "venv/bin/python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{ECHO}' \"$@\"\n")
        python.chmod(0o755)
        for stamp in ("run", "dev"):
            (tmp_path / f"venv/{stamp}.stamp").touch()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        command = ["make", "--no-print-directory", *words, f"VENV={tmp_path}/venv"]
        return subprocess.run(
            command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False
        )

    return run


_FIRST, _LAST = map(str, range(8)), map(str, range(9, 14))
DEMO = [*_FIRST, "kernel-5", "8", "kernel-9", "kernel-11", *_LAST]
HANDED_ON = {
    ("ablation-step", "3"): ["train", "3"],
    ("ablation-step", "N=3", "PRESET=pocket"): ["train", "3", "--preset=pocket"],
    ("ablation-step", "width", "LR=1e-3"): ["train", "width", "--lr=1e-3"],
    ("all-ablations", "SEEDS=0 1 2"): ["all", "--seeds", "0", "1", "2"],
    ("all-ablations", "CLASSIC.EPOCHS=9"): ["all", "--classic.epochs=9"],
    ("all-ablations", "CROP_SCALE=0.1 1"): ["all", "--crop-scale", "0.1", "1"],
    ("all-ablations", "DATASET=imagefolder:/my images; it's"): [
        "all",
        "--dataset=imagefolder:/my images; it's",
    ],
    ("all-ablations", "DATASET=a$b $(shell touch made)"): [
        "all",
        "--dataset=a$b $(shell touch made)",
    ],
    ("all-ablations", "STUDY=a\\ b\\`touch made`"): ["all", "--study=a\\ b\\`touch made`"],
    ("report", "STUDY=--", "-j2", "-k"): ["report", "--study=--"],
    ("demo",): ["all", "--preset", "pocket", "--steps", *DEMO],
    ("demo", "DRY_RUN=yes"): ["all", "--preset", "pocket", "--steps", *DEMO, "--dry-run"],
    ("ablation", "DRY_RUN=no"): ["all", "--no-dry-run"],
    ("ablation", "CLASSIC.DECAY_ALL=no"): ["all", "--classic.no-decay-all"],
    ("steps", "REGIME=base"): ["steps", "--regime=base"],
    ("check", "README.md"): ["check", "README.md"],  # a file that exists is a word too
    ("pack", "pocket", "OUT=p.pack"): ["pack", "pocket", "--out=p.pack"],
    ("merge", "README.md", "LICENSE", "OUT=b"): ["merge", "README.md", "LICENSE", "--out=b"],
    ("show", "5"): ["show", "5"],
    ("predict", "IMAGE=a.jpg b$x;'", "RUN=one two"): [
        *("predict", "a.jpg", "b$x;'", "--run", "one", "--run", "two"),
    ],
    ("predict", "IMAGE=docs/images/p*.???"): ["predict", "docs/images/pocket.jpg"],
    ("export", "RUN=one", "FOLD_LAYER_SCALE=yes"): [
        *("export", "--fold-layer-scale", "--run", "one"),
    ],
    ("ablation-step", "3", "GPUS=8", "PRESET=pocket"): [
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=8"),
        *("runner.py", "train", "3", "--preset=pocket"),
    ],
}


@pytest.mark.parametrize("words", HANDED_ON)
def test_words_and_variables_arrive_as_they_were_given(words, make: Make) -> None:
    done = make(*words)
    assert done.returncode == 0, done.stderr
    arguments = json.loads(done.stdout)
    assert [word for word in arguments if word != "runner.py"] == [
        word for word in HANDED_ON[words] if word != "runner.py"
    ]
    assert not (ROOT / "made").exists()


def test_an_image_whose_name_has_spaces_is_one_image(make: Make, tmp_path) -> None:
    image = tmp_path / "my images/it's $x.jpg"
    image.parent.mkdir()
    image.touch()
    assert json.loads(make("predict", f"IMAGE={image}").stdout)[1:] == ["predict", str(image)]


def test_a_preset_in_the_environment_yields_to_the_command_line(make: Make) -> None:
    around = {"PRESET": "pocket", "LR": "1"}
    assert json.loads(make("ablation", **around).stdout)[1:] == ["all", "--preset=pocket"]
    named = json.loads(make("ablation", "PRESET=food101", **around).stdout)[1:]
    assert named == ["all", "--preset=food101"]
    assert json.loads(make("steps", **around).stdout)[1:] == ["steps", "--preset=pocket"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pack", "demo"], "demo is a target of this Makefile: python runner.py pack takes it"),
        (["ablation-step", "3", "GPUS=0"], "GPUS is 0: give how many processes share the run"),
        (["ablation-step", "3", "GPUS=many"], "GPUS is many"),
        (["ablation-step", "3", "GPUS=2 3"], "GPUS is 2 3"),
    ],
)
def test_what_the_runner_would_never_see_is_refused(words, message, make: Make) -> None:
    done = make(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torchrun's own rule holds")
def test_a_run_on_several_gpus_goes_on_without_its_terminal_under_nohup(make) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        words = json.loads(make("ablation-step", "3", "GPUS=2").stdout)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert "--signals-to-handle=SIGTERM,SIGINT,SIGQUIT" in words
