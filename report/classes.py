"""Where rows differ: accuracy class by class, what changed at each step, and what the last step
confuses."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ablations.roadmap import ends
from report.collect import measure
from report.numbers import possible
from report.statistics import LEVEL, VarianceComponents
from report.tables import Pair, Summary


def pairs(summary: Summary) -> list[Pair]:
    """(row, the row that it is compared with), both with runs: each step, then the path's end
    against its start."""
    found = [(step.name, step.after) for step in summary.study.steps if step.after is not None]
    return [
        (row, after)
        for row, after in [*found, *ends(summary.path)]
        if {row, after} <= summary.correct.keys() and row not in summary.unchanged
    ]


def table(summary: Summary) -> pd.DataFrame:
    """One row a comparison and class: accuracy in percent, its change in points, a 95 % interval of
    the change.

    The interval is for new seeds and new images of the class; where a row has one seed, for these
    very networks on new images (`covers_seeds` is False). It is corrected (Bonferroni) for all
    classes of a comparison, as the most gained and most lost are picked from them.
    """
    label, names = _labels(summary), summary.study.dataset.classes
    rows = []
    for number, name in enumerate(names):
        mine = label == number
        if not mine.any():
            continue
        components = VarianceComponents(measure(summary.runs_of_steps, mine))
        accuracy = dict(zip(components.runs.variants, components.means.tolist(), strict=True))
        for row, after in pairs(summary):
            estimate = components.estimate({row: 1.0, after: -1.0})
            new = estimate.uncertainty.get("new")
            half = (new or estimate.these_runs).half_width(LEVEL / len(names) / 2)
            ends = possible(estimate.points - half, estimate.points + half)
            levels = accuracy[row], accuracy[after], estimate.points
            rows.append((row, after, name, int(mine.sum()), *levels, *ends, new is not None))
    columns = "step after class images top1 top1_after points low high covers_seeds"
    order = pairs(summary)
    rows.sort(key=lambda row: order.index(row[:2]))
    return pd.DataFrame(rows, columns=columns.split())


def extremes(table: pd.DataFrame, count: int = 3) -> pd.DataFrame:
    """The rows of the last comparison, that of the path's ends: the classes that gained most and
    that lost most, `count` each."""
    if table.empty:
        return table
    last = table.iloc[-1]
    own = table[(table["step"] == last["step"]) & (table["after"] == last["after"])]
    own = own.sort_values("points", ascending=False, kind="stable")
    return own if len(own) <= 2 * count else pd.concat([own.head(count), own.tail(count)])


def _labels(summary: Summary) -> np.ndarray:
    """(images,) the true classes; none where no run is finished."""
    found = (run.predictions.label for run in summary.study.runs if run.predictions)
    return next(found, np.empty(0, dtype=np.int16))


def confusion(summary: Summary) -> pd.DataFrame:
    """One row a pair of different classes that the last step confuses: how often, and in percent of
    the true class.

    `images` is a mean over its seeds; rows are in order of it.
    """
    columns = ["step", "class", "taken_for", "images", "percent"]
    if not summary.path:
        return pd.DataFrame(columns=columns)
    step, names = summary.path[-1].name, dict(enumerate(summary.study.dataset.classes))
    known = [run.predictions for run in summary.study.finished(step) if run.predictions]
    every = pd.concat(pd.DataFrame({"class": one.label, "taken_for": one.top1}) for one in known)
    cells = every.groupby(["class", "taken_for"]).size().div(len(known)).reset_index(name="images")
    cells["percent"] = 100 * cells["images"] / cells.groupby("class")["images"].transform("sum")
    wrong = cells[cells["class"] != cells["taken_for"]]
    wrong = wrong.sort_values("images", ascending=False, kind="stable", ignore_index=True)
    wrong = wrong.assign(step=step)
    return wrong.replace({"class": names, "taken_for": names})[columns]


def changed_predictions(summary: Summary) -> pd.DataFrame:
    """Count, per comparison, the test images that most seeds of one row get right and most of the
    other get wrong.

    `between_seeds` is the number of images in which two seeds of the row differ, a mean over its
    pairs of seeds: what chance alone changes. NaN with one seed.
    """
    rows = []
    for row, after in pairs(summary):
        now, before = (summary.correct[name].mean(axis=0) for name in (row, after))
        to_right = int(((now > 0.5) & (before < 0.5)).sum())
        to_wrong = int(((now < 0.5) & (before > 0.5)).sum())
        rows.append((row, after, to_right, to_wrong, _between_seeds(summary.correct[row])))
    columns = ["step", "after", "to_right", "to_wrong", "between_seeds"]
    return pd.DataFrame(rows, columns=columns)


def _between_seeds(correct: np.ndarray) -> float:
    seeds = len(correct)
    if seeds < 2:
        return float("nan")
    # An image that k of n seeds get right differs in k (n - k) of n (n - 1) / 2 pairs.
    right = correct.sum(axis=0)
    return float((right * (seeds - right)).sum() / (seeds * (seeds - 1) / 2))
