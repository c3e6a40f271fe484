"""Data sets: found, read, split, downloaded, and refused in one sentence when something is
wrong."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Food101

import data
import runner
from data import datasets, folder_structure, food101
from data.splits import Files, Origin, Published, Split, hold_out
from utils.files import require_free

CLASSES = ("apple_pie", "bibimbap", "cannoli")


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (24, 18)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_food101(folder: Path, train: int = 10, test: int = 4) -> Path:
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for cls in CLASSES:
        for part, numbers in (("train", range(train)), ("test", range(train, train + test))):
            lists[part][cls] = [f"{cls}/{1000 + number}" for number in numbers]
            for number in numbers:
                write_image(folder / "images" / cls / f"{1000 + number}.jpg", number)
    (folder / "meta").mkdir()
    for part, names in lists.items():
        (folder / "meta" / f"{part}.json").write_text(json.dumps(names))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_food101(tmp_path / "food-101")
    return tmp_path


def refused(name: str, root: Path) -> str:
    """The message of a refusal, which is one sentence, leaves nothing behind, and is the same from
    check and load."""
    before = sorted(root.rglob("*")) if root.is_dir() else []
    with pytest.raises(ValueError) as caught:
        data.check(name, root)
    assert "\n" not in str(caught.value)
    assert (sorted(root.rglob("*")) if root.is_dir() else []) == before
    return str(caught.value)


def test_food101_is_what_torchvision_reads(root: Path) -> None:
    data.check("food101", root)
    dataset = data.load("food101", root)
    official = Food101(root, split="test")
    assert dataset.classes == CLASSES == tuple(official.classes)
    assert dataset.test.labels == tuple(official._labels)
    for index in range(len(official)):
        image, _ = official[index]
        assert np.array_equal(dataset.test.read(index), np.asarray(image))
    assert dataset.test.ids[0] == "apple_pie/1010"
    assert not dataset.synthetic


def test_validation_is_a_stratified_tenth_of_train(tmp_path: Path) -> None:
    write_food101(tmp_path / "food-101", train=40)
    dataset = data.load("food101", tmp_path)
    assert [dataset.validation.labels.count(label) for label in range(3)] == [4, 4, 4]
    assert len(dataset.train) == 108
    everything = set(dataset.train.ids) | set(dataset.validation.ids)
    assert everything == {f"{cls}/{1000 + number}" for cls in CLASSES for number in range(40)}


def test_held_out_images_depend_on_names_only() -> None:
    names = [f"c/{number}" for number in range(50)]
    chosen = []
    for order in (names, names[::-1]):
        split = Split("s", tuple(order), (0,) * 50, Files(tuple(Path(name) for name in order)))
        kept, held = hold_out(split)
        assert sorted(kept + held) == list(range(50))
        chosen.append({order[index] for index in held})
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 5


def test_fingerprint_tells_two_data_sets_apart(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = data.load("food101", root).fingerprint
    assert data.load("food101", root).fingerprint == first
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(root / "food-101", other / "food-101")
    assert data.load("food101", other).fingerprint == first
    write_image(other / "food-101" / "images" / "cannoli" / "1011.jpg", size=(60, 60))
    assert data.load("food101", other).fingerprint != first


def test_a_check_imports_nothing_heavy(root: Path) -> None:
    program = (
        "import sys, data; data.check('food101', sys.argv[1]); data.check('pocket', sys.argv[1]);"
        "sys.exit(', '.join({'torch', 'torchvision', 'numpy', 'PIL', 'pandas'} & "
        "set(sys.modules)) or 0)"
    )
    home = Path(data.__file__).parents[1]
    answer = subprocess.run(
        [sys.executable, "-c", program, root], cwd=home, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("asked", "suggested"),
    [
        ("food-101", "food101"),
        ("Food101", "food101"),
        ("fashion_mnist", "fashion-mnist"),
        ("pokcet", "pocket"),
    ],
)
def test_an_unknown_data_set_gets_a_suggestion(asked: str, suggested: str, tmp_path: Path) -> None:
    message = refused(asked, tmp_path)
    assert f"did you mean '{suggested}'?" in message
    assert "imagefolder:PATH" in message


def test_an_unknown_data_set_unlike_any_gets_the_list(tmp_path: Path) -> None:
    message = refused("zzz", tmp_path)
    assert "did you mean" not in message
    assert all(name in message for name in data.NAMES)


@pytest.mark.parametrize("name", ["food101", "pocket", "fashion-mnist"])
def test_a_data_folder_that_is_missing_or_no_folder_is_refused(name: str, tmp_path: Path) -> None:
    assert "does not exist" in refused(name, tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(name, tmp_path / "file")


def test_a_default_data_folder_may_be_made_later(tmp_path: Path) -> None:
    data.check("pocket", tmp_path / "deep" / "datasets", create_root=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["food101", "pocket"])
def test_an_unwritable_data_folder_is_refused(name: str) -> None:
    assert "cannot be written to" in refused_anywhere(name, Path("/proc"))
    with pytest.raises(ValueError, match="cannot be written to"):
        data.check(name, Path("/proc/deep/datasets"), create_root=True)


def refused_anywhere(name: str, root: Path) -> str:
    with pytest.raises(ValueError) as caught:
        data.check(name, root)
    return str(caught.value)


def break_nothing(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def drop_images(folder: Path) -> None:
    for number in (1000, 1003):
        (folder / "images" / "bibimbap" / f"{number}.jpg").unlink()


def drop_list(folder: Path) -> None:
    (folder / "meta" / "test.json").unlink()


def cut_list(folder: Path) -> None:
    path = folder / "meta" / "train.json"
    path.write_bytes(path.read_bytes()[:100])


def edit_list(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "meta" / "train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (break_nothing, "half downloaded"),
        (
            drop_images,
            "half downloaded: 2 of its 42 images are missing (bibimbap/1000, bibimbap/1003)",
        ),
        (drop_list, "test.json is missing"),
        (cut_list, "cannot be read"),
        (functools.partial(edit_list, change={"bibimbap": []}), "class 'bibimbap'"),
        (
            functools.partial(edit_list, change={"dumplings": ["dumplings/1", "dumplings/2"]}),
            "dumplings is in one of",
        ),
        (
            functools.partial(edit_list, change={"bibimbap": ["bibimbap/../../../etc/passwd"]}),
            "is no image of class",
        ),
        (
            functools.partial(edit_list, change={"bibimbap": ["bibimbap/.."]}),
            "is no image of class",
        ),
        (
            functools.partial(edit_list, change={"..": ["../passwd", "../shadow"]}),
            "is no image of class",
        ),
        (
            functools.partial(edit_list, change={"bibimbap": ["bibimbap/a\0b", "bibimbap/2"]}),
            "is no image of class",
        ),
        (
            functools.partial(edit_list, change={"bibimbap": ["/etc/passwd", "bibimbap/2"]}),
            "is no image of class",
        ),
        (functools.partial(edit_list, change={"bibimbap": [7, 8]}), "is no image of class"),
        (
            functools.partial(edit_list, change={"bibimbap": "all"}),
            "should map each class to its images",
        ),
    ],
)
def test_a_damaged_food101_is_refused(root: Path, damage: Any, expected: str) -> None:
    damage(root / "food-101")
    message = refused("food101", root)
    assert expected in message
    assert "delete it to download it again" in message


def offer(
    monkeypatch: pytest.MonkeyPatch, archive: Path, address: str, md5: str | None = None
) -> None:
    monkeypatch.setattr(Food101, "_URL", f"{address}/{archive.name}")
    monkeypatch.setattr(Food101, "_MD5", md5 or hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(food101, "DOWNLOAD_BYTES", 1_000_000)


def test_food101_is_downloaded_on_first_use(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    write_food101(folder / "food-101")
    with tarfile.open(folder / "food-101.tar.gz", "w:gz") as tar:
        tar.add(folder / "food-101", "food-101")
    offer(monkeypatch, folder / "food-101.tar.gz", address)
    data.check("food101", tmp_path)
    assert not list(tmp_path.iterdir())
    # What a killed attempt leaves behind is not taken for the data set.
    (tmp_path / "food-101.part" / "food-101" / "images").mkdir(parents=True)
    (tmp_path / "food-101.tar.gz").write_bytes(b"half an archive")
    dataset = data.load("food101", tmp_path)
    assert len(dataset.test) == 12
    assert {path.name for path in tmp_path.iterdir()} == {"food-101"}


def test_a_download_with_a_wrong_checksum_is_refused(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    (folder / "food-101.tar.gz").write_bytes(b"something else")
    offer(monkeypatch, folder / "food-101.tar.gz", address, md5="0" * 32)
    with pytest.raises(OSError, match=r"^Food-101 could not be downloaded .*; check the network"):
        data.load("food101", tmp_path)
    assert not (tmp_path / "food-101").exists()


def hostile_members(outside: Path) -> dict[str, list[tarfile.TarInfo]]:
    """Members that would lead out of the folder, or be no files, by what they try."""

    def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, target, 4 if kind == tarfile.REGTYPE else 0
        return info

    return {
        "upwards": [member("../../planted")],
        "upwards inside": [member("food-101/images/../../../planted")],
        "absolute": [member(str(outside / "planted"))],
        "through a link": [
            member("food-101", tarfile.SYMTYPE, str(outside)),
            member("food-101/planted"),
        ],
        "through a relative link": [
            member("food-101/x", tarfile.SYMTYPE, "../../.."),
            member("food-101/x/planted"),
        ],
        "a link to outside": [member("food-101/images", tarfile.SYMTYPE, str(outside))],
        "a second name": [member("food-101/planted", tarfile.LNKTYPE, str(outside / "secret"))],
        "a pipe": [member("food-101/pipe", tarfile.FIFOTYPE)],
        "a device": [member("food-101/device", tarfile.CHRTYPE)],
    }


@pytest.mark.parametrize("trick", hostile_members(Path("/")))
def test_an_archive_never_writes_or_reads_outside_the_data_folder(
    trick: str, server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    with tarfile.open(folder / "food-101.tar.gz", "w:gz") as tar:
        for member in hostile_members(outside)[trick]:
            tar.addfile(member, io.BytesIO(b"evil"))
    offer(monkeypatch, folder / "food-101.tar.gz", address)
    root = tmp_path / "datasets"
    root.mkdir()
    with pytest.raises(OSError, match=r"^\S+ could not be unpacked into \S+ \(.+\)$"):
        data.load("food101", root)
    assert not list(tmp_path.rglob("planted"))
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert {path.name for path in root.iterdir()} == {"food-101.tar.gz"}


def test_names_of_classes_from_elsewhere_stay_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters, markup and surrogates; a link that the user has put there is followed,
    being their choice."""
    odd = ["a\nb", "\x1b[31mred", "<script>x", "x | y", "`code` [l](x)", os.fsdecode(b"\xff")]
    for name in odd:
        for number in range(4):
            (tmp_path / "own" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "own" / name / f"{number}.png")
    shutil.copytree(tmp_path / "own" / "x | y", tmp_path / "elsewhere")
    (tmp_path / "own" / "linked").symlink_to(tmp_path / "elsewhere")
    dataset = data.load(f"imagefolder:{tmp_path / 'own'}", tmp_path)
    assert set(dataset.classes) == {*odd, "linked"}
    for name in odd:
        (tmp_path / "own" / name / "0.png").write_bytes(b"")
    for split in dataset.splits.values():
        with contextlib.suppress(ValueError):
            data.open_store(split, tmp_path / "cache", 8)
            continue
        with pytest.raises(ValueError, match="cannot be read") as caught:
            data.open_store(split, tmp_path / "cache", 8)
        assert str(caught.value).isprintable()
        assert str(caught.value).count("an empty file") == int(str(caught.value).split()[0])
    assert capsys.readouterr().err.replace("\n", "").isprintable()
    assert "scrip" not in "".join(path.name for path in (tmp_path / "cache").iterdir())


def test_a_data_set_is_listed_once_and_counted_without_what_cannot_be_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = data.check("food101", root)
    monkeypatch.setattr(
        folder_structure, "_read_lists", None
    )  # what is asked now is answered from the first listing
    dataset = found.load()
    bad = {"train": dataset.train.ids[:2], "validation": (), "test": dataset.test.ids[3:4]}
    less = dataset.without(bad)
    assert less.summary | {"skipped": {}} == dataset.summary | {
        "train": len(dataset.train) - 2,
        "test": 11,
    }
    assert less.skipped == {"train": bad["train"], "test": bad["test"]}
    assert less.train.ids == dataset.train.ids[2:]
    assert less.fingerprint != dataset.fingerprint
    assert dataset.without({"train": ()}) is dataset


def test_what_is_fetched_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def fetch(root: Path) -> None:
        assert said == [f"Getting food101 into {tmp_path}, which takes 7.0 MB of disk"]
        write_food101(root / "food-101")

    published = replace(food101.ORIGIN.published, bytes=7_000_000, fetch=fetch)
    monkeypatch.setattr(datasets, "ORIGINS", (replace(food101.ORIGIN, published=published),))
    assert len(data.check("food101", tmp_path).load(said.append).test) == 12


def test_a_new_data_set_needs_its_object_alone_and_a_dry_run_does_not_fetch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(root: Path) -> None:
        raise AssertionError("a dry run fetched it")

    published = Published(
        train=1000, test=200, classes=7, bytes=123_000_000, height=40, width=50, fetch=fetch
    )
    new = Origin("mushrooms", lambda root: None, published)
    monkeypatch.setattr(datasets, "ORIGINS", (*datasets.ORIGINS, new))
    place = ["--data-dir", str(tmp_path), "--runs", str(tmp_path / "runs")]
    asked = ["--preset", "pocket", "--dataset", "mushrooms", "--resolution", "32", "--steps", "3"]
    assert runner.main(["all", *asked, *place, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "123.0 MB of data set to come" in said
    assert "8,960 a run in training" in said  # 10 epochs of 14 batches of 64, of 900 images
    assert not list(tmp_path.iterdir())


def test_no_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(food101, "DOWNLOAD_BYTES", 1_000_000)
    monkeypatch.setattr(Food101, "_URL", "http://127.0.0.1:9/food-101.tar.gz")
    with pytest.raises(OSError, match="Food-101 could not be downloaded") as caught:
        data.load("food101", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_refused_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"needs 1000000000\.0 GB and the disk of .* has .* free"):
        require_free(tmp_path, 10**18, "Food-101")


def test_ones_own_images_are_split_80_10_10(tmp_path: Path) -> None:
    for cls in ("cat", "dog"):
        for number in range(30):
            write_image(tmp_path / cls / f"{number}.png", number)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    name = f"imagefolder:{tmp_path}"
    data.check(name, tmp_path)
    dataset = data.load(name, tmp_path)
    assert dataset.name == name
    assert dataset.classes == ("cat", "dog")
    assert [len(split) for split in dataset.splits.values()] == [48, 6, 6]
    parts = [set(split.ids) for split in dataset.splits.values()]
    assert len(set.union(*parts)) == 60
    for split in dataset.splits.values():
        assert split.labels.count(0) == split.labels.count(1)
        assert [dataset.classes[label] for label in split.labels] == [
            name.split("/")[0] for name in split.ids
        ]
    assert dataset.train.read(0).shape == (18, 24, 3)


@pytest.mark.parametrize("validation", [None, "val", "validation"])
def test_ones_own_split_is_kept(tmp_path: Path, validation: str | None) -> None:
    counts = {"train": 20, "test": 4} | ({validation: 3} if validation else {})
    for part, count in counts.items():
        for cls in ("cat", "dog"):
            for number in range(count):
                write_image(tmp_path / part / cls / "deep" / f"{number}.JPG", number)
    dataset = data.load(f"imagefolder:{tmp_path}", tmp_path)
    assert len(dataset.test) == 8
    assert all(name.startswith("test/") for name in dataset.test.ids)
    assert [len(dataset.train), len(dataset.validation)] == ([40, 6] if validation else [36, 4])
    assert all(name.startswith(f"{validation or 'train'}/") for name in dataset.validation.ids)
    assert len({split.name for split in dataset.splits.values()}) == 3


def test_ones_own_folder_is_refused_when_it_cannot_be_used(tmp_path: Path) -> None:
    name = f"imagefolder:{tmp_path / 'mine'}"
    assert "needs the folder of your images" in refused("imagefolder:", tmp_path)
    assert "needs the folder of your images" in refused("imagefolder", tmp_path)
    assert "does not exist" in refused(name, tmp_path)
    (tmp_path / "mine").mkdir()
    assert "has no class folders" in refused(name, tmp_path)
    for number in range(3):
        write_image(tmp_path / "mine" / "cat" / f"{number}.jpg")
    assert "has 1 class folder;" in refused(name, tmp_path)
    (tmp_path / "mine" / "dog").mkdir()
    assert "class 'dog' in" in refused(name, tmp_path)
    assert "has no image" in refused(name, tmp_path)
    write_image(tmp_path / "mine" / "dog" / "0.jpg")
    assert "has too few images: 1, but at least 3 are needed" in refused(name, tmp_path)
    for number in range(3):
        write_image(tmp_path / "mine" / "dog" / f"{number}.jpg")
    data.check(name, tmp_path)
    for part, cls in (("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "fox")):
        for number in range(2):
            write_image(tmp_path / "split" / part / cls / f"{number}.jpg")
    assert "class dog, fox is in only one of train and test" in refused(
        f"imagefolder:{tmp_path / 'split'}", tmp_path
    )


def test_two_folders_of_the_same_name_are_two_data_sets(tmp_path: Path) -> None:
    for place in ("here", "there"):
        for cls in ("cat", "dog"):
            for number in range(3):
                write_image(tmp_path / place / "pets" / cls / f"{number}.jpg", number)
    here, there = (
        data.load(f"imagefolder:{tmp_path / place / 'pets'}", tmp_path)
        for place in ("here", "there")
    )
    assert here.train.name != there.train.name
    assert here.fingerprint == there.fingerprint
    assert os.sep not in here.train.name


@pytest.mark.parametrize("names", [("train", "val"), ("Test", "Train"), ("Testing", "Training")])
def test_folders_named_as_splits_are_refused_instead_of_being_taken_for_classes(
    names, tmp_path: Path
) -> None:
    for part in names:
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(5):
                Image.new("RGB", (8, 8)).save(tmp_path / part / name / f"{number}.png")
    with pytest.raises(ValueError, match=f"{' and '.join(names)} but not both train and test"):
        data.check(f"imagefolder:{tmp_path}", tmp_path)
