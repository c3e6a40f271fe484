"""Figures of where rows differ: classes, confusion, reliability."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from report import calibration, classes, flips, thumbnails
from report.plots import FAINT, INK, SOFT, STYLE, empty_figure
from report.tables import Summary

MOST_CLASSES = 40
"""In a figure on paper; of more, those that gained and lost most."""


def class_changes(summary: Summary) -> Figure | None:
    """Change of each class at each step (points), classes in order of their change over the whole
    path."""
    if not classes.pairs(summary):
        return None
    changes = classes.table(summary)
    grid, rows, columns = changes_grid(summary)
    if len(rows) > MOST_CLASSES:
        kept = [*range(MOST_CLASSES // 2), *range(len(rows) - MOST_CLASSES // 2, len(rows))]
        grid, rows = grid[kept], [rows[i] for i in kept]
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(2.6 + 0.44 * len(columns), 2.8 + 0.2 * len(rows))
        axes = figure.add_subplot()
        reach = max(1.0, float(np.nanmax(np.abs(grid))))
        _heat(
            axes,
            grid,
            rows,
            columns,
            "change of top-1 (points)",
            vmin=-reach,
            vmax=reach,
            cmap="vlag_r",
        )
        shown = (
            ""
            if len(rows) == changes["class"].nunique()
            else f", {len(rows)} of {changes['class'].nunique()}"
        )
        axes.set_title(f"Change of each class at each step{shown}", loc="left", fontsize=11)
    return figure


def changes_grid(summary: Summary) -> tuple[np.ndarray, list[str], list[str]]:
    """Points (classes, comparisons), the classes in order of the last comparison's change, and what
    is compared."""
    changes = classes.table(summary)
    pairs = classes.pairs(summary)
    names = list(dict.fromkeys(changes["class"]))
    grid = changes["points"].to_numpy().reshape(len(pairs), len(names)).T
    order = np.argsort(-grid[:, -1], kind="stable")
    steps = {step.name: step.after for step in summary.study.steps}
    titles = [row if steps[row] == after else f"{row} − {after}" for row, after in pairs]
    return grid[order], [names[i] for i in order], titles


def confusion(summary: Summary) -> Figure | None:
    """What the last step takes each class for, in percent of the class; of many classes, those with
    most errors."""
    pairs = classes.confusion(summary)
    if pairs.empty:
        return None
    errors = pairs.groupby("class")["percent"].sum().sort_values(ascending=False, kind="stable")
    of_interest = set(errors.index[:MOST_CLASSES]) | (
        set(pairs["taken_for"]) if len(errors) <= MOST_CLASSES else set()
    )
    names = [name for name in summary.study.dataset.classes if name in of_interest]
    grid = pairs.pivot(index="class", columns="taken_for", values="percent").reindex(
        index=names, columns=names
    )
    with matplotlib.rc_context(STYLE):
        size = 2.6 + 0.24 * max(8, len(names))
        figure = empty_figure(size + 0.8, size)
        axes = figure.add_subplot()
        _heat(
            axes,
            grid.astype(float).fillna(0),
            names,
            names,
            "percent of the class",
            vmin=0,
            cmap="rocket_r",
        )
        axes.set_xlabel("taken for")
        axes.set_ylabel("class")
        axes.set_title(
            f"What {classes.last(summary)} confuses (the diagonal is left out)",
            loc="left",
            fontsize=11,
        )
    return figure


def _heat(
    axes: Axes, grid: Any, rows: list[str], columns: list[str], what: str, **colour: Any
) -> None:
    """Not seaborn's: that calls what matplotlib 3.11 will deprecate."""
    mesh = axes.pcolormesh(np.asarray(grid), edgecolors="white", linewidth=0.3, **colour)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=90)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8, length=0)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.colorbar(mesh, ax=axes, label=what, shrink=0.9).outline.set_visible(False)


def reliability(summary: Summary) -> Figure | None:
    """Accuracy against confidence, bin by bin: the path's first and last step, the others in
    grey."""
    table = calibration.reliability(summary)
    if table.empty:
        return None
    path = [
        step.name
        for step in summary.study.steps
        if step.number is not None and step.name in set(table["name"])
    ]
    marked = dict(
        zip(dict.fromkeys([*path[:1], *path[-1:]]), sns.color_palette("colorblind"), strict=False)
    )
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(5.4, 4.8)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=SOFT, lw=1, ls=(0, (3, 2)), zorder=1)
        for name, mine in table.groupby("name", sort=False):
            of: dict[str, Any] = {"color": FAINT, "lw": 0.8}
            if name in marked:
                of = {
                    "color": marked[name],
                    "lw": 1.8,
                    "marker": "o",
                    "ms": 4,
                    "label": name,
                    "zorder": 3,
                }
            axes.plot(mine["confidence"], mine["accuracy"], **of)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.set_title(
            "Reliability: below the dashed line is overconfidence", loc="left", fontsize=11
        )
        if marked:
            axes.legend(frameon=False, fontsize=9)
        sns.despine(ax=axes)
    return figure


def turned(summary: Summary) -> Figure | None:
    """Test images that most seeds turned over the whole path, of those that the study has a
    thumbnail of."""
    kept = summary.study.thumbnails
    strips = {way: own[own["image"].isin(list(kept))] for way, own in flips.strips(summary).items()}
    strips = {way: own for way, own in strips.items() if len(own)}
    if not strips:
        return None
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(1.15 * flips.SHOWN, 1.75 * len(strips) + 0.3)
        grid = figure.subplots(len(strips), flips.SHOWN, squeeze=False)
        for line, (way, own) in zip(grid, strips.items(), strict=True):
            for axes, row in itertools.zip_longest(line, own.to_dict("records")):
                axes.set_axis_off()
                if row is None:
                    continue
                axes.imshow(
                    thumbnails.pixels(kept[row["image"]]), interpolation="none"
                )  # its own pixels in the SVG
                seeds = f"{100 * row['right_before']:.0f} → {100 * row['right_now']:.0f} %"
                axes.set_title(f"\n{_short(row['class'])}\n{seeds}", fontsize=7.5, color=INK)
            line[0].annotate(
                f"Turned {way}",
                (0, 1),
                (0, 26),
                xycoords="axes fraction",
                textcoords="offset points",
                fontsize=9.5,
                fontweight="bold",
            ).set_in_layout(False)
        one, other = classes.pairs(summary)[-1]
        figure.suptitle(
            f"From {other} to {one}: seeds that are right, before and now",
            x=0.01,
            ha="left",
            fontsize=11,
        )
    return figure


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
