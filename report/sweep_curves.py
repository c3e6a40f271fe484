"""A sweep's comparisons at each of its values, both rows at the same one: whether a difference
lasts as it grows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ablations.designs import Effect
from report.contrast import holm
from report.effects import estimate
from report.plots import INK, SOFT, STYLE, empty_figure
from report.variance import Measured, Runs, VarianceComponents
from utils.markdown import MINUS

COLUMNS = ("effect", "value", "points", "low", "high")
CHANGES = (*COLUMNS, "p_holm")
_ACROSS = 4
"""Panels side by side."""


def differences(
    runs: Mapping[str, Runs],
    effects: Sequence[Effect],
    rows: Mapping[str, Mapping[str, str]],
    question: str,
    level: float,
) -> pd.DataFrame:
    """One row an effect and value, in points of top-1 on the test images; `rows` has each value's
    row of each row.

    The interval is for these or new images, as `question` says, and where a row has one seed for
    these runs.
    """
    if not effects:
        return pd.DataFrame(columns=COLUMNS)
    found, noise = [], VarianceComponents(Measured.of(runs))
    for effect in effects:
        for value, named in rows.items():
            one = estimate(noise, _among(effect, named))
            reach = one.of.get(question, one.these_runs).reach(level / 2)
            found.append((effect.name, value, one.points, one.points - reach, one.points + reach))
    return pd.DataFrame(found, columns=COLUMNS)


def _among(effect: Effect, named: Mapping[str, str], *, less_own: bool = False) -> Effect:
    """The effect among other rows; or how much larger it is there than among its own."""

    def moved(weights: Mapping[str, float]) -> dict[str, float]:
        found = {row: -weight for row, weight in weights.items()} if less_own else {}
        for row, weight in weights.items():
            found[named[row]] = found.get(named[row], 0.0) + weight
        return {row: weight for row, weight in found.items() if weight}

    return replace(effect, weights=moved(effect.weights), sampled=tuple(map(moved, effect.sampled)))


def changes(
    runs: Mapping[str, Runs],
    effects: Sequence[Effect],
    rows: Mapping[str, Mapping[str, str]],
    question: str,
    level: float,
) -> pd.DataFrame:
    """One row an effect and value: how much larger, in points of top-1, with all rows at the value
    than as they are.

    `rows` has, for each value, the row to take for each row: itself where the value is its own;
    where all are their own there is no change and no row. The interval is for new seeds on these or
    new images, as `question` says; a row with one seed is taken to spread as the others do.
    `p_holm` is of no change, corrected for all of these. Empty where no row of `runs` has two
    seeds.
    """
    noise = VarianceComponents(Measured.of(runs)) if runs else None
    if noise is None or not noise.freedom:
        return pd.DataFrame(columns=CHANGES)
    found, p = [], []
    for effect in effects:
        for value, named in rows.items():
            change = _among(effect, named, less_own=True)
            if not change.weights:
                continue
            one = estimate(noise, change, borrow=True)
            reach = one.of[question].reach(level / 2)
            found.append((effect.name, value, one.points, one.points - reach, one.points + reach))
            p.append(min(1.0, 2 * one.of[question].tail(abs(one.points))))
    return pd.DataFrame(
        [(*one, corrected) for one, corrected in zip(found, holm(p), strict=True)], columns=CHANGES
    )


def panels(table: pd.DataFrame, field: str, title: str) -> Figure | None:
    """What `differences` found, a panel for each comparison."""
    if table.empty:
        return None
    names, values = list(dict.fromkeys(table["effect"])), list(dict.fromkeys(table["value"]))
    columns = min(_ACROSS, len(names))
    lines = math.ceil(len(names) / columns)
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(max(4.8, 2.4 * columns), 1.9 * lines + 0.9)
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (name, own) in zip(grid.flat, table.groupby("effect", sort=False), strict=False):
            axes.axhline(0, color=SOFT, lw=1, zorder=1)
            reach = own["high"] - own["points"]
            axes.errorbar(
                range(len(own)),
                own["points"],
                reach,
                color=INK,
                marker="o",
                ms=5,
                lw=1.2,
                capsize=2,
            )
            axes.set_title(str(name), loc="left", fontsize=9)
            axes.set_xticks(range(len(values)), values)
            axes.set_xlim(-0.4, len(values) - 0.6)
            axes.yaxis.set_major_formatter(lambda y, _: f"{y:+g}".replace("-", MINUS) if y else "0")
            sns.despine(ax=axes)
        for axes in list(grid.flat)[len(names) :]:
            axes.set_axis_off()
        figure.supxlabel(field, fontsize=10)
        figure.supylabel("points of top-1", fontsize=10)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure
