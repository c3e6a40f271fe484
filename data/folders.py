"""Data sets that are folders of image files: image folders of users, and Food-101.

An image folder is either `PATH/CLASS/*.jpg`, split here 80/10/10 by a fixed stratified rule, or
`PATH/{train,test}/CLASS/*.jpg` with an optional `PATH/val` (or `validation`, `valid`), else 10 % of
train is held out.

Food-101 (Bossard et al., ECCV 2014) has 101,000 photographs of 101 dishes. Its layout is
`images/CLASS/NUMBER.jpg`, listed in `meta/train.json` and `meta/test.json` as
{CLASS: [CLASS/NUMBER, ...]}.
"""

import hashlib
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

from data.splits import Dataset, Files, Split, complete
from utils.files import one_writer, require_folder, require_free, sync_folder
from utils.text import first_few, one_line

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
    *(".gif", ".avif"),
)
"""File names that are images in a folder: torchvision's `IMG_EXTENSIONS`, GIF and AVIF."""
VALIDATION_NAMES = ("val", "validation", "valid")
_SPLIT_NAMES = ("train", "training", "test", "testing", *VALIDATION_NAMES)
FOOD101 = "food-101"
FOOD101_BYTES = 10_500_000_000
"""Free disk that a download needs: the archive of 5 GB and the images unpacked from it."""

Listing = dict[str, list[str]]
"""Names of images by class."""


def images_below(folder: Path) -> list[str]:
    """The images at any depth, relative to `folder`, in order of name; nothing that is hidden.

    A Mac leaves ._NAME.jpg beside NAME.jpg on foreign disks.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.relpath(os.path.join(place, name), folder)
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def image_folder(path: Path) -> Dataset:
    """The images under `path`, none of which is opened.

    Raises:
        ValueError: the folder is missing or empty, or has too few images in a class.
    """
    folders = _split_folders(path)
    listings: dict[str, Listing] = {}
    for part, folder in folders.items():
        listings[part] = {
            name: [f"{name}/{image}" for image in images_below(folder / name)]
            for name in _subfolders(folder)
        }
        if len(listings[part]) < 2:
            raise ValueError(
                f"{folder} has {len(listings[part])} class folders; expected a folder of images "
                "for each of at least two classes"
            )
    _check(path, listings, "add images")
    # Two folders of the same name are two data sets, so the full path is part of the splits' names.
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    prefix = re.sub(r"[^A-Za-z0-9._-]", "_", path.name) + "-" + digest
    classes = tuple(listings["train"])
    parts = {}
    for part, listing in listings.items():
        labels = tuple(label for label, name in enumerate(classes) for _ in listing[name])
        paths = tuple(folders[part] / image for name in classes for image in listing[name])
        ids = tuple(file.relative_to(path).as_posix() for file in paths)
        parts[part] = Split(f"{prefix}-{part}", ids, labels, Files(paths))
    rule = "test set as given" if "test" in parts else "fixed stratified split of 80/10/10 %"
    return complete(
        "imagefolder",
        classes,
        parts,
        description=f"{path.name}: the user's own images in {len(classes)} classes; {rule}.",
    )


def _split_folders(path: Path) -> dict[str, Path]:
    """{'train', 'test'[, 'validation']} where the folder has given splits, else {'train': path}.

    Folders named as splits that make no whole split are refused: they would be taken for classes.
    """
    require_folder(path, "the folder of images")
    names = _subfolders(path)
    if "train" in names and "test" in names:
        folders = {"train": path / "train", "test": path / "test"}
        given = [name for name in VALIDATION_NAMES if name in names]
        return folders | ({"validation": path / given[0]} if given else {})
    if odd := [name for name in names if name.lower() in _SPLIT_NAMES]:
        raise ValueError(
            f"{path} has a folder {' and '.join(odd)} but not both train and test: name them train "
            "and test (and validation, if there is one), or point at a folder that holds the "
            "classes"
        )
    return {"train": path}


def _subfolders(folder: Path) -> list[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error.strerror})") from error
    return sorted(one.name for one in entries if one.is_dir() and not one.name.startswith("."))


def _check(folder: Path, listings: dict[str, Listing], remedy: str) -> None:
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
        for name, images in listing.items():
            if len(images) < needed:
                raise ValueError(
                    f"class {name!r} in {folder} has too few images in {part}: {len(images)}, but "
                    f"at least {needed} are needed; {remedy}"
                )


def food101(root: Path) -> Dataset | None:
    """Food-101 in `root`/food-101, None where it is not there.

    Raises:
        ValueError: the folder is damaged or half downloaded.
    """
    folder = root / FOOD101
    if not os.path.lexists(folder):
        return None
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
    present = {name.rpartition(".")[0]: name for name in images_below(folder / "images")}
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
    return complete(
        "food101",
        classes,
        parts,
        description="Food-101 (Bossard et al., 2014): photographs of 101 dishes; official test "
        "set, a fixed stratified 10 % of the training set held out for selection.",
    )


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
                f"network and the disk, or put the unpacked {FOOD101} there"
            ) from error
        os.sync()  # once for all images
        os.replace(part / FOOD101, root / FOOD101)
        sync_folder(root)
        shutil.rmtree(part)
