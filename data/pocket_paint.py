"""Brushes for the pocket images: shapes in a turned and scaled frame, colours, tables, clutter,
light."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Color = tuple[int, int, int]
Points = np.ndarray
"""float (N, 2): x to the right, y down, the dish reaching from about -1 to 1."""

OVERSAMPLING = 2
"""Shapes are drawn this much larger and averaged down: smooth edges."""

PALETTE: dict[str, Color] = {
    "dough": (214, 170, 96),
    "crust": (181, 122, 56),
    "chocolate": (84, 50, 32),
    "cream": (246, 226, 176),
    "white": (250, 244, 230),
    "rice": (226, 214, 196),
    "tomato": (206, 60, 44),
    "meat": (140, 62, 44),
    "salmon": (238, 132, 110),
    "icing": (240, 160, 190),
    "yolk": (246, 190, 50),
    "carrot": (240, 140, 40),
    "herbs": (110, 150, 62),
    "spinach": (52, 92, 48),
    "mint": (150, 200, 180),
    "blueberry": (90, 110, 160),
    "seaweed": (46, 54, 56),
    "beetroot": (130, 60, 110),
    "steel": (190, 190, 200),
}
"""Every colour there is."""


def any_color(
    rng: np.random.Generator, palette: Sequence[Color] = tuple(PALETTE.values())
) -> Color:
    """A colour of the palette, shifted a little."""
    return _candidates(rng, palette, 1)[0]


def unlike(
    rng: np.random.Generator,
    *others: Color,
    distance: float = 85.0,
    palette: Sequence[Color] = tuple(PALETTE.values()),
) -> Color:
    """A colour of the palette that stands out against `others`, as far as there is one."""
    best, best_distance = others[0], -1.0
    for color in _candidates(rng, palette, 8):
        nearest = min(math.dist(color, other) for other in others)
        if nearest > distance:
            return color
        if nearest > best_distance:
            best, best_distance = color, nearest
    return best


def _candidates(rng: np.random.Generator, palette: Sequence[Color], count: int) -> list[Color]:
    chosen = rng.integers(len(palette), size=count).tolist()
    shifts = rng.integers(-18, 19, (count, 3)).tolist()
    return [
        (max(0, min(255, red + dr)), max(0, min(255, green + dg)), max(0, min(255, blue + db)))
        for (red, green, blue), (dr, dg, db) in zip(
            [palette[index] for index in chosen], shifts, strict=True
        )
    ]


def shade(color: Color, factor: float) -> Color:
    """Lighter (factor above 1) or darker."""
    red, green, blue = (min(255, int(channel * factor)) for channel in color)
    return red, green, blue


def circle(x: float = 0.0, y: float = 0.0, radius: float = 1.0, count: int = 36) -> Points:
    """Points of a circle."""
    angles = np.linspace(0, 2 * math.pi, count, endpoint=False)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)


def blob(
    rng: np.random.Generator, radius: float, roughness: float, x: float = 0.0, y: float = 0.0
) -> Points:
    """A circle with a few random waves on its edge, `roughness` as a share of the radius."""
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    waves = np.arange(2, 7)[:, None]
    edge = (
        np.sin(waves * angles + rng.uniform(0, 6.3, (5, 1))) * rng.normal(0, 1, (5, 1)) / waves
    ).sum(0)
    distance = radius * (1 + roughness * edge)
    return np.stack([x + distance * np.cos(angles), y + distance * np.sin(angles)], 1)


def box(x: float, y: float, width: float, height: float, corner: float = 0.0) -> Points:
    """A rectangle around (x, y), its corners rounded by `corner`."""
    turn = np.linspace(0, math.pi / 2, 5) if corner else np.zeros(1)
    parts = []
    for quarter, (sx, sy) in enumerate([(1, 1), (-1, 1), (-1, -1), (1, -1)]):
        center = np.array([x + sx * (width / 2 - corner), y + sy * (height / 2 - corner)])
        angles = turn + quarter * math.pi / 2
        parts.append(center + corner * np.stack([np.cos(angles), np.sin(angles)], 1))
    return np.concatenate(parts)


class Painter:
    """Draws on a transparent RGBA `layer` in the dish's own frame: moved to `center`, turned by
    `angle`, `scale` pixels a unit, squeezed to `squeeze` of its height as if seen from the side."""

    def __init__(
        self,
        layer: Image.Image,
        center: tuple[float, float],
        scale: float,
        angle: float,
        squeeze: float = 1.0,
        palette: Sequence[Color] = tuple(PALETTE.values()),
    ) -> None:
        self._palette = palette
        self._draw = ImageDraw.Draw(layer)
        self._center = np.array(center)
        self._scale = scale
        cos, sin = math.cos(angle), math.sin(angle)
        self._turn = np.array([[cos, sin * squeeze], [-sin, cos * squeeze]]) * scale

    def color(
        self, rng: np.random.Generator, *unlike_these: Color, distance: float = 85.0
    ) -> Color:
        """A colour of the dish's palette; where others are given, one that stands out against
        them."""
        if not unlike_these:
            return any_color(rng, self._palette)
        return unlike(rng, *unlike_these, distance=distance, palette=self._palette)

    def fill(self, points: Points, color: Color | None) -> None:
        """A filled polygon; no colour cuts a hole."""
        self._draw.polygon(
            self._pixels(points), fill=(0, 0, 0, 0) if color is None else (*color, 255)
        )

    def line(self, points: Points, width: float, color: Color | None) -> None:
        """A line through `points`, `width` in the dish's units."""
        pixels = max(1, round(width * self._scale))
        self._draw.line(
            self._pixels(points),
            (0, 0, 0, 0) if color is None else (*color, 255),
            pixels,
            joint="curve",
        )

    def disc(self, x: float, y: float, radius: float, color: Color | None, count: int = 20) -> None:
        """A filled circle."""
        self.fill(circle(x, y, radius, count), color)

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        x, y = (
            points[:, 0],
            points[:, 1],
        )  # spelt out: a matrix product's last bit depends on the machine
        turned = np.stack(
            [
                x * self._turn[0, 0] + y * self._turn[1, 0],
                x * self._turn[0, 1] + y * self._turn[1, 1],
            ],
            1,
        )
        return list(map(tuple, (turned + self._center).round(2).tolist()))


def table(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A background: plain, striped, checked, planked or dotted."""
    width, height = size
    ground = any_color(rng)
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    second = shade(ground, rng.uniform(0.82, 1.18)) if rng.random() < 0.93 else any_color(rng)
    step = int(rng.integers(10, 44)) * OVERSAMPLING // 2
    kind = max(0, rng.integers(-2, 5))
    if kind == 1:
        slope = int(rng.integers(-height, height))
        for x in range(-abs(slope), width + abs(slope), 2 * step):
            draw.line([(x, 0), (x + slope, height)], second, step)
    elif kind == 2:
        for y in range(0, height, step):
            for x in range((y // step % 2) * step, width, 2 * step):
                draw.rectangle([x, y, x + step, y + step], second)
    elif kind == 3:
        for y in range(0, height, step):
            draw.rectangle([0, y, width, y + step], shade(ground, rng.uniform(0.8, 1.15)))
            draw.line([(0, y), (width, y)], shade(ground, 0.6), 2)
    elif kind == 4:
        for y in range(0, height, step):
            for x in range((y // step % 2) * step // 2, width, step):
                draw.ellipse([x, y, x + step // 2, y + step // 2], second)
    return image


def plate(
    rng: np.random.Generator, layer: Image.Image, center: tuple[float, float], scale: float
) -> None:
    """A round, oval or square plate with a rim, a little out of the dish's centre."""
    moved = (center[0] + rng.uniform(-0.1, 0.1) * scale, center[1] + rng.uniform(-0.1, 0.1) * scale)
    painter = Painter(layer, moved, scale, rng.uniform(0, 6.3), rng.uniform(0.75, 1.0))
    color = any_color(rng)
    rim = any_color(rng) if rng.random() < 0.4 else shade(color, rng.uniform(0.75, 1.1))
    radius = rng.uniform(1.05, 1.45)
    square = rng.random() < 0.3
    for share, paint in [
        (1.0, rim),
        (rng.uniform(0.8, 0.95), color),
        (rng.uniform(0.6, 0.75), shade(color, 0.93)),
    ]:
        side = 1.8 * radius * share
        painter.fill(
            box(0, 0, side, side, 0.2) if square else circle(0, 0, radius * share, 48), paint
        )


def clutter(rng: np.random.Generator, layer: Image.Image, scale: float) -> None:
    """One small thing somewhere: cutlery, a leaf, crumbs, a slice of lemon, a napkin, a cup."""
    center = (rng.uniform(0, layer.width), rng.uniform(0, layer.height))
    painter = Painter(layer, center, scale * rng.uniform(0.6, 1.1), rng.uniform(0, 6.3))
    _CLUTTER[rng.integers(len(_CLUTTER))](painter, rng)


def _cutlery(painter: Painter, rng: np.random.Generator) -> None:
    color = any_color(rng)
    painter.line(np.array([(0, -0.2), (0, 1.2)]), 0.12, color)
    kind = rng.integers(3)
    if kind == 0:
        for x in (-0.12, 0.0, 0.12):
            painter.line(np.array([(x, -0.7), (x, -0.2)]), 0.06, color)
        painter.fill(box(0, -0.25, 0.32, 0.2, 0.06), color)
    elif kind == 1:
        painter.fill(np.array([(-0.08, -1.0), (0.1, -0.8), (0.1, 0), (-0.08, 0)]), color)
    else:
        painter.fill(circle(0, -0.5, 0.25) * (0.8, 1.2), color)


def _leaf(painter: Painter, rng: np.random.Generator) -> None:
    color = any_color(rng)
    along = np.linspace(-0.4, 0.4, 12)
    bulge = 0.16 * np.cos(along / 0.4 * math.pi / 2)
    painter.fill(
        np.concatenate([np.stack([along, bulge], 1), np.stack([along, -bulge], 1)[::-1]]), color
    )
    painter.line(np.array([(-0.4, 0), (0.4, 0)]), 0.03, shade(color, 0.6))


def _crumbs(painter: Painter, rng: np.random.Generator) -> None:
    color = any_color(rng)
    for x, y in rng.normal(0, 0.5, (rng.integers(5, 14), 2)):
        painter.disc(x, y, rng.uniform(0.03, 0.08), shade(color, rng.uniform(0.7, 1.2)), 7)


def _lemon(painter: Painter, rng: np.random.Generator) -> None:
    color = any_color(rng)
    painter.disc(0, 0, 0.34, color)
    painter.disc(0, 0, 0.28, shade(color, 1.3))
    for angle in np.arange(6) * math.pi / 3:
        painter.line(
            np.array([(0, 0), (0.28 * math.cos(angle), 0.28 * math.sin(angle))]), 0.04, color
        )


def _napkin(painter: Painter, rng: np.random.Generator) -> None:
    color = any_color(rng)
    painter.fill(box(0, 0, 1.2, rng.uniform(0.5, 1.2)), color)
    painter.line(np.array([(-0.6, -0.2), (0.6, -0.2)]), 0.05, shade(color, 0.8))


def _cup(painter: Painter, rng: np.random.Generator) -> None:
    color = any_color(rng)
    painter.fill(box(0.5, 0, 0.3, 0.14, 0.05), color)
    painter.disc(0, 0, 0.45, color, 28)
    painter.disc(0, 0, 0.38, unlike(rng, color), 28)


_CLUTTER: tuple[Callable[[Painter, np.random.Generator], None], ...]
_CLUTTER = (_cutlery, _cutlery, _leaf, _crumbs, _lemon, _napkin, _cup)


def cast_shadow(
    image: Image.Image, layer: Image.Image, shift: tuple[int, int], strength: float
) -> None:
    """Darken `image` beneath `layer`, moved by `shift` pixels and softened."""
    small = layer.getchannel("A").reduce(4)
    soft = small.filter(ImageFilter.BoxBlur(2)).resize(layer.size, Image.Resampling.BILINEAR)
    image.paste((12, 10, 14), shift, soft.point([int(value * strength) for value in range(256)]))


def light(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Uneven light, its colour, soft stains, grain, and at times a camera slightly out of focus."""
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    width, height = image.size
    direction, slope = rng.uniform(0, 6.3), rng.uniform(0.0, 0.35)
    y, x = (
        np.linspace(-1, 1, height, dtype=np.float32)[:, None],
        np.linspace(-1, 1, width, dtype=np.float32),
    )
    field = (
        1
        + slope * (math.cos(direction) * x + math.sin(direction) * y)
        - rng.uniform(0, 0.18) * (x * x + y * y)
    )
    stains = Image.fromarray(rng.normal(0, rng.uniform(0.02, 0.06), (9, 9)).astype(np.float32))
    field += np.asarray(stains.resize((width, height), Image.Resampling.BICUBIC))
    gain = rng.uniform(0.78, 1.12) * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    pixels = np.asarray(image, np.float32) * field[:, :, None] * gain
    grain = rng.standard_normal((height, width, 1), np.float32) * rng.uniform(1, 6)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))
