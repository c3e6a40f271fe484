"""The figures. Each function returns a matplotlib figure, or None where the study has nothing to
draw yet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from ablations import Step
from report.tables import Summary
from utils.markdown import MINUS, amount, signed

INK, SOFT, FAINT = "#1c2128", "#6b7580", "#d8dee4"
_PALETTE = [sns.color_palette("colorblind").as_hex()[i] for i in (7, 0, 1, 2, 4, 3, 9, 5, 8, 6)]
"""Seaborn's colour-blind palette, in an order that keeps neighbouring groups apart."""
_REFERENCE = "#30363d"
_DPI = 150  # of a PNG
_TURNS = np.radians([0, 180, 30, -30, 150, 210, 60, -60, 120, 240, 90, 270])
"""Directions of a mark from its point: beside it first, for error bars and many arrows are
upright."""
STYLE = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("notebook", font_scale=0.85),
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "svg.hashsalt": "report",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": SOFT,
    "grid.color": "#e6eaee",
    "grid.linewidth": 0.8,
    "hatch.linewidth": 1.2,
}


def save(figure: Figure, path: Path) -> None:
    """Write `path`.png (for reading) and `path`.svg (for print); the same figure gives the same
    bytes."""
    with matplotlib.rc_context(STYLE):
        settle(figure)  # for both: savefig would do it twice for each
        figure.set_dpi(_DPI)
        FigureCanvasAgg(figure).print_png(f"{path}.png", metadata={"Software": None})  # type: ignore[no-untyped-call]
        FigureCanvasSVG(figure).print_svg(f"{path}.svg", metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]


def settle(figure: Figure) -> None:
    """Lay the figure out as it is now, for good, without drawing anything."""
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def empty_figure(width: float, height: float) -> Figure:
    """A figure without pyplot: no display, and no state shared with a caller's own figures."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def points_axes(
    names: Sequence[str], what: str, room: float = 1.7
) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one line a name, from the top down, over points of top-1, to be drawn into within
    the block.

    `what` stands under the axis; `room` is for what is above and below the lines, in inches.
    """
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(9.6, 0.34 * len(names) + room)
        axes = figure.add_subplot()
        axes.axvline(0, color=SOFT, lw=1, zorder=1)
        yield figure, axes
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(what)
        axes.xaxis.set_major_formatter(
            lambda value, _: f"{value:+g}".replace("-", MINUS) if value else "0"
        )
        sns.despine(ax=axes, left=True)


def _label(step: Step) -> str:
    return step.name if step.number is None else f"{step.number}  {step.name}"


def _title(axes: Axes, title: str, subtitle: str) -> None:
    above: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "annotation_clip": False,
    }
    axes.annotate(title, (0, 1), (0, 28), fontsize=12.5, fontweight="bold", va="bottom", **above)
    axes.annotate(subtitle, (0, 1), (0, 13), fontsize=9, color=SOFT, va="bottom", **above)


def _where(summary: Summary, *, runs: bool = True, mean: str = "mean ± standard deviation") -> str:
    study = summary.study
    counts = {len(array) for array in summary.correct.values()} or {1}
    seeds = max(counts)
    many = f", {mean} over {'up to ' if len(counts) > 1 else ''}{seeds} seeds" if seeds > 1 else ""
    synthetic = " (synthetic images)" if study.dataset.synthetic else ""
    if not runs:
        return f"{study.dataset.name}{synthetic}, {study.dataset.validation:,} validation images"
    return f"{study.dataset.name}{synthetic}, {study.dataset.test:,} test images{many}"


def group_colours(summary: Summary) -> dict[str, str]:
    """A colour for each step, that of its group."""
    groups = dict.fromkeys(step.group for step in summary.study.steps if not step.reference)
    of = dict(zip(groups, itertools.cycle(_PALETTE)))
    return {
        step.name: _REFERENCE if step.reference else of[step.group] for step in summary.study.steps
    }


def accuracy_vs_gflops(summary: Summary) -> Figure | None:
    """Top-1 against GFLOPs: the path as arrows through its numbered steps, the rest as other
    markers."""
    rows = summary.steps[summary.steps["runs"] > 0].set_index("name")
    if rows.empty:
        return None
    with matplotlib.rc_context(STYLE):
        steps = [step for step in summary.study.steps if step.name in rows.index]
        lines = len(steps) + len({step.group for step in steps})
        figure = empty_figure(9.6, max(6.2, 0.18 * lines + 1.2))
        axes = figure.add_subplot()
        _title(axes, "Accuracy against compute", _where(summary))
        x, y = rows["gflops_paper_convention"], rows["top1"]
        axes.errorbar(
            x, y, yerr=rows["top1_std"].fillna(0), fmt="none", ecolor=SOFT, elinewidth=1, zorder=2
        )
        path = [step for step in steps if step.number is not None]
        for one, other in itertools.pairwise(path):
            whole = (one.number or 0) + 1 == other.number
            axes.annotate(
                "",
                (x[other.name], y[other.name]),
                (x[one.name], y[one.name]),
                zorder=1,
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": "#9aa4af",
                    "lw": 1.2,
                    "ls": "-" if whole else "--",
                    "shrinkA": 4,
                    "shrinkB": 5,
                },
            )
        colours = group_colours(summary)
        for step in steps:
            marker, size = (
                ("*", 170) if step.reference else ("D", 34) if step.off_path else ("o", 62)
            )
            face = "white" if step.off_path else colours[step.name]
            axes.scatter(
                x[step.name],
                y[step.name],
                s=size,
                marker=marker,
                c=face,
                edgecolors=colours[step.name],
                linewidths=1.4,
                zorder=3,
            )
        axes.set_xlabel(f"GFLOPs (convolutions and classifier, regime {summary.study.regime})")
        axes.set_ylabel("top-1 accuracy (%)")
        axes.margins(0.06)
        sns.despine(ax=axes)
        marks = _marks(steps)
        _key(axes, steps, colours, marks)
        settle(figure)  # marks are placed in pixels
        _write_marks(axes, [(x[name], y[name], mark) for name, mark in marks.items()])
    return figure


def _marks(steps: Sequence[Step]) -> dict[str, str]:
    """A short mark for each step: its number, or a letter where it has none."""
    unnumbered = [step.name for step in steps if step.number is None]
    letters = {name: ascii_lowercase[i % 26] * (1 + i // 26) for i, name in enumerate(unnumbered)}
    return {step.name: letters.get(step.name, str(step.number)) for step in steps}


def _key(
    axes: Axes, steps: list[Step], colours: Mapping[str, str], marks: Mapping[str, str]
) -> None:
    """What the marks beside the points stand for, group by group."""
    handles = []
    for group, members in itertools.groupby(steps, lambda step: step.group):
        handles.append(Line2D([], [], ls="", label=group))
        for step in members:
            face = "white" if step.off_path else colours[step.name]
            marker = "*" if step.reference else "D" if step.off_path else "o"
            handles.append(
                Line2D(
                    [],
                    [],
                    ls="",
                    marker=marker,
                    mfc=face,
                    mec=colours[step.name],
                    ms={"*": 9, "D": 5}.get(marker, 6),
                    label=f"{marks[step.name]}  {step.name}",
                )
            )
    legend = axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=8.6,
        labelspacing=0.35,
    )
    groups = {step.group for step in steps}
    for text in legend.get_texts():
        text.set_fontweight("bold" if text.get_text() in groups else "normal")


def _write_marks(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write a short mark beside each point (x, y, mark), at the nearest place that is clear of
    points and of marks."""
    scale = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    spots = axes.transData.transform([(x, y) for x, y, _ in points]) / scale
    taken = [*spots]
    for (x, y, mark), spot in zip(points, spots, strict=True):
        around = (
            far * np.array([math.cos(turn), math.sin(turn)])
            for far in itertools.count(13, 5)
            for turn in _TURNS
        )
        away = next(
            way for way in around if min(np.hypot(*(spot + way - other)) for other in taken) > 12
        )
        taken.append(spot + away)
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
            path_effects=[withStroke(linewidth=3, foreground="white")],
            arrowprops={
                "arrowstyle": "-",
                "color": SOFT,
                "lw": 0.7,
                "patchA": None,
                "shrinkA": 7,
                "shrinkB": 5,
            },
        )


def steps(summary: Summary) -> Figure | None:
    """One bar a step from the baseline down to the last, in the manner of the paper's Figure 2."""
    table = summary.steps.set_index("name")
    if not table["runs"].any():
        return None
    names = summary.study.steps
    with matplotlib.rc_context(STYLE):
        height = 0.36 * len(names) + 1.5
        figure = empty_figure(10.5, height)
        figure.set_layout_engine(
            "none"
        )  # the names of the groups need a margin that no axes asks for
        axes = figure.add_axes((0.315, 0.65 / height, 0.585, 1 - 1.45 / height))
        description = summary.study.roadmap.description
        _title(axes, f"{description[0].upper()}{description[1:]}, step by step", _where(summary))
        low, high = table["top1"].min(), table["top1"].max()
        reach = max(high - low, 1.0)
        start = max(0.0, math.floor(low - 0.35 * reach))
        end = high + 0.3 * reach
        axes.set_xlim(start, min(end, 100 + 0.3 * reach))
        axes.set_ylim(len(names) - 0.35, -0.65)
        axes.set_yticks(range(len(names)), [_label(step) for step in names])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        right = axes.get_yaxis_transform()
        axes.annotate(
            "GFLOPs",
            (1.11, 1),
            (0, 2),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
            color=SOFT,
        )
        colours = group_colours(summary)
        for place, step in enumerate(names):
            record = summary.by_step[step.name]
            colour = colours[step.name]
            if not record["runs"]:
                axes.text(
                    start,
                    place,
                    "  no finished run",
                    va="center",
                    style="italic",
                    fontsize=9,
                    color=SOFT,
                )
                continue
            _bar(axes, place, step, record, start, colour)
            axes.text(
                1.11,
                place,
                amount(record["gflops_paper_convention"]),
                transform=right,
                ha="right",
                va="center",
                fontsize=9.5,
                color=colour if step.reference else INK,
            )
        _group_bands(axes, names, colours)
        axes.set_xlabel(f"top-1 accuracy (%)  –  the bars begin at {start:g} %")
        sns.despine(ax=axes, left=True)
    return figure


def _bar(
    axes: Axes, place: int, step: Step, record: Mapping[str, Any], start: float, colour: str
) -> None:
    off = step.off_path
    top1, spread = float(record["top1"]), float(record["top1_std"])
    axes.barh(
        place,
        top1 - start,
        left=start,
        height=0.5 if off else 0.72,
        color="white" if off else colour,
        edgecolor=colour,
        hatch="////" if off else None,
        linewidth=1.0,
        zorder=2,
    )
    if math.isfinite(spread):
        axes.errorbar(top1, place, xerr=spread, color=INK, capsize=2.5, elinewidth=1.1, zorder=3)
    text = f"{top1:.2f}" + (f" ± {spread:.2f}" if math.isfinite(spread) else "")
    shift = 5 + (spread if math.isfinite(spread) else 0) * _points_per_unit(axes)
    axes.annotate(
        text,
        (top1, place),
        (shift, 0),
        textcoords="offset points",
        va="center",
        fontsize=9.5,
        fontweight="normal" if off else "bold",
        zorder=4,
    )
    if math.isfinite(record["difference"]):
        axes.annotate(
            signed(record["difference"]),
            (start, place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=INK if off else _contrast(colour),
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1} if off else None,
        )


def _contrast(colour: str) -> str:
    """White or ink, whichever is easier to read on a colour (relative luminance as in WCAG)."""
    red, green, blue = (value**2.2 for value in to_rgb(colour))
    return INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.26 else "white"


def _points_per_unit(axes: Axes) -> float:
    low, high = axes.get_xlim()
    figure = axes.get_figure(root=True)
    assert figure is not None
    return float(figure.get_figwidth() * 72 * axes.get_position().width / (high - low))


def _group_bands(axes: Axes, steps: tuple[Step, ...], colours: Mapping[str, str]) -> None:
    """A coloured line and a name on the far left for each part of the roadmap."""
    transform = axes.get_yaxis_transform()
    place = 0
    for name, group in itertools.groupby(steps, key=lambda step: step.group):
        own = list(group)
        top, bottom = place - 0.4, place + len(own) - 0.6
        place += len(own)
        colour = colours[own[0].name]
        line = Line2D(
            [-0.375, -0.375], [top, bottom], transform=transform, color=colour, lw=3, clip_on=False
        )
        axes.add_line(line)
        axes.text(
            -0.39,
            (top + bottom) / 2,
            name.replace(" ", "\n"),
            transform=transform,
            ha="right",
            va="center",
            fontsize=9,
            fontweight="bold",
            linespacing=1.1,
        )


def differences(summary: Summary) -> Figure | None:
    """Ours with the interval that decides and the paper's, step by step."""
    rows = [step for step in summary.study.steps if step.name in summary.differences]
    if not rows:
        return None
    names, what = (
        [_label(step) for step in rows],
        "difference in top-1 to the step it changes (points)",
    )
    with points_axes(names, what, room=2.0) as (figure, axes):
        beside = " here and in the paper" if summary.held_against_the_paper else ""
        _title(
            axes, f"What each step changes{beside and ','}{beside}", _where(summary, mean="mean")
        )
        colours = group_colours(summary)
        for place, step in enumerate(rows):
            ours, paper = summary.differences[step.name], summary.paper_difference(step)
            colour = colours[step.name]
            if paper is not None:
                axes.scatter(paper, place, marker="D", s=30, c=INK, linewidths=0, zorder=5)
            low, high = (
                ours.these_runs if ours.answer is None else (ours.answer.low, ours.answer.high)
            )
            axes.plot(
                [low, high],
                [place, place],
                color=colour,
                lw=1.6,
                ls=":" if ours.answer is None else "-",
                zorder=2,
            )
            face = colour if ours.sign else "white"
            axes.scatter(
                ours.points, place, s=70, c=face, edgecolors=colour, linewidths=1.6, zorder=4
            )
        handles = [
            Line2D(
                [],
                [],
                marker="o",
                color=SOFT,
                ms=8,
                label="here, a gain or a loss (line: 95 % interval)",
            ),
            Line2D(
                [],
                [],
                marker="o",
                color=SOFT,
                mfc="white",
                ms=8,
                label="here, neither (dotted: one seed, these runs only)",
            ),
        ]
        if summary.held_against_the_paper:
            handles.append(
                Line2D([], [], ls="", marker="D", color=INK, ms=5, label="paper (ImageNet-1K)")
            )
        figure.legend(
            handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9
        )
    return figure


def learning_curves(summary: Summary) -> Figure | None:
    """Validation top-1 an epoch, one panel a part of the roadmap; dashed while a run is unfinished.

    Behind each panel all steps, by their first seed.
    """
    curves = summary.curves
    if curves.empty:
        return None
    groups: dict[str, list[Step]] = {}
    for step in summary.study.steps:
        if (curves["step"] == step.name).any():
            groups.setdefault(step.group, []).append(step)
    panels = _panels(groups)
    with matplotlib.rc_context(STYLE):
        columns = min(3, len(panels))
        lines = -(-len(panels) // columns)
        figure = empty_figure(max(6.6, 3.9 * columns + 0.4), 3.3 * lines + 0.5)
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        finished = {(run.step, run.seed) for run in summary.study.all_finished}
        by_run = dict(iter(curves.groupby(["step", "seed"], sort=False)))
        firsts = {key[0]: key for key in reversed(by_run)}.values()
        behind = [by_run[key][["epoch", "validation_top1"]].to_numpy(float) for key in firsts]
        for axes, (title, members) in zip(grid.flat, panels.items(), strict=False):
            axes.add_collection(LineCollection(behind, colors=FAINT, linewidths=0.6, zorder=1))
            for step, colour in zip(
                members, sns.color_palette("colorblind", len(members)), strict=True
            ):
                mine = {key: data for key, data in by_run.items() if key[0] == step.name}
                for number, (key, data) in enumerate(mine.items()):
                    axes.plot(
                        data["epoch"],
                        data["validation_top1"],
                        color=colour,
                        lw=1.6 if len(mine) == 1 else 1.1,
                        ls="-" if key in finished else (0, (3, 1.5)),
                        zorder=2,
                        marker="o" if len(data) == 1 else None,
                        ms=4,
                        label=_label(step) if not number else None,
                    )
            axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
            axes.legend(
                loc="lower right", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8
            )
            axes.xaxis.get_major_locator().set_params(integer=True)
        for place, axes in enumerate(grid.flat[len(panels) :], start=len(panels)):
            axes.set_visible(False)
            grid.flat[place - columns].tick_params(labelbottom=True)
        # The first steep epochs would squeeze all that there is to compare into the top of the
        # panels.
        late = curves[curves["epoch"] >= 0.2 * curves["epoch"].max()]["validation_top1"]
        room = 0.06 * max(1.0, late.max() - late.min())
        grid[0, 0].set_ylim(max(0.0, late.min() - room), min(100.0, late.max() + room))
        grid[0, 0].set_xlim(
            left=0 if curves["epoch"].max() > 12 else 0.8, right=1.02 * curves["epoch"].max()
        )
        sns.despine(fig=figure)
        figure.suptitle(
            f"Learning curves: {_where(summary, runs=False)}", x=0.01, ha="left", fontsize=11
        )
        figure.supxlabel("epoch", fontsize=10)
        figure.supylabel("validation top-1 (%)", fontsize=10)
    return figure


def _panels(groups: dict[str, list[Step]]) -> dict[str, list[Step]]:
    """At most six: where there are more parts, the neighbours with the fewest steps share a
    panel."""
    panels = list(groups.items())
    while len(panels) > 6:
        at = min(range(len(panels) - 1), key=lambda i: len(panels[i][1]) + len(panels[i + 1][1]))
        (one, steps), (other, more) = panels[at : at + 2]
        panels[at : at + 2] = [(f"{one}, {other[:1].lower()}{other[1:]}", [*steps, *more])]
    return dict(panels)
