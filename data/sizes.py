"""The number of a data set's images and the disk they will take, without downloading or decoding
them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.datasets import Located
from data.decode import UnreadableImage, resized_shape
from data.splits import HELD_OUT, Split

SAMPLE = 64
"""Image headers that are read to estimate the size of a split's store."""


@dataclass(frozen=True)
class Sizes:
    """Images of each split, and the bytes still to be written before training can start."""

    train: int
    validation: int
    test: int
    classes: int
    download: int
    """Bytes of disk that the download takes; 0 where the images are there."""
    cache: int
    """Bytes of decoded images still to be written, estimated from a sample of them."""
    height: int
    width: int
    """Size of a typical decoded image, in pixels."""


def store_folder(folder: Path | str, split: Split, short_side: int) -> Path:
    """Where `data.image_store.open_store` keeps the split's store of that size."""
    return Path(folder) / f"{split.name}-{short_side}"


def estimate(split: Split, short_side: int) -> tuple[int, int, int]:
    """Bytes of a split's store, and height and width of a typical image, from a sample that is
    spread over the split."""
    shapes = []
    for index in np.unique(np.linspace(0, len(split) - 1, SAMPLE).astype(int)).tolist():
        try:
            shapes.append(resized_shape(*split.source.size(index), short_side))
        except UnreadableImage:
            continue  # the build will name it
    height, width = np.array(shapes or [(short_side, short_side)], float).T
    total = 3 * len(split) * float((height * width).mean())
    return round(total), round(height.mean()), round(width.mean())


def sizes(located: Located, cache: Path, short_side: int) -> Sizes:
    """Sizes of a data set that is decoded under `cache`. Writes and downloads nothing."""
    dataset, published = located.dataset, located.origin.published
    if dataset is None:
        assert published is not None
        held = round(HELD_OUT * published.train)
        height, width = resized_shape(published.height, published.width, short_side)
        return Sizes(
            published.train - held,
            held,
            published.test,
            published.classes,
            published.bytes,
            (published.train + published.test) * height * width * 3,
            height,
            width,
        )
    missing = [
        estimate(split, short_side)[0]
        for split in dataset.splits.values()
        if not store_folder(cache, split, short_side).exists()
    ]
    _, height, width = estimate(dataset.train, short_side)
    return Sizes(
        len(dataset.train),
        len(dataset.validation),
        len(dataset.test),
        len(dataset.classes),
        download=0,
        cache=sum(missing),
        height=height,
        width=width,
    )
