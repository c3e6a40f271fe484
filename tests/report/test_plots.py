"""The figures show what the tables say, and can be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from report import plots
from tests.report.conftest import StudyFolder

Make = Callable[..., StudyFolder]


@pytest.mark.parametrize("seed", range(3))
def test_the_scatter_plot_marks_every_point_and_its_key_explains_the_marks(
    make_study: Make, seed: int
) -> None:
    study = make_study(test=200)
    rng = np.random.default_rng(seed)
    for step in study.steps:
        study.add(step, int(rng.integers(150, 170)))
        # As on the real path: six steps at the very same GFLOPs, others close by.
        gflops = float(rng.choice([4.15, 4.15, 4.2, 4.5, 2.4]))
        study.edit("result.json", step, gflops_paper_convention=gflops)
    figure: Any = plots.accuracy_vs_gflops(study.summary())
    figure.draw_without_rendering()
    (axes,) = figure.axes
    marks = [text for text in axes.texts if (text.get_gid() or "").startswith("mark-")]
    key = {text.get_text() for text in axes.get_legend().get_texts()}
    assert {f"{m.get_text()}  {s}" for m, s in zip(marks, study.steps, strict=True)} <= key
    # An annotation's own extent goes as far as its point.
    boxes = [Text.get_window_extent(text) for text in marks]
    assert not [pair for pair in itertools.combinations(boxes, 2) if Bbox.intersection(*pair)]
    offsets = [np.asarray(dots.get_offsets()) for dots in axes.collections[1:]]
    points = axes.transData.transform(np.concatenate(offsets))
    assert len(points) == len(study.steps)
    assert not [(box, point) for box in boxes for point in points if box.contains(*point)]
    corners = [corner for box in boxes for corner in box.corners()]
    assert all(figure.bbox.contains(*corner) for corner in corners)


def test_a_far_reference_and_a_row_at_chance_are_named_and_leave_the_axes_alone(
    make_study: Make,
) -> None:
    study = make_study(test=1000)
    for place, step in enumerate(("depthwise", "width", "inverted-bottleneck")):
        study.add(step, 900 + 5 * place)
    study.add("swin-pocket", 700)
    study.add("gelu", 170)
    bars: Any = plots.steps(study.summary())
    assert bars.axes[0].get_xlim()[0] > 88
    notes = [note.get_text() for note in bars.axes[0].texts]
    assert len([note for note in notes if "below the axis" in note]) == 2
    scatter: Any = plots.accuracy_vs_gflops(study.summary())
    assert scatter.axes[0].get_ylim()[0] > 88
    key = [text.get_text() for text in scatter.axes[0].get_legend().get_texts()]
    assert any("swin-pocket (70.00 %, below)" in text for text in key)


@pytest.mark.parametrize("spread", [1, 60])
def test_the_bar_chart_fits_and_names_accuracy_change_and_flops(
    make_study: Make, spread: int
) -> None:
    study = make_study(test=200)
    for seed in range(2):
        study.add("depthwise", 100, seed=seed)
        study.add("width", 110 - spread + 2 * spread * seed, seed=seed)
        study.add("kernel-5", 110, seed=seed)
    figure: Any = plots.steps(study.summary())
    plots.settle(figure)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    notes = [text for text in axes.texts if "MFLOPs" in text.get_text()]
    assert [note.get_text().split()[0] for note in notes] == ["50.00", "55.00", "55.00"]
    assert "(n = 2), +5.00, 33.00 MFLOPs" in notes[1].get_text()
    for note in notes:
        assert figure.bbox.x1 >= note.get_window_extent().x1
    assert [bar.get_hatch() for bar in axes.patches] == [None, None, "////"]
    ends = [round(bar.get_x() + bar.get_width(), 6) for bar in axes.patches]
    assert ends == [50, 55, 55]
    deviation = spread / 2**0.5
    assert axes.get_xlim()[0] <= max(0, 55 - deviation)
    assert axes.get_xlim()[1] >= min(100, 55 + deviation)
    assert f"the bars begin at {axes.get_xlim()[0]:g} %" in axes.get_xlabel()


def test_learning_curves_draw_every_epoch_and_dash_the_unfinished(make_study: Make) -> None:
    study = make_study(test=200)
    study.add("depthwise", 100, epochs=4)
    study.add("width", 0, finished=False, epochs=3)
    figure: Any = plots.learning_curves(study.summary())
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    assert list(lines["4  depthwise"].get_xdata()) == [1, 2, 3, 4]
    assert list(lines["5  width"].get_xdata()) == [1, 2, 3]
    assert lines["4  depthwise"].get_linestyle() == "-"
    assert lines["5  width"].get_linestyle() == "--"


def test_a_forest_plot_fills_what_is_decided_and_cuts_an_interval_that_would_squeeze_it() -> None:
    table = pd.DataFrame({"name": ["a", "b", "c"], "points": [1.0, 0.1, 0.3]})
    table = table.assign(low=[0.5, -0.4, -119.0], high=[1.5, 0.6, 119.6], note="n = 3")
    _, axes = plots.forest(table.assign(decided=table["low"] > 0), 0.3, "points")
    faces: Any = [dots.get_facecolor().tolist()[0][:3] for dots in axes.collections]
    assert [face != [1.0, 1.0, 1.0] for face in faces] == [True, False, False]
    assert max(map(abs, axes.get_xlim())) < 10
    arrows = [line.get_marker() for line in axes.lines if line.get_marker() in ("<", ">")]
    assert arrows == ["<", ">"]
    assert [text.get_text() for text in axes.texts] == ["n = 3"] * 3
