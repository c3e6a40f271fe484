"""Data sets: found, read, split, downloaded, and refused in one line when something is wrong."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import FashionMNIST, Food101

import runner
from data import datasets, fashion_mnist, folders
from data.image_store import open_store
from data.splits import Files, Split, hold_out
from tests import food101


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder with ten images a class in Food-101's layout."""
    food101.write(tmp_path / "food-101", train=10, test=4)
    return tmp_path


def write_images(folder: Path, count: int, suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (24, 18), (number, 0, 0)).save(folder / f"{number}.{suffix}")


def refused(name: str, root: Path) -> str:
    """The message of a refusal, which is one line and writes nothing."""
    before = sorted(root.rglob("*")) if root.is_dir() else []
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        datasets.check(name, root)
    assert (sorted(root.rglob("*")) if root.is_dir() else []) == before
    return str(caught.value)


def test_food101_is_what_torchvision_reads(root: Path) -> None:
    dataset = datasets.load("food101", root)
    official = Food101(root, split="test")
    assert dataset.classes == tuple(official.classes)
    assert sorted(dataset.test.labels) == sorted(official._labels)
    for index, name in enumerate(dataset.test.ids):
        file = root / "food-101/images" / f"{name}.jpg"
        assert official._labels[official._image_files.index(file)] == dataset.test.labels[index]
        assert np.array_equal(dataset.test.read(index), np.asarray(Image.open(file)))
    assert [len(dataset.train), len(dataset.validation)] == [90, 10]
    assert {dataset.validation.labels.count(label) for label in range(10)} == {1}


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


def test_a_check_does_not_import_torch(root: Path) -> None:
    program = (
        "import sys; from data import datasets; datasets.check('food101', sys.argv[1])\n"
        "sys.exit('torch' in sys.modules)"
    )
    home = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, root], cwd=home, check=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("food-101", "did you mean 'food101'?"),
        ("fashion_mnist", "did you mean 'fashion-mnist'?"),
        ("pokcet", "did you mean 'pocket'?"),
        ("zzz", "known are food101, fashion-mnist, pocket, imagefolder:PATH"),
        ("imagefolder", "needs the folder of your images"),
        ("imagefolder:nowhere", "does not exist"),
    ],
)
def test_an_unknown_data_set_is_refused(name: str, expected: str, tmp_path: Path) -> None:
    assert expected in refused(name, tmp_path)


@pytest.mark.parametrize("name", ["food101", "pocket", "fashion-mnist"])
def test_an_unusable_data_folder_is_refused(name: str, tmp_path: Path) -> None:
    assert "does not exist" in refused(name, tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(name, tmp_path / "file")
    with pytest.raises(ValueError, match="cannot be written to"):
        datasets.check(name, Path("/proc/deep/datasets"), create_root=True)
    datasets.check(name, tmp_path / "deep" / "datasets", create_root=True)
    assert not (tmp_path / "deep").exists()


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda at: shutil.rmtree(at / "meta"), "half downloaded"),
        (lambda at: (at / "images/wavy_star/18.jpg").unlink(), "1 of its 140 images are missing"),
        (lambda at: (at / "meta/test.json").write_text('{"wavy'), "test.json cannot be read"),
        (lambda at: edit(at / "meta/train.json", wavy_star=[]), "(wavy_star 0)"),
        (lambda at: edit(at / "meta/train.json", soup=["soup/1", "soup/2"]), "class soup is in"),
        (lambda at: edit(at / "meta/train.json", wavy_star=["../x", "/y"]), "missing (../x, /y)"),
        (lambda at: edit(at / "meta/train.json", wavy_star=7), "train.json cannot be read"),
    ],
)
def test_a_damaged_food101_is_refused(root: Path, damage, expected: str) -> None:
    damage(root / "food-101")
    message = refused("food101", root)
    assert expected in message
    assert "delete it to download it again" in message


def test_food101_is_downloaded_and_verified_on_first_use(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    food101.write(folder / "food-101", train=3, test=1)
    archive = folder / "food-101.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "food-101", "food-101")
    monkeypatch.setattr(folders, "FOOD101_BYTES", 1_000_000)
    monkeypatch.setattr(Food101, "_URL", f"{address}/{archive.name}")
    monkeypatch.setattr(Food101, "_MD5", "0" * 32)
    datasets.check("food101", tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"^Food-101 could not be [^\n]*ethz/food101[^\n]*$"):
        datasets.load("food101", tmp_path)
    assert not (tmp_path / "food-101").exists()
    monkeypatch.setattr(Food101, "_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    # The folder that a killed attempt leaves behind is not taken for the data set.
    (tmp_path / "food-101.part/food-101/images").mkdir(parents=True)
    (tmp_path / "food-101.part/food-101/meta").mkdir()
    assert len(datasets.load("food101", tmp_path).test) == 10
    assert {path.name for path in tmp_path.iterdir()} == {"food-101"}


def test_images_left_out_are_counted_and_change_the_fingerprint(root: Path) -> None:
    dataset = datasets.load("food101", root)
    bad = {"train": dataset.train.ids[:2], "validation": (), "test": dataset.test.ids[3:4]}
    less = dataset.without(bad)
    assert [len(split) for split in less.splits.values()] == [88, 10, 39]
    assert less.summary["skipped"] == {"train": bad["train"], "test": bad["test"]}
    assert less.fingerprint() != dataset.fingerprint()
    assert dataset.without({"train": ()}).fingerprint() == dataset.fingerprint()


def test_a_dry_run_counts_a_data_set_that_is_not_there_and_fetches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = datasets.Published(1000, 200, 7, 123_000_000, 40, 50, fetch=lambda root: 1 / 0)
    new = datasets.Origin(lambda root: None, published)
    monkeypatch.setattr(datasets, "ORIGINS", {**datasets.ORIGINS, "mushrooms": new})
    place = ["--data-dir", str(tmp_path), "--runs", str(tmp_path / "runs")]
    request = ["--preset", "pocket", "--dataset", "mushrooms", "--resolution", "32", "--steps", "3"]
    assert runner.main(["all", *request, *place, "--dry-run"]) == 0
    assert "123.0 MB" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_an_image_folder_is_split_80_10_10_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    write_images(tmp_path / "cat", 20)
    write_images(tmp_path / "dog", 30, "JPG")
    for number, suffix in enumerate(["jfif", "jpe", "jp2", "TGA", "qoi", "gif", "webp", "tif"]):
        Image.new("RGB", (24, 18)).save(tmp_path / "cat" / f"odd{number}.{suffix}")
    Image.new("RGB", (24, 18)).save(tmp_path / "cat" / "no-suffix", "JPEG")
    write_images(tmp_path / "disk2", 1)
    shutil.move(tmp_path / "disk2", tmp_path.parent / f"{tmp_path.name}-disk2")
    (tmp_path / "cat" / "linked").symlink_to(tmp_path.parent / f"{tmp_path.name}-disk2")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path / "cat")
    (tmp_path / "cat" / "all").symlink_to(tmp_path)
    for place in (".hidden", "@eaDir", "__MACOSX", "cat/@eaDir", "cat/.thumbnails"):
        write_images(tmp_path / place, 1)
    for name in ("notes.txt", "1.heic", "2.HEIC", "LICENSE", "._1.png", "@1.png", "Thumbs.db"):
        (tmp_path / "cat" / name).write_text("no image")
    write_images(tmp_path, 2)
    name = f"imagefolder:{tmp_path}"
    dataset = datasets.load(name, tmp_path)
    assert dataset.name == name
    assert dataset.classes == ("cat", "dog")
    assert [len(split) for split in dataset.splits.values()] == [48, 6, 6]
    assert len(set.union(*(set(split.ids) for split in dataset.splits.values()))) == 60
    for split in dataset.splits.values():
        assert split.labels.count(0) == split.labels.count(1)
        for index, label in enumerate(split.labels):
            assert split.ids[index].startswith(dataset.classes[label])
    assert dataset.train.read(0).shape == (18, 24, 3)
    assert dataset.notes[0] == (
        "6 files left out: 1 without a suffix, 2 .heic (install pillow-heif), 1 .txt, "
        "2 beside the class folders"
    )
    assert dataset.summary["notes"] == dataset.notes


@pytest.mark.parametrize("validation", ["val", "Validation"])
def test_without_a_test_set_val_serves_as_one(tmp_path: Path, validation: str) -> None:
    for part, count in {"train": 10, validation: 1, "extra": 1}.items():
        for name in ("cat", "dog"):
            write_images(tmp_path / part / name, count)
    dataset = datasets.load(str(tmp_path), tmp_path)
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [18, 2, 2]
    assert all(name.startswith(f"{validation}/") for name in dataset.test.ids)
    assert dataset.notes == (
        f"{validation} serves as the test set; validation images are held out of train",
        f"only train, {validation} are read, not extra",
        "2 of 2 classes have one test image (cat, dog)",
    )


def test_names_that_differ_in_unicode_form_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = "cr\u00e8me", "cre\u0300me"
    for part, forms in {"train": (composed, decomposed), "test": (decomposed,)}.items():
        for place in (*forms, "pho"):
            write_images(tmp_path / part / place, 10)
    dataset = datasets.load(str(tmp_path), tmp_path)
    assert dataset.classes == (composed, "pho")
    assert [len(dataset.train) + len(dataset.validation), len(dataset.test)] == [30, 20]
    assert dataset.notes == (f"folders that differ only in Unicode form are one class: {composed}",)
    assert len(set(dataset.train.ids)) == len(dataset.train)
    shutil.move(tmp_path / "train" / composed, tmp_path / "train" / "pho" / "more")
    assert datasets.load(str(tmp_path), tmp_path).test.ids[0] == f"test/{composed}/0.png"


@pytest.mark.parametrize("validation", [None, "val", "validation"])
def test_given_splits_are_kept(tmp_path: Path, validation: str | None) -> None:
    counts = {"train": 20, "test": 4} | ({validation: 3} if validation else {})
    for part, count in counts.items():
        for name in ("cat", "dog"):
            write_images(tmp_path / part / name / "deep", count)
    dataset = datasets.load(f"imagefolder:{tmp_path}", tmp_path)
    assert len(dataset.test) == 8
    assert all(name.startswith("test/") for name in dataset.test.ids)
    assert [len(dataset.train), len(dataset.validation)] == ([40, 6] if validation else [36, 4])
    assert all(name.startswith(f"{validation or 'train'}/") for name in dataset.validation.ids)
    assert len({split.name for split in dataset.splits.values()}) == 3


def test_an_unusable_image_folder_is_refused(tmp_path: Path) -> None:
    mine, parts = tmp_path / "mine", tmp_path / "parts"
    mine.mkdir()
    assert "has 0 class folders" in refused(f"imagefolder:{mine}", tmp_path)
    write_images(mine / "cat", 3)
    assert "has 1 class folders" in refused(f"imagefolder:{mine}", tmp_path)
    write_images(mine / "dog", 1)
    message = refused(f"imagefolder:{mine}", tmp_path)
    assert "1 of 2 classes have too few images in train (dog 1), but at least 3 are" in message
    write_images(mine / "dog", 3)
    datasets.check(f"imagefolder:{mine}", tmp_path)
    for place in ("train/cat", "train/dog"):
        write_images(parts / place, 2)
    assert "but not both train and test" in refused(f"imagefolder:{parts}", tmp_path)
    for place in ("test/cat", "test/fox"):
        write_images(parts / place, 2)
    expected = "class dog, fox is in only one of train and test"
    assert expected in refused(f"imagefolder:{parts}", tmp_path)


def test_images_are_known_by_their_contents_and_copies_are_found(tmp_path: Path) -> None:
    """Files of one name and size are other images; uncompressed images often are so large."""
    for place in ("one", "two"):
        for name in ("cat", "dog"):
            write_images(tmp_path / place / "train" / name, 9, "bmp")
            write_images(tmp_path / place / "test" / name, 2, "bmp")
    one, two = (datasets.load(str(tmp_path / place), tmp_path) for place in ("one", "two"))
    assert one.fingerprint() == two.fingerprint()
    assert one.train.name != two.train.name, "they have caches of their own"
    stores = {part: open_store(split, tmp_path, 8) for part, split in one.splits.items()}
    contents = {part: store.contents for part, store in stores.items()}
    assert one.fingerprint(contents) == one.fingerprint()
    train = {one.train.source.content(index) for index in range(len(one.train))}
    copies = [name for i, name in enumerate(one.test.ids) if one.test.source.content(i) in train]
    assert stores["test"].copies(stores["train"]) == copies != []
    Image.new("RGB", (24, 18), (99, 0, 0)).save(tmp_path / "two/test/cat/0.bmp")
    assert two.fingerprint() != one.fingerprint()


def test_odd_names_of_classes_stay_names(tmp_path: Path, capsys) -> None:
    """Control characters, markup and surrogates."""
    odd = ["a\nb", "\x1b[31mred", "<script>x", "x | y", "`code` [l](x)", os.fsdecode(b"\xff")]
    for name in odd:
        write_images(tmp_path / "own" / name, 4)
        (tmp_path / "own" / name / "0.png").write_bytes(b"")
    dataset = datasets.load(f"imagefolder:{tmp_path / 'own'}", tmp_path)
    assert set(dataset.classes) == set(odd)
    messages = []
    for split in dataset.splits.values():
        try:
            open_store(split, tmp_path / "cache", 8)
        except ValueError as error:
            messages.append(str(error))
    assert messages
    assert all("cannot be read" in message and message.isprintable() for message in messages)
    assert capsys.readouterr().err.replace("\n", "").isprintable()


def test_parquet_files_of_hugging_face_are_read_where_they_lie(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="an extra")
    parquet = pytest.importorskip("pyarrow.parquet", reason="an extra")
    food101.write(tmp_path / "archive/food-101", train=10, test=4)
    archive = datasets.load("food101", tmp_path / "archive")
    names = {"_type": "ClassLabel", "names": archive.classes}
    about = {"info": {"features": {"image": {"_type": "Image"}, "label": names}}}
    (tmp_path / "food101/data").mkdir(parents=True)
    for part, listing in (("train", "train"), ("validation", "test")):
        meta = json.loads((tmp_path / f"archive/food-101/meta/{listing}.json").read_bytes())
        rows = [name for kind in archive.classes for name in meta[kind]]
        files = [tmp_path / "archive/food-101/images" / f"{name}.jpg" for name in rows]
        images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
        labels = [archive.classes.index(file.parent.name) for file in files]
        for number, half in enumerate((slice(0, 30), slice(30, None))):
            table = arrow.table({"image": images[half], "label": labels[half]})
            table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
            file = tmp_path / f"food101/data/{part}-{number:05}-of-00002.parquet"
            parquet.write_table(table, file, row_group_size=7)
    dataset = datasets.load("food101", tmp_path)
    assert dataset.description == archive.description
    assert dataset.classes == archive.classes
    for part, split in dataset.splits.items():
        other = archive.splits[part]
        assert sorted(split.ids) == sorted(other.ids)
        expected = {name: other.source.content(index) for index, name in enumerate(other.ids)}
        store = open_store(split, tmp_path / "cache", 16, workers=4)
        assert dict(zip(store.ids, store.contents)) == expected
        assert [archive.classes[label] for label in split.labels] == [
            name.partition("/")[0] for name in split.ids
        ]
    (tmp_path / "food101/data/train-00001-of-00002.parquet").write_bytes(b"PAR1")
    assert "is damaged or half downloaded" in refused(str(tmp_path / "food101"), tmp_path)


def test_parquet_files_name_what_they_need(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "train-0.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install pyarrow" in refused(str(tmp_path), tmp_path)


def write_idx(folder: Path) -> None:
    """Gzipped IDX files of Fashion-MNIST's sizes: image i is all i % 251, its label i % 10."""
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        numbers = np.arange(count)
        pixels = np.repeat((numbers % 251).astype(np.uint8), 784).tobytes()
        images = b"".join(number.to_bytes(4, "big") for number in (2051, count, 28, 28)) + pixels
        labels = b"".join(number.to_bytes(4, "big") for number in (2049, count))
        labels += (numbers % 10).astype(np.uint8).tobytes()
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images, 1))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels, 1))


def test_fashion_mnist_is_downloaded_verified_and_padded(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    write_idx(folder)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"{address}/"])
    sums = [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in folder.iterdir()]
    monkeypatch.setattr(FashionMNIST, "resources", [(name, "0" * 32) for name, _ in sums])
    with pytest.raises(OSError, match=r"^Fashion-MNIST could not be downloaded [^\n]*$"):
        datasets.load("fashion-mnist", tmp_path)
    monkeypatch.setattr(FashionMNIST, "resources", sums)
    dataset = datasets.load("fashion-mnist", tmp_path)
    assert [len(split) for split in dataset.splits.values()] == [54_000, 6_000, 10_000]
    assert {dataset.validation.labels.count(label) for label in range(10)} == {600}
    assert dataset.classes == tuple(FashionMNIST.classes)
    image = dataset.test.read(77)
    assert image.shape == (32, 32, 3)
    assert (image[2:30, 2:30] == 77).all()
    assert image.astype(int).sum() == 77 * 784 * 3, "the border is black"
    assert dataset.test.labels[77] == 7
    # The same files in Debian's folder are the same data set, with nothing written.
    monkeypatch.setattr(fashion_mnist, "DEBIAN", folder)
    other = tmp_path / "other"
    assert datasets.load("fashion-mnist", other).fingerprint() == dataset.fingerprint()
    labels = tmp_path / "FashionMNIST/raw/train-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:100])
    assert "is damaged or half downloaded" in refused("fashion-mnist", tmp_path)
