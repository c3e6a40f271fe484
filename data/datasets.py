"""The data sets by name. One more is a file like data/fashion_mnist.py and its line in
`ORIGINS`."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from data import fashion_mnist, food101, imagefolder, pocket
from data.splits import Dataset, Origin
from utils.files import require_folder, require_writable
from utils.text import did_you_mean, readable_bytes

ORIGINS = (
    food101.ORIGIN,
    fashion_mnist.ORIGIN,
    pocket.ORIGIN,
    imagefolder.ORIGIN,
)
NAMES = tuple(origin.name for origin in ORIGINS)


@dataclass
class Located:
    """A data set that was asked for, listed once and for all."""

    origin: Origin
    name: str
    """As it was asked for: 'food101', 'imagefolder:PATH', ..."""
    folder: Path
    dataset: Dataset | None
    """None until it is downloaded or drawn."""

    def load(self, announce: Callable[[str], None] | None = None) -> Dataset:
        """The data set, downloaded or drawn into its folder where it is not yet there.

        Args:
            announce: told in one sentence what is going to be fetched, before it is; stderr by
                default.

        Raises:
            OSError: no network, a full disk, a download that fails its checksum. One sentence.
        """
        if self.dataset is None:
            published = self.origin.published
            assert published is not None
            say = announce or (lambda sentence: print(sentence, file=sys.stderr, flush=True))
            say(
                f"Getting {self.name} into {self.folder}, which takes "
                f"{readable_bytes(published.bytes)} of disk"
            )
            self.folder.mkdir(parents=True, exist_ok=True)
            published.fetch(self.folder)
            self.dataset = self.origin.read(self.folder)
            assert self.dataset is not None
        return replace(self.dataset, name=self.name)


def check(name: str, root: Path | str, *, create_root: bool = False) -> Located:
    """Refuse a wrong request before anything is downloaded or written; else what was found, to be
    loaded.

    Imports nothing heavy, takes about a second on a folder of 100,000 images. `root` is the data
    folder, into which data sets are downloaded or drawn on first use. It must exist, unless
    `create_root` (for a default folder that the user did not name). It has to be writable only if
    something is to be written: a complete data set may lie on a read-only disk.

    Raises:
        ValueError: an unknown data set (the nearest name is suggested), or a folder that is
            missing, empty, unwritable or half downloaded, or has a class without images. One
            sentence.
    """
    kind, _, path = name.partition(":")
    origin = next(
        (one for one in ORIGINS if one.kind == kind and (one.is_the_users or one.name == name)),
        None,
    )
    if origin is None:
        hint = did_you_mean(kind.replace("_", "-"), [one.kind for one in ORIGINS], after=" ")
        raise ValueError(f"unknown data set {name!r}: {hint}known are {', '.join(NAMES)}")
    if origin.is_the_users and not path:
        raise ValueError(f"data set {kind!r} needs the folder of your images: {origin.name}")
    folder = Path(os.path.abspath(os.path.expanduser(path if origin.is_the_users else root)))
    if not origin.is_the_users:
        require_folder(folder, "the data folder", may_be_missing=create_root)
    dataset = origin.read(folder)
    if dataset is None and folder.exists():
        require_writable(folder, "the data folder")
    return Located(origin, name, folder, dataset)


def load(name: str, root: Path | str) -> Dataset:
    """The data set `name`, downloaded or drawn into the folder `root` where it is not yet there.

    Raises:
        ValueError: as `check`.
        OSError: as `Located.load`.
    """
    return check(name, root, create_root=True).load()
