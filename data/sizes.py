"""How large a data set is and what disk it will take, found out without downloading or decoding
it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.datasets import Located
from data.decode import UnreadableImage, resized_shape
from data.splits import HELD_OUT, Split
from data.store import store_folder

_SAMPLE = 64
"""Headers read per split to estimate the cache's size."""


@dataclass(frozen=True)
class Sizes:
    """Images of each split, and the bytes still to be written before training can start."""

    train: int
    validation: int
    test: int
    classes: int
    download: int
    """Bytes of disk that downloading or drawing the images takes; 0 where they are there."""
    cache: int
    """Bytes of decoded images still to be written, estimated from a sample of them."""
    height: int
    width: int
    """Of a typical decoded image, in pixels."""


def sizes(found: Located, cache: Path, short_side: int) -> Sizes:
    """Of a data set, cached under `cache` (see `data.open_store`). Writes and fetches nothing."""
    dataset, published = found.dataset, found.origin.published
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
    shapes = {split.name: _typical_shape(split, short_side) for split in dataset.splits.values()}
    missing = [
        split
        for split in dataset.splits.values()
        if not store_folder(cache, split, short_side).exists()
    ]
    return Sizes(
        len(dataset.train),
        len(dataset.validation),
        len(dataset.test),
        len(dataset.classes),
        download=0,
        cache=sum(round(len(split) * 3 * shapes[split.name][2]) for split in missing),
        height=round(shapes[dataset.train.name][0]),
        width=round(shapes[dataset.train.name][1]),
    )


def _typical_shape(split: Split, short_side: int) -> tuple[float, float, float]:
    """Mean height, width and area of a decoded image, from a sample that is spread over the
    split."""
    shapes = []
    for index in np.unique(np.linspace(0, len(split) - 1, _SAMPLE).astype(int)).tolist():
        try:
            shapes.append(resized_shape(*split.source.size(index), short_side))
        except UnreadableImage:
            continue  # the build will name it
    if not shapes:
        return float(short_side), float(short_side), float(short_side**2)
    height, width = np.array(shapes, float).T
    return float(height.mean()), float(width.mean()), float((height * width).mean())
