"""Fashion-MNIST (Xiao et al., 2017): 70,000 grey 28x28 photographs of products, as 32x32 RGB.

Read from `ROOT/FashionMNIST/raw`, else from Debian's package `dataset-fashion-mnist`, else
downloaded with torchvision. The four IDX files may be gzipped.
"""

import gzip
import os
import shutil
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data.splits import Dataset, Source, Split, complete
from utils.files import one_writer
from utils.text import one_line

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
SIDE = 28
PADDING = 2
"""Pixels added on each side: 28 to 32, which four stride-2 stages divide."""
IMAGES = {"train": 60_000, "t10k": 10_000}


def _raw(root: Path) -> Path:
    """torchvision's folder for the IDX files."""
    return root / "FashionMNIST" / "raw"


def _find(root: Path, name: str) -> Path | None:
    places = [folder / name for folder in (_raw(root), DEBIAN)]
    candidates = [file for place in places for file in (place, place.with_name(f"{name}.gz"))]
    return next((file for file in candidates if file.is_file()), None)


@lru_cache(maxsize=2)
def _read(file: Path, header: int, shape: tuple[int, ...]) -> np.ndarray:
    """The bytes of an IDX file after its header, uint8 of `shape`.

    Raises:
        ValueError: the file is damaged or half downloaded.
    """
    try:
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
        return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    except (EOFError, gzip.BadGzipFile, ValueError, zlib.error) as error:
        raise ValueError(
            f"{file} is damaged or half downloaded ({error}); delete it to get it again"
        ) from error


@dataclass(frozen=True)
class GreyPixels(Source):
    """Grey images in an IDX file of `count` images; `items` are their numbers in it."""

    file: Path
    count: int

    def read(self, index: int) -> np.ndarray:
        images = _read(self.file, 16, (self.count, SIDE, SIDE))
        return np.repeat(np.pad(images[self.items[index]], PADDING)[:, :, None], 3, axis=2)

    def size(self, index: int) -> tuple[int, int]:
        return SIDE + 2 * PADDING, SIDE + 2 * PADDING

    def stamp(self, index: int) -> tuple[int, int]:
        return SIDE * SIDE, 0


def find(root: Path) -> Dataset | None:
    """Fashion-MNIST in the data folder `root` or Debian's package, None where it is in neither.

    Raises:
        ValueError: a file is damaged.
    """
    parts = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = _find(root, f"{prefix}-images-idx3-ubyte")
        labels = _find(root, f"{prefix}-labels-idx1-ubyte")
        if images is None or labels is None:
            return None
        count = IMAGES[prefix]
        if images.suffix != ".gz" and images.stat().st_size != 16 + count * SIDE * SIDE:
            raise ValueError(f"{images} is half downloaded; delete it to get it again")
        parts[part] = Split(
            f"fashion-mnist-{part}",
            tuple(f"{part}/{index:05d}" for index in range(count)),
            tuple(_read(labels, 8, (count,)).tolist()),
            GreyPixels(tuple(range(count)), images, count),
        )
    return complete(
        "fashion-mnist",
        CLASSES,
        parts,
        description="Fashion-MNIST (Xiao et al., 2017): grey 28x28 photographs of ten kinds of "
        "products, padded to 32x32; official test set, a fixed stratified 10 % of the training set "
        "held out for selection.",
    )


def fetch(root: Path) -> None:
    """Download the four files (30 MB) with torchvision, which verifies their checksums.

    Raises:
        OSError: no network, or a full disk.
    """
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import download_url

    raw = _raw(root)
    raw.mkdir(parents=True, exist_ok=True)
    part = raw / ".part"
    with one_writer(raw):
        try:
            for name, md5 in FashionMNIST.resources:
                download_url(FashionMNIST.mirrors[0] + name, str(part), md5=md5)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"Fashion-MNIST could not be downloaded ({one_line(error)}); check the network, "
                f"put its four .gz files into {raw}, or install Debian's package "
                "dataset-fashion-mnist"
            ) from error
        for name, _ in FashionMNIST.resources:
            os.replace(part / name, raw / name)
        shutil.rmtree(part)
