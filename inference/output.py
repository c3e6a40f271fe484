"""Predictions for people and programs: a table, JSON, a figure."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from utils.files import IMAGE_SUFFIXES, images_below
from utils.text import first_few, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from inference.predictor import Predictor

Best = Sequence[tuple[str, float]]
"""Classes and probabilities, best first."""

_FORMATS = (".png", ".svg", ".pdf")


def answer(
    images: Sequence[Path], runs: Sequence[Path], *, top: int, as_json: bool, plot_into: Path | None
) -> str:
    """What the runs see in the images, as text or JSON; also as a figure, where a file for it is
    given.

    Raises:
        ValueError: no image, unreadable images (all named and counted), no run, a run without
            weights, a figure that cannot be; nothing was written.
    """
    files = find_images(images)
    if plot_into:
        check_plot(plot_into, len(files))
    from data.decode import UnreadableImage
    from inference.predictor import load

    predictors = [load(run) for run in runs]
    try:
        answers = [predictor.predict(files, top) for predictor in predictors]
    except UnreadableImage as error:
        raise _all_unreadable(files) or error from None
    if plot_into:
        plot(plot_into, files, predictors, answers)
    return (to_json if as_json else to_text)(files, predictors, answers)


def _all_unreadable(images: Sequence[Path]) -> ValueError | None:
    """The one sentence that names and counts the images that cannot be read, if there are
    several."""
    from data.decode import UnreadableImage, read_image

    bad = []
    for path in images:
        try:
            read_image(path)
        except UnreadableImage as error:
            bad.append(f"{path}: {error}")
    if len(bad) < 2:
        return None
    return ValueError(
        f"{len(bad):,} of {len(images):,} images cannot be read ({first_few(bad, 20)}); remove them"
    )


def find_images(places: Sequence[Path]) -> list[Path]:
    """The files among `places`, and every image below its folders, in order of name.

    Raises:
        ValueError: a place does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = [place / name for name in images_below(place)]
            if not inside:
                raise ValueError(
                    f"the folder {place} holds no images ({', '.join(IMAGE_SUFFIXES)}): name "
                    "another"
                )
            found += inside
        elif place.is_file():
            found.append(place)
        elif place.exists():
            raise ValueError(
                f"{place} is neither a file nor a folder: give images, or folders of them"
            )
        else:
            raise ValueError(
                f"{place} does not exist: give the path of an image or of a folder of images"
            )
    if not found:
        raise ValueError("no image was given: give the path of one or more images or folders")
    return found


def titles(predictors: Sequence[Predictor]) -> list[str]:
    """A heading for each run: step and seed, and the folder where runs of several studies have the
    same."""
    short = [printable(predictor.title) for predictor in predictors]
    return (
        short
        if len(set(short)) == len(short)
        else [printable(predictor.folder) for predictor in predictors]
    )


def to_text(
    images: Sequence[Path], predictors: Sequence[Predictor], answers: Sequence[Sequence[Best]]
) -> str:
    """One block an image; a column a run. answers[run][image]."""
    blocks, header = [], titles(predictors)
    for place, image in enumerate(images):
        wide = max(len(printable(name)) for of_run in answers for name, _ in of_run[place])
        columns = [
            [f"{printable(name):<{wide}}  {100 * value:5.1f} %" for name, value in of_run[place]]
            for of_run in answers
        ]
        longest = max(len(column) for column in columns)
        rows = [
            [column[i] if i < len(column) else "" for column in columns] for i in range(longest)
        ]
        blocks.append(
            f"{printable(image)}\n{tabulate(rows, header, tablefmt='simple', disable_numparse=True)}\n"
        )
    return "\n".join(blocks)


def to_json(
    images: Sequence[Path], predictors: Sequence[Predictor], answers: Sequence[Sequence[Best]]
) -> str:
    """A list of {image, run, step, seed, top: [{class, probability}]}."""
    rows = [
        {
            "image": str(image),
            "run": str(predictor.folder),
            "step": predictor.step,
            "seed": predictor.seed,
            "top": [{"class": name, "probability": value} for name, value in answers[run][place]],
        }
        for place, image in enumerate(images)
        for run, predictor in enumerate(predictors)
    ]
    return json.dumps(rows, indent=2) + "\n"


def check_plot(path: Path, images: int = 1) -> None:
    """Raise ValueError unless a figure of that many images can be written to `path`."""
    if path.suffix not in _FORMATS:
        raise ValueError(f"--plot is {path}: give a file name that ends in {', '.join(_FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise ValueError(
            f"the folder of --plot {path} does not exist: create it first, or name another"
        )
    if images > 50:
        raise ValueError(f"--plot would show {images} images: give at most 50")


def plot(
    path: Path,
    images: Sequence[Path],
    predictors: Sequence[Predictor],
    answers: Sequence[Sequence[Best]],
) -> None:
    """Each image beside every run's best classes as bars; one row an image, taller for many
    classes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from data.decode import read_image
    from utils.files import write_atomically

    columns, longest = (
        1 + len(predictors),
        max(len(best) for per_run in answers for best in per_run),
    )
    figure = Figure(
        figsize=(3.4 * columns, max(2.8, 0.8 + 0.2 * longest) * len(images)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), columns, squeeze=False)
    for place, image in enumerate(images):
        axes[place, 0].imshow(read_image(image))
        axes[place, 0].set_title(printable(image.name), fontsize=9, parse_math=False)
        axes[place, 0].axis("off")
        for run, title in enumerate(titles(predictors)):
            bars(axes[place, run + 1], answers[run][place], title)
    drawn = (
        io.BytesIO()
    )  # whole in memory first: a file that was there is kept until the new one is on disk
    figure.savefig(drawn, dpi=150, format=path.suffix[1:])
    write_atomically(path, drawn.getvalue())


def bars(axes: Axes, best: Best, title: str) -> None:
    """Draw classes and probabilities, best on top, into matplotlib `axes`."""
    names, values = (
        [printable(name).replace("_", " ") for name, _ in best],
        [100 * value for _, value in best],
    )
    drawn = axes.barh(range(len(best)), values, color="#4c72b0")
    axes.bar_label(drawn, fmt="%.1f", padding=2, fontsize=8)
    axes.set_yticks(range(len(best)), names, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 115)
    axes.set_xticks((0, 50, 100), ("0", "50", "100"), fontsize=8)
    axes.set_xlabel("probability, %", fontsize=8)
    axes.set_title(printable(title), fontsize=9, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
