"""Image folders of users, and Food-101.

An image folder is `PATH/CLASS/*.jpg`, split here 80/10/10 by a fixed stratified rule, or it has the
splits as folders of classes: `train` with `test` or `val`, or all three. Without a test set, `val`
serves as one, and validation images are held out of train.

Food-101 (Bossard et al., ECCV 2014) has 101,000 photographs of 101 dishes. Its layout is
`images/CLASS/NUMBER.jpg`, listed in `meta/train.json` and `meta/test.json` as
{CLASS: [CLASS/NUMBER, ...]}.
"""

import json
import os
import shutil
import tarfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from PIL import Image

from data import parquet
from data.decode import HEIC_SUFFIXES, is_image
from data.splits import Dataset, Files, Split, complete, prefix, split_roles
from utils.files import one_writer, require_folder, require_free, sync_folder, sync_tree
from utils.text import first_few, one_line, plural

FOOD101 = "food-101"
FOOD101_PARQUET = "food101"
FOOD101_BYTES = 10_500_000_000
"""Free disk that a download needs: the archive of 5 GB and the images unpacked from it."""
_NO_IMAGES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow recognizes but cannot decode by itself."""
_SYSTEM_FILES = ("__MACOSX", "Thumbs.db", "desktop.ini")

Listing = dict[str, list[str]]
"""Images by class."""


@cache
def suffixes() -> frozenset[str]:
    """Suffixes of the image formats that Pillow decodes here, in lower case."""
    return frozenset(
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NO_IMAGES
    )


def list_images(folder: Path) -> tuple[list[str], Counter[str]]:
    """The images at any depth, relative to `folder`, in order of name; other files by suffix.

    A file is an image by its suffix, or by its contents where it has none. Linked folders are
    followed, unless they lead back to a folder above them.

    Raises:
        ValueError: a folder cannot be read.
    """
    images, others = list[str](), Counter[str]()
    start = Path(os.path.realpath(folder))
    todo = [(folder, frozenset(map(os.fspath, (start, *start.parents))))]
    while todo:
        place, above = todo.pop()
        for entry in _entries(place):
            suffix = os.path.splitext(entry.name)[1].lower()
            if entry.is_dir():
                target = os.path.realpath(entry.path)
                if target not in above:
                    todo.append((Path(entry.path), above | {target}))
            elif suffix in suffixes() or (not suffix and is_image(entry.path)):
                images.append(os.path.relpath(entry.path, folder))
            else:
                others[suffix] += 1
    return sorted(images), others


def other_files(others: Mapping[str, int]) -> str:
    """'8 .heic (install pillow-heif), 1 .txt', of files that are no images."""
    return ", ".join(
        f"{count:,} {suffix or 'without a suffix'}"
        + (" (install pillow-heif)" if suffix in HEIC_SUFFIXES else "")
        for suffix, count in sorted(others.items())
    )


def image_folder(path: Path) -> Dataset:
    """The images under `path`, none of which is decoded.

    Raises:
        ValueError: the folder is missing or empty, or has too few images in a class.
    """
    require_folder(path, "the folder of images")
    if files := parquet.find(path):
        return parquet.dataset(path, files)
    folders, notes = _split_folders(path)
    others = Counter[str]()
    listings: dict[str, Listing] = {}
    for part, folder in folders.items():
        listings[part] = _classes(folder, others, notes)
        if len(listings[part]) < 2:
            raise ValueError(
                f"{folder} has {len(listings[part])} class folders; expected a folder of images "
                "for each of at least two classes"
            )
    _check(path, listings, "add images")
    if others:
        notes.append(f"{plural(others.total(), 'file')} left out: {other_files(others)}")
    classes = tuple(listings["train"])
    parts = {}
    for part, listing in listings.items():
        labels = tuple(label for label, name in enumerate(classes) for _ in listing[name])
        paths = tuple(folders[part] / image for name in classes for image in listing[name])
        raw = [file.relative_to(path).as_posix() for file in paths]
        ids = tuple(unicodedata.normalize("NFC", name) for name in raw)
        if len(set(ids)) < len(ids):
            ids = tuple(raw)
        parts[part] = Split(f"{prefix(path)}-{part}", ids, labels, Files(paths))
    rule = "test set as given" if "test" in parts else "fixed stratified split of 80/10/10 %"
    return complete(
        "imagefolder",
        classes,
        parts,
        description=f"{path.name}: the user's own images in {len(classes)} classes; {rule}.",
        notes=notes,
    )


def _split_folders(path: Path) -> tuple[dict[str, Path], list[str]]:
    """{'train', 'test'[, 'validation']} where the folder has given splits, else {'train': path};
    and notes.

    Folders named as splits that make no whole split are refused: they would be taken for classes.
    """
    folders = [entry.name for entry in _entries(path) if entry.is_dir()]
    roles, notes = split_roles(folders)
    if not roles:
        return {"train": path}, notes
    if not {"train", "test"} <= set(roles):
        raise ValueError(
            f"{path} has a folder {' and '.join(roles.values())} but not both train and test: "
            "name them train and test or val (or all three), or point at a folder that holds the "
            "classes"
        )
    if unused := sorted(set(folders) - set(roles.values())):
        notes.append(f"only {', '.join(roles.values())} are read, not {first_few(unused)}")
    return {role: path / name for role, name in roles.items()}, notes


def _classes(folder: Path, others: Counter[str], notes: list[str]) -> Listing:
    """The images of each class folder, relative to `folder`. Counts the other files in `others`.

    Names that differ only in Unicode form are one class: a Mac writes accents as two characters.
    """
    names = defaultdict[str, list[str]](list)
    for entry in _entries(folder):
        if entry.is_dir():
            names[unicodedata.normalize("NFC", entry.name)].append(entry.name)
        elif Path(entry.name).suffix.lower() in suffixes():
            others["beside the class folders"] += 1
    listing: Listing = {}
    for name in sorted(names):
        listing[name] = []
        for form in sorted(names[name]):
            images, rest = list_images(folder / form)
            listing[name] += [f"{form}/{image}" for image in images]
            others.update(rest)
    if twice := [name for name, forms in names.items() if len(forms) > 1]:
        notes.append(f"folders that differ only in Unicode form are one class: {first_few(twice)}")
    return listing


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, without those that a system keeps there: hidden ones, a Mac's
    ._NAME.jpg, thumbnails of a storage device (@eaDir)."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error.strerror})") from error
    return [one for one in entries if one.name[0] not in ".@" and one.name not in _SYSTEM_FILES]


def _check(folder: Path, listings: Mapping[str, Listing], remedy: str) -> None:
    """Raise ValueError unless all splits have the same classes, and each class enough images for
    the splits that will be held out."""
    train = listings["train"]
    for part, listing in listings.items():
        if odd := sorted(set(listing) ^ set(train)):
            raise ValueError(
                f"{folder}: class {first_few(odd)} is in only one of train and {part}; both need "
                f"every class; {remedy}"
            )
        needed = 4 - len(listings) if part == "train" else 1
        if few := {name: len(images) for name, images in listing.items() if len(images) < needed}:
            named = first_few(f"{name} {count}" for name, count in few.items())
            raise ValueError(
                f"{folder}: {len(few):,} of {len(listing):,} classes have too few images in {part} "
                f"({named}), but at least {needed} are needed; {remedy}"
            )


def food101(root: Path) -> Dataset | None:
    """Food-101 in `root`/food-101, or in the Parquet files below `root`/food101; None where it is
    not there.

    Raises:
        ValueError: the folder is damaged or half downloaded.
    """
    folder = root / FOOD101
    description = "Food-101 (Bossard et al., 2014): photographs of 101 dishes; official test set, "
    description += "a fixed stratified 10 % of the training set held out for selection."
    if not os.path.lexists(folder):
        files = parquet.find(root / FOOD101_PARQUET)
        if not files:
            return None
        return replace(parquet.dataset(root / FOOD101_PARQUET, files), description=description)
    remedy = "delete it to download it again"
    require_folder(folder, "the data set's folder")
    listings: dict[str, Listing] = {}
    for part in ("train", "test"):
        file = folder / "meta" / f"{part}.json"
        try:
            listings[part] = {
                str(name): [str(image) for image in images]
                for name, images in json.loads(file.read_bytes()).items()
            }
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{folder} is half downloaded or damaged: {file} cannot be read "
                f"({one_line(error)}); {remedy}"
            ) from error
    _check(folder, listings, remedy)
    present = {name.rpartition(".")[0]: name for name in list_images(folder / "images")[0]}
    listed = [name for part in listings.values() for images in part.values() for name in images]
    if missing := [name for name in listed if name not in present]:
        raise ValueError(
            f"{folder} is half downloaded: {len(missing):,} of its {len(listed):,} images are "
            f"missing ({first_few(missing)}); {remedy}"
        )
    classes = tuple(sorted(listings["train"]))
    parts = {}
    for part, listing in listings.items():
        ids = tuple(image for images in listing.values() for image in images)
        labels = tuple(classes.index(name) for name, images in listing.items() for _ in images)
        paths = tuple(folder / "images" / present[name] for name in ids)
        parts[part] = Split(f"food101-{part}", ids, labels, Files(paths))
    return complete("food101", classes, parts, description)


def fetch_food101(root: Path) -> None:
    """Download and unpack it with torchvision, which verifies the archive's checksum.

    Raises:
        OSError: no network, or a full disk.
    """
    from torchvision.datasets import Food101

    part = root / f"{FOOD101}.part"
    with one_writer(root / FOOD101):
        if (root / FOOD101).exists():
            return
        require_free(root, FOOD101_BYTES, "Food-101 (archive and images)")
        shutil.rmtree(part / FOOD101, ignore_errors=True)  # of a download that was killed
        try:
            Food101(part, download=True)
        except (OSError, RuntimeError, tarfile.TarError) as error:
            raise OSError(
                f"Food-101 could not be downloaded into {root} ({one_line(error)}); check the "
                f"network and the disk, put the unpacked {FOOD101} there, or the Parquet files of "
                f"ethz/food101 from Hugging Face into {root / FOOD101_PARQUET} (pip install "
                "pyarrow)"
            ) from error
        sync_tree(part / FOOD101)
        os.replace(part / FOOD101, root / FOOD101)
        sync_folder(root)
        shutil.rmtree(part)
