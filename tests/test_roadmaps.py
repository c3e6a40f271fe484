"""Roadmaps other than the paper's through the command line: checked, trained, reported."""

import json
from pathlib import Path

import pytest

import runner

MINE = """
description = "larger kernels, in my hands"
start = "separate-downsampling"

[[step]]
name = "as-in-the-paper"

[[step]]
name = "kernel-13"
description = "kernels 13x13"
architecture.kernel_size = 13

[[step]]
name = "no-layer-scale"
recipe.layer_scale = "none"
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.toml").write_text(MINE)
    return str(tmp_path / "mine.toml")


def test_check_prints_what_each_step_changes_in_a_preset(mine, capsys) -> None:
    assert runner.main(["check", mine, "--preset", "pocket"]) == 0
    message = capsys.readouterr().out.splitlines()
    assert message[1:3] == [
        "kernel-13: kernel_size 7 to 13",
        "no-layer-scale: changes nothing here",
    ]
    assert message[-1].endswith("mine.toml is sound (regime small, preset pocket)")
    assert runner.main(["check", mine]) == 0
    assert "no-layer-scale: layer_scale 1e-06 to None" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "kernel_size = 13",
            "kernel_size = 12",
            "step 'kernel-13' of the roadmap 'mine': kernel_size is 12",
        ),
        (
            "kernel_size",
            "kernel_sise",
            "mine.toml: step 'kernel-13': a network has no field 'kernel_sise', did you",
        ),
    ],
)
@pytest.mark.parametrize(
    "command", [["check"], ["all", "--roadmap"], ["train", "1", "--roadmap"]], ids=lambda c: c[0]
)
def test_a_wrong_roadmap_is_refused_and_nothing_written(
    mine, quick_study, command, old, new, message, tmp_path, capsys
) -> None:
    Path(mine).write_text(MINE.replace(old, new))
    options = [] if command == ["check"] else quick_study
    assert runner.main([*command, mine, *options]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"mine.toml", "data"}


def test_a_custom_roadmap_is_trained_and_reported_with_the_papers(
    mine, quick_study, tmp_path, capsys
) -> None:
    study = tmp_path / "runs/quick"
    assert runner.main(["all", "--roadmap", mine, *quick_study]) == 0
    out = capsys.readouterr().out
    assert "no-layer-scale         seed 0 shared" in out  # the preset has none: nothing to train
    assert not (study / "no-layer-scale/seed-0/result.json").exists()
    page = (study / "report/report.md").read_text()
    assert "larger kernels, in my hands" in page
    assert "kernels 13x13" in page
    assert "changes nothing here" in page
    assert "| 0 as-in-the-paper" in page

    assert runner.main(["train", "separate-downsampling", *quick_study]) == 0
    assert "the run of as-in-the-paper" in capsys.readouterr().out  # the same network and recipe
    Path(mine).unlink()  # the study knows what its rows are
    assert runner.main(["report", "--study", str(study), "--roadmap", mine]) == 0
    again = (study / "report/report.md").read_text()
    assert again.count("kernels 13x13") == page.count("kernels 13x13")
    assert runner.main(["report", "--study", str(study), "--roadmap", "paper"]) == 0
    assert "separate-downsampling" in (study / "report/paper/report.md").read_text()
    capsys.readouterr()
    assert runner.main(["report", "--study", str(study), "--roadmap", "recipe"]) == 2
    assert "has no roadmap 'recipe': choose mine, paper" in capsys.readouterr().err


def test_the_recipe_roadmap_makes_no_run_for_what_a_preset_switches_off(
    quick_study, tmp_path, capsys
) -> None:
    request = ["all", "--roadmap", "recipe", *quick_study, "--dry-run"]
    assert runner.main(request) == 0
    out = capsys.readouterr().out
    assert "13 runs" in out
    for name in ("initial-weights", "crops", "rand-augment", "stochastic-depth", "layer-scale"):
        assert f"{name:<22} seed 0 shared" in out, name
    assert not (tmp_path / "runs").exists()


def test_other_roadmaps_are_printed_and_drawn(mine, capsys) -> None:
    assert runner.main(["steps", "--roadmap", mine, "--regime", "mini", "--format", "json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == [
        "as-in-the-paper",
        "kernel-13",
        "no-layer-scale",
    ]
    assert runner.main(["show", "1", "--roadmap", mine, "--regime", "mini"]) == 0
    out = capsys.readouterr().out
    assert "| depthwise conv 7x7" in out
    assert "~   | depthwise conv 13x13" in out
    request = ["show", "mixup-on-depthwise", "--roadmap", "recipe", "--network", "4"]
    assert runner.main([*request, "--regime", "pocket"]) == 0
    assert "changes mixup=modern" in capsys.readouterr().out
