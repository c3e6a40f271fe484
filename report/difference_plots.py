"""Figures of where rows differ: classes, confusion, reliability."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from report import calibration, classes
from report.plots import FAINT, INK, SOFT, STYLE, empty_figure, points_axes
from report.tables import Summary

RIGHT, WRONG = (
    sns.color_palette("colorblind").as_hex()[2],
    sns.color_palette("colorblind").as_hex()[3],
)
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


def changed_predictions(summary: Summary) -> Figure | None:
    """Test images that each step turns from wrong to right and back, and how many two seeds do."""
    table = classes.changed_predictions(summary)
    if table.empty:
        return None
    names = [f"{row} \N{MINUS SIGN} {after}" for row, after in zip(table["step"], table["after"])]
    with points_axes(names, "test images whose prediction most seeds change") as (figure, axes):
        places = np.arange(len(table))
        axes.barh(places, table["to_right"], color=RIGHT, height=0.6, label="wrong to right")
        axes.barh(places, -table["to_wrong"], color=WRONG, height=0.6, label="right to wrong")
        half = table["between_seeds"] / 2
        for end in (half, -half):
            axes.scatter(end, places, marker="|", s=90, c=INK, zorder=3)
        axes.set_title(
            "Changed predictions; black: half of what two seeds differ in", loc="left", fontsize=11
        )
        axes.legend(frameon=False, fontsize=9)
    return figure
