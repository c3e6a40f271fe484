"""A small Food-101 on disk, of pocket images."""

import json
from pathlib import Path

from PIL import Image

from data.pocket import CLASSES, IMAGES, draw


def write(folder: Path, train: int, test: int) -> None:
    """Write the first `train` and `test` images of each class as JPEGs in Food-101's layout."""
    (folder / "meta").mkdir(parents=True)
    first = 0
    for part, count in (("train", train), ("test", test)):
        lists: dict[str, list[str]] = {name: [] for name in CLASSES}
        for number in range(first, first + count * len(CLASSES)):
            name = CLASSES[number % len(CLASSES)]
            lists[name].append(f"{name}/{number}")
            path = folder / "images" / f"{name}/{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(number)).save(path, quality=90)
        (folder / "meta" / f"{part}.json").write_text(json.dumps(lists))
        first += IMAGES[part]
