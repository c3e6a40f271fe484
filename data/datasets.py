"""The data sets by name. One more is a module like data/fashion_mnist.py and an entry of
`ORIGINS`."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from data import fashion_mnist, folders, pocket
from data.splits import Dataset
from utils.files import require_folder, require_writable
from utils.text import did_you_mean, readable_bytes


@dataclass(frozen=True)
class Published:
    """Facts of a data set that is not downloaded yet, and how to get it."""

    train: int
    """Images to train on, including those that will be held out."""
    test: int
    classes: int
    bytes: int
    """Disk that the download takes."""
    height: int
    width: int
    """Size of a typical image, in pixels."""
    fetch: Callable[[Path], None]
    """Puts the images into the data folder. Raises OSError (no network, a full disk)."""


@dataclass(frozen=True)
class Origin:
    """How a data set is found and, where it may be missing, how it is got."""

    find: Callable[[Path], Dataset | None]
    """The data set in the data folder (for 'KIND:PATH', in PATH), None where it is not there yet.
    Opens no image and writes nothing. Raises ValueError where it is damaged or half downloaded."""
    published: Published | None = None


ORIGINS = {
    "food101": Origin(
        folders.food101,
        Published(
            75_750, 25_250, 101, folders.FOOD101_BYTES, 384, 512, fetch=folders.fetch_food101
        ),
    ),
    "fashion-mnist": Origin(
        fashion_mnist.find,
        Published(60_000, 10_000, 10, 31_000_000, 32, 32, fetch=fashion_mnist.fetch),
    ),
    "pocket": Origin(lambda _: pocket.dataset()),
    "imagefolder:PATH": Origin(folders.image_folder),
}
NAMES = tuple(ORIGINS)


@dataclass
class Located:
    """A data set whose images have been listed, or that can be downloaded."""

    name: str
    """As it was requested: 'food101', 'imagefolder:PATH', ..."""
    folder: Path
    dataset: Dataset | None
    """None until it is downloaded."""
    origin: Origin

    def load(self) -> Dataset:
        """The data set, downloaded into its folder where it is not yet there.

        Raises:
            OSError: no network, a full disk, a download that fails its checksum.
        """
        if self.dataset is None:
            published = self.origin.published
            assert published is not None
            print(
                f"Downloading {self.name} into {self.folder}, which takes "
                f"{readable_bytes(published.bytes)} of disk",
                file=sys.stderr,
                flush=True,
            )
            self.folder.mkdir(parents=True, exist_ok=True)
            published.fetch(self.folder)
            self.dataset = self.origin.find(self.folder)
            assert self.dataset is not None
        return replace(self.dataset, name=self.name)


def check(name: str, root: Path | str, *, create_root: bool = False) -> Located:
    """List a data set's images, or refuse a wrong request before anything is written.

    Takes about a second on a folder of 100,000 images. `root` is the data folder, into which data
    sets are downloaded on first use. It must exist, unless `create_root` (for a default folder that
    the user did not name). It has to be writable only if something is to be written: a complete
    data set may lie on a read-only disk.

    Raises:
        ValueError: an unknown data set (the nearest name is suggested), or a folder that is
            missing, empty, unwritable or half downloaded, or has a class without images.
    """
    kind, _, path = name.partition(":")
    if name not in ORIGINS and ("/" in name or os.path.isdir(name)) and kind != "imagefolder":
        kind, path = "imagefolder", name
    key = f"{kind}:PATH" if f"{kind}:PATH" in ORIGINS else name
    if key not in ORIGINS:
        kinds = [known.partition(":")[0] for known in NAMES]
        hint = did_you_mean(kind.replace("_", "-"), kinds, after=" ")
        raise ValueError(f"unknown data set {name!r}: {hint}known are {', '.join(NAMES)}")
    if key != name and not path:
        raise ValueError(f"data set {kind!r} needs the folder of your images: {key}")
    folder = Path(os.path.abspath(os.path.expanduser(path or root)))
    if not path:
        require_folder(folder, "the data folder", may_be_missing=create_root)
    dataset = ORIGINS[key].find(folder)
    if dataset is None and folder.exists():
        require_writable(folder, "the data folder")
    return Located(name, folder, dataset, ORIGINS[key])


def load(name: str, root: Path | str) -> Dataset:
    """The data set `name`, downloaded into the folder `root` where it is not yet there.

    Raises:
        ValueError: as `check`.
        OSError: as `Located.load`.
    """
    return check(name, root, create_root=True).load()
