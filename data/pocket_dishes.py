"""The ten dishes of the pocket images. What tells them apart is shape and texture; nine in ten have
colours of their own dish, the others any of the palette."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data.pocket_paint import (
    OVERSAMPLING,
    PALETTE,
    Color,
    Painter,
    blob,
    box,
    cast_shadow,
    circle,
    clutter,
    light,
    plate,
    shade,
    table,
)

Rng = np.random.Generator


@dataclass(frozen=True)
class Dish:
    """How a class is drawn: by `paint`, turned by at most `turn` radians to either side, at times
    in the `colors` it has in life."""

    paint: Callable[[Painter, Rng], None]
    turn: float
    colors: tuple[str, ...]


def cup_cakes(painter: Painter, rng: Rng) -> None:
    paper = painter.color(rng)
    stripes, top = painter.color(rng, paper, distance=50), rng.uniform(0.55, 0.75)
    icing = painter.color(rng, paper)
    painter.fill(np.array([(-top, 0.1), (top, 0.1), (top * 0.7, 0.95), (-top * 0.7, 0.95)]), paper)
    count = int(rng.integers(4, 8))
    for share in np.linspace(-1, 1, count):
        painter.line(np.array([(share * top, 0.1), (share * top * 0.7, 0.95)]), 0.07, stripes)
    layers = int(rng.integers(2, 5))
    for layer in range(layers):
        radius = (top + 0.15) * (1 - layer / (layers + 0.6))
        y = 0.08 - layer * 0.95 / layers
        swirl = circle(0, 0, radius) * (1, 0.52) + (rng.uniform(-0.05, 0.05), y)
        painter.fill(swirl, shade(icing, 0.86 + 0.08 * (layer % 3)))
    if rng.random() < 0.6:
        painter.disc(
            rng.uniform(-0.1, 0.1), 0.02 - layers * 0.95 / layers, 0.14, painter.color(rng, icing)
        )


def donuts(painter: Painter, rng: Rng) -> None:
    dough = painter.color(rng)
    icing = painter.color(rng, dough, distance=60)
    painter.fill(blob(rng, 1.0, 0.02), dough)
    painter.fill(blob(rng, rng.uniform(0.8, 0.9), 0.05), icing)
    style = rng.random()
    if style < 0.5:
        for angle, radius, tilt in rng.uniform(
            (0, 0.45, 0), (6.3, 0.82, 6.3), (rng.integers(14, 40), 3)
        ):
            middle = radius * np.array([math.cos(angle), math.sin(angle)])
            step = 0.06 * np.array([math.cos(tilt), math.sin(tilt)])
            painter.line(
                np.stack([middle - step, middle + step]),
                0.05,
                painter.color(rng, icing, distance=50),
            )
    elif style < 0.75:
        color = painter.color(rng, icing)
        for y in np.linspace(-0.8, 0.8, 7):
            half = math.sqrt(max(0.0, 0.72 - y * y))
            painter.line(np.array([(-half, y - 0.08), (half, y + 0.08)]), 0.06, color)
    hole = rng.uniform(0.24, 0.38)
    painter.disc(0, 0, hole + 0.08, shade(dough, 0.8))
    painter.disc(0, 0, hole, None)


def fried_egg(painter: Painter, rng: Rng) -> None:
    white = painter.color(rng)
    yolk = painter.color(rng, white)
    outline = blob(rng, 0.9, 0.22)
    painter.fill(outline * 1.05, shade(white, 0.75))
    painter.fill(outline, white)
    middles = [(0.0, 0.0)] if rng.random() < 0.7 else [(-0.36, 0.05), (0.36, -0.05)]
    for middle in middles:
        radius = rng.uniform(0.3, 0.42) * (1 if len(middles) == 1 else 0.8)
        x, y = middle[0] + rng.uniform(-0.12, 0.12), middle[1] + rng.uniform(-0.12, 0.12)
        painter.disc(x, y, radius, shade(yolk, 0.82), 28)
        painter.disc(x - 0.02, y - 0.02, radius * 0.88, yolk, 28)
        painter.fill(
            circle(0, 0, radius * 0.25) * (1.4, 0.7) + (x - radius * 0.35, y - radius * 0.4),
            shade(yolk, 1.5),
        )
    for x, y in rng.normal(0, 0.45, (rng.integers(0, 12), 2)):
        painter.disc(x, y, 0.025, shade(white, 0.4), 6)


def hamburger(painter: Painter, rng: Rng) -> None:
    bun = painter.color(rng)
    wide, y = rng.uniform(0.8, 1.0), 0.75
    thick = rng.uniform(0.22, 0.32)
    painter.fill(box(0, y - thick / 2, 1.85 * wide, thick, 0.1), shade(bun, 0.9))
    y -= thick
    last: Color = bun
    for kind in rng.permutation(4)[: rng.integers(2, 5)]:
        last = painter.color(rng, last, distance=60)
        thick = rng.uniform(0.1, 0.24)
        if kind == 0:
            x = np.linspace(-wide, wide, 30)
            edge = y + 0.05 + 0.07 * np.sin(x * rng.uniform(9, 16) + rng.uniform(0, 6))
            painter.fill(
                np.concatenate([np.stack([x, edge], 1), [(wide, y - thick), (-wide, y - thick)]]),
                last,
            )
        elif kind == 1:
            painter.fill(
                np.array([(-wide, y - 0.1), (wide, y - 0.1), (0.3, y + 0.2), (-wide * 0.6, y)]),
                last,
            )
            thick = 0.1
        else:
            painter.fill(box(0, y - thick / 2, 1.9 * wide, thick, 0.05), last)
        y -= thick
    dome = np.linspace(math.pi, 2 * math.pi, 24)
    high = rng.uniform(0.55, 0.8)
    painter.fill(np.stack([0.95 * wide * np.cos(dome), y + high * np.sin(dome)], 1), bun)
    for x, share in rng.uniform((-0.6, 0.25), (0.6, 0.8), (rng.integers(0, 14), 2)):
        seed = circle(0, 0, 0.045, 8) * (1.4, 0.8) + (
            x * wide,
            y - high * share * math.sqrt(1 - x * x),
        )
        painter.fill(seed, shade(bun, 1.35))


def hot_dog(painter: Painter, rng: Rng) -> None:
    bun, wide = painter.color(rng), rng.uniform(0.55, 0.8)
    sausage = painter.color(rng, bun)
    painter.fill(box(0, 0, 1.9, wide, wide * 0.48), bun)
    painter.fill(box(0, 0.03, 1.8, wide * 0.55, wide * 0.25), shade(bun, 0.7))
    long = rng.uniform(1.9, 2.2)
    painter.fill(box(0, 0, long, wide * 0.46, wide * 0.22), sausage)
    painter.fill(box(0, -wide * 0.1, long * 0.9, wide * 0.08, wide * 0.03), shade(sausage, 1.25))
    if rng.random() < 0.8:
        x = np.linspace(-0.85, 0.85, 40)
        wave = wide * rng.uniform(0.1, 0.2) * np.sin(x * rng.uniform(9, 20) + rng.uniform(0, 6))
        painter.line(np.stack([x, wave], 1), 0.07, painter.color(rng, sausage))


def ice_cream(painter: Painter, rng: Rng) -> None:
    cone, top = painter.color(rng), rng.uniform(0.34, 0.48)
    painter.fill(np.array([(-top, 0.0), (top, 0.0), (0.0, 1.1)]), cone)
    for share in np.linspace(0.15, 0.85, 4):
        x = top * (1 - share)
        down = 1.1 * share
        painter.line(np.array([(-x, down), (x * 0.2, 0.0)]), 0.03, shade(cone, 0.7))
        painter.line(np.array([(x, down), (-x * 0.2, 0.0)]), 0.03, shade(cone, 0.7))
    scoop = cone
    count = int(rng.integers(1, 4))
    radius = top * rng.uniform(1.05, 1.2) * (1.1 if count == 1 else 1.0)
    for number in range(count):
        scoop = painter.color(rng, scoop, distance=60)
        x, y = rng.uniform(-0.08, 0.08), -radius * 0.4 - number * radius * 1.05
        painter.fill(blob(rng, radius * (1 - 0.08 * number), 0.05, x, y), scoop)
        painter.disc(x - radius * 0.35, y - radius * 0.4, radius * 0.22, shade(scoop, 1.25), 12)


def pizza(painter: Painter, rng: Rng) -> None:
    crust = painter.color(rng)
    cheese = painter.color(rng, crust, distance=70)
    slices = int(rng.integers(4, 9))
    painter.fill(blob(rng, 1.0, 0.03), crust)
    painter.fill(blob(rng, rng.uniform(0.78, 0.88), 0.04), cheese)
    for x, y in rng.uniform(-0.6, 0.6, (rng.integers(2, 6), 2)):
        painter.fill(
            blob(rng, rng.uniform(0.1, 0.25), 0.2, x, y), shade(cheese, rng.uniform(0.85, 1.15))
        )
    topping = painter.color(rng, cheese)
    second = painter.color(rng, cheese)
    for number in range(int(rng.integers(6, 14))):
        angle, radius = rng.uniform(0, 6.3), 0.72 * math.sqrt(rng.random())
        x, y = radius * math.cos(angle), radius * math.sin(angle)
        if number % 3 < 2:
            painter.disc(x, y, rng.uniform(0.11, 0.17), topping, 14)
        else:
            painter.fill(blob(rng, 0.09, 0.4, x, y), second)
    start = rng.uniform(0, 6.3)
    for angle in start + np.arange(slices) * 2 * math.pi / slices:
        painter.line(
            np.array([(0, 0), (1.05 * math.cos(angle), 1.05 * math.sin(angle))]),
            0.05,
            shade(cheese, 0.4),
        )
    if rng.random() < 0.4:  # a slice is gone
        arc = start + np.linspace(0, 2 * math.pi / slices, 8)
        painter.fill(
            np.concatenate([np.zeros((1, 2)), 1.2 * np.stack([np.cos(arc), np.sin(arc)], 1)]), None
        )


def spaghetti(painter: Painter, rng: Rng) -> None:
    pasta = painter.color(rng)
    painter.fill(blob(rng, 0.85, 0.06), shade(pasta, 0.45))
    for _ in range(int(rng.integers(24, 36))):
        angle, off = rng.uniform(0, 6.3), 0.55 * math.sqrt(rng.random())
        bend = rng.uniform(0.25, 0.6)
        arc = rng.uniform(0, 6.3) + np.linspace(0, rng.uniform(1.5, 4.0), 12)
        strand = np.stack(
            [
                off * math.cos(angle) + bend * np.cos(arc),
                off * math.sin(angle) + bend * np.sin(arc),
            ],
            1,
        )
        painter.line(strand, 0.09, shade(pasta, rng.uniform(0.6, 1.4)))
    sauce = painter.color(rng, pasta)
    if rng.random() < 0.6:
        painter.fill(blob(rng, rng.uniform(0.2, 0.34), 0.25, *rng.uniform(-0.2, 0.2, 2)), sauce)
    for x, y in rng.uniform(-0.45, 0.45, (rng.integers(0, 5), 2)):
        painter.disc(x, y, rng.uniform(0.1, 0.17), shade(sauce, 0.8), 16)


def sushi(painter: Painter, rng: Rng) -> None:
    seaweed = painter.color(rng)
    rice = painter.color(rng, seaweed)
    filling = painter.color(rng, rice)
    columns, rows = [(2, 2), (3, 1), (3, 2), (4, 1), (2, 1), (3, 3)][rng.integers(6)]
    pitch = 2.0 / max(columns, rows + 1)
    radius = min(pitch * rng.uniform(0.42, 0.48), 0.46)
    for row in range(rows):
        for column in range(columns):
            x = (column - (columns - 1) / 2) * pitch + rng.uniform(-0.04, 0.04)
            y = (row - (rows - 1) / 2) * pitch + rng.uniform(-0.04, 0.04)
            painter.disc(x, y, radius, seaweed, 24)
            painter.disc(x, y, radius * 0.8, rice, 20)
            for _ in range(int(rng.integers(1, 4))):
                dx, dy = rng.uniform(-0.14, 0.14, 2) * radius
                width, height = rng.uniform(0.35, 0.6, 2) * radius
                painter.fill(box(x + dx, y + dy, width, height), filling)


def waffles(painter: Painter, rng: Rng) -> None:
    dough = painter.color(rng)
    round_one = rng.random() < 0.4
    painter.fill(circle(0, 0, 0.98, 40) if round_one else box(0, 0, 1.8, 1.7, 0.15), dough)
    count = int(rng.integers(3, 5))
    pitch = 1.6 / count
    dark = shade(dough, rng.uniform(0.42, 0.65))
    for row in range(count):
        for column in range(count):
            x, y = (column - (count - 1) / 2) * pitch, (row - (count - 1) / 2) * pitch
            if not round_one or math.hypot(x, y) < 0.82:
                painter.fill(box(x, y, pitch * 0.66, pitch * 0.66), dark)
                painter.fill(box(x + 0.03, y + 0.03, pitch * 0.5, pitch * 0.5), shade(dark, 1.12))
    if rng.random() < 0.5:
        butter = box(rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2), 0.4, 0.35, 0.06)
        painter.fill(butter, painter.color(rng, dough, dark))
    for x, y in rng.uniform(-0.6, 0.6, (rng.integers(0, 5), 2)):
        painter.disc(x, y, 0.12, painter.color(rng, dough, distance=50), 14)


DISHES: dict[str, Dish] = {
    "cup_cakes": Dish(cup_cakes, 0.35, ("icing", "white", "chocolate", "mint", "beetroot")),
    "donuts": Dish(donuts, math.pi, ("dough", "icing", "chocolate", "white", "crust")),
    "fried_egg": Dish(fried_egg, math.pi, ("white", "white", "yolk", "carrot")),
    "hamburger": Dish(hamburger, 0.3, ("crust", "dough", "meat", "herbs", "tomato", "yolk")),
    "hot_dog": Dish(hot_dog, 0.6, ("dough", "crust", "meat", "tomato", "yolk")),
    "ice_cream": Dish(
        ice_cream, 0.6, ("dough", "icing", "mint", "chocolate", "cream", "blueberry")
    ),
    "pizza": Dish(pizza, math.pi, ("crust", "yolk", "tomato", "herbs", "cream", "meat")),
    "spaghetti": Dish(spaghetti, math.pi, ("cream", "yolk", "dough", "tomato")),
    "sushi": Dish(sushi, 0.4, ("seaweed", "spinach", "rice", "salmon", "carrot", "white")),
    "waffles": Dish(waffles, 0.4, ("dough", "crust", "yolk", "tomato")),
}
"""By class name, in alphabetical order as Food-101's."""

NATURAL = 0.9
"""Share of the images that have their dish's own colours."""
SIZES: tuple[tuple[int, int], ...] = (
    (112, 112),
    (128, 96),
    (96, 128),
    (120, 100),
    (100, 120),
    (128, 112),
)
"""(width, height) in pixels, one drawn for each image."""


def draw(dish: Dish, rng: Rng) -> Image.Image:
    """One image: a table, at times a plate, clutter, the dish with its shadow, and the light of the
    room."""
    width, height = SIZES[rng.integers(len(SIZES))]
    size = (width * OVERSAMPLING, height * OVERSAMPLING)
    scale = min(size) * rng.uniform(0.4, 0.49)
    center = (
        size[0] * (0.5 + rng.uniform(-0.06, 0.06)),
        size[1] * (0.5 + rng.uniform(-0.06, 0.06)),
    )
    shift = (int(rng.integers(-10, 11)), int(rng.integers(-10, 11)))
    image = table(rng, size)
    behind, food, front = (Image.new("RGBA", size) for _ in range(3))
    for _ in range(rng.integers(0, 2)):
        clutter(rng, behind, scale)
    if rng.random() < 0.5:
        plate(rng, behind, center, scale)
    names = dish.colors if rng.random() < NATURAL else tuple(PALETTE)
    colors = [PALETTE[name] for name in names]
    dish.paint(
        Painter(
            food, center, scale, rng.uniform(-dish.turn, dish.turn), rng.uniform(0.82, 1.0), colors
        ),
        rng,
    )
    if rng.random() < 0.15:
        clutter(rng, front, 0.7 * scale)
    for layer in (behind, food, front):
        if area := layer.getbbox():
            cast_shadow(image, layer, shift, 0.35)
            part = layer.crop(area)
            image.paste(part, area, part)
    return light(rng, image.reduce(OVERSAMPLING))
