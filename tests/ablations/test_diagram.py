"""A step is drawn from the network that is built."""

from pathlib import Path

import pytest

import runner
from ablations import PAPER, REGIMES, diagram, get_regime
from ablations.presets import PRESETS
from models.complexity import architecture_complexity, stage_complexity

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("step", [step.name for step in PAPER.steps_in(get_regime("mini"))])
def test_every_step_is_shown(step, capsys) -> None:
    assert runner.main(["show", step, "--regime", "mini", "--resolution", "32"]) == 0
    message = capsys.readouterr().out
    assert message.startswith(f"{step} (")
    assert "\nstem" in message
    assert "\nall " in message


def test_swin_of_three_stages_is_shown(capsys) -> None:
    assert runner.main(["show", "swin-small", "--regime", "small", "--resolution", "32"]) == 0
    message = capsys.readouterr().out
    assert "\nstage 3" in message
    assert "\nstage 4" not in message


def test_show_marks_what_a_step_changes(capsys) -> None:
    assert runner.main(["show", "depthwise", "--regime", "mini", "--resolution", "64"]) == 0
    marked = [
        line for line in capsys.readouterr().out.splitlines() if "  ~ " in line and "->" in line
    ]
    assert len(marked) == 2  # the 3x3 of the block, and of the block that halves the resolution
    assert all("depthwise conv 3x3" in line.partition(" ~ ")[2] for line in marked)
    assert all("depthwise" not in line.partition(" ~ ")[0] for line in marked)


def test_a_step_that_changes_the_recipe_alone_has_one_marked_line() -> None:
    regime = get_regime("tiny")
    drawn = diagram.drawing(PAPER, regime, PAPER.step("training-recipe", regime))
    assert [line.split("  ")[0] for line in drawn.splitlines() if " ~ " in line] == [
        "recipe: ResNet's own"
    ]


def test_show_and_steps_take_the_size_of_a_preset(capsys) -> None:
    config = PRESETS["pocket"]
    size = ["--regime", config.regime, "--resolution", str(config.resolution)]
    for command in (["show", "stage-ratio"], ["steps", "--format", "csv"]):
        assert runner.main([*command, "--preset", "pocket"]) == 0
        by_preset = capsys.readouterr().out
        assert runner.main([*command, *size]) == 0
        assert capsys.readouterr().out == by_preset


def test_a_flag_that_no_line_of_the_drawing_has_is_marked(tmp_path, capsys) -> None:
    file = tmp_path / "mine.toml"
    text = "[[step]]\nname = 'a'\n[[step]]\nname = 'b'\narchitecture.all_biases = true\n"
    file.write_text(text)
    assert runner.main(["show", "b", "--roadmap", str(file), "--preset", "pocket"]) == 0
    out = capsys.readouterr().out
    marked = [" ".join(line.split()) for line in out.splitlines() if " ~ " in line]
    assert marked == ["all_biases: False ~ all_biases: True"]
    assert "): b; changes all_biases=True" in out  # no source: nothing in its place


def test_a_regime_and_a_preset_have_different_names() -> None:
    assert not REGIMES.keys() & PRESETS.keys()
    assert get_regime("pocket") == get_regime("mini")  # what older studies and files call it


@pytest.mark.parametrize("step", ["0", "5", "13", "swin-pocket"])
def test_stages_add_up_to_the_network(step) -> None:
    regime = get_regime("mini")
    architecture = PAPER.architecture(step, regime)
    whole, parts = architecture_complexity(architecture, 64), stage_complexity(architecture, 64)
    params, flops = map(sum, zip(*parts.values(), strict=True))
    assert (params, flops) == (whole.params, whole.flops_paper_convention)
