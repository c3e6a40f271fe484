"""The figures: what each step changes, accuracy, compute, learning curves and classes.

Each function returns a matplotlib figure, or None where the study has nothing to draw yet.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
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
from matplotlib.patches import Patch

from ablations import Step
from report.numbers import MINUS, amount, flops_unit, interval, percent, signed
from report.numbers import seeds as seeds_text
from report.tables import Summary, bounds

INK, SOFT, FAINT, GRID, PAPER = "#1c2128", "#6b7580", "#d8dee4", "#e6eaee", "#ffffff"
"""The page's colors (`report.web` replaces them by its own)."""
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


def step_label(step: Step) -> str:
    """The step's number, where it has one, and name."""
    return step.name if step.number is None else f"{step.number}  {step.name}"


def group_colors(steps: Sequence[Step]) -> dict[str, str]:
    """The color of each step: that of its group."""
    groups = dict.fromkeys(step.group for step in steps if not step.reference)
    of_group = dict(zip(groups, itertools.cycle(COLORS)))
    return {step.name: INK if step.reference else of_group[step.group] for step in steps}


def describe(summary: Summary, step: Step) -> str:
    """A step's tooltip: its accuracy, seeds, and difference with interval and verdict."""
    row = summary.by_step[step.name]
    spread = "" if pd.isna(row["top1_std"]) else f" ± {row['top1_std']:.2f}"
    text = f"{step_label(step)}: top-1 {row['top1']:.2f}{spread} %, n = {row['runs']}"
    one = summary.differences.get(step.name)
    if one is None:
        return text
    return f"{text}; {signed(one.points)} {interval(*bounds(one))} from {one.pair[1]}, {one.text}"


def _set_titles(axes: Axes, title: str, summary: Summary) -> None:
    data = summary.study.dataset
    synthetic = " (synthetic images)" if data.synthetic else ""
    axes.set_title(title, pad=22)
    where: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    subtitle = f"{data.name}{synthetic}, {data.test:,} test images"
    axes.annotate(subtitle, (0, 1), (0, 7), fontsize=9, color=SOFT, **where)


def _lines(axes: Axes, names: Sequence[str], notes: Sequence[str]) -> None:
    """One line per name from the top down, with a note at its right end."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    where = axes.get_yaxis_transform()
    for place, note in enumerate(notes):
        axes.text(1.01, place, note, transform=where, va="center", fontsize=9)
    sns.despine(ax=axes, left=True)


def forest(table: pd.DataFrame, margin: float | None, label: str) -> tuple[Figure, Axes]:
    """Differences with intervals: columns name, points, low, high, decided and note; perhaps also
    color, tip, paper and series, which shares a line between several differences.

    An interval that would squeeze all others is cut off, and an arrow says so.
    """
    lines = table.drop_duplicates("name")
    series = list(dict.fromkeys(table.get("series", [""])))
    place = {name: number for number, name in enumerate(lines["name"])}
    reach = 4 * (table["high"] - table["low"]).median() + 2 * (margin or 0.0)
    left, right = table["points"].min() - reach, table["points"].max() + reach
    with matplotlib.rc_context(STYLE):
        height = (0.34 if len(series) == 1 else 0.15 * len(series)) * len(lines)
        figure = empty_figure(9.6, height + 1.9)
        axes = figure.add_subplot()
        if margin:
            axes.axvspan(-margin, margin, color=SOFT, alpha=0.15, lw=0, zorder=0)
        axes.axvline(0, color=SOFT, lw=1, zorder=1)
        for row in table.to_dict("records"):
            at = series.index(row.get("series", ""))
            y = place[row["name"]] + (at - (len(series) - 1) / 2) * 0.7 / len(series)
            color = row.get("color") or (COLORS[at] if len(series) > 1 else INK)
            low, high = max(row["low"], left), min(row["high"], right)
            axes.plot([low, high], [y, y], color=color, lw=1.6, zorder=2)
            for end, cut, arrow in ((low, row["low"], "<"), (high, row["high"], ">")):
                if end != cut and not math.isnan(cut):
                    axes.plot(end, y, color=color, marker=arrow, ms=6, zorder=2)
            face = color if row["decided"] else PAPER
            look: dict[str, Any] = {"edgecolors": color, "linewidths": 1.6, "zorder": 4}
            dots = axes.scatter(row["points"], y, s=60 if len(series) == 1 else 26, c=face, **look)
            set_tooltip(dots, row.get("tip") or f"{row['name']}: {signed(row['points'])}")
            if not pd.isna(row.get("paper", math.nan)):
                axes.scatter(row["paper"], y, marker="D", s=26, c=INK, linewidths=0, zorder=5)
        axes.set_xlabel(label)
        axes.xaxis.set_major_formatter(
            lambda value, _: f"{value:+g}".replace("-", MINUS) if value else "0"
        )
        _lines(axes, list(lines["name"]), list(lines["note"]))
    return figure, axes


def add_legend(figure: Figure, handles: Sequence[Artist], columns: int = 4) -> None:
    """A legend below the axes."""
    with matplotlib.rc_context(STYLE):
        where: dict[str, Any] = {"loc": "outside lower center", "ncols": columns}
        figure.legend(handles=handles, frameon=False, fontsize=9, **where)


def forest_key(figure: Figure, margin: float, *, paper: bool = False) -> None:
    """Explain a forest plot's marks below it."""
    dot: dict[str, Any] = {"color": SOFT, "marker": "o", "ms": 8, "lw": 1.6}
    handles: list[Artist] = [
        Line2D([], [], label="gain or loss, 95 % interval", **dot),
        Line2D([], [], label="neither", mfc=PAPER, **dot),
        Patch(color=SOFT, alpha=0.15, lw=0, label=f"within {margin:g} points"),
    ]
    if paper:
        handles.append(Line2D([], [], ls="", marker="D", color=INK, ms=5, label="the paper"))
    add_legend(figure, handles)


def differences(summary: Summary) -> Figure | None:
    """Each step's difference with the interval that decides, and the paper's difference."""
    rows = [step for step in summary.study.steps if step.name in summary.differences]
    if not rows:
        return None
    colors, records = group_colors(summary.study.steps), []
    for step in rows:
        one = summary.differences[step.name]
        low, high = bounds(one)
        records.append(
            {
                "name": step_label(step),
                "points": one.points,
                "low": low,
                "high": high,
                "decided": bool(one.sign),
                "note": f"n = {seeds_text(one.seeds)}",
                "color": colors[step.name],
                "tip": describe(summary, step),
                "paper": summary.paper_difference(one.pair),
            }
        )
    table, margin = pd.DataFrame(records), summary.plan.margin
    figure, axes = forest(table, margin, "difference in top-1 to the step it changes (points)")
    paper_too = ", here and in the paper" if summary.compared_with_paper else ""
    with matplotlib.rc_context(STYLE):
        _set_titles(axes, f"What each step changes{paper_too}", summary)
    forest_key(figure, margin, paper=summary.compared_with_paper)
    return figure


def far_below(summary: Summary) -> set[str]:
    """References, and rows near chance, so far below that an axis with them would hide the rest:
    by more than 1.5 times the range of the other rows."""
    top1 = {name: 100 * float(correct.mean()) for name, correct in summary.correct.items()}
    chance = 100 / len(summary.study.dataset.classes)
    odd = {step.name for step in summary.study.steps if step.reference}
    odd |= {name for name, value in top1.items() if value < 1.5 * chance}
    rest = [value for name, value in top1.items() if name not in odd]
    if not rest:
        return set()
    least = min(rest) - 1.5 * max(max(rest) - min(rest), 0.5)
    return {name for name in odd & top1.keys() if top1[name] < least}


def steps(summary: Summary) -> Figure | None:
    """One bar per step, in the manner of the paper's Figure 2, with its difference and compute."""
    table = summary.steps
    if not table["runs"].any():
        return None
    rows = summary.study.steps
    finished = table[table["runs"] > 0].set_index("name")
    far = far_below(summary)
    near = finished.drop(index=list(far))
    spread = near["top1_std"].fillna(0)
    low, high = (near["top1"] - spread).min(), (near["top1"] + spread).max()
    start = max(0.0, math.floor(low - 0.35 * max(high - low, 1.0)))
    unit, scale = flops_unit(finished["gflops_paper_convention"])
    colors = group_colors(rows)
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(9.6, 0.34 * len(rows) + 2.2)
        axes = figure.add_subplot()
        description = summary.study.roadmap.description
        _set_titles(axes, f"{description[0].upper()}{description[1:]}, step by step", summary)
        notes = []
        for place, step in enumerate(rows):
            row = summary.by_step[step.name]
            if not row["runs"]:
                notes.append("no finished run")
                continue
            _draw_bar(axes, place, step, row, start, colors[step.name])
            set_tooltip(axes.patches[-1], describe(summary, step))
            difference = f", {signed(row['difference'])}" if step.after else ""
            flops = f"{amount(scale * row['gflops_paper_convention'])} {unit}"
            below = ", below the axis" if step.name in far else ""
            top1 = percent(row["top1"], row["top1_std"], row["runs"])
            notes.append(f"{top1}{difference}, {flops}{below}")
        axes.set_xlim(start, min(100.0, high + 0.05 * max(high - start, 1.0)))
        axes.set_xlabel(f"top-1 accuracy (%); the bars begin at {start:g} %")
        _lines(axes, [step_label(step) for step in rows], notes)
    groups = {step.group: colors[step.name] for step in rows}
    handles = [Line2D([], [], color=color, lw=6, label=name) for name, color in groups.items()]
    add_legend(figure, handles if len(groups) > 1 else [])
    return figure


def _draw_bar(
    axes: Axes, place: int, step: Step, row: dict[str, Any], start: float, color: str
) -> None:
    axes.barh(
        place,
        max(0.0, row["top1"] - start),
        left=start,
        height=0.5 if step.off_path else 0.72,
        color=PAPER if step.off_path else color,
        edgecolor=color,
        hatch="////" if step.off_path else None,
        zorder=2,
    )
    if not pd.isna(row["top1_std"]) and row["top1"] >= start:
        axes.errorbar(row["top1"], place, xerr=row["top1_std"], color=INK, capsize=2.5, zorder=3)


def accuracy_vs_gflops(summary: Summary) -> Figure | None:
    """Top-1 against FLOPs: arrows from step to step of the path, other markers off the path."""
    rows = summary.steps[summary.steps["runs"] > 0].set_index("name")
    if rows.empty:
        return None
    far = far_below(summary)
    near = rows.drop(index=list(far))
    shown = [step for step in summary.study.steps if step.name in rows.index]
    unit, scale = flops_unit(rows["gflops_paper_convention"])
    span = max(near["top1"].max() - near["top1"].min(), 0.5)
    x = scale * rows["gflops_paper_convention"]
    y = rows["top1"].clip(lower=near["top1"].min() - 0.15 * span)
    colors, marks = group_colors(summary.study.steps), _marks(shown)
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(9.6, max(5.6, 0.19 * len(shown) + 1.2))
        axes = figure.add_subplot()
        _set_titles(axes, "Accuracy against compute", summary)
        bars: dict[str, Any] = {"fmt": "none", "ecolor": SOFT, "elinewidth": 1}
        axes.errorbar(x[near.index], near["top1"], yerr=near["top1_std"].fillna(0), **bars)
        arrow = {"arrowstyle": "-|>", "color": SOFT, "alpha": 0.5, "shrinkA": 4, "shrinkB": 5}
        for one, after in itertools.pairwise(step.name for step in summary.path):
            axes.annotate("", (x[after], y[after]), (x[one], y[one]), arrowprops=arrow)
        for step in shown:
            color, hollow = colors[step.name], step.off_path or step.name in far
            look: dict[str, Any] = {"c": PAPER if hollow else color, "edgecolors": color}
            marker, size = _marker(step, step.name in far)
            below = f" ({rows['top1'][step.name]:.2f} %, below)" if step.name in far else ""
            look["label"] = f"{marks[step.name]}  {step.name}{below}"
            spot = x[step.name], y[step.name]
            dots = axes.scatter(*spot, linewidths=1.4, zorder=3, marker=marker, s=size, **look)
            set_tooltip(dots, f"{describe(summary, step)}; {amount(x[step.name])} {unit}")
        axes.set_xlabel(f"{unit} (convolutions and classifier, regime {summary.study.regime})")
        axes.set_ylabel("top-1 accuracy (%)")
        axes.margins(0.06)
        sns.despine(ax=axes)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8.6)
        settle(figure)  # marks are placed in pixels
        _write_marks(axes, [(x[name], y[name], mark) for name, mark in marks.items()])
    return figure


def _marker(step: Step, far: bool) -> tuple[str, int]:
    """Shape and size."""
    if far:
        return "v", 70
    return ("*", 170) if step.reference else ("D", 34) if step.off_path else ("o", 62)


def _marks(shown: Sequence[Step]) -> dict[str, str]:
    """A short mark for each step: its number, or a letter where it has none."""
    unnumbered = [step.name for step in shown if step.number is None]
    letters = {name: chr(97 + i % 26) * (1 + i // 26) for i, name in enumerate(unnumbered)}
    return {step.name: letters.get(step.name, str(step.number)) for step in shown}


def _write_marks(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write the mark of each point (x, y, mark) at the nearest place clear of points and marks,
    nearer to its own point than to others or on a line of its own."""
    scale = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    spots = axes.transData.transform([(x, y) for x, y, _ in points]) / scale
    marks: list[np.ndarray] = []
    turns = np.radians([0, 180, 30, -30, 150, 210, 60, -60, 120, 240, 90, 270])
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    for (x, y, mark), spot in zip(points, spots, strict=True):
        others = [other for other in spots if np.hypot(*(spot - other)) > 0]
        tried = ((far, far * turn) for far in itertools.count(13, 5) for turn in circle)
        away = next(
            shift
            for far, shift in tried
            if _distance(spot + shift, others) > min(far, 26)
            and _distance(spot + shift, marks) > 13
        )
        marks.append(spot + away)
        line = {"arrowstyle": "-", "color": SOFT, "lw": 0.7, "shrinkA": 7, "shrinkB": 5}
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8.6, "zorder": 5}
        axes.annotate(
            mark,
            (x, y),
            tuple(away),
            textcoords="offset points",
            gid=f"mark-{mark}",
            arrowprops={**line, "patchA": None},
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8},
            **look,
        )


def _distance(spot: np.ndarray, others: Sequence[np.ndarray]) -> float:
    return min((float(np.hypot(*(spot - other))) for other in others), default=math.inf)


def learning_curves(summary: Summary) -> Figure | None:
    """Validation top-1 per epoch, a panel per group: means over seeds, and their range as a band.

    Only the steps' own runs, without those of sweeps. A step without a finished run is dashed.
    """
    curves = summary.curves[summary.curves["step"].isin([s.name for s in summary.study.steps])]
    groups: dict[str, list[Step]] = {}
    for step in summary.study.steps:
        if (curves["step"] == step.name).any():
            groups.setdefault(step.group, []).append(step)
    if not groups:
        return None
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(max(6.6, 3.9 * columns + 0.4), 2.6 * lines + 0.5)
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (title, members) in zip(grid.flat, groups.items(), strict=False):
            for step, color in zip(members, itertools.cycle(COLORS)):
                _draw_curve(axes, summary, step, color)
            axes.set_title(title)
            axes.xaxis.get_major_locator().set_params(integer=True)
        for number, axes in enumerate(grid.flat):
            axes.set_visible(number < len(groups))
            axes.tick_params(labelbottom=number + columns >= len(groups))
        # The first steep epochs would squeeze all that there is to compare.
        late = curves[curves["epoch"] >= 0.5 * curves["epoch"].max()]["validation_top1"]
        margin = 0.06 * max(1.0, late.max() - late.min())
        grid[0, 0].set_ylim(max(0.0, late.min() - margin), min(100.0, late.max() + margin))
        for axes in grid.flat[: len(groups)]:  # "best" needs the limits
            axes.legend(loc="best", frameon=False, fontsize=8)
        sns.despine(fig=figure)
        figure.supxlabel("epoch", fontsize=10)
        figure.supylabel("validation top-1 (%)", fontsize=10)
    return figure


def _draw_curve(axes: Axes, summary: Summary, step: Step, color: str) -> None:
    finished = [run.seed for run in summary.study.finished(step.name)]
    mine = summary.curves[summary.curves["step"] == step.name]
    if finished:
        mine = mine[mine["seed"].isin(finished)]
    by_epoch = mine.groupby("epoch")["validation_top1"].agg(["mean", "min", "max"])
    look: dict[str, Any] = {"marker": "o" if len(by_epoch) == 1 else None, "ms": 4, "lw": 1.4}
    look |= {"ls": "-" if finished else "--", "label": step_label(step)}
    axes.plot(by_epoch.index, by_epoch["mean"], color=color, **look)
    if len(finished) > 1:
        edges = by_epoch["min"], by_epoch["max"]
        axes.fill_between(by_epoch.index, *edges, color=color, alpha=0.2, lw=0)
