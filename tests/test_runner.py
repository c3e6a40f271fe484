"""The command line: what it does, and what it refuses in one sentence with exit code 2 and nothing
written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import runner
from studies import train
from tests.conftest import files

ROOT = Path(__file__).parents[1]


def test_train_makes_a_run_then_leaves_it_alone_until_it_is_named(
    quick_study, tmp_path, capsys
) -> None:
    assert runner.main(["train", "4", *quick_study]) == 0
    result = tmp_path / "runs/quick/depthwise/seed-0/result.json"
    first = result.read_bytes()
    assert runner.main(["train", "depthwise", *quick_study]) == 0
    assert result.read_bytes() == first
    assert "finished, top-1" in capsys.readouterr().out
    assert runner.main(["train", "4", *quick_study, "--overwrite", "gelu"]) == 2
    assert result.read_bytes() == first
    assert runner.main(["train", "4", *quick_study, "--overwrite", "depthwise"]) == 0
    assert result.read_bytes() != first


def test_all_prints_its_plan_skips_what_is_finished_and_ends_with_the_report(
    quick_study, tmp_path, capsys
) -> None:
    runner.main(["train", "4", *quick_study])
    capsys.readouterr()
    chosen = ["--steps", "3", "depthwise", "swin-small"]
    assert runner.main(["all", *quick_study, *chosen, "--dry-run"]) == 0
    assert "3 runs, 1 finished, 2 to train" in capsys.readouterr().out
    assert not (tmp_path / "runs/quick/patchify-stem").exists()
    assert runner.main(["all", *quick_study, *chosen]) == 0
    out = capsys.readouterr().out
    assert out.index("1 finished, 2 to train") < out.index("\nreport:")
    report = (tmp_path / "runs/quick/report/report.md").read_text()
    assert "depthwise" in report
    for name in ("patchify-stem", "depthwise", "swin-small"):
        assert (tmp_path / f"runs/quick/{name}/seed-0/result.json").exists()


@pytest.mark.usefixtures("no_figures")
def test_a_design_shares_the_runs_of_others_and_is_noted(quick_study, tmp_path, capsys) -> None:
    runner.main(["train", "layer-norm", *quick_study])
    capsys.readouterr()
    noted = json.loads((tmp_path / "runs/quick/study.json").read_text())
    assert [design["kind"] for design in noted["designs"]] == ["cumulative"]
    request = ["all", *quick_study, "--design", "leave-one-out", "--no-trial"]
    request += ["--steps", "without-gelu", "layer-norm"]
    assert runner.main([*request, "--dry-run"]) == 0
    assert "2 runs, 1 finished, 1 to train" in capsys.readouterr().out
    assert json.loads((tmp_path / "runs/quick/study.json").read_text()) == noted
    assert runner.main(request) == 0
    config = json.loads((tmp_path / "runs/quick/without-gelu/seed-0/config.json").read_text())
    assert config["architecture"]["activation"] == "relu"
    assert config["architecture"]["separate_downsampling"] is True
    assert runner.main(request) == 0  # noted once
    _, noted = json.loads((tmp_path / "runs/quick/study.json").read_text())["designs"]
    assert (noted["roadmap"], noted["kind"]) == ("paper", "leave-one-out")


@pytest.mark.usefixtures("no_figures")
def test_how_a_study_is_judged_is_written_before_its_first_result(
    quick_study, tmp_path, capsys
) -> None:
    request = ["all", *quick_study, "--steps", "3", "depthwise", "--no-trial", "--margin", "0.5"]
    assert runner.main([*request, "--dry-run"]) == 0
    assert not (tmp_path / "runs/quick").exists()
    assert runner.main(request) == 0
    study = tmp_path / "runs/quick/study.json"
    (first,) = json.loads(study.read_text())["plans"]
    assert (first["finished_runs"], first["margin"], first["seeds"]) == (0, 0.5, [0])
    (family,) = first["families"]
    assert family["comparisons"] == [["depthwise", "patchify-stem"]]
    assert runner.main(request) == 0
    assert json.loads(study.read_text())["plans"] == [first]
    assert runner.main([*request[:-2], "--seeds", "1"]) == 0
    _, later = json.loads(study.read_text())["plans"]
    assert (later["finished_runs"], later["margin"], later["seeds"]) == (2, 0.5, [0, 1])
    report = (tmp_path / "runs/quick/report/report.md").read_text()
    assert "- Deviation: " in report


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_seeds_are_added_until_the_study_is_resolved(quick_study, tmp_path, capsys) -> None:
    quick_study += ["--epochs", "6", "--lr", "2e-3"]  # enough that no run collapses
    request = ["all", *quick_study, "--steps", "3", "depthwise", "--no-trial", "--until-resolved"]
    assert runner.main([*request, "--margin", "99"]) == 0  # a few seeds show that nothing does
    made = sorted((tmp_path / "runs/quick").glob("*/*/result.json"))
    seeds = len(made) // 2
    assert [path.parent.name for path in made] == 2 * [f"seed-{seed}" for seed in range(seeds)]
    assert 2 <= seeds < 10
    report = (tmp_path / "runs/quick/report/report.md").read_text()
    assert "no difference larger than 99" in report
    assert "planned after 2, 3, 4, 5, 6, 8, 10 seeds" in report
    capsys.readouterr()
    assert runner.main([*request, "--margin", "99", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(
        f"{tmp_path / 'runs/quick'}: no run to train: each comparison is resolved, given up or "
    )
    limits = ["--margin", "0.0001", "--runs-at-most", "7", "--seeds", "0", "1", "2", "3"]
    assert runner.main([*request, "--study", "other", *limits]) == 0
    (plan,) = json.loads((tmp_path / "runs/other/study.json").read_text())["plans"]
    assert plan["families"][0]["analyses"] == [2, 3, 4]
    assert (plan["runs_at_most"], plan["finished_runs"]) == (7, 0)
    assert len(list((tmp_path / "runs/other").glob("*/*/result.json"))) <= 6


@pytest.mark.usefixtures("no_figures")
def test_runs_of_another_version_of_the_code_are_named_before_more_are_trained(
    quick_study, tmp_path, capsys
) -> None:
    study = tmp_path / "runs/quick"
    request = ["all", *quick_study, "--steps", "3", "depthwise", "--no-trial"]
    assert runner.main(request) == 0
    for path in study.glob("*/seed-*/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"code_version": "abc"}))
    more = [*request, "--until-resolved", "--seeds", "0", "1"]
    before = files(tmp_path)
    capsys.readouterr()
    assert runner.main(more) == 2
    said = capsys.readouterr().err
    assert (
        f"finished runs in {study} were trained by version abc of this code, and this is " in said
    )
    assert "are not evaluated together: use that version, or add --mixed-code" in said
    assert files(tmp_path) == before
    assert runner.main([*request, "--seeds", "0", "1", "--dry-run"]) == 0
    assert "are reported together with --mixed-code only" in capsys.readouterr().err
    assert runner.main([*more, "--mixed-code"]) == 0
    assert (study / "depthwise/seed-1/result.json").exists()
    assert "4 finished runs" in (study / "report/report.md").read_text()


REFUSED = {
    "all --design leave-one-in": "leave-one-out",
    "all --design orders": "give --runs-at-most",
    "all --design leave-one-out --steps without-gelo": "did you mean 'without-gelu'",
    "all --design factorial --factors gelu layer-norm --fraction 2": "at least four",
    "all --until-resolved --seeds 3": "needs two seeds or more",
    "all --until-resolved --steps 3": "compares none",
    "all --sweep lr=1x": "one value",
    "all --sweep layer_scale=0.5x,1x": "layer_scale is none there",
    "all --sweep lr=0.5x,1x --until-resolved": "are not for a --sweep",
    "all --margin 0": "the margin is 0 points: give more than 0",
    "all --fraction 2": "belongs to the design factorial",
    "all --design leave-one-out --base layer-norm": "at least two",
    "train 14": "steps are numbered 0 to 13",
    "train depthwse": "did you mean 'depthwise'",
    "train 3 --preset poket": "did you mean 'pocket'",
    "train 3 --preset": "--preset",
    "train 3 --dataset food102": "did you mean 'food101'",
    "train 3 --dataset imagefolder:/nowhere/at/all": "does not exist",
    "train 3 --data-dir /nowhere/at/all": "does not exist",
    "train 3 --data-dir /proc": "cannot be written",
    "train 3 --runs /proc/1/runs": "the runs folder",
    "train 3 --regime huge": "choose tiny, base, small, mini",
    "train 3 --epoch 5": "did you mean --epochs",
    "train 3 --epochs x": "--epochs",
    "train 3 --epochs 0": "--epochs is 0",
    "train 3 --epochs 2 --warmup-epochs 5": "the warm-up must end before",
    "train 3 --device tpu": "there is no device 'tpu'",
    "train 3 --device cuda:99": "cuda:99",
    "train 3 --precision fp8": "fp8",
    "train 3 --seed -1": "seed is -1",
    "train 3 --study ../elsewhere": "the study's name",
    "train 3 --workers -2": "workers is -2",
    "train 3 --checkpoint-minutes -1": "checkpoint-minutes is -1.0",
    "train 3 --checkpoint-minutes nan": "checkpoint-minutes is nan",
    "train": "step",
    "train 3 4": "4",
    "trian 3": "trian",
    "all --seeds 0 0": "seed 0 was given twice",
    "all --steps 3 patchify-stem": "step patchify-stem was given twice",
    "all --steps 3 --overwrite depthwise": "--overwrite names depthwise",
    "all --steps 3 --overwrite 3": "--overwrite names 3",
    "report --study none-such": "holds no study",
    "steps --regime tin": "tin",
    "steps --resolution 8": "give 32 to 4096",
    "show 14": "steps are numbered 0 to 13",
    "show 3 --resolution 8": "give 32 to 4096",
    "show 3 --resolution 7 --regime small": "regime small makes images 8 times smaller, give 8 to "
    "4096",
    "train 3 --preset pocket --resolution 4": "give 8 to 4096",
    "predict none.jpg": "no run was given",
    "predict none.jpg --run runs/none": "does not exist",
    "export --run runs/none --out made": "there is no run",
    "export --run runs/none --out made --format tflite": "tflite",
    "train 3 --init-weights none.pth": "do not exist",
    "": "Expected one of {steps, show, check, train, all,",
    "train 3 --lr x": "--lr",
    "train 3 --lr nan": "--lr is nan: give a number above 0",
    "train 3 --betas 1": "missing value for argument '--betas'",
    "train 3 --optimizer adam": "expected one of ('adamw', 'sgd')",
    "train 3 --classic.epochs 0": "--classic.epochs is 0: give 1 to 1,000,000",
    "train 3 --classic.mixup -1": "--classic.mixup is -1.0: give 0 or more",
    "train 3 --zzz 5": "--zzz",
    "train 3 --no-trial=yes": "yes",
    "export": "--out",
    "predict none.jpg --run runs/none --top x": "--top",
    "train 3 --init-weights /dev/zero": "are no file",
}


@pytest.mark.parametrize("request_line", REFUSED)
def test_a_wrong_request_is_one_sentence_and_writes_nothing(
    request_line, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "_DATASETS", tmp_path / "datasets")
    arguments = request_line.split()
    if "--preset" not in arguments and request_line.startswith(("train", "all", "report")):
        arguments += ["--preset", "pocket"]
    assert runner.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("runner.py: ")
    assert captured.err.count("\n") == 1
    assert REFUSED[request_line].lower() in captured.err.lower()
    assert captured.out == ""
    assert files(tmp_path) == set()


@pytest.mark.parametrize("request_line", ["--help", "train --help", "train 14"])
def test_help_and_refusals_do_not_import_torch(request_line) -> None:
    script = (
        "import sys, runner\n"
        "try: runner.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *request_line.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("False\n")


@pytest.mark.slow
def test_a_stop_or_a_lost_terminal_saves_exits_with_75_and_the_same_command_goes_on(
    quick_study, tmp_path
) -> None:
    command = [sys.executable, "runner.py", "train", "1", *quick_study, "--epochs", "200"]
    folder = tmp_path / "runs/quick/training-recipe/seed-0"

    def epochs() -> list[int]:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["epoch"] for line in lines]

    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not (folder / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        complaint = process.communicate(timeout=30)[1]
    assert process.returncode == 75
    assert "was stopped in epoch" in complaint
    done = epochs()
    assert 1 <= len(done) < 200
    terminal, its_end = os.openpty()
    command = ["setsid", "--ctty", *command]  # the terminal is its own, as in an ssh connection
    streams = {"stdin": its_end, "stdout": its_end, "stderr": its_end}
    with subprocess.Popen(command, cwd=ROOT, **streams) as process:
        os.close(its_end)
        while epochs() == done and process.poll() is None:
            time.sleep(0.05)
        os.close(terminal)
        process.wait(timeout=60)
    assert process.returncode == 75
    assert epochs() == list(range(1, len(epochs()) + 1))
    assert len(epochs()) > len(done)
