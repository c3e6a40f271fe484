"""The data sets by name: `check` refuses a wrong request in the first second, `load` makes the pictures readable."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from data import fashion_mnist, food101, imagefolder
from data.files import require_folder
from data.splits import Dataset

NAMES = ("food101", "fashion-mnist", "pocket", "imagefolder:PATH")

_CHECKS = {"food101": food101.check, "pocket": food101.check_pocket, "fashion-mnist": fashion_mnist.check}
_LOADERS = {"food101": food101.load, "pocket": food101.load_pocket, "fashion-mnist": fashion_mnist.load}


def check(name: str, root: Path | str, *, create_root: bool = False) -> None:
    """Refuse a wrong request before anything is downloaded or written. Imports nothing heavy, takes about a second
    on a folder of 100,000 pictures.

    `root` is the data folder, into which data sets are downloaded or generated on first use. It must exist, unless
    `create_root` (for a default folder that the user did not name). It has to be writable only if something is to
    be written: a complete data set may lie on a read-only disk.

    Raises:
        ValueError: an unknown data set (the nearest name is suggested), or a folder that is missing, empty,
            unwritable or half downloaded, or has a class without pictures. One sentence.
    """
    root, path = _resolve(name, root)
    if path is not None:
        imagefolder.check(path)
    else:
        require_folder(root, "the data folder", may_be_missing=create_root)
        _CHECKS[name](root)


def load(name: str, root: Path | str) -> Dataset:
    """The data set `name`, downloaded or generated into the folder `root` where it is not yet there.

    Raises:
        ValueError: as `check`.
        OSError: no network, a full disk, a download that fails its checksum. One sentence.
    """
    check(name, root, create_root=True)
    root, path = _resolve(name, root)
    if path is not None:
        return imagefolder.load(name, path)
    root.mkdir(parents=True, exist_ok=True)
    return _LOADERS[name](root)


def _resolve(name: str, root: Path | str) -> tuple[Path, Path | None]:
    """(data folder, the user's own folder of pictures or None)."""
    kind, _, path = name.partition(":")
    if kind == "imagefolder":
        if not path:
            raise ValueError("data set 'imagefolder' needs the folder of your pictures: imagefolder:PATH")
        return Path(root), Path(os.path.abspath(os.path.expanduser(path)))
    if name not in _LOADERS:
        near = difflib.get_close_matches(kind.lower().replace("_", "-"), [*_LOADERS, "imagefolder"], 1, 0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ValueError(f"unknown data set {name!r}: {hint}known are {', '.join(NAMES)}")
    return Path(os.path.abspath(os.path.expanduser(root))), None
