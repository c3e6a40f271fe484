"""A run that is asked for is known by what it is, not by the name of its step."""

import json
from pathlib import Path

import pytest

import runner
from tests.conftest import STUDY


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture
def another(house_place, tmp_path: Path) -> Path:
    """The finished run of a study's step, as it would be if that step had been made with GELU then."""
    run = tmp_path / "house/runs/s/patchify-stem/seed-0"
    config = json.loads((run / "config.json").read_text())
    architecture = config["architecture"] | {"activation": "gelu"}
    edit(run / "config.json", architecture=architecture, digest="another", variant="another one")
    edit(run / "result.json", digest="another", variant="another one")
    return run


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_another_network_under_the_steps_name_is_neither_skipped_nor_resumed(
    state, another: Path, house_place, tmp_path, capsys
) -> None:
    if state == "unfinished":
        (another / "result.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for command in ("all", "train"):
        options = STUDY if command == "all" else [word for word in STUDY if word not in ("--steps", "3")] + ["3"]
        capsys.readouterr()
        assert runner.main([command, *options, *house_place, "--no-trial"]) == 2
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert "architecture.activation was 'gelu', is 'relu'" in said.err
        assert "--overwrite patchify-stem" in said.err
        assert said.out == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_result_of_another_digest_is_not_taken_where_the_config_is_lost(another: Path, house_place, capsys) -> None:
    (another / "config.json").write_text("torn")
    assert runner.main(["all", *STUDY, *house_place, "--no-trial"]) == 2
    assert "its digest was another, is " in capsys.readouterr().err


def test_overwriting_puts_the_asked_network_in_its_place(another: Path, house_place) -> None:
    command = ["all", *STUDY, *house_place, "--no-trial", "--overwrite", "patchify-stem"]
    (another / ".made-again").touch()  # a command that was interrupted before the step was changed
    assert runner.main(command) == 0
    for name in ("config.json", "result.json"):
        assert json.loads((another / name).read_text())["digest"] not in ("another", None)
    assert runner.main(["all", *STUDY, *house_place, "--no-trial"]) == 0
