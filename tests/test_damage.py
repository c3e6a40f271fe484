"""Damaged files of a study: each named in one sentence, with the way out, and the rest goes on."""

import os
import shutil
from pathlib import Path

import pytest

import runner
from studies import run_queue
from tests.conftest import STUDY
from training.interrupt import Stopped

pytestmark = pytest.mark.usefixtures("no_figures")

RUN = "patchify-stem/seed-0"


@pytest.fixture
def study(study_places, tmp_path: Path) -> Path:
    """A copy of a study with one finished run."""
    return tmp_path / "finished_study/runs/s"


def complaints(capsys: pytest.CaptureFixture) -> list[str]:
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "Errno" not in said
    return [line for line in said.splitlines() if line.startswith("runner.py: ")]


def spoil(file: Path, damage: str) -> None:
    good = file.read_bytes()
    file.unlink()
    if damage in ("a pipe", "a folder"):  # reading a pipe would never end
        (os.mkfifo if damage == "a pipe" else os.mkdir)(file)
        return
    contents = {
        "empty": b"",
        "torn": good[: len(good) // 2],
        "binary": bytes(range(256)) * 9,
        "a list": b"[]",
        "no fields": b"{}",
        "not a number": good.replace(b'"top1": ', b'"top1": NaN, "x": '),
        "deep": b"[" * 100_000,
    }
    file.write_bytes(contents[damage])


@pytest.mark.parametrize("damage", ["torn", "not a number", "a pipe"])
def test_a_finished_runs_result_that_is_damaged(damage, study, study_places, capsys) -> None:
    spoil(study / RUN / "result.json", damage)
    command = ["all", *STUDY, *study_places, "--no-trial"]
    capsys.readouterr()
    assert runner.main(command) == 1
    first, *others = complaints(capsys)
    assert "result.json is damaged" in first
    assert first.endswith("--overwrite patchify-stem trains this run from scratch")
    assert not any("Traceback" in line for line in others)


@pytest.mark.parametrize("damage", ["a list", "no fields", "deep", "a folder"])
def test_a_study_json_that_is_damaged(damage, study, study_places, capsys) -> None:
    spoil(study / "study.json", damage)
    before = sorted(study.rglob("*"))
    for command in (
        ["all", *STUDY, *study_places],
        ["report", "--study", str(study)],
        ["export", "--run", str(study / RUN), "--out", str(study / "out")],
    ):
        capsys.readouterr()
        code = runner.main(command)
        if command[0] == "export" and damage == "no fields":  # it says nothing of its data set
            assert code == 0
            continue
        assert code == 2
        (said,) = complaints(capsys)
        assert "study.json" in said
        assert sorted(study.rglob("*")) == before


@pytest.mark.parametrize("damage", ["empty", "torn", "a pipe"])
def test_weights_that_are_damaged(damage, study, study_places, images, tmp_path, capsys) -> None:
    spoil(study / RUN / "model.safetensors", damage)
    image = str(images / "down/01.jpg")
    for command in (
        ["predict", image, "--run", str(study / RUN)],
        ["export", "--run", str(study / RUN), "--out", str(tmp_path / "out")],
    ):
        capsys.readouterr()
        assert runner.main(command) == 2
        (said,) = complaints(capsys)
        assert "model.safetensors" in said
        assert ("holds no weights" if damage == "a pipe" else "restore it") in said
    # An unfinished run that would end with them says so at once.
    (study / RUN / "result.json").unlink()
    assert runner.main(["all", *STUDY, *study_places, "--no-trial"]) == 1
    assert "model.safetensors, the weights of the best epoch, is damaged" in complaints(capsys)[0]


def test_predict_never_waits_for_a_record(study, images) -> None:
    spoil(study / RUN / "result.json", "a pipe")
    assert runner.main(["predict", str(images / "down/01.jpg"), "--run", str(study / RUN)]) == 0


def test_a_changed_bit_of_the_weights_is_found(study, images, capsys) -> None:
    file = study / RUN / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)
    assert runner.main(["predict", str(images / "down/01.jpg"), "--run", str(study / RUN)]) == 2
    assert "is damaged, its checksum is not that of result.json" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["binary", "missing", "a pipe"])
def test_metrics_of_an_unfinished_run_are_restored_from_its_checkpoint(
    damage, study, study_places
) -> None:
    (study / RUN / "result.json").unlink()
    file = study / RUN / "metrics.jsonl"
    good = file.read_bytes()
    file.unlink() if damage == "missing" else spoil(file, damage)
    assert runner.main(["all", *STUDY, *study_places, "--no-trial"]) == 0
    assert file.read_bytes() == good


def test_overwriting_restarts_an_unfinished_run_and_continues_when_repeated(
    study, study_places, capsys, monkeypatch
) -> None:
    command = ["all", *STUDY, *study_places, "--no-trial", "--steps", "3", "4"]
    command += ["--overwrite", "patchify-stem"]
    (study / RUN / "result.json").unlink()
    (study / RUN / "checkpoint.pt").write_bytes(b"torn")
    (study / RUN / "checkpoint.pt.previous").write_bytes(b"torn too")

    train = run_queue.train

    def stops_at_depthwise(run, *rest):
        if run.step == "depthwise":
            raise Stopped("stopped")
        return train(run, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(run_queue, "train", stops_at_depthwise)
        assert runner.main(command) == 75
    made = (study / RUN / "result.json").stat().st_mtime_ns
    assert runner.main(command) == 0  # repeated: what it trained again is left, the rest is done
    assert (study / RUN / "result.json").stat().st_mtime_ns == made
    assert (study / "depthwise/seed-0/result.json").exists()
    assert runner.main(command) == 0  # given once more after its end, it is a new request
    assert (study / RUN / "result.json").stat().st_mtime_ns > made


def test_another_runs_checkpoint_is_not_gone_on_with(study, study_places, capsys) -> None:
    command = ["all", *STUDY, *study_places, "--no-trial", "--steps", "3", "--seeds", "1"]
    (study / "patchify-stem/seed-1").mkdir()
    shutil.copy(study / RUN / "checkpoint.pt", study / "patchify-stem/seed-1")
    capsys.readouterr()
    assert runner.main(command) == 1
    assert "checkpoint.pt belongs to another run: its digest is " in complaints(capsys)[0]
