"""What may be reported together, and what may not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from report import collect
from tests.report.conftest import StudyFolder

Make = Callable[..., StudyFolder]


def left_out(study: StudyFolder) -> dict[str, str]:
    return {run.name: run.reason for run in collect.read(study.root).left_out}


def test_a_healthy_study_is_read_whole_and_in_report_order(make_study: Make) -> None:
    study = make_study(test=60)
    for step, seed in (("depthwise", 1), ("kernel-5", 0), ("baseline", 0), ("depthwise", 0)):
        study.add(step, 30, seed=seed)
    study.add("gelu", 0, finished=False, epochs=2)
    read = collect.read(study.root)
    names = [
        "baseline/seed-0",
        "depthwise/seed-0",
        "depthwise/seed-1",
        "kernel-5/seed-0",
        "gelu/seed-0",
    ]
    assert [run.name for run in read.runs] == names
    assert read.left_out == ()
    assert read.warnings == ()
    assert read.oddities == ()
    assert read.seeds == (0, 1)
    assert [len(run.metrics) for run in read.unfinished("gelu")] == [2]
    correct = read.finished("baseline")[0].correct
    assert correct is not None
    assert correct.sum() == 30


def append(text: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text(path.read_text() + text)

    return edit


def drop_line(number: int) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:number] + lines[number + 1 :]))

    return edit


def replace(old: str, new: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return edit


DAMAGES = [
    ("config.json", replace("0123456789ab", "ffffffffffff"), "made by another config"),
    ("config.json", replace('"seed": 0', '"seed": 7'), "seed in config.json is 7"),
    ("config.json", Path.unlink, "config.json is missing"),
    ("result.json", replace("0123456789ab", "ffffffffffff"), "result is of another config"),
    ("result.json", replace("}", ""), "result.json is damaged: it is not JSON"),
    ("result.json", lambda path: path.write_text("[" * 100_000), "result.json is damaged"),
    ("result.json", lambda path: path.write_text("[1]"), "not a JSON object"),
    ("result.json", lambda path: path.write_bytes(b"\xff\xfe\x00"), "result.json cannot be read"),
    ("result.json", replace('"loss": 0.5', '"loss": NaN'), "NaN"),
    ("result.json", replace('"loss": 0.5', '"loss": 1e999'), "non-finite 'loss'"),
    ("result.json", replace('"top1": 50.0', '"top1": 50.9'), "predictions.csv gives 50.0000 %"),
    ("result.json", replace('"top1": 50.0', '"top1": "50"'), "no number 'top1'"),
    ("result.json", replace('"test_images": 100', '"test_images": 99'), "tested on 99 images"),
    ("result.json", replace('"epochs": 4', '"epochs": 5'), "ends at epoch 4"),
    ("result.json", replace('"step": "width"', '"step": "gelu"'), "step in result.json is 'gelu'"),
    (
        "result.json",
        replace('"selected_epoch": 4', '"selected_epoch": 3'),
        "epoch 4 was best on the validation",
    ),
    ("metrics.jsonl", drop_line(3), "ends at epoch 3"),
    ("metrics.jsonl", drop_line(1), "epoch 3 where epoch 2 should be"),
    ("metrics.jsonl", append('{"epoch": 4}\n'), "epoch 4 where epoch 5 should be"),
    ("metrics.jsonl", replace('"train_loss": 2.0', '"train_loss": Infinity'), "Infinity"),
    ("metrics.jsonl", Path.unlink, "metrics.jsonl is missing"),
    ("predictions.csv", Path.unlink, "predictions.csv is missing"),
    ("predictions.csv", drop_line(40), "99 images"),
    ("predictions.csv", append("pizza/1,1,0.5\n"), "not one of the 6 classes"),
    ("predictions.csv", append("a,1,0.5,1,2,3,4,5,6,7,8,9\n"), "cannot be read as a table"),
    ("predictions.csv", replace("00000,0,0.6", "00000,0,nan"), "not between 0 and 1"),
    ("predictions.csv", replace("pizza/00001,", "apple_pie/00000,"), "lists an image twice"),
    ("predictions.csv", replace("p_label", "p"), "no column 'p_label'"),
    ("predictions.csv", lambda path: path.write_text(""), "cannot be read as a table"),
]


@pytest.mark.parametrize(("file", "damage", "reason"), DAMAGES)
def test_a_damaged_or_foreign_run_is_left_out_by_name(
    make_study: Make, file: str, damage: Callable[[Path], None], reason: str
) -> None:
    study = make_study(test=100)
    study.add("depthwise", 40)
    study.add("width", 50)
    damage(study.folder("width") / file)
    assert [run.name for run in collect.read(study.root).runs] == ["depthwise/seed-0"]
    assert list(left_out(study)) == ["width/seed-0"]
    assert reason in left_out(study)["width/seed-0"]


def test_the_run_with_other_test_images_is_left_out_and_the_majority_stays(
    make_study: Make,
) -> None:
    study = make_study(test=50)
    study.add("baseline", 20, images=[f"other/{i}" for i in range(50)])
    study.add("depthwise", 20)
    study.add("width", 20)
    assert list(left_out(study)) == ["baseline/seed-0"]
    assert "test images" in left_out(study)["baseline/seed-0"]


def test_images_in_another_order_are_the_same_images(make_study: Make) -> None:
    study = make_study(test=50)
    study.add("depthwise", 20)
    study.add("width", 25)
    path = study.folder("width") / "predictions.csv"
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *reversed(lines)]) + "\n")
    read = collect.read(study.root)
    assert read.left_out == ()
    one, other = (read.finished(step)[0].correct for step in ("depthwise", "width"))
    assert one is not None
    assert other is not None
    assert (one & other).sum() == 20


def test_a_seed_with_another_network_is_left_out(make_study: Make) -> None:
    study = make_study(test=50)
    for seed in range(3):
        study.add("width", 20, seed=seed)
    study.edit("result.json", "width", 1, params=123)
    assert list(left_out(study)) == ["width/seed-1"]


def test_two_networks_of_one_step_are_not_averaged(make_study: Make) -> None:
    """Also where they have as many parameters and FLOPs: ReLU and GELU."""
    study = make_study(test=50)
    for seed, activation in enumerate(("relu", "gelu", "gelu")):
        study.add("width", 20, seed=seed)
        study.edit(
            "config.json",
            "width",
            seed,
            architecture={"activation": activation},
            variant_digest=activation,
        )
    assert left_out(study) == {
        "width/seed-0": "it is not what width/seed-1 is: architecture.activation was 'gelu', is "
        "'relu'; make it again "
        "with --overwrite width"
    }
    study.edit("result.json", "width", 2, digest="another")
    assert "digest in result.json is 'another'" in left_out(study)["width/seed-2"]


def test_a_step_of_another_regime_is_left_out(make_study: Make) -> None:
    study = make_study(test=50)
    study.add("width", 20)
    study.add("swin-b", 20)
    assert "not a step of the regime 'pocket'" in left_out(study)["swin-b/seed-0"]


def test_an_unfinished_run_may_be_in_the_middle_of_a_line(make_study: Make) -> None:
    study = make_study(test=50)
    study.add("width", 0, finished=False, epochs=3)
    append('{"epoch": 4, "upd')(study.folder("width") / "metrics.jsonl")
    read = collect.read(study.root)
    assert read.left_out == ()
    assert [record["epoch"] for record in read.runs[0].metrics] == [1, 2, 3]


def test_different_code_versions_and_devices_are_named(make_study: Make) -> None:
    study = make_study(test=50)
    study.add("depthwise", 20)
    study.add("width", 20)
    study.edit("result.json", "width", code_version="fff9999", device="NVIDIA H100")
    code, device = collect.read(study.root, mixed_code=True).warnings
    assert "2 different code versions (abc1234: depthwise/seed-0; fff9999: width/seed-0)" in code
    assert "NVIDIA H100: width/seed-0" in device


def test_a_run_of_another_code_version_is_left_out_by_name(make_study: Make) -> None:
    study = make_study(test=50)
    for step in ("depthwise", "width", "gelu"):
        study.add(step, 20)
    study.edit("result.json", "width", code_version="fff9999")
    assert list(left_out(study)) == ["width/seed-0"]
    assert "code version is fff9999, other runs' is abc1234" in left_out(study)["width/seed-0"]
    assert collect.read(study.root, mixed_code=True).left_out == ()


def test_a_run_of_fewer_epochs_than_the_recipe_is_left_out(make_study: Make) -> None:
    study = make_study(test=50)
    study.add("depthwise", 20)
    study.add("width", 20, epochs=3)
    assert left_out(study) == {"width/seed-0": "it had 3 epochs, but its recipe has 4"}


@pytest.mark.parametrize(
    "file", ["config.json", "metrics.jsonl", "result.json", "predictions.csv", "environment.json"]
)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_read(make_study: Make, file: str, kind: str) -> None:
    study = make_study(test=50)
    study.add("depthwise", 20)
    study.add("width", 20)
    path = study.folder("width") / file
    path.unlink()
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[
        kind
    ](path)
    assert left_out(study) == {"width/seed-0": f"{file} is not a file"}


def test_a_folder_that_is_no_study_is_refused_in_one_sentence(
    make_study: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"has no study\.json"):
        collect.read(tmp_path)
    study = make_study(test=50)
    with pytest.raises(ValueError, match="holds no run yet"):
        collect.read(study.root)
    path = study.root / "study.json"
    whole = json.loads(path.read_text())
    for broken, message in (
        ("{", "not JSON"),
        ("{}", "a field is missing or wrong"),
        (json.dumps(whole | {"dataset": {}}), "a field is missing or wrong"),
        (
            json.dumps(whole | {"config": {"regime": "huge", "recipe": {}}}),
            "none of tiny, base, small, pocket",
        ),
        (
            json.dumps(whole | {"config": {"regime": ["tiny"], "recipe": {}}}),
            "none of tiny, base, small, pocket",
        ),
    ):
        path.write_text(broken)
        with pytest.raises(ValueError, match=message):
            collect.read(study.root)
