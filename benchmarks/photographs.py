"""Images of Food-101's size for measurements: the pocket dishes drawn at 512 pixels, as JPEGs of
about 50 kB."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from data import pocket_dishes
from data.pocket_dishes import DISHES
from data.splits import Files, Split

SIZES = ((512, 384), (512, 384), (384, 512), (512, 512), (512, 341))
"""(width, height): Food-101's longest side is 512."""


def draw(number: int) -> Image.Image:
    """Image `number`, with grain as fine as a camera's: without it a JPEG of this size would be far
    smaller."""
    rng = np.random.default_rng([7, number])
    width, height = SIZES[number % len(SIZES)]
    dish = list(DISHES.values())[number % len(DISHES)]
    saved, pocket_dishes.SIZES = pocket_dishes.SIZES, ((width, height),)
    try:
        image = pocket_dishes.draw(dish, rng)
    finally:
        pocket_dishes.SIZES = saved
    grain = rng.standard_normal((height, width, 3)) * 5
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def write(folder: Path, count: int, quality: int = 88) -> Split:
    """`count` JPEGs in `folder`, as a split to be cached."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{number:04}.jpg" for number in range(count))
    for number, path in enumerate(paths):
        encoded = io.BytesIO()
        draw(number).save(encoded, "JPEG", quality=quality)
        path.write_bytes(encoded.getvalue())
    return Split(
        "drawn",
        tuple(path.name for path in paths),
        tuple(n % 10 for n in range(count)),
        Files(paths),
    )
