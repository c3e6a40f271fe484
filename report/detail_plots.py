"""The figures of costs and of where rows differ: classes, confusion, reliability, predictions."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from report import calibration, classes, costs
from report.plots import (
    COLORS,
    INK,
    PAPER,
    SOFT,
    STYLE,
    describe,
    empty_figure,
    group_colors,
    points_axes,
    set_tooltip,
)
from report.tables import Summary
from utils.markdown import amount

MOST_CLASSES = 40
"""Classes in a figure; of more, those that gained and lost most, or with the most errors."""
_BLUE, _ORANGE = COLORS[:2]
# Transparent where there is nothing to see, so that they fit a light and a dark page.
_NODES = [(0, _ORANGE), (0.5, f"{_ORANGE}00"), (0.5, f"{_BLUE}00"), (1, _BLUE)]
_DIVERGING = LinearSegmentedColormap.from_list("change", _NODES)
_SEQUENTIAL = LinearSegmentedColormap.from_list("share", [f"{_ORANGE}00", _ORANGE])


def accuracy_vs_costs(summary: Summary) -> Figure | None:
    """Top-1 against every cost that the runs have; a line joins each Pareto front."""
    table = costs.table(summary)
    known = costs.known(table)
    if not known:
        return None
    columns = min(3, len(known))
    lines = -(-len(known) // columns)
    colors = group_colors(summary)
    steps = {step.name: step for step in summary.study.steps}
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(3.6 * columns, 3.1 * lines + 0.5)
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axes, cost in zip(grid.flat, known, strict=False):
            shown = table[table[cost.name].notna()]
            best = shown[shown[f"front_{cost.name}"]].sort_values(cost.name)
            axes.plot(best[cost.name], best["top1"], color=SOFT, lw=1.2, ds="steps-post", zorder=1)
            for row in shown.to_dict("records"):
                color, on_front = colors[row["name"]], row[f"front_{cost.name}"]
                spot = (row[cost.name], row["top1"])
                face = color if on_front else PAPER
                dots = axes.scatter(*spot, s=42, c=face, edgecolors=color, zorder=3)
                about = describe(summary, steps[row["name"]])
                set_tooltip(dots, f"{about}; {cost.title}: {amount(spot[0])}")
                if not pd.isna(row["number"]):
                    look: dict[str, Any] = {"fontsize": 8, "color": INK if on_front else SOFT}
                    number = str(int(row["number"]))
                    axes.annotate(number, spot, (4, 4), textcoords="offset points", **look)
            axes.set_xlabel(cost.title)
            axes.margins(0.12, 0.12)
        for axes in grid.flat[len(known) :]:
            axes.set_visible(False)
        sns.despine(fig=figure)
        figure.supylabel("top-1 accuracy (%)", fontsize=10)
    return figure


def class_changes(summary: Summary) -> Figure | None:
    """Change of each class at each step (points), in order of the change over the whole path."""
    changes = classes.table(summary)
    if changes.empty:
        return None
    after = {step.name: step.after for step in summary.study.steps}
    titles = [
        row if after[row] == other else f"{row} against {other}"
        for row, other in classes.pairs(summary)
    ]
    grid = changes.pivot(index="class", columns=["step", "after"], values="points")
    grid = grid[classes.pairs(summary)]
    grid = grid.sort_values(grid.columns[-1], ascending=False, kind="stable")
    if len(grid) > MOST_CLASSES:
        grid = pd.concat([grid.head(MOST_CLASSES // 2), grid.tail(MOST_CLASSES // 2)])
    most = max(1.0, float(np.nanmax(np.abs(grid.to_numpy()))))
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(2.6 + 0.5 * len(titles), 2.8 + 0.22 * len(grid))
        axes = figure.add_subplot()
        color: dict[str, Any] = {"vmin": -most, "vmax": most, "cmap": _DIVERGING}
        _draw_heatmap(axes, grid.to_numpy(), list(grid.index), titles, "points of top-1", **color)
        axes.set_title("Change of each class at each step")
    return figure


def confusion(summary: Summary) -> Figure | None:
    """Classes that the last step confuses, in percent of the true class; those with most errors."""
    pairs = classes.confusion(summary)
    if pairs.empty:
        return None
    errors = pairs.groupby("class")["percent"].sum().sort_values(ascending=False, kind="stable")
    chosen = set(errors.index[:MOST_CLASSES])
    if len(errors) <= MOST_CLASSES:
        chosen |= set(pairs["taken_for"])
    names = [name for name in summary.study.dataset.classes if name in chosen]
    grid = pairs.pivot(index="class", columns="taken_for", values="percent")
    cells = grid.reindex(index=names, columns=names).astype(float).fillna(0).to_numpy()
    with matplotlib.rc_context(STYLE):
        size = 2.6 + 0.3 * max(8, len(names))
        figure = empty_figure(size + 0.8, size)
        axes = figure.add_subplot()
        _draw_heatmap(axes, cells, names, names, "percent of the class", vmin=0, cmap=_SEQUENTIAL)
        axes.set_xlabel("taken for")
        axes.set_ylabel("class")
        axes.set_title(f"What {classes.last(summary)} confuses")
    return figure


def _draw_heatmap(
    axes: Axes, cells: np.ndarray, rows: list[str], columns: list[str], label: str, **color: Any
) -> None:
    """Seaborn's heatmap calls what matplotlib 3.11 deprecates."""
    mesh = axes.pcolormesh(cells, edgecolors=SOFT, linewidth=0.1, **color)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=90)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8, length=0)
    axes.grid(visible=False)
    for line, place in np.argwhere(np.abs(cells) >= 0.5) if cells.size <= 600 else []:
        at: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5}
        axes.text(place + 0.5, line + 0.5, f"{cells[line, place]:.0f}", **at)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.colorbar(mesh, ax=axes, label=label, shrink=0.9).outline.set_visible(False)


def reliability(summary: Summary) -> Figure | None:
    """Accuracy against confidence, bin by bin: the path's first and last step, others in gray."""
    table = calibration.reliability(summary)
    if table.empty:
        return None
    path = [step.name for step in summary.study.steps if step.number is not None]
    known = [name for name in path if name in set(table["name"])]
    marked = dict(zip(dict.fromkeys([*known[:1], *known[-1:]]), COLORS, strict=False))
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(5.4, 4.8)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=SOFT, lw=1, ls="--", zorder=1)
        for name, mine in table.groupby("name", sort=False):
            look: dict[str, Any] = {"color": SOFT, "alpha": 0.4, "lw": 0.8}
            if name in marked:
                look = {"color": marked[name], "lw": 1.8, "marker": "o", "ms": 4, "label": name}
            (line,) = axes.plot(mine["confidence"], mine["accuracy"], **look)
            set_tooltip(line, f"{name}: {len(mine)} bins of confidence")
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.set_title("Reliability; below the dashed line is overconfidence")
        if marked:
            axes.legend(frameon=False, fontsize=9)
        sns.despine(ax=axes)
    return figure


def changed_predictions(summary: Summary) -> Figure | None:
    """Test images that each step turns from wrong to right and back, and what two seeds change."""
    table = classes.changed_predictions(summary)
    if table.empty:
        return None
    names = [f"{row['step']} against {row['after']}" for row in table.to_dict("records")]
    label = "test images whose prediction most seeds change"
    with points_axes(names, label) as (figure, axes):
        places = np.arange(len(table))
        axes.barh(places, table["to_right"], color=_BLUE, height=0.6, label="wrong to right")
        axes.barh(places, -table["to_wrong"], color=_ORANGE, height=0.6, label="right to wrong")
        for end in (0.5, -0.5):
            axes.scatter(end * table["between_seeds"], places, marker="|", s=90, c=INK, zorder=3)
        about = table.to_dict("records")
        for bar, row in zip(axes.patches, [*about, *about], strict=True):
            counts = f"{row['to_right']} wrong to right, {row['to_wrong']} right to wrong"
            set_tooltip(bar, f"{row['step']} against {row['after']}: {counts}")
        axes.set_title("Changed predictions; black: half of what two seeds differ in")
        axes.legend(frameon=False, fontsize=9)
    return figure
