"""The figures show what the tables say, and can be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from report import collect, plots
from report.tables import Summary
from tests.report.conftest import StudyFolder

Make = Callable[..., StudyFolder]


def summarise(study: StudyFolder) -> Summary:
    return Summary(collect.read(study.root))


def written(figure: Figure) -> str:
    """All text of a figure."""
    found = [text for axes in figure.axes for text in axes.texts]
    return "\n".join(text.get_text() for text in found)


@pytest.mark.parametrize("seed", range(3))
def test_the_scatter_plot_marks_every_point_and_its_key_says_what_the_marks_are(
    make_study: Make, seed: int
) -> None:
    study = make_study(test=200)
    rng = np.random.default_rng(seed)
    for step in study.steps:
        study.add(step, int(rng.integers(150, 170)))
        # As on the real path: six steps at the very same GFLOPs, others close by.
        study.edit(
            "result.json",
            step,
            gflops_paper_convention=float(rng.choice([4.15, 4.15, 4.2, 4.5, 2.4])),
        )
    figure = plots.accuracy_vs_gflops(summarise(study))
    assert figure is not None
    figure.draw_without_rendering()
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    marks = [text for text in axes.texts if (text.get_gid() or "").startswith("mark-")]
    key = [text.get_text() for text in legend.get_texts()]
    assert {
        f"{mark.get_text()}  {step}" for mark, step in zip(marks, study.steps, strict=True)
    } <= set(key)
    assert len({mark.get_text() for mark in marks}) == len(study.steps)
    boxes = [
        Text.get_window_extent(text) for text in marks
    ]  # an annotation's own goes as far as its point
    assert not [pair for pair in itertools.combinations(boxes, 2) if Bbox.intersection(*pair)]
    points = axes.transData.transform(
        np.concatenate([np.asarray(dots.get_offsets()) for dots in axes.collections[1:]])
    )
    assert len(points) == len(study.steps)
    assert not [(box, point) for box in boxes for point in points if box.contains(*point)]
    assert all(
        figure.bbox.contains(*corner)
        for box in [*boxes, legend.get_window_extent()]
        for corner in box.corners()
    )


def test_the_bar_chart_writes_accuracy_change_and_gflops_and_names_what_is_missing(
    make_study: Make,
) -> None:
    study = make_study(test=200)
    study.add("depthwise", 100)
    study.add("width", 120)
    study.add("kernel-5", 110)
    figure = plots.steps(summarise(study))
    assert figure is not None
    axes: Any = figure.axes[0]
    text = written(figure)
    for expected in ("50.00", "60.00", "+10.00", "0.0320", "0.0330"):
        assert expected in text
    assert text.count("no finished run") == len(study.steps) - 3
    assert [bar.get_hatch() for bar in axes.patches] == [None, None, "////"]
    assert [round(bar.get_x() + bar.get_width(), 6) for bar in axes.patches] == [50, 60, 55]
    start = axes.get_xlim()[0]
    assert f"the bars begin at {start:g} %" in axes.get_xlabel()


def test_learning_curves_draw_every_epoch_and_dash_the_unfinished(make_study: Make) -> None:
    study = make_study(test=200)
    study.add("depthwise", 100, epochs=4)
    study.add("width", 0, finished=False, epochs=3)
    figure = plots.learning_curves(summarise(study))
    assert figure is not None
    lines: dict[object, Any] = {
        line.get_label(): line for axes in figure.axes for line in axes.lines
    }
    assert list(lines["4  depthwise"].get_xdata()) == [1, 2, 3, 4]
    assert list(lines["5  width"].get_xdata()) == [1, 2, 3]
    assert lines["4  depthwise"].get_linestyle() == "-"
    assert lines["5  width"].get_linestyle() == "--"


def test_differences_are_filled_only_where_there_is_a_gain_or_a_loss(make_study: Make) -> None:
    study = make_study(test=400)
    for seed in (0, 1, 2):
        study.add("depthwise", 100 + seed, seed=seed)
        study.add("width", 250 - seed, seed=seed)
        study.add("inverted-bottleneck", 250 + seed, seed=seed)
    summary = summarise(study)
    assert [d.sign for d in summary.differences.values()] == [1, 0]
    figure = plots.differences(summary)
    assert figure is not None
    every: Any = figure.axes[0].collections
    ours = [dots for dots in every if dots.get_sizes()[0] > 50]
    filled = [bool((dots.get_facecolor() == dots.get_edgecolor()).all()) for dots in ours]
    assert filled == [True, False]


def test_nothing_to_draw_is_no_figure(make_study: Make) -> None:
    study = make_study(test=200)
    study.add("depthwise", 0, finished=False, epochs=0)
    summary = summarise(study)
    draws = (plots.steps, plots.accuracy_vs_gflops, plots.differences, plots.learning_curves)
    assert not [draw for draw in draws if draw(summary) is not None]
