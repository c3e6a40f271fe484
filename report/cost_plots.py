"""The figure of what accuracy costs: a panel a cost, each with its Pareto front."""

from __future__ import annotations

import matplotlib
import seaborn as sns
from matplotlib.figure import Figure

from report import costs
from report.plots import FAINT, INK, SOFT, STYLE, empty_figure, group_colours
from report.tables import Summary


def accuracy_vs_costs(summary: Summary) -> Figure | None:
    """Top-1 against every cost that the runs have; a line joins each front, numbers are those of
    the path."""
    table = costs.table(summary)
    known = costs.known(table)
    if not known:
        return None
    columns = min(3, len(known))
    lines = -(-len(known) // columns)
    of_step = group_colours(summary)
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(3.6 * columns, 3.1 * lines + 0.5)
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axes, cost in zip(grid.flat, known, strict=False):
            here = table[table[cost.name].notna()]
            best = here[here[f"front_{cost.name}"]].sort_values(cost.name)
            axes.plot(
                best[cost.name], best["top1"], color=SOFT, lw=1.2, drawstyle="steps-post", zorder=1
            )
            edges, on = [of_step[name] for name in here["name"]], here[f"front_{cost.name}"]
            faces = ["white" if not own else edge for own, edge in zip(on, edges, strict=True)]
            axes.scatter(here[cost.name], here["top1"], s=42, c=faces, edgecolors=edges, zorder=3)
            for row in here[here["number"].notna()].to_dict("records"):
                axes.annotate(
                    str(int(row["number"])),
                    (row[cost.name], row["top1"]),
                    (4, 4),
                    textcoords="offset points",
                    fontsize=8,
                    color=INK if row[f"front_{cost.name}"] else SOFT,
                    zorder=4,
                )
            axes.set_xlabel(cost.title)
            axes.margins(0.12, 0.12)
        for axes in grid.flat[len(known) :]:
            axes.set_visible(False)
        grid[0, 0].set_ylim(auto=True)
        sns.despine(fig=figure)
        for axes in grid.flat:
            axes.grid(color=FAINT, lw=0.6)
        figure.suptitle(
            "Accuracy against what it costs; filled: on the Pareto front",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        figure.supylabel("top-1 accuracy (%)", fontsize=10)
    return figure
