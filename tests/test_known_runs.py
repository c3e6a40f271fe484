"""A run that is asked for is known by what it is, not by the name of its step."""

import json
import shutil
from pathlib import Path

import pytest

import runner
from studies.study import OVERWRITTEN
from tests.conftest import STUDY

pytestmark = pytest.mark.usefixtures("no_figures")


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def another(study_places, tmp_path: Path) -> Path:
    """The finished run of a study's step, as it would be if that step had been made with GELU
    then."""
    run = tmp_path / "finished_study/runs/s/patchify-stem/seed-0"
    config = json.loads((run / "config.json").read_text())
    architecture = config["architecture"] | {"activation": "gelu"}
    other = {"digest": "another", "variant_digest": "another one"}
    edit(run / "config.json", architecture=architecture, **other)
    edit(run / "result.json", **other)
    return run


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_another_network_under_the_steps_name_is_neither_skipped_nor_resumed(
    state, another: Path, study_places, tmp_path, capsys
) -> None:
    if state == "unfinished":
        (another / "result.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for command in ("all", "train"):
        options = STUDY
        if command == "train":
            options = [word for word in STUDY if word not in ("--steps", "3")] + ["3"]
        capsys.readouterr()
        assert runner.main([command, *options, *study_places, "--no-trial"]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert "architecture.activation was 'gelu', is 'relu'" in said.err
        assert "--overwrite patchify-stem" in said.err
        assert said.out == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_result_of_another_digest_is_not_taken_where_the_config_is_lost(
    another: Path, study_places, capsys
) -> None:
    (another / "config.json").write_text("torn")
    assert runner.main(["all", *STUDY, *study_places, "--no-trial"]) == 2
    assert "its digest was another, is " in capsys.readouterr().err


def test_overwriting_puts_the_asked_network_in_its_place(another: Path, study_places) -> None:
    command = ["all", *STUDY, *study_places, "--no-trial", "--overwrite", "patchify-stem"]
    (another / OVERWRITTEN).touch()  # a command that was interrupted before the step was changed
    assert runner.main(command) == 0
    for name in ("config.json", "result.json"):
        assert json.loads((another / name).read_text())["digest"] not in ("another", None)
    assert runner.main(["all", *STUDY, *study_places, "--no-trial"]) == 0


SHARE = [word for word in STUDY if word not in ("--steps", "3")] + ["--steps", "patchify-stem"]


@pytest.fixture
def elsewhere(study_places, tmp_path: Path) -> Path:
    """The finished run of patchify-stem, under the name of a row that another design gave it."""
    study = tmp_path / "finished_study/runs/s"
    (study / "patchify-stem").rename(study / "without-depthwise")
    for name in ("config.json", "result.json"):
        edit(study / "without-depthwise/seed-0" / name, step="without-depthwise")
    return study / "without-depthwise/seed-0"


def test_what_another_row_has_made_is_taken_and_not_made_again(
    elsewhere, study_places, images, capsys
) -> None:
    command = ["all", *SHARE, *study_places, "--no-trial"]
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    assert runner.main([*command, "--dry-run"]) == 0
    assert "1 run, 1 shared" in capsys.readouterr().out
    assert runner.main(command) == 0
    assert "patchify-stem seed 0: the run of without-depthwise, top-1 " in capsys.readouterr().out
    mine = elsewhere.parents[1] / "patchify-stem/seed-0"
    assert sorted(path.name for path in mine.iterdir()) == ["config.json"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    runs = (elsewhere.parents[1] / "report/runs.csv").read_text()
    assert "patchify-stem,3,0," in runs
    assert runner.main(["predict", str(images / "down/01.jpg"), "--run", str(mine)]) == 0
    # It is trained as soon as there is no such run any more.
    shutil.rmtree(elsewhere)
    assert runner.main(command) == 0
    assert (mine / "result.json").exists()


def test_what_another_row_has_begun_is_finished_there(elsewhere, study_places, capsys) -> None:
    (elsewhere / "result.json").unlink()
    assert runner.main(["all", *SHARE, *study_places, "--no-trial"]) == 0
    out = capsys.readouterr().out
    assert "2 runs, 1 shared, 1 to resume" in out
    assert "patchify-stem seed 0: the run of without-depthwise, top-1 " in out
    assert (elsewhere / "result.json").exists()


def test_naming_a_row_in_overwrite_leaves_anothers_run_alone(
    elsewhere, study_places, capsys
) -> None:
    before = (elsewhere / "result.json").stat().st_mtime_ns
    command = ["all", *SHARE, *study_places, "--no-trial", "--overwrite", "patchify-stem"]
    assert runner.main(command) == 0
    assert "(--overwrite without-depthwise trains it from scratch)" in capsys.readouterr().out
    assert (elsewhere / "result.json").stat().st_mtime_ns == before
