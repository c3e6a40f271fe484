"""pack, unpack, merge and the report of a pack, as commands."""

import shutil
from pathlib import Path

import pytest

import runner
from report import collect
from tests.conftest import STUDY


@pytest.fixture
def study(finished_study: Path, tmp_path: Path) -> Path:
    """A copy of a study with one finished run."""
    shutil.copytree(finished_study / "runs/s", tmp_path / "runs/s")
    return tmp_path / "runs/s"


def files(folder: Path) -> dict[str, bytes]:
    """All contents but event files and matplotlib's notes, which have times and paths."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    paths = [path for path in paths if not {"matplotlib", "tensorboard"} & set(path.parts)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_study_continues_from_its_pack(
    study: Path, tmp_path: Path, study_places: list[str], capsys
) -> None:
    unfinished = study / "patchify-stem/seed-7"
    shutil.copytree(study / "patchify-stem/seed-0", unfinished)
    (unfinished / "result.json").unlink()
    for record in unfinished.glob("*.json"):
        record.write_text(record.read_text().replace('"digest": "', '"digest": "7'))
    assert runner.main(["pack", str(study)]) == 0
    packed = study.with_name("s.pack")
    assert f"pack: {packed} (" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "finished_study/runs/s")
    runs = Path(study_places[study_places.index("--runs") + 1])
    assert runner.main(["unpack", str(packed), "--runs", str(runs)]) == 0
    assert "(1 finished runs, without weights; 1 unfinished left out)" in capsys.readouterr().out
    before = files(runs / "s/patchify-stem/seed-0")
    assert runner.main(["all", *STUDY, *study_places, "--seeds", "0", "1", "--no-trial"]) == 0
    assert "2 runs, 1 finished, 1 to train" in capsys.readouterr().out
    assert files(runs / "s/patchify-stem/seed-0") == before
    assert collect.read(runs / "s").seeds == (0, 1)


def test_parts_are_merged_and_reported_from_the_pack(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "other")
    shutil.rmtree(tmp_path / "other/patchify-stem")
    whole = tmp_path / "whole.pack"
    assert runner.main(["merge", str(tmp_path / "other"), str(study), "--out", str(whole)]) == 0
    assert runner.main(["pack", "s", "--runs", str(study.parent)]) == 0
    assert whole.read_bytes() == study.with_name("s.pack").read_bytes()
    assert runner.main(["report", "--study", str(study)]) == 0
    assert runner.main(["report", str(whole)]) == 0
    assert files(tmp_path / "whole-report") == files(study / "report")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pack none", "none holds no study"),
        ("pack ../s", "the study's name"),
        ("pack s --out thesis.tex", "exists and is no pack"),
        ("unpack runs/s", "runs/s is no pack of a study"),
        ("unpack none.pack", "none.pack is no pack of a study"),
        ("unpack s.pack", "runs/s is there already"),
        ("unpack cut.pack --study new", "cut.pack is damaged or no pack"),
        ("merge runs/s --out a.pack", "two or more"),
        ("merge runs/s thesis.tex --out a.pack", "thesis.tex is damaged or no pack"),
        ("merge runs/s runs/none --out a.pack", "runs/none holds no study"),
        ("report cut.pack", "cut.pack is damaged or no pack"),
        ("report none.pack", "none.pack holds no study"),
        ("report /dev/zero", "/dev/zero holds no study"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line_and_writes_nothing(
    words, message, study, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis.tex").write_text("...")
    assert runner.main(["pack", "s", "--out", "s.pack"]) == 0
    Path("cut.pack").write_bytes(Path("s.pack").read_bytes()[:-100])
    before = files(tmp_path)
    capsys.readouterr()
    assert runner.main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert captured.out == ""
    assert files(tmp_path) == before
