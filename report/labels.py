"""Labels beside the points of a scatter plot, clear of each other, of the markers and of the lines.

adjustText pushes labels apart, but from the points themselves it often ends with labels on a line or leaders
that cross. So each label first takes the best free place around its point, and adjustText does the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.text import Text

ITERATIONS = 200  # a limit in time would make the figure depend on the machine
_CLEAR = 9.0  # points from the middle of a marker to the edge of its label
_HEIGHTS = (0, 12, -12, 24, -24, 38, -38, 54, -54, 74, -74, 96, -96)
_SIDES = (1, -1, 0.45, -0.45)
_FAR = (0, 18, 45, 80)


def place(texts: Sequence[Text], points: np.ndarray, path: Sequence[int], axes: Axes) -> None:
    """Move `texts`, one for each of `points` (n, 2) in data coordinates; `path` joins points by their index."""
    scale = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    spots = axes.transData.transform(points)
    sizes = np.array([[text.get_window_extent().width, text.get_window_extent().height] for text in texts])
    parts = [_along(spots[a], spots[b], 5 * scale) for a, b in itertools.pairwise(path)]
    line = np.concatenate([np.empty((0, 2)), *parts])
    crowd = np.linalg.norm(spots[:, None] - spots[None], axis=2)
    boxes: dict[int, np.ndarray] = {}
    leaders: dict[int, np.ndarray] = {}
    for i in np.argsort(np.sort(crowd, axis=1)[:, :5].sum(axis=1), kind="stable").tolist():
        found: tuple[float, np.ndarray] = (np.inf, spots[i])
        for centre in _candidates(spots[i], sizes[i], scale):
            box = np.concatenate([centre - sizes[i] / 2 - 2 * scale, centre + sizes[i] / 2 + 2 * scale])
            cost = float(np.linalg.norm(np.clip(spots[i], box[:2], box[2:]) - spots[i])) / scale
            if cost >= found[0]:
                continue
            cost += 1000 * (not _within(box, axes))
            cost += 8 * (abs(centre[0] - spots[i][0]) < sizes[i][0] / 2)  # beside is better than above or below
            cost += 60 * _inside(spots, box, 5 * scale).sum() + 4 * _inside(line, box).sum()
            cost += sum(200 * (_overlap(box, other) > 0) for other in boxes.values())
            if cost >= found[0]:
                continue
            leader = _along(spots[i], centre, 3 * scale)[2:]
            leader = leader[~_inside(leader, box)]
            cost += sum(15 * _inside(leader, other).sum() for other in boxes.values())
            cost += sum(15 * _inside(other, box).sum() for other in leaders.values())
            cost += sum(60 * _close(leader, other, 3 * scale) for other in leaders.values())
            cost += 20 * _close(leader, np.delete(spots, i, axis=0), 5 * scale)
            if cost < found[0]:
                found = cost, centre
                placed = box, leader
        boxes[i], leaders[i] = placed
        texts[i].set_position(axes.transData.inverted().transform(found[1]))
    for text in texts:
        text.set(ha="center", va="center")
    adjust_text(
        list(texts), points[:, 0], points[:, 1], target_x=points[:, 0], target_y=points[:, 1], ax=axes,
        avoid_self=False, expand=(1.02, 1.1), force_text=(0.1, 0.2), force_static=(0.1, 0.2),
        force_pull=0, force_explode=0, iter_lim=ITERATIONS, min_arrow_len=10 * scale, prevent_crossings=False,
        arrowprops={"arrowstyle": "-", "color": "#6b7580", "lw": 0.7, "shrinkA": 1, "shrinkB": 4},
    )  # fmt: skip


def _candidates(spot: np.ndarray, size: np.ndarray, scale: float) -> list[np.ndarray]:
    """Middles of boxes around a point, in pixels: right and left first, then further up, down and away."""
    places = []
    for side in _SIDES:
        for height in _HEIGHTS:
            for far in _FAR if abs(side) == 1 else (0,):
                if abs(side) < 1 and abs(height) * scale < size[1] / 2 + 6 * scale:
                    continue
                across = side * (size[0] / 2 + (_CLEAR + far) * scale * (abs(side) == 1))
                places.append(spot + np.array([across, height * scale]))
    return places


def _along(start: np.ndarray, end: np.ndarray, spacing: float) -> np.ndarray:
    """Places on a line, about `spacing` apart."""
    return np.linspace(start, end, max(2, int(np.linalg.norm(end - start) / spacing)))


def _inside(points: np.ndarray, box: np.ndarray, margin: float = 0.0) -> np.ndarray:
    found: np.ndarray = np.all((points > box[:2] - margin) & (points < box[2:] + margin), axis=1)
    return found


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    shared = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(np.prod(np.maximum(shared, 0)))


def _close(one: np.ndarray, other: np.ndarray, reach: float) -> bool:
    if not len(one) or not len(other):
        return False
    return bool((np.linalg.norm(one[:, None] - other[None], axis=2) < reach).any())


def _within(box: np.ndarray, axes: Axes) -> bool:
    area = axes.get_window_extent().extents
    return bool((box[:2] >= area[:2]).all() and (box[2:] <= area[2:]).all())


def overlaps(texts: Sequence[Text]) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes share more than a hair."""
    boxes = [np.asarray(text.get_window_extent().extents) for text in texts]
    return [
        (texts[i].get_text(), texts[j].get_text())
        for i in range(len(boxes))
        for j in range(i)
        if _overlap(boxes[i], boxes[j]) > 4
    ]
