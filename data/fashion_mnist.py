"""Fashion-MNIST (Xiao et al., 2017): 70,000 grey 28x28 photographs of products, as 32x32 RGB.

Looked for in `ROOT/FashionMNIST/raw`, then in Debian's package `dataset-fashion-mnist`, else downloaded. Read by
`torchvision.datasets.FashionMNIST`.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.files import one_writer, read_bytes, require_writable, write_atomically
from data.splits import Dataset, Split, hold_out

if TYPE_CHECKING:
    import numpy as np

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
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
    """Grey pictures in memory: `images` is uint8 (N, 28, 28), picture i of the split is `images[indices[i]]`."""

    images: np.ndarray
    indices: tuple[int, ...]

    def read(self, index: int) -> np.ndarray:
        import numpy as np

        return np.repeat(np.pad(self.images[self.indices[index]], PADDING)[:, :, None], 3, axis=2)

    def size(self, index: int) -> tuple[int, int]:
        _, height, width = self.images.shape
        return height + 2 * PADDING, width + 2 * PADDING

    def stamp(self, index: int) -> tuple[int, int]:
        return self.images[0].size, 0

    def take(self, indices: Sequence[int]) -> GreyPixels:
        return GreyPixels(self.images, tuple(self.indices[index] for index in indices))


def check(root: Path) -> None:
    """Refuse half downloaded files under `root`, or a folder the files could not be put into (ValueError)."""
    raw = _raw(root)
    for name, size in SIZES.items():
        found = raw / name
        if found.exists() and found.stat().st_size != size:
            raise ValueError(
                f"{found} is half downloaded: {found.stat().st_size:,} bytes instead of {size:,}; delete it to get it "
                "again"
            )
    lacking = [name for name in SIZES if not (raw / name).exists()]
    if not lacking or not root.exists():
        return
    missing = [name for name in lacking if _packed(name, raw) is None]
    if missing and any((raw / name).exists() or (raw / f"{name}.gz").exists() for name in SIZES):
        raise ValueError(f"{raw} is half downloaded: {missing[0]} is missing; delete the folder to get it again")
    require_writable(root, "the data folder")


def load(root: Path) -> Dataset:
    """Fashion-MNIST, unpacked or downloaded (30 MB, checksums verified) into `root` where it is missing.

    Raises:
        OSError: no network, or a full disk.
    """
    from torchvision.datasets import FashionMNIST

    if not all((_raw(root) / name).exists() for name in SIZES):
        _provide(root)
    parts = {}
    for part in ("train", "test"):
        official = FashionMNIST(str(root), train=part == "train", download=False)
        ids = tuple(f"{part}/{index:05d}" for index in range(len(official)))
        labels = tuple(official.targets.tolist())
        pixels = GreyPixels(official.data.numpy(), tuple(range(len(official))))
        parts[part] = Split(f"fashion-mnist-{part}", ids, labels, pixels)
    kept, held = hold_out(parts["train"])
    return Dataset(
        name="fashion-mnist",
        classes=tuple(FashionMNIST.classes),
        train=parts["train"].take(kept, "fashion-mnist-train"),
        validation=parts["train"].take(held, "fashion-mnist-validation"),
        test=parts["test"],
        synthetic=False,
        description="Fashion-MNIST (Xiao et al., 2017): grey 28x28 photographs of ten kinds of products, padded to "
        "32x32; official test set, a fixed stratified 10 % of the training set held out for selection.",
    )


def _raw(root: Path) -> Path:
    """torchvision's own folder for the IDX files."""
    return root / "FashionMNIST" / "raw"


def _packed(name: str, raw: Path) -> Path | None:
    """The gzipped (or, from a package, plain) file that `name` can be unpacked from."""
    candidates = (raw / f"{name}.gz", DEBIAN / f"{name}.gz", DEBIAN / name)
    return next((path for path in candidates if path.is_file()), None)


def _provide(root: Path) -> None:
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
                raise ValueError(f"{packed} holds {len(content):,} bytes instead of {size:,}; replace it")
            write_atomically(raw / name, content)


def _unpack(path: Path) -> bytes:
    try:
        return gzip.decompress(read_bytes(path)) if path.suffix == ".gz" else read_bytes(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to get it again") from error


def _download(raw: Path) -> None:
    """torchvision's files with their checksums; beside until all are there, so that some are never taken for all."""
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import download_url

    beside = raw / ".part"
    print(f"Downloading Fashion-MNIST once, 30 MB, to {raw}", file=sys.stderr, flush=True)
    try:
        for file, md5 in FashionMNIST.resources:
            download_url(FashionMNIST.mirrors[0] + file, str(beside), md5=md5)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise OSError(
            f"Fashion-MNIST could not be downloaded ({reason}); check the network, put its four .gz files into {raw}, "
            "or install Debian's package dataset-fashion-mnist"
        ) from error
    for file, _ in FashionMNIST.resources:
        os.replace(beside / file, raw / file)
    shutil.rmtree(beside)
