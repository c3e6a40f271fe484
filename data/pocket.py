"""Pocket: synthetic images of ten kinds of textured shapes, for a first run without a download.

A class is an outline with a texture. Each outline and each texture belongs to two classes, so that
neither determines the class alone. Colors, background, pose, light and noise are random.
"""

import colorsys
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from data.splits import Dataset, Source, Split, complete

VERSION = 2
"""Part of every image's seed and stamp. Raise it whenever an image changes."""
IMAGES = {"train": 2_400, "test": 900}
SIZES = ((112, 112), (96, 128), (128, 96), (100, 120), (120, 100), (112, 128))
"""(height, width) in pixels, in turn."""

Field = npt.NDArray[np.floating]
"""float32 values: one per pixel, (H, W), or one per channel and pixel, (3, H, W)."""


def _polygon(x: Field, y: Field, corners: int) -> Field:
    """Distance from the center to the edge of a regular polygon that goes through (x, y)."""
    sector = 2 * math.pi / corners
    angle = np.arctan2(x, -y)
    return np.hypot(x, y) * np.cos(angle - sector * np.rint(angle / sector))


OUTLINES: dict[str, Callable[[Field, Field], Field]] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.85,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.64) - 0.28,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.76,
    "triangle": lambda x, y: _polygon(x, y, 3) - 0.52,
    "star": lambda x, y: np.hypot(x, y) - 0.68 - 0.25 * np.cos(5 * np.arctan2(x, y)),
}
"""Signed distance from the edge, negative inside, of a shape that fills [-1, 1] x [-1, 1]."""
TEXTURES: dict[str, Callable[[Field, Field, float], Field]] = {
    "striped": lambda x, y, wave: np.sin(wave * x),
    "checked": lambda x, y, wave: 2 * np.sin(wave * x) * np.sin(wave * y),
    "ringed": lambda x, y, wave: np.sin(1.2 * wave * np.hypot(x, y)),
    "rayed": lambda x, y, wave: np.sin(np.rint(wave) * np.arctan2(y, x)),
    "wavy": lambda x, y, wave: np.sin(wave * x + 2.2 * np.sin(0.7 * wave * y)),
}
"""Values from -1 to 1 (checked: cut there), `wave` radians a unit."""
CLASSES = tuple(
    f"{list(TEXTURES)[(number + second) % 5]}_{outline}"
    for number, outline in enumerate(OUTLINES)
    for second in range(2)
)


def draw(number: int, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """Image `number`, of class `number % 10`: uint8 RGB (H, W, 3), the same in every run.

    Args:
        number: seeds every random choice.
        size: (height, width) in pixels, if not the one of `SIZES` whose turn it is.
    """
    rng = np.random.default_rng([VERSION, number])
    height, width = size or _size(number)
    texture, outline = CLASSES[number % len(CLASSES)].split("_")
    unit = min(height, width) / 2
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(unit)
    x, y = x - np.float32(width / 2 / unit), y - np.float32(height / 2 / unit)

    ground = _paint(rng, str(rng.choice(list(TEXTURES))), x, y, contrast=0.07)
    for _ in range(rng.integers(0, 2)):  # small shapes that belong to other classes
        place = _pose(rng, x, y, scale=rng.uniform(0.15, 0.3), spread=0.9)
        other = OUTLINES[str(rng.choice(list(OUTLINES)))]
        _lay(ground, other(*place), _paint(rng, "striped", *place, contrast=0.1))
    place = _pose(rng, x, y, scale=rng.uniform(0.75, 1.0), spread=0.08)
    _lay(ground, OUTLINES[outline](*place), _paint(rng, texture, *place, contrast=0.3))

    light = rng.uniform(0.75, 1.1) + rng.normal(0, 0.25) * x + rng.normal(0, 0.25) * y
    ground *= light * 255
    ground += rng.standard_normal((height, width), np.float32) * rng.uniform(2, 12)
    return np.ascontiguousarray(ground.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def _size(number: int) -> tuple[int, int]:
    return SIZES[number // len(CLASSES) % len(SIZES)]


def _pose(
    rng: np.random.Generator, x: Field, y: Field, scale: float, spread: float
) -> tuple[Field, Field]:
    """The coordinates of a shape that is moved, turned, squeezed and scaled."""
    x, y = x - np.float32(rng.normal(0, spread)), y - np.float32(rng.normal(0, spread))
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = np.float32(math.cos(angle) / scale), np.float32(math.sin(angle) / scale)
    return cos * x + sin * y, (cos * y - sin * x) * np.float32(rng.uniform(1.0, 1.2))


def _paint(rng: np.random.Generator, texture: str, x: Field, y: Field, contrast: float) -> Field:
    """A texture between two random colors, float32 (3, H, W) of 0 to 1."""
    pattern = TEXTURES[texture](x, y, rng.uniform(5, 9)).clip(-1, 1)
    hue, saturation, value = rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.35, 0.75)
    color = np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)
    step = rng.uniform(0.5, 1.5, 3) * rng.choice((-1, 1)) * rng.uniform(0.6, 1.4) * contrast
    painted: Field = color[:, None, None] + pattern * step.astype(np.float32)[:, None, None]
    return painted


def _lay(ground: Field, distance: Field, paint: Field) -> None:
    """Lay a painted shape on `ground`, in place, its edge a little soft."""
    cover = (0.5 - 20 * distance).clip(0, 1)
    ground += cover * (paint - ground)


class Drawn(Source):
    """Images that are drawn; `items` are their numbers."""

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        return draw(self.items[index])

    def size(self, index: int) -> tuple[int, int]:
        return _size(self.items[index])

    def stamp(self, index: int) -> tuple[int, int]:
        return VERSION, 0


def dataset() -> Dataset:
    """The pocket data set: 10 % of its training images held out for selection."""
    parts, first = {}, 0
    for part, count in IMAGES.items():
        numbers = tuple(range(first, first + count))
        labels = tuple(number % len(CLASSES) for number in numbers)
        ids = tuple(f"{CLASSES[number % len(CLASSES)]}/{number:04}" for number in numbers)
        parts[part] = Split(f"pocket-v{VERSION}-{part}", ids, labels, Drawn(numbers))
        first += count
    return complete(
        "pocket",
        CLASSES,
        parts,
        description="Pocket: synthetic images of ten kinds of textured shapes, drawn by a program, "
        "not photographs; a fixed stratified 10 % of the training set held out for selection.",
        synthetic=True,
    )
