"""The figures of the steps: accuracy, compute, differences and learning curves.

Each function returns a matplotlib figure, or None where the study has nothing to draw yet.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablations import Step
from report.tables import Summary
from utils.markdown import MINUS, amount, interval, signed

INK, SOFT, FAINT, GRID, PAPER = "#1c2128", "#6b7580", "#d8dee4", "#e6eaee", "#ffffff"
"""The page's colours (`report.web` replaces them by its own)."""
COLORS = [sns.color_palette("colorblind").as_hex()[i] for i in (0, 1, 2, 4, 3, 9, 5, 8, 6, 7)]
"""Seaborn's palette for the color-blind, in an order that keeps neighboring groups apart."""
_DPI = 150  # of a PNG
_TIP = "tip: "
STYLE = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("notebook", font_scale=0.85),
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": SOFT,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "hatch.linewidth": 1.2,
}


def empty_figure(width: float, height: float) -> Figure:
    """A figure without pyplot: no display, and no state shared with a caller's own figures."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def set_tooltip(artist: Artist, text: str) -> None:
    """Show `text` where the pointer is over this artist of an SVG file."""
    artist.set_gid(_TIP + text)


def save(figure: Figure, path: Path) -> None:
    """Write `path`.png and `path`.svg; the same figure gives the same bytes.

    In the SVG file text is text, tooltips are <title> elements, and no id is also in the SVG file
    of another name.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": path.name}):
        settle(figure)
        figure.set_dpi(_DPI)
        FigureCanvasAgg(figure).print_png(f"{path}.png", metadata={"Software": None})  # type: ignore[no-untyped-call]
        FigureCanvasSVG(figure).print_svg(f"{path}.svg", metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    file = Path(f"{path}.svg")
    tip = rf'<g id="{_TIP}([^"]*)"([^>]*)>'
    svg = re.sub(tip, r"<g\2><title>\1</title>", file.read_text(encoding="utf-8"))
    file.write_text(re.sub(r'<g id="[^"]*"', "<g", svg), encoding="utf-8")


def settle(figure: Figure) -> None:
    """Lay the figure out for good, without drawing anything."""
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


@contextmanager
def points_axes(
    names: Sequence[str], label: str, space: float = 1.7, *, differences: bool = True
) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one line per name, from the top down, to be drawn into within the block.

    `label` is that of the x axis, in points of top-1 where it shows `differences`; `space` is the
    height above and below the lines, in inches.
    """
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(9.6, 0.34 * len(names) + space)
        axes = figure.add_subplot()
        yield figure, axes
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(label)
        if differences:
            axes.axvline(0, color=SOFT, lw=1, zorder=1)
            axes.xaxis.set_major_formatter(
                lambda value, _: f"{value:+g}".replace("-", MINUS) if value else "0"
            )
        sns.despine(ax=axes, left=True)


def step_label(step: Step) -> str:
    """The step's number, where it has one, and name."""
    return step.name if step.number is None else f"{step.number}  {step.name}"


def group_colors(summary: Summary) -> dict[str, str]:
    """The color of each step: that of its group."""
    groups = dict.fromkeys(step.group for step in summary.study.steps if not step.reference)
    of_group = dict(zip(groups, itertools.cycle(COLORS)))
    return {
        step.name: INK if step.reference else of_group[step.group] for step in summary.study.steps
    }


def describe(summary: Summary, step: Step) -> str:
    """A step's tooltip: its accuracy, seeds, and difference with interval and verdict."""
    row = summary.by_step[step.name]
    spread = "" if pd.isna(row["top1_std"]) else f" ± {row['top1_std']:.2f}"
    text = f"{step_label(step)}: top-1 {row['top1']:.2f}{spread} %, n = {row['runs']}"
    one = summary.differences.get(step.name)
    if one is None:
        return text
    low, high = one.these_runs if one.answer is None else (one.answer.low, one.answer.high)
    return f"{text}; {signed(one.points)} {interval(low, high)} from {one.pair[1]}, {one.text}"


def _subtitle(summary: Summary, *, spread: str = "mean ± standard deviation") -> str:
    study = summary.study
    counts = {len(array) for array in summary.correct.values()} or {1}
    seeds = f", {spread} over {'up to ' if len(counts) > 1 else ''}{max(counts)} seeds"
    synthetic = " (synthetic images)" if study.dataset.synthetic else ""
    return (
        f"{study.dataset.name}{synthetic}, {study.dataset.test:,} test images"
        f"{seeds if max(counts) > 1 else ''}"
    )


def _set_titles(axes: Axes, title: str, subtitle: str) -> None:
    axes.set_title(title, pad=22)
    axes.annotate(
        subtitle,
        (0, 1),
        (0, 7),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        color=SOFT,
    )


def steps(summary: Summary) -> Figure | None:
    """One bar per step, in the manner of the paper's Figure 2, with its difference and GFLOPs."""
    table = summary.steps
    if not table["runs"].any():
        return None
    rows = summary.study.steps
    low, high = table["top1"].min(), (table["top1"] + table["top1_std"].fillna(0)).max()
    start = max(0.0, math.floor(low - 0.35 * max(high - low, 1.0)))
    label = f"top-1 accuracy (%); the bars begin at {start:g} %"
    colors = group_colors(summary)
    names = [step_label(step) for step in rows]
    with points_axes(names, label, space=2.0, differences=False) as (figure, axes):
        description = summary.study.roadmap.description
        title = f"{description[0].upper()}{description[1:]}, step by step"
        _set_titles(axes, title, _subtitle(summary))
        axes.set_xlim(start, high + 0.3 * max(high - start, 1.0))
        axes.grid(visible=False, axis="y")
        for place, step in enumerate(rows):
            row = summary.by_step[step.name]
            if not row["runs"]:
                axes.text(start, place, " no finished run", va="center", style="italic", color=SOFT)
                continue
            _draw_bar(axes, place, step, row, start, colors[step.name])
            set_tooltip(axes.patches[-1], describe(summary, step))
        handles = [
            Line2D([], [], color=colors[own[0].name], lw=6, label=group)
            for group, own in ((g, list(s)) for g, s in itertools.groupby(rows, lambda s: s.group))
        ]
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8.6)
    return figure


def _draw_bar(
    axes: Axes, place: int, step: Step, row: dict[str, Any], start: float, color: str
) -> None:
    axes.barh(
        place,
        row["top1"] - start,
        left=start,
        height=0.5 if step.off_path else 0.72,
        color=PAPER if step.off_path else color,
        edgecolor=color,
        hatch="////" if step.off_path else None,
        zorder=2,
    )
    text, end = f"{row['top1']:.2f}", row["top1"]
    if not pd.isna(row["top1_std"]):
        axes.errorbar(row["top1"], place, xerr=row["top1_std"], color=INK, capsize=2.5, zorder=3)
        text, end = f"{text} ± {row['top1_std']:.2f}", end + row["top1_std"]
    if not pd.isna(row["difference"]):
        text += f"  ({signed(row['difference'])})"
    text += f"  {amount(row['gflops_paper_convention'])} GFLOPs"
    beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9}
    axes.annotate(text, (end, place), (5, 0), **beside)


def accuracy_vs_gflops(summary: Summary) -> Figure | None:
    """Top-1 against GFLOPs: arrows from step to step of the path, other markers off the path."""
    rows = summary.steps[summary.steps["runs"] > 0].set_index("name")
    if rows.empty:
        return None
    shown = [step for step in summary.study.steps if step.name in rows.index]
    x, y = rows["gflops_paper_convention"], rows["top1"]
    colors, marks = group_colors(summary), _marks(shown)
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(9.6, max(6.2, 0.19 * len(shown) + 1.2))
        axes = figure.add_subplot()
        _set_titles(axes, "Accuracy against compute", _subtitle(summary))
        axes.errorbar(x, y, yerr=rows["top1_std"].fillna(0), fmt="none", ecolor=SOFT, elinewidth=1)
        path = [step for step in shown if step.number is not None]
        for one, other in itertools.pairwise(path):
            arrow = {"arrowstyle": "-|>", "color": SOFT, "alpha": 0.6, "shrinkA": 4, "shrinkB": 5}
            skips = (one.number or 0) + 1 != other.number
            to, start = (x[other.name], y[other.name]), (x[one.name], y[one.name])
            axes.annotate("", to, start, arrowprops={**arrow, "ls": "--" if skips else "-"})
        for step in shown:
            color = colors[step.name]
            look: dict[str, Any] = {"c": PAPER if step.off_path else color, "edgecolors": color}
            marker, size = _marker(step)
            look |= {"marker": marker, "s": size, "label": f"{marks[step.name]}  {step.name}"}
            dots = axes.scatter(x[step.name], y[step.name], linewidths=1.4, zorder=3, **look)
            flops = f"{amount(x[step.name])} GFLOPs"
            set_tooltip(dots, f"{describe(summary, step)}; {flops}")
        axes.set_xlabel(f"GFLOPs (convolutions and classifier, regime {summary.study.regime})")
        axes.set_ylabel("top-1 accuracy (%)")
        axes.margins(0.06)
        sns.despine(ax=axes)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8.6)
        settle(figure)  # marks are placed in pixels
        _write_marks(axes, [(x[name], y[name], mark) for name, mark in marks.items()])
    return figure


def _marker(step: Step) -> tuple[str, int]:
    """Shape and size."""
    return ("*", 170) if step.reference else ("D", 34) if step.off_path else ("o", 62)


def _marks(shown: Sequence[Step]) -> dict[str, str]:
    """A short mark for each step: its number, or a letter where it has none."""
    unnumbered = [step.name for step in shown if step.number is None]
    letters = {name: chr(97 + i % 26) * (1 + i // 26) for i, name in enumerate(unnumbered)}
    return {step.name: letters.get(step.name, str(step.number)) for step in shown}


def _write_marks(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write the mark of each point (x, y, mark) at the nearest place clear of points and marks."""
    scale = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    spots = axes.transData.transform([(x, y) for x, y, _ in points]) / scale
    taken = list(spots)
    turns = np.radians([0, 180, 30, -30, 150, 210, 60, -60, 120, 240, 90, 270])
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    for (x, y, mark), spot in zip(points, spots, strict=True):
        tried = (far * turn for far in itertools.count(13, 5) for turn in circle)
        away = next(
            shift
            for shift in tried
            if min(np.hypot(*(spot + shift - other)) for other in taken) > 12
        )
        taken.append(spot + away)
        line = {"arrowstyle": "-", "color": SOFT, "lw": 0.7, "shrinkA": 7, "shrinkB": 5}
        axes.annotate(
            mark,
            (x, y),
            tuple(away),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8.6,
            zorder=5,
            gid=f"mark-{mark}",
            arrowprops={**line, "patchA": None},
        )


def differences(summary: Summary) -> Figure | None:
    """Each step's difference with the interval that decides, and the paper's difference."""
    rows = [step for step in summary.study.steps if step.name in summary.differences]
    if not rows:
        return None
    names = [step_label(step) for step in rows]
    label = "difference in top-1 to the step it changes (points)"
    with points_axes(names, label, space=2.0) as (figure, axes):
        paper_too = ", here and in the paper" if summary.held_against_the_paper else ""
        _set_titles(axes, f"What each step changes{paper_too}", _subtitle(summary, spread="mean"))
        colors = group_colors(summary)
        for place, step in enumerate(rows):
            ours, paper = summary.differences[step.name], summary.paper_difference(step)
            bounds, style = ours.these_runs, ":"
            if ours.answer is not None:
                bounds, style = (ours.answer.low, ours.answer.high), "-"
            color = colors[step.name]
            axes.plot(bounds, [place, place], color=color, lw=1.6, ls=style, zorder=2)
            face = color if ours.sign else PAPER
            look: dict[str, Any] = {"c": face, "edgecolors": color, "linewidths": 1.6}
            dots = axes.scatter(ours.points, place, s=70, zorder=4, **look)
            set_tooltip(dots, describe(summary, step))
            if paper is not None:
                dots = axes.scatter(paper, place, marker="D", s=30, c=INK, linewidths=0, zorder=5)
                set_tooltip(dots, f"{step.name} in the paper: {signed(paper)} points")
        dot: dict[str, Any] = {"color": SOFT, "marker": "o", "ms": 8}
        handles = [
            Line2D([], [], label="a gain or a loss (line: 95 % interval)", **dot),
            Line2D([], [], label="neither (dotted: one seed, these runs)", mfc=PAPER, **dot),
        ]
        if summary.held_against_the_paper:
            handles.append(Line2D([], [], ls="", marker="D", color=INK, ms=5, label="paper"))
        below: dict[str, Any] = {"loc": "outside lower center", "ncols": 3, "frameon": False}
        figure.legend(handles=handles, fontsize=9, **below)
    return figure


def learning_curves(summary: Summary) -> Figure | None:
    """Validation top-1 per epoch, a panel per group: means over seeds, and their range as a band.

    A step without a finished run is dashed.
    """
    curves = summary.curves
    if curves.empty:
        return None
    shown = [step for step in summary.study.steps if (curves["step"] == step.name).any()]
    panels = _panels(shown)
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(max(6.6, 3.9 * columns + 0.4), 3.3 * lines + 0.5)
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (title, members) in zip(grid.flat, panels.items(), strict=False):
            for step, color in zip(members, sns.color_palette("colorblind", len(members))):
                _draw_curve(axes, summary, step, color)
            axes.set_title(title)
            axes.legend(loc="lower right", framealpha=0.8, edgecolor="none", fontsize=8)
            axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        # The first steep epochs would squeeze all that there is to compare.
        late = curves[curves["epoch"] >= 0.2 * curves["epoch"].max()]["validation_top1"]
        margin = 0.06 * max(1.0, late.max() - late.min())
        axes = grid[0, 0]
        axes.set_ylim(max(0.0, late.min() - margin), min(100.0, late.max() + margin))
        sns.despine(fig=figure)
        figure.supxlabel("epoch", fontsize=10)
        figure.supylabel("validation top-1 (%)", fontsize=10)
    return figure


def _draw_curve(axes: Axes, summary: Summary, step: Step, color: Any) -> None:
    finished = [run.seed for run in summary.study.finished(step.name)]
    mine = summary.curves[summary.curves["step"] == step.name]
    if finished:
        mine = mine[mine["seed"].isin(finished)]
    by_epoch = mine.groupby("epoch")["validation_top1"].agg(["mean", "min", "max"])
    seeds = mine["seed"].nunique()
    look: dict[str, Any] = {"marker": "o" if len(by_epoch) == 1 else None, "ms": 4, "lw": 1.4}
    (line,) = axes.plot(
        by_epoch.index,
        by_epoch["mean"],
        color=color,
        ls="-" if finished else "--",
        label=step_label(step),
        **look,
    )
    if seeds > 1:
        edges = by_epoch["min"], by_epoch["max"]
        axes.fill_between(by_epoch.index, *edges, color=color, alpha=0.2, lw=0)
    state = f"{by_epoch['mean'].iloc[-1]:.2f} % after epoch {by_epoch.index[-1]}"
    set_tooltip(line, f"{step_label(step)}: {state}, n = {seeds}")


def _panels(shown: Sequence[Step]) -> dict[str, list[Step]]:
    """Steps by group, in at most six panels: the neighbors with the fewest steps share one."""
    groups: dict[str, list[Step]] = {}
    for step in shown:
        groups.setdefault(step.group, []).append(step)
    panels = list(groups.items())
    while len(panels) > 6:
        sizes = [len(one[1]) + len(other[1]) for one, other in itertools.pairwise(panels)]
        at = sizes.index(min(sizes))
        (one, members), (other, more) = panels[at : at + 2]
        panels[at : at + 2] = [(f"{one}, {other[:1].lower()}{other[1:]}", [*members, *more])]
    return dict(panels)
