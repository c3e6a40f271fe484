"""Custom roadmaps: TOML, refused in one line that says where, or Python."""

import json
from pathlib import Path

import pytest

from ablations import PAPER, RecipeOf, Roadmap, Step, get_regime, get_roadmap
from ablations.presets import PRESETS
from ablations.roadmaps import from_data, read, to_data

SOUND = """
description = "larger kernels, and less mixing with them"
start = "separate-downsampling"

[[step]]
name = "as-in-the-paper"

[[step]]
name = "kernel-9"
description = "kernels 9x9"
architecture.kernel_size = 9

[[step]]
name = "kernel-13"
off_path = true
architecture = { kernel_size = 13 }
sizes.pocket.width = 32

[[step]]
name = "no-mixing"
needs = ["kernel-9"]
recipe = { mixup = 0, cutmix = 0.0, layer_scale = "none", ema = 0.99 }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_a_roadmap(tmp_path) -> None:
    roadmap = get_roadmap(str(written(tmp_path, SOUND)))
    config, regime = PRESETS["pocket"], get_regime("mini")
    assert (roadmap.name, [step.number for step in roadmap.steps]) == ("mine", [0, 1, None, 2])
    assert [step.after for step in roadmap.steps] == [
        None,
        "as-in-the-paper",
        "kernel-9",
        "kernel-9",
    ]
    last = PAPER.setup("13", regime, config)
    assert roadmap.setup("0", regime, config) == last
    kernel = roadmap.setup("1", regime, config)
    assert (kernel.architecture.difference(last.architecture), kernel.recipe) == (
        {"kernel_size": 9},
        last.recipe,
    )
    assert roadmap.architecture("kernel-13", regime).difference(kernel.architecture) == {
        "kernel_size": 13,
        "width": 32,
    }
    changed = {"mixup": 0.0, "cutmix": 0.0, "layer_scale": None, "ema": 0.99}
    assert roadmap.setup("2", regime, config).recipe == last.recipe.change(**changed)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path) -> None:
    plain, marked = written(tmp_path, SOUND), tmp_path / "marked/mine.toml"
    marked.parent.mkdir()
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert read(marked) == read(plain)


def test_a_roadmap_is_data_that_json_can_hold(tmp_path) -> None:
    for roadmap in (
        read(written(tmp_path, SOUND)),
        get_roadmap("recipe"),
        get_roadmap("recipe", "depthwise"),
    ):
        assert from_data(json.loads(json.dumps(to_data(roadmap)))) == roadmap


def test_a_step_may_take_the_whole_modern_recipe(tmp_path) -> None:
    text = (
        "[[step]]\nname = 'classic'\n[[step]]\nname = 'modern'\nrecipe = 'modern'\n"
        "[[step]]\nname = 'half'\nrecipe.mixup = 'classic'"
    )
    roadmap = read(written(tmp_path, text))
    assert roadmap.recipe("1", get_regime("tiny")) == RecipeOf.MODERN.whole()
    assert roadmap.recipe("2", get_regime("tiny")) == {
        **RecipeOf.MODERN.whole(),
        "mixup": RecipeOf.CLASSIC,
    }


A = '[[step]]\nname = "a"\n'
B = '[[step]]\nname = "b"\narchitecture.depthwise = true\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no step: write [[step]]"),
        ("a = ]", "mine.toml is no TOML file: Invalid value (at line 1, column 5)"),
        (
            f"descripton = 'x'\n{A}",
            "a roadmap has no field 'descripton', did you mean 'description'?",
        ),
        (f"sentence = 'x'\n{A}", "'sentence' of a roadmap is 'description' now: rename it"),
        (
            "[[step]]\nname = 'a'\nbeside = true",
            "'beside' of a step is 'off_path' now: rename it",
        ),
        (f"name = 'recipe'\n{A}", "name is 'recipe', which is built in"),
        (
            f"start = 'depthwse'\n{A}",
            "start: there is no step 'depthwse', did you mean 'depthwise'?",
        ),
        ("[[step]]\ndescription = 'x'", "step 1 has no name"),
        ("[[step]]\nname = 'report'", "step 'report': a step is named 'report': give up to 60"),
        ("[[step]]\nname = '7'", "a step is named '7'"),
        (
            '[[step]]\nname = "a"\ndescription = "a\\nb"',
            "step 'a': description is 'a\\nb': give a line of text",
        ),
        (f"{A}{A}", "two steps are named 'a'"),
        (
            f"{A}[[step]]\nname = 'b'",
            "step 'b' changes nothing: give architecture, recipe or sizes",
        ),
        (
            f"{A}archtecture.x = 1",
            "step 'a': a step has no field 'archtecture', did you mean 'architecture'?",
        ),
        (
            f"{A}architecture.kernel_sze = 5",
            "a network has no field 'kernel_sze', did you mean 'kernel_size'?",
        ),
        (f"{A}architecture.kernel_size = '5'", "step 'a': kernel_size is '5': give a whole number"),
        (f"{A}architecture.depths = [3, 'x']", "depths is [3, 'x']: give a list of whole numbers"),
        (f"{A}recipe.mixup = 'moderne'", "mixup is 'moderne': give a number"),
        (f"{A}recipe.optimizer = 'adam'", "optimizer is 'adam': give 'adamw' or 'sgd'"),
        (f"{A}recipe.betas = [0.9]", "betas is [0.9]: give a list of 2 numbers"),
        (f"{A}recipe = 'modrn'", "recipe is 'modrn': give fields and their values"),
        (f"{A}sizes.samll.width = 8", "there is no regime 'samll': did you mean 'small'?"),
        (f"{A}{B}after = 'c'", "step 'b': after names 'c', which is no step"),
        (f"{A}{B}after = 'c'\n[[step]]\nname = 'c'", "which stands below it: put 'c' above it"),
        (f"{A}{B}needs = 'a'", "needs is 'a': give a list of names of steps"),
        (f"{A}{B}needs = ['a']", "needs names 'a', which is no step that could be left out"),
        (f"{A}{B}needs = ['b']", "step 'b' needs 'b', which is not on the path to it"),
        (
            f"{A}{B}needs = ['c']\n[[step]]\nname = 'c'\nrecipe.mixup = 1",
            "step 'b' needs 'c', which is not on the path to it",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_the_place(tmp_path, text, message) -> None:
    with pytest.raises(ValueError) as refusal:
        read(written(tmp_path, text))
    refused = str(refusal.value)
    assert message in refused
    assert "\n" not in refused
    assert "mine.toml" in refused


def test_impossible_values_are_refused_with_their_step() -> None:
    config, regime = PRESETS["food101"], get_regime("tiny")
    first = Step("a", "", number=0)
    second = Step("b", "", after="a", number=1, architecture={"kernel_size": 4})
    with pytest.raises(
        ValueError, match="step 'b' of the roadmap 'x': kernel_size is 4: give an odd number"
    ):
        Roadmap("x", "", (first, second)).setup("b", regime, config)
    second = Step("b", "", after="a", number=1, recipe={"warmup_epochs": 90})
    with pytest.raises(
        ValueError, match="step 'b' of the roadmap 'x': warmup_epochs is 90 and epochs is 90"
    ):
        Roadmap("x", "", (first, second)).setup("b", regime, config)


def test_a_path_is_numbered_and_unbroken() -> None:
    first = Step("a", "", number=0)
    with pytest.raises(ValueError, match="0 steps .none. come after no other"):
        Roadmap("x", "", ())
    off_path = Step("b", "", after="a", recipe={"mixup": 0})
    last = Step("c", "", after="b", number=1, recipe={"cutmix": 0})
    with pytest.raises(ValueError, match="step 'c' has a number, and comes after 'b'"):
        Roadmap("x", "", (first, off_path, last))


IN_PYTHON = """
from dataclasses import replace
from ablations import PAPER, Roadmap, Step
from ablations.roadmaps import BEYOND
a, b = Step("a", "", number=0), Step("b", "", after="a", architecture={"kernel_size": 5}, number=1)
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise RuntimeError('no')", "cannot be run: RuntimeError: no"),
        ("ROADMAP = 3", "has no roadmap: write ROADMAP = Roadmap"),
        ("from ablations import PAPER as ROADMAP", "name is 'paper', which is built in"),
        (
            f"{IN_PYTHON}ROADMAP = Roadmap('x', '', PAPER.steps)",
            "step 'swin-t' is a reference with networks of its own",
        ),
        (
            f"{IN_PYTHON}ROADMAP = Roadmap('x', '', (a,), BEYOND.path_to('star-relu'))",
            "a study could not record this roadmap",
        ),
        (
            f"{IN_PYTHON}ROADMAP = Roadmap('x', '', (a, b), PAPER.path_to('kernel-7')[-1:])",
            "start is not the paper's path to 'kernel-7': give PAPER.path_to('kernel-7')",
        ),
        (
            f"{IN_PYTHON}ROADMAP = Roadmap('x', '', (replace(a, number=1), replace(b, number=5)))",
            "steps are numbered 1, 5: number the path from 0 on",
        ),
    ],
)
def test_a_python_file_without_a_roadmap_is_refused(tmp_path, text, message) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError) as refusal:
        get_roadmap(str(path))
    assert message in str(refusal.value)


def test_unknown_roadmaps_are_refused() -> None:
    for requested, message in (
        ("recip", "did you mean 'recipe'?"),
        ("x.toml", "no file 'x.toml'"),
        ("", "no roadmap ''"),
    ):
        with pytest.raises(ValueError, match="there is") as refusal:
            get_roadmap(requested)
        assert message in str(refusal.value)
    with pytest.raises(ValueError, match="--network depthwise is for --roadmap recipe"):
        get_roadmap("paper", "depthwise")
