"""Predictions for people and programs: a table, JSON, a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from inference.predictor import Predictor

Best = Sequence[tuple[str, float]]
"""Classes and probabilities, best first."""

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
_FORMATS = (".png", ".svg", ".pdf")


def answer(images: Sequence[Path], runs: Sequence[Path], *, top: int, as_json: bool, plot_into: Path | None) -> str:
    """What the runs see in the pictures, as text or JSON; also as a figure, where a file for it is given.

    Raises:
        ValueError: no picture, no run, a run without weights, a figure that cannot be; nothing was written.
    """
    pictures = find_pictures(images)
    if plot_into:
        check_plot(plot_into, len(pictures))
    from inference.predictor import load

    predictors = [load(run) for run in runs]
    answers = [predictor.predict(pictures, top) for predictor in predictors]
    if plot_into:
        plot(plot_into, pictures, predictors, answers)
    return (to_json if as_json else to_text)(pictures, predictors, answers)


def find_pictures(places: Sequence[Path]) -> list[Path]:
    """The files among `places`, and every picture below its folders, in order of name.

    Raises:
        ValueError: a place does not exist, or a folder holds no picture.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*") if _is_picture(path))
            if not inside:
                raise ValueError(f"the folder {place} holds no pictures ({', '.join(_SUFFIXES)}): name another")
            found += inside
        elif place.is_file():
            found.append(place)
        elif place.exists():
            raise ValueError(f"{place} is neither a file nor a folder: give pictures, or folders of them")
        else:
            raise ValueError(f"{place} does not exist: give the path of a picture or of a folder of pictures")
    if not found:
        raise ValueError("no picture was given: give the path of one or more pictures or folders")
    return found


def _is_picture(path: Path) -> bool:
    # Hidden files are no pictures whatever their ending: a Mac leaves ._NAME.jpg beside NAME.jpg on foreign disks.
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def titles(predictors: Sequence[Predictor]) -> list[str]:
    """A heading for each run: step and seed, and the folder where runs of several studies have the same."""
    short = [predictor.title for predictor in predictors]
    return short if len(set(short)) == len(short) else [str(predictor.folder) for predictor in predictors]


def to_text(pictures: Sequence[Path], predictors: Sequence[Predictor], answers: Sequence[Sequence[Best]]) -> str:
    """One block a picture; a column a run. answers[run][picture]."""
    blocks, header = [], titles(predictors)
    for place, picture in enumerate(pictures):
        wide = max(len(name) for run in range(len(predictors)) for name, _ in answers[run][place])
        columns = [
            [f"{name:<{wide}}  {100 * value:5.1f} %" for name, value in answers[run][place]]
            for run in range(len(predictors))
        ]
        longest = max(len(column) for column in columns)
        rows = [[column[i] if i < len(column) else "" for column in columns] for i in range(longest)]
        blocks.append(f"{picture}\n{tabulate(rows, header, tablefmt='simple', disable_numparse=True)}\n")
    return "\n".join(blocks)


def to_json(pictures: Sequence[Path], predictors: Sequence[Predictor], answers: Sequence[Sequence[Best]]) -> str:
    """A list of {image, run, step, seed, top: [{class, probability}]}."""
    rows = [
        {
            "image": str(picture),
            "run": str(predictor.folder),
            "step": predictor.step,
            "seed": predictor.seed,
            "top": [{"class": name, "probability": value} for name, value in answers[run][place]],
        }
        for place, picture in enumerate(pictures)
        for run, predictor in enumerate(predictors)
    ]
    return json.dumps(rows, indent=2) + "\n"


def check_plot(path: Path, pictures: int = 1) -> None:
    """Raise ValueError unless a figure of that many pictures can be written to `path`."""
    if path.suffix not in _FORMATS:
        raise ValueError(f"--plot is {path}: give a file name that ends in {', '.join(_FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"the folder of --plot {path} does not exist: create it first, or name another")
    if pictures > 50:
        raise ValueError(f"--plot would show {pictures} pictures: give at most 50")


def plot(
    path: Path, pictures: Sequence[Path], predictors: Sequence[Predictor], answers: Sequence[Sequence[Best]]
) -> None:
    """Each picture beside every run's best classes as bars; one row a picture, taller for many classes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from data.decode import read_picture

    columns, longest = 1 + len(predictors), max(len(best) for per_run in answers for best in per_run)
    figure = Figure(figsize=(3.4 * columns, max(2.8, 0.8 + 0.2 * longest) * len(pictures)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(pictures), columns, squeeze=False)
    for place, picture in enumerate(pictures):
        axes[place, 0].imshow(read_picture(picture))
        axes[place, 0].set_title(picture.name, fontsize=9)
        axes[place, 0].axis("off")
        for run, title in enumerate(titles(predictors)):
            bars(axes[place, run + 1], answers[run][place], title)
    figure.savefig(path, dpi=150)


def bars(axes, best: Best, title: str) -> None:  # type: ignore[no-untyped-def]
    """Draw classes and probabilities, best on top, into matplotlib `axes`."""
    names, values = [name.replace("_", " ") for name, _ in best], [100 * value for _, value in best]
    drawn = axes.barh(range(len(best)), values, color="#4c72b0")
    axes.bar_label(drawn, fmt="%.1f", padding=2, fontsize=8)
    axes.set_yticks(range(len(best)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 115)
    axes.set_xticks((0, 50, 100), ("0", "50", "100"), fontsize=8)
    axes.set_xlabel("probability, %", fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
