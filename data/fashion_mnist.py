"""Fashion-MNIST (Xiao et al., 2017): 70,000 grey 28x28 photographs of products, as 32x32 RGB.

Looked for in `ROOT/FashionMNIST/raw`, then in Debian's package `dataset-fashion-mnist`, else
downloaded as torchvision does.
"""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from data.splits import Dataset, Origin, Published, Split, hold_out
from utils.files import one_writer, read_bytes, write_atomically
from utils.text import one_line

if TYPE_CHECKING:
    import numpy as np

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SIDE = 28
SIZES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
"""Bytes of the unpacked IDX files."""
PADDING = 2
"""Pixels added on each side: 28 to 32, which four stride-2 stages divide."""


@dataclass(frozen=True)
class GreyPixels:
    """Grey images in an IDX file of N x 28 x 28 bytes: image i of the split is number `indices[i]`
    in `file`."""

    file: Path
    indices: tuple[int, ...]

    @cached_property
    def images(self) -> np.ndarray:
        import numpy as np

        return np.memmap(self.file, np.uint8, "r", offset=16).reshape(-1, SIDE, SIDE)

    def read(self, index: int) -> np.ndarray:
        import numpy as np

        return np.repeat(np.pad(self.images[self.indices[index]], PADDING)[:, :, None], 3, axis=2)

    def size(self, index: int) -> tuple[int, int]:
        return SIDE + 2 * PADDING, SIDE + 2 * PADDING

    def stamp(self, index: int) -> tuple[int, int]:
        return SIDE * SIDE, 0

    def take(self, indices: Sequence[int]) -> GreyPixels:
        return GreyPixels(self.file, tuple(self.indices[index] for index in indices))


def read(root: Path) -> Dataset | None:
    raw = _raw(root)
    for name, size in SIZES.items():
        found = raw / name
        if found.exists() and found.stat().st_size != size:
            raise ValueError(
                f"{found} is half downloaded: {found.stat().st_size:,} bytes instead of {size:,}; "
                "delete it to get it "
                "again"
            )
    lacking = [name for name in SIZES if not (raw / name).exists()]
    missing = [name for name in lacking if _packed(name, raw) is None]
    if missing and any((raw / name).exists() or (raw / f"{name}.gz").exists() for name in SIZES):
        raise ValueError(
            f"{raw} is half downloaded: {missing[0]} is missing; delete the folder to get it again"
        )
    if lacking:
        return None
    parts = {}
    for part, file in (("train", "train"), ("test", "t10k")):
        labels = tuple(read_bytes(raw / f"{file}-labels-idx1-ubyte")[8:])
        ids = tuple(f"{part}/{index:05d}" for index in range(len(labels)))
        pixels = GreyPixels(raw / f"{file}-images-idx3-ubyte", tuple(range(len(labels))))
        parts[part] = Split(f"fashion-mnist-{part}", ids, labels, pixels)
    kept, held = hold_out(parts["train"])
    return Dataset(
        name="fashion-mnist",
        classes=CLASSES,
        train=parts["train"].take(kept, "fashion-mnist-train"),
        validation=parts["train"].take(held, "fashion-mnist-validation"),
        test=parts["test"],
        synthetic=False,
        description="Fashion-MNIST (Xiao et al., 2017): grey 28x28 photographs of ten kinds of "
        "products, padded to "
        "32x32; official test set, a fixed stratified 10 % of the training set held out for "
        "selection.",
    )


def _raw(root: Path) -> Path:
    """torchvision's own folder for the IDX files."""
    return root / "FashionMNIST" / "raw"


def _packed(name: str, raw: Path) -> Path | None:
    """The gzipped (or, from a package, plain) file that `name` can be unpacked from."""
    candidates = (raw / f"{name}.gz", DEBIAN / f"{name}.gz", DEBIAN / name)
    return next((path for path in candidates if path.is_file()), None)


def fetch(root: Path) -> None:
    """Unpack the files, downloaded (30 MB, checksums verified) where neither the folder nor the
    package has them."""
    raw = _raw(root)
    raw.mkdir(parents=True, exist_ok=True)
    with one_writer(raw):
        lacking = {name: size for name, size in SIZES.items() if not (raw / name).exists()}
        if any(_packed(name, raw) is None for name in lacking):
            _download(raw)
        for name, size in lacking.items():
            packed = _packed(name, raw)
            assert packed is not None
            content = _unpack(packed)
            if len(content) != size:
                raise ValueError(
                    f"{packed} holds {len(content):,} bytes instead of {size:,}; replace it"
                )
            write_atomically(raw / name, content)


def _unpack(path: Path) -> bytes:
    try:
        return gzip.decompress(read_bytes(path)) if path.suffix == ".gz" else read_bytes(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to get it again") from error


def _download(raw: Path) -> None:
    """torchvision's files with their checksums; beside until all are there, so that some are never
    taken for all."""
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import download_url

    beside = raw / ".part"
    try:
        for file, md5 in FashionMNIST.resources:
            download_url(FashionMNIST.mirrors[0] + file, str(beside), md5=md5)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"Fashion-MNIST could not be downloaded ({one_line(error)}); check the network, put "
            "its four .gz files "
            f"into {raw}, or install Debian's package dataset-fashion-mnist"
        ) from error
    for file, _ in FashionMNIST.resources:
        os.replace(beside / file, raw / file)
    shutil.rmtree(beside)


ORIGIN = Origin(
    "fashion-mnist",
    read,
    Published(
        train=60_000, test=10_000, classes=10, bytes=85_000_000, height=32, width=32, fetch=fetch
    ),
)
