"""Images of Food-101's size for measurements: pocket images drawn at 512 pixels, as JPEGs of about
60 kB."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from data import pocket
from data.splits import Files, Split

SIZES = ((384, 512), (384, 512), (512, 384), (512, 512), (341, 512))
"""(height, width): Food-101's longest side is 512."""


def draw(number: int) -> Image.Image:
    """Image `number`, with grain as fine as a camera's: without it a JPEG of this size would be far
    smaller."""
    image = pocket.draw(number, SIZES[number % len(SIZES)])
    grain = np.random.default_rng([7, number]).standard_normal(image.shape) * 5
    return Image.fromarray((image + grain).clip(0, 255).astype(np.uint8))


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
