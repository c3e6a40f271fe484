"""How large a data set is and what disk it will take, found out without downloading or decoding it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data import fashion_mnist, food101
from data.cache import store_folder
from data.datasets import load
from data.decode import UnreadablePicture, resized_shape
from data.splits import HELD_OUT, Split

_SAMPLE = 64
"""Headers read per split to estimate the cache's size."""


@dataclass(frozen=True)
class Sizes:
    """Pictures of each split, and the bytes still to be written before training can start."""

    train: int
    validation: int
    test: int
    classes: int
    download: int
    """Bytes of disk that downloading or drawing the pictures takes; 0 where they are there."""
    cache: int
    """Bytes of decoded pictures still to be written, estimated from a sample of them."""
    height: int
    width: int
    """Of a typical decoded picture, in pixels."""


# What is published, or drawn here: (train and validation, test, classes, bytes to fetch, height, width).
_KNOWN = {
    "food101": (75_750, 25_250, 101, food101.DOWNLOAD_BYTES, 384, 512),
    "fashion-mnist": (60_000, 10_000, 10, 85_000_000, 32, 32),
    "pocket": (2_400, 900, 10, 15_000_000, 108, 114),
}


def sizes(name: str, root: Path, cache: Path, short_side: int) -> Sizes:
    """Of data set `name` in the data folder `root`, cached under `cache` (see `data.open_store`). Writes nothing."""
    needed = {
        "food101": [root / food101.FOLDER],
        "pocket": [root / food101.POCKET_FOLDER],
        "fashion-mnist": [root / "FashionMNIST" / "raw" / file for file in fashion_mnist.SIZES],
    }
    if not all(path.exists() for path in needed.get(name, [])):
        kept, test, classes, download, height, width = _KNOWN[name]
        held = round(HELD_OUT * kept)
        height, width = resized_shape(height, width, short_side)
        bytes_ = (kept + test) * height * width * 3
        return Sizes(kept - held, held, test, classes, download, bytes_, height, width)
    dataset = load(name, root)
    shapes = {split.name: _typical_shape(split, short_side) for split in dataset.splits.values()}
    missing = [split for split in dataset.splits.values() if not store_folder(cache, split, short_side).exists()]
    return Sizes(
        len(dataset.train), len(dataset.validation), len(dataset.test), len(dataset.classes), download=0,
        cache=sum(round(len(split) * 3 * shapes[split.name][2]) for split in missing),
        height=round(shapes[dataset.train.name][0]), width=round(shapes[dataset.train.name][1]),
    )  # fmt: skip


def _typical_shape(split: Split, short_side: int) -> tuple[float, float, float]:
    """Mean height, width and area of a decoded picture, from a sample that is spread over the split."""
    shapes = []
    for index in np.unique(np.linspace(0, len(split) - 1, _SAMPLE).astype(int)).tolist():
        try:
            shapes.append(resized_shape(*split.source.size(index), short_side))
        except UnreadablePicture:
            continue  # the build will name it
    if not shapes:
        return float(short_side), float(short_side), float(short_side**2)
    height, width = np.array(shapes, float).T
    return float(height.mean()), float(width.mean()), float((height * width).mean())
