"""Predictions as a table, as JSON or as a figure."""

import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tabulate import tabulate

from data.decode import read_image
from data.folders import list_images, other_files
from inference.predictor import Predictor, load, refusal
from utils.files import write_atomically
from utils.text import printable

Best = Sequence[tuple[str, float]]
"""Classes and probabilities, best first."""

_FORMATS = (".png", ".svg", ".pdf")
_MAX_PLOTTED = 50


def answer(
    images: Sequence[Path], runs: Sequence[Path], *, top: int, as_json: bool, plot_into: Path | None
) -> tuple[str, dict[Path, str]]:
    """Return the runs' predictions as text or JSON, and draw them if a file is given.

    Returns:
        The text, and the files that cannot be read, which are left out, with the reasons.

    Raises:
        ValueError: no readable image, no run, a run without weights, or a figure that cannot be
            drawn; nothing was written.
    """
    files = find_images(images)
    if plot_into:
        _check_plot(plot_into, len(files))
    predictors = [load(run) for run in runs]
    predictions, unreadable = [], dict[Path, str]()
    for predictor in predictors:
        predictions.append(predictor.predict(files, top, unreadable=unreadable))
        files = [path for path in files if path not in unreadable]
    if not files:
        raise ValueError(refusal(unreadable))
    if plot_into:
        plot(plot_into, files, predictors, predictions)
    return (to_json if as_json else to_text)(files, predictors, predictions), unreadable


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return the files among `paths`, and every image below its folders, in order of name.

    Raises:
        ValueError: a path does not exist, or a folder holds no image.
    """
    files: list[Path] = []
    others = Counter[str]()
    for path in paths:
        inside = [path]
        if path.is_dir():
            names, rest = list_images(path)
            inside, others = [path / name for name in names], others + rest
        if not inside:
            has = f", only {other_files(others)}" if others else ""
            raise ValueError(f"the folder {path} holds no images{has}: name another")
        if not path.exists():
            raise ValueError(f"{path} does not exist: give an image, or a folder of images")
        files += inside
    if not files:
        raise ValueError("no image was given: give one or more images or folders of images")
    if others:
        print(f"left out: {printable(other_files(others))}", file=sys.stderr)
    return files


def titles(predictors: Sequence[Predictor]) -> list[str]:
    """Return step and seed of each run, or its folder where several have the same."""
    short = [predictor.title for predictor in predictors]
    folders = [str(predictor.folder) for predictor in predictors]
    return [printable(title) for title in (short if len(set(short)) == len(short) else folders)]


def to_text(
    images: Sequence[Path], predictors: Sequence[Predictor], predictions: Sequence[Sequence[Best]]
) -> str:
    """A table for each image with a column for each run; predictions[run][image]."""
    blocks, header = [], titles(predictors)
    for index, image in enumerate(images):
        width = max(len(printable(name)) for run in predictions for name, _ in run[index])
        columns = [
            [f"{printable(name):<{width}}  {100 * p:5.1f} %" for name, p in run[index]]
            for run in predictions
        ]
        rows = zip_longest(*columns, fillvalue="")
        table = tabulate(rows, header, tablefmt="simple", disable_numparse=True)
        blocks.append(f"{printable(image)}\n{table}\n")
    return "\n".join(blocks)


def to_json(
    images: Sequence[Path], predictors: Sequence[Predictor], predictions: Sequence[Sequence[Best]]
) -> str:
    """A list of {image, run, step, seed, top: [{class, probability}]}."""
    rows = [
        {
            "image": str(image),
            "run": str(predictor.folder),
            "step": predictor.step,
            "seed": predictor.seed,
            "top": [{"class": name, "probability": p} for name, p in predictions[run][index]],
        }
        for index, image in enumerate(images)
        for run, predictor in enumerate(predictors)
    ]
    return json.dumps(rows, indent=2) + "\n"


def _check_plot(path: Path, images: int) -> None:
    if path.suffix not in _FORMATS:
        raise ValueError(f"--plot is {path}: give a file name that ends in {', '.join(_FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"the folder of --plot {path} does not exist: create it, or name another")
    if images > _MAX_PLOTTED:
        raise ValueError(f"--plot would show {images} images: give at most {_MAX_PLOTTED}")


def plot(
    path: Path,
    images: Sequence[Path],
    predictors: Sequence[Predictor],
    predictions: Sequence[Sequence[Best]],
) -> None:
    """Draw a row for each image: the image, and bars of each run's best classes."""
    columns = 1 + len(predictors)
    longest = max(len(best) for run in predictions for best in run)
    height = max(2.8, 0.8 + 0.2 * longest) * len(images)
    figure = Figure(figsize=(3.4 * columns, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), columns, squeeze=False)
    for index, image in enumerate(images):
        axes[index, 0].imshow(read_image(image))
        axes[index, 0].set_title(printable(image.name), fontsize=9, parse_math=False)
        axes[index, 0].axis("off")
        for run, title in enumerate(titles(predictors)):
            bars(axes[index, run + 1], predictions[run][index], title)
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format=path.suffix[1:])
    write_atomically(path, content.getvalue())


def bars(axes: Axes, best: Best, title: str) -> None:
    """Draw classes and probabilities, best on top, into matplotlib `axes`."""
    names = [printable(name).replace("_", " ") for name, _ in best]
    drawn = axes.barh(range(len(best)), [100 * p for _, p in best], color="#4c72b0")
    axes.bar_label(drawn, fmt="%.1f", padding=2, fontsize=8)
    axes.set_yticks(range(len(best)), names, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 115)
    axes.set_xticks((0, 50, 100), ("0", "50", "100"), fontsize=8)
    axes.set_xlabel("probability, %", fontsize=8)
    axes.set_title(printable(title), fontsize=9, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
