"""A study's folder belongs to one config and one format."""

import errno
import json
import os
from dataclasses import replace

import pytest

from studies.study import Study, find_study, open_study, study_folder
from training.recipe import CLASSIC, Recipe, StudyConfig
from utils import locks

CONFIG = StudyConfig("pocket", "pocket", 64, "fp32", Recipe(), CLASSIC)


def test_the_same_config_opens_the_same_study(tmp_path) -> None:
    first = open_study(tmp_path / "s", CONFIG, {}, "abc")
    assert open_study(tmp_path / "s", CONFIG, {}, "abc") == first
    assert json.loads((tmp_path / "s/study.json").read_text())["hash"] == first.hash
    assert first.run_folder("gelu", 2) == tmp_path / "s/gelu/seed-2"


def test_the_hash_depends_on_the_config_and_the_images_but_not_on_their_folder(tmp_path) -> None:
    study = find_study(tmp_path / "s", CONFIG)
    assert study.hash == "ca42154f9a9e92e9"
    changes = {"recipe": Recipe(ema=0.9999)}, {"classic": Recipe()}, {"resolution": 96}
    others = [replace(study, config=replace(CONFIG, **change)) for change in changes]
    others.append(replace(study, images="abc"))
    assert len({study.hash, *(other.hash for other in others)}) == 5
    places = [replace(CONFIG, dataset=f"imagefolder:/{place}") for place in "ab"]
    assert len({Study(tmp_path, config, "abc").hash for config in places}) == 1


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"recipe": Recipe(lr=1e-3)}, r"lr \(0.004 there, 0.001 here\)"),
        ({"classic": replace(CLASSIC, epochs=9)}, r"classic.epochs \(90 there, 9 here\)"),
        ({"regime": "tiny"}, r"regime \(pocket there, tiny here\)"),
        ({"precision": "bf16"}, r"precision \(fp32 there, bf16 here\)"),
    ],
)
def test_another_config_is_refused_and_named(tmp_path, other, named) -> None:
    open_study(tmp_path / "s", CONFIG, {}, "abc")
    find_study(tmp_path / "s", replace(CONFIG, precision="auto"))
    with pytest.raises(ValueError, match=named):
        find_study(tmp_path / "s", replace(CONFIG, **other))


def test_a_study_continues_at_another_path_but_not_with_other_images(tmp_path) -> None:
    here, there = (replace(CONFIG, dataset=name) for name in ("imagefolder:/a", "/b/c"))
    open_study(tmp_path / "s", here, {}, "abc")
    assert open_study(tmp_path / "s", there, {}, "abc").config == there
    for config in (here, there):
        with pytest.raises(ValueError, match="other images"):
            open_study(tmp_path / "s", config, {}, "def")
    with pytest.raises(ValueError, match=r"dataset \(imagefolder:/a there, food101 here\)"):
        find_study(tmp_path / "s", replace(CONFIG, dataset="food101"))


def test_a_study_of_an_older_format_is_refused_with_what_to_do(tmp_path) -> None:
    open_study(tmp_path / "s", CONFIG, {}, "abc")
    path = tmp_path / "s/study.json"
    study = json.loads(path.read_text())
    del study["format"]
    path.write_text(json.dumps(study))
    message = "has format 1 and .* reads format 2: use the version that trained the study, or"
    with pytest.raises(ValueError, match=message):
        open_study(tmp_path / "s", CONFIG, {}, "abc")


def test_a_folder_that_is_no_study_is_left_alone(tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match=r"no study.json"):
        open_study(tmp_path, CONFIG, {}, "abc")
    (tmp_path / "thesis.tex").rename(tmp_path / "study.json")
    with pytest.raises(ValueError, match="cannot be read"):
        open_study(tmp_path, CONFIG, {}, "abc")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "-x", "a b"])
def test_a_name_that_is_no_folder_name_is_refused(name, tmp_path) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        study_folder(name, tmp_path)


def test_a_study_whose_creation_was_killed_can_be_created(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(locks, "EMPTY_TIMEOUT", 0.3)
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "study.json.part").write_text("{")
    (folder / ".study.json.lock").touch()
    open_study(folder, CONFIG, {}, "abc")
    assert [path.name for path in folder.iterdir()] == ["study.json"]


def test_a_disk_without_locks_is_no_obstacle(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    open_study(tmp_path / "s", CONFIG, {}, "abc")
