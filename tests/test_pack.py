"""pack, merge and the report of a pack, as commands."""

import shutil
from pathlib import Path

import pytest

import runner
from report import collect
from tests.conftest import STUDY

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(finished_study: Path, tmp_path: Path) -> Path:
    """A copy of a study with one finished run."""
    shutil.copytree(finished_study / "runs/s", tmp_path / "runs/s")
    return tmp_path / "runs/s"


def files(folder: Path) -> dict[str, bytes]:
    """Without what matplotlib notes of this machine's fonts when it is first imported."""
    names = (
        path for path in folder.rglob("*") if path.is_file() and "matplotlib" not in path.parts
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def test_a_study_is_packed_and_reported_from_its_pack(study: Path, tmp_path: Path, capsys) -> None:
    assert runner.main(["pack", "s", "--runs", str(study.parent)]) == 0
    made = study.with_name("s.pack")
    assert f"pack: {made} (" in capsys.readouterr().out
    assert runner.main(["report", "--study", str(study)]) == 0
    assert runner.main(["report", str(made)]) == 0
    assert files(tmp_path / "runs/s-report") == files(study / "report")
    shutil.move(made, tmp_path / "else.pack")
    assert runner.main(["report", "--study", str(tmp_path / "else.pack")]) == 0
    assert files(tmp_path / "else-report") == files(study / "report")


def test_a_study_goes_on_from_its_pack(
    study: Path, tmp_path: Path, study_places: list[str], capsys, monkeypatch
) -> None:
    unfinished = study / "patchify-stem/seed-7"
    shutil.copytree(study / "patchify-stem/seed-0", unfinished)
    (unfinished / "result.json").unlink()
    for record in unfinished.glob("*.json"):
        record.write_text(record.read_text().replace('"digest": "', '"digest": "7'))
    assert runner.main(["pack", str(study)]) == 0
    shutil.rmtree(tmp_path / "finished_study/runs/s")
    runs = study_places[study_places.index("--runs") + 1]
    assert runner.main(["unpack", str(study.with_name("s.pack")), "--runs", runs]) == 0
    assert "(1 finished runs, without weights; 1 unfinished left out)" in capsys.readouterr().out
    shutil.rmtree(unfinished)
    for folder in (study, Path(runs) / "s"):
        assert runner.main(["report", "--study", str(folder)]) == 0
    assert files(study / "report") == files(Path(runs) / "s/report")

    monkeypatch.chdir(tmp_path / "finished_study")
    assert runner.main(["predict", str(ROOT / "docs/images/pocket.jpg")]) == 2
    assert "holds no finished one with weights" in capsys.readouterr().err
    before = files(Path(runs) / "s/patchify-stem/seed-0")
    assert runner.main(["all", *STUDY, *study_places, "--seeds", "0", "1", "--no-trial"]) == 0
    assert "2 runs, 1 finished, 1 to train" in capsys.readouterr().out
    assert files(Path(runs) / "s/patchify-stem/seed-0") == before
    assert collect.read(Path(runs) / "s").seeds == (0, 1)


def test_parts_are_merged(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "other")
    shutil.rmtree(tmp_path / "other/patchify-stem")
    whole = tmp_path / "whole.pack"
    assert runner.main(["merge", str(tmp_path / "other"), str(study), "--out", str(whole)]) == 0
    assert runner.main(["pack", str(study)]) == 0
    assert whole.read_bytes() == study.with_name("s.pack").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pack none", "none holds no study"),
        ("pack ../s", "the study's name"),
        ("pack", "study"),
        ("pack s --out thesis.tex", "exists and is no pack"),
        ("unpack runs/s", "runs/s is no pack of a study"),
        ("unpack none.pack", "none.pack is no pack of a study"),
        ("unpack s.pack", "runs/s is there already"),
        ("unpack s.pack --study ../s", "the study's name"),
        ("unpack cut.pack --study new", "cut.pack is damaged or no pack"),
        ("unpack", "pack"),
        ("merge runs/s --out a.pack", "two or more"),
        ("merge runs/s thesis.tex --out a.pack", "thesis.tex is damaged or no pack"),
        ("merge runs/s runs/none --out a.pack", "runs/none holds no study"),
        ("merge runs/s runs/s", "--out"),
        ("report thesis.tex", "thesis.tex is damaged or no pack"),
        ("report cut.pack", "cut.pack is damaged or no pack"),
        ("report none.pack", "none.pack holds no study"),
        ("report cut.pack --study s", "give one of them"),
        ("report /dev/zero", "/dev/zero holds no study"),
    ],
)
def test_wrong_requests_are_one_sentence_and_write_nothing(
    words, said, study, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis.tex").write_text("...")
    assert runner.main(["pack", "s", "--out", "cut.pack"]) == 0
    shutil.copy("cut.pack", "s.pack")
    Path("cut.pack").write_bytes(Path("cut.pack").read_bytes()[:-100])
    before = files(tmp_path)
    capsys.readouterr()
    assert runner.main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert captured.out == ""
    assert files(tmp_path) == before
