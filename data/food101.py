"""Food-101 (Bossard et al., ECCV 2014), and whatever else has its folder layout: the `pocket` pictures.

Layout: `food-101/images/CLASS/NUMBER.jpg` and `food-101/meta/{train,test}.json`, `classes.txt`, `labels.txt`.
Both data sets are read by `torchvision.datasets.Food101`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

from data.files import one_writer, read_bytes, require_folder, require_free, require_writable, sync_folder
from data.splits import Dataset, Files, Split, first_few, hold_out

FOLDER = "food-101"
POCKET_FOLDER = "pocket-v1"
"""Folder of the generated pictures; a changed generator gets a new one, so that old pictures are never mixed in."""
DOWNLOAD_BYTES = 10_500_000_000
"""Free disk that a download needs: the archive and the pictures unpacked from it."""


def check(root: Path) -> None:
    """Refuse a half downloaded Food-101 under `root`, or a folder it could not be downloaded into (ValueError)."""
    if os.path.lexists(root / FOLDER):
        check_layout(root / FOLDER, "delete it to download it again")
    elif root.exists():
        require_writable(root, "the data folder")


def check_pocket(root: Path) -> None:
    """Refuse damaged pocket pictures under `root`, or a folder they could not be written into (ValueError)."""
    if os.path.lexists(root / POCKET_FOLDER):
        check_layout(root / POCKET_FOLDER / FOLDER, f"delete {root / POCKET_FOLDER} to draw it again")
    elif root.exists():
        require_writable(root, "the data folder")


def load(root: Path) -> Dataset:
    """Food-101 from `root`, downloaded into it first (5 GB, checksum verified) where it is missing.

    Raises:
        OSError: no network, wrong checksum or too little free disk.
    """
    if not (root / FOLDER).exists():
        _download(root)
    return read_layout(
        root,
        name="food101",
        prefix="food101",
        synthetic=False,
        description="Food-101 (Bossard et al., 2014): photographs of 101 dishes; official test set, a fixed stratified "
        "10 % of the training set held out for selection.",
    )


def load_pocket(root: Path) -> Dataset:
    """The embedded pocket pictures from `root`, drawn first (a few seconds) where they are missing."""
    folder = root / POCKET_FOLDER
    if not folder.exists():
        from data.pocket import generate

        generate(folder)
    return read_layout(
        folder,
        name="pocket",
        prefix=POCKET_FOLDER,
        synthetic=True,
        description="Pocket: synthetic pictures of ten dishes, drawn by this project's generator, not photographs; a "
        "fixed stratified 10 % of the training set held out for selection.",
    )


def read_layout(root: Path, *, name: str, prefix: str, synthetic: bool, description: str) -> Dataset:
    """The data set under `root`/food-101, read by torchvision; `prefix` names its splits in a cache."""
    from torchvision.datasets import Food101

    from data.decode import read_picture

    parts: dict[str, Split] = {}
    classes: tuple[str, ...] = ()
    for part in ("train", "test"):
        official = Food101(root, split=part, loader=read_picture)
        classes = tuple(official.classes)
        paths = tuple(official._image_files)
        ids = tuple(f"{path.parent.name}/{path.stem}" for path in paths)
        parts[part] = Split(f"{prefix}-{part}", ids, tuple(official._labels), Files(paths))
    kept, held = hold_out(parts["train"])
    return Dataset(
        name=name,
        classes=classes,
        train=parts["train"].take(kept, f"{prefix}-train"),
        validation=parts["train"].take(held, f"{prefix}-validation"),
        test=parts["test"],
        synthetic=synthetic,
        description=description,
    )


def check_layout(folder: Path, remedy: str) -> None:
    """Refuse a folder in Food-101's layout that lacks pictures its own lists name.

    Raises:
        ValueError: a list is missing or unreadable, names a file outside the folder, has a class without a picture,
            or names pictures that are not there. `remedy` is what the user may do, in words.
    """
    require_folder(folder, "the data set's folder")
    lists = {part: _read_list(folder / "meta" / f"{part}.json", remedy) for part in ("train", "test")}
    if set(lists["train"]) != set(lists["test"]):
        odd = first_few(sorted(set(lists["train"]) ^ set(lists["test"])))
        raise ValueError(f"{folder} is damaged: {odd} is in one of meta/train.json and meta/test.json only; {remedy}")
    for part, names in lists.items():
        for cls, pictures in names.items():
            needed = 2 if part == "train" else 1  # of two, one is held out
            if len(pictures) < needed:
                raise ValueError(
                    f"class {cls!r} of {folder} has too few pictures in {part}: {len(pictures)}, but at least {needed} "
                    f"are needed; {remedy}"
                )
    listed = {picture for names in lists.values() for pictures in names.values() for picture in pictures}
    missing = sorted(listed - _present(folder / "images", list(lists["train"])))
    if missing:
        raise ValueError(
            f"{folder} is half downloaded: {len(missing):,} of its {len(listed):,} pictures are missing "
            f"({first_few(missing)}); {remedy}"
        )


def _read_list(path: Path, remedy: str) -> dict[str, list[str]]:
    try:
        names = json.loads(read_bytes(path))
    except FileNotFoundError:
        raise ValueError(f"{path.parents[1]} is half downloaded: {path} is missing; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(names, dict) or not names or not all(isinstance(pictures, list) for pictures in names.values()):
        raise ValueError(f"{path} is damaged: it should map each class to its pictures; {remedy}")
    for cls, pictures in names.items():
        for picture in pictures:
            # Exactly CLASS/NAME: a name from outside must not lead out of the folder.
            parts = picture.split("/") if isinstance(picture, str) else []
            if len(parts) != 2 or parts[0] != cls or {"", ".", ".."} & set(parts) or not picture.isprintable():
                raise ValueError(f"{path} is damaged: {picture!r} is no picture of class {cls!r}; {remedy}")
    return names


def _present(images: Path, classes: list[str]) -> set[str]:
    present: set[str] = set()
    for cls in classes:
        try:
            names = os.listdir(images / cls)
        except OSError:
            continue
        present.update(f"{cls}/{name[:-4]}" for name in names if name.endswith(".jpg"))
    return present


def _download(root: Path) -> None:
    from torchvision.datasets import Food101
    from torchvision.datasets.utils import download_url

    archive = root / Path(Food101._URL).name
    unpacking = root / f"{FOLDER}.part"
    with one_writer(root / FOLDER):
        if (root / FOLDER).exists():
            return
        if not hasattr(tarfile, "data_filter"):
            raise OSError(
                f"unpacking Food-101 safely needs Python 3.11.4 or later; put the unpacked {FOLDER} into {root}"
            )
        require_free(root, DOWNLOAD_BYTES, "Food-101 (archive and pictures)")
        print(f"Downloading Food-101 once, 5 GB, to {archive}", file=sys.stderr, flush=True)
        try:
            download_url(Food101._URL, str(root), md5=Food101._MD5)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"Food-101 could not be downloaded ({_one_line(error)}); check the network, or put {archive.name} or "
                f"the unpacked {FOLDER} into {root}"
            ) from error
        shutil.rmtree(unpacking, ignore_errors=True)
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(unpacking, filter="data")  # refuses members that lead out of the folder
            os.sync()  # one for all pictures, as in data.pocket
            os.replace(unpacking / FOLDER, root / FOLDER)
        except (OSError, tarfile.TarError) as error:
            shutil.rmtree(unpacking, ignore_errors=True)
            raise OSError(f"{archive} could not be unpacked into {root} ({_one_line(error)})") from error
        sync_folder(root)
        shutil.rmtree(unpacking)
        archive.unlink()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
