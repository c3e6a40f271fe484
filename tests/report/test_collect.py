"""Which runs may be reported together, and which may not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from report import collect
from tests.report.conftest import StudyFolder

Make = Callable[..., StudyFolder]
Damage = Callable[[Path], object]


def left_out(study: StudyFolder) -> dict[str, str]:
    return {run.name: run.reason for run in collect.read(study.root).left_out}


def test_a_healthy_study_is_read_in_report_order(make_study: Make) -> None:
    study = make_study(test=60)
    for step, seed in (("depthwise", 1), ("kernel-5", 0), ("baseline", 0), ("depthwise", 0)):
        study.add(step, 30, seed=seed)
    study.add("gelu", 0, finished=False, epochs=2)
    path = study.folder("kernel-5") / "predictions.csv"
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *reversed(lines)]) + "\n")  # the same images
    read = collect.read(study.root)
    steps = ["baseline", "depthwise", "depthwise", "kernel-5", "gelu"]
    assert [(run.step, run.seed) for run in read.runs] == list(zip(steps, (0, 0, 1, 0, 0)))
    assert read.oddities == ()
    assert read.seeds == (0, 1)
    assert [len(run.metrics) for run in read.unfinished("gelu")] == [2]
    runs = collect.measure({step: read.finished(step) for step in ("baseline", "kernel-5")})
    assert runs.accuracy.tolist() == [50, 50]
    assert np.ptp(runs.covariance) == 0, "they are right on the same images"


def append(text: str) -> Damage:
    return lambda path: path.write_text(path.read_text() + text)


def drop_line(number: int) -> Damage:
    def edit(path: Path) -> None:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:number] + lines[number + 1 :]))

    return edit


def replace(old: str, new: str) -> Damage:
    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return edit


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: list[tuple[str, Damage, str]] = [
    ("config.json", replace("0123456789ab", "ffffffffffff"), "another config"),
    ("config.json", Path.unlink, "config.json is missing"),
    ("result.json", replace("}", ""), "result.json is damaged"),
    ("result.json", lambda path: path.write_text("[1]"), "not a JSON object"),
    ("result.json", to_pipe, "result.json cannot be read"),
    ("result.json", replace('"loss": 0.5', '"loss": NaN'), "NaN is not a finite number"),
    ("result.json", replace('"top1": 50.0', '"top1": 50.9'), "predictions.csv gives 50.0000 %"),
    ("result.json", replace('"top1": 50.0', '"top1": "50"'), "no number 'top1'"),
    ("result.json", replace('"test_images": 100', '"test_images": 99'), "result.json 99 and"),
    ("result.json", replace('"epochs": 4', '"epochs": 5'), "4 epochs, result.json 5"),
    ("metrics.jsonl", drop_line(3), "has 3 epochs"),
    ("metrics.jsonl", drop_line(1), "epoch 3 as number 2"),
    ("predictions.csv", drop_line(40), "99 images"),
    ("predictions.csv", append("pizza/1,1,0.5\n"), "predictions.csv is damaged"),
    ("predictions.csv", replace(",top1,", ",top,"), "no column 'top1'"),
    ("predictions.csv", replace("00000,0,", "00000,7,"), "not one of the 6 classes"),
    ("predictions.csv", to_pipe, "predictions.csv is damaged"),
]


@pytest.mark.parametrize(("file", "damage", "reason"), DAMAGES)
def test_a_damaged_or_foreign_run_is_left_out_by_name(
    make_study: Make, file: str, damage: Damage, reason: str
) -> None:
    study = make_study(test=100)
    study.add("depthwise", 40)
    study.add("width", 50)
    damage(study.folder("width") / file)
    assert [run.name for run in collect.read(study.root).runs] == ["depthwise/seed-0"]
    assert list(left_out(study)) == ["width/seed-0"]
    assert reason in left_out(study)["width/seed-0"]


def test_the_run_with_other_test_images_is_left_out(make_study: Make) -> None:
    study = make_study(test=50)
    study.add("baseline", 20, images=[f"other/{i}" for i in range(50)])
    study.add("depthwise", 20)
    study.add("width", 20)
    assert list(left_out(study)) == ["baseline/seed-0"]
    assert "test images" in left_out(study)["baseline/seed-0"]


def test_two_networks_of_one_step_are_not_averaged(make_study: Make) -> None:
    study = make_study(test=50)
    for seed, activation in enumerate(("relu", "gelu", "gelu")):
        study.add("width", 20, seed=seed)
        changes = {"architecture": {"activation": activation}, "variant_digest": activation}
        study.edit("config.json", "width", seed, **changes)
    (reason,) = left_out(study).values()
    assert "width/seed-1 is: architecture.activation was 'gelu', is 'relu'" in reason


def test_an_unfinished_run_may_be_in_the_middle_of_a_line(make_study: Make) -> None:
    study = make_study(test=50)
    study.add("width", 0, finished=False, epochs=3)
    append('{"epoch": 4, "upd')(study.folder("width") / "metrics.jsonl")
    read = collect.read(study.root)
    assert read.left_out == ()
    assert [record["epoch"] for record in read.runs[0].metrics] == [1, 2, 3]


def test_mixed_code_versions_and_devices_are_named(make_study: Make) -> None:
    study = make_study(test=50)
    for step in ("depthwise", "width", "gelu"):
        study.add(step, 20)
    study.edit("result.json", "width", code_version="fff9999", device="NVIDIA H100")
    assert "code version is fff9999, other runs' is abc1234" in left_out(study)["width/seed-0"]
    mixed = collect.read(study.root, mixed_code=True)
    assert mixed.left_out == ()
    code, device = mixed.warnings
    assert "2 different code versions" in code
    assert "fff9999: width/seed-0" in code
    assert "NVIDIA H100: width/seed-0" in device


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
        ("{", "cannot be read"),
        (json.dumps({"format": whole["format"]}), "a field is missing or wrong"),
        ("{}", "has format 1"),
        (json.dumps(whole | {"dataset": {}}), "a field is missing or wrong"),
        (json.dumps(whole | {"config": whole["config"] | {"regime": "huge"}}), "choose tiny"),
    ):
        path.write_text(broken)
        with pytest.raises(ValueError, match=message):
            collect.read(study.root)
