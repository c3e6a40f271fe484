"""Write a study's report: a page in Markdown and in HTML, tables as CSV, figures as PNG and SVG."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from report import (
    calibration,
    classes,
    collect,
    costs,
    design_sections,
    detail_plots,
    differences,
    hparams,
    plots,
    provenance,
    sweeps,
    web,
)
from report.tables import Summary
from studies import pack
from utils import markdown
from utils.files import one_writer
from utils.text import duration, listed, plural

FIGURES: dict[str, tuple[str, Callable[[Summary], Figure | None]]] = {
    "steps": ("Top-1 accuracy step by step", plots.steps),
    "accuracy_vs_gflops": ("Accuracy against GFLOPs", plots.accuracy_vs_gflops),
    "costs": ("Accuracy against what it costs", detail_plots.accuracy_vs_costs),
    "differences": ("What each step changes", plots.differences),
    "learning_curves": ("Learning curves on the validation images", plots.learning_curves),
    "classes": ("Change of each class at each step", detail_plots.class_changes),
    "confusion": ("What the last step confuses", detail_plots.confusion),
    "reliability": ("Accuracy against confidence", detail_plots.reliability),
    "changed_predictions": ("Changed predictions", detail_plots.changed_predictions),
}

_BESIDE_THEIR_TABLE = ("costs", "classes", "confusion", "reliability", "changed_predictions")
"""Figures that a section of their own shows; the others follow the table of the steps."""

TABLES: dict[str, Callable[[Summary], pd.DataFrame]] = {
    "steps": lambda summary: summary.steps,
    "runs": lambda summary: summary.runs,
    "curves": lambda summary: summary.curves,
    "costs": costs.table,
    "classes": classes.table,
    "confusion": classes.confusion,
    "calibration": calibration.table,
    "reliability": calibration.reliability,
    "changed_predictions": classes.changed_predictions,
    "provenance": provenance.provenance,
    "recipe": provenance.recipe,
    "time": provenance.time,
}
"""Each is written as CSV with full precision."""


def figures(summary: Summary) -> dict[str, tuple[str, Callable[[Summary], Figure | None]]]:
    """By file name, the title and function of each figure that the study may have."""
    designs = {
        one.name: (one.title, lambda _, one=one: one.figure())
        for one in design_sections.of(summary)
    }
    made = FIGURES | designs
    for one in sweeps.of(summary):
        made |= one.figures()
    return made


def tables(summary: Summary) -> dict[str, pd.DataFrame]:
    """All tables by file name."""
    made = {name: make(summary) for name, make in TABLES.items()}
    for one in design_sections.of(summary):
        made |= {f"{one.name}_effects": one.effects, f"{one.name}_rows": one.rows}
    for each in sweeps.of(summary):
        made |= {
            f"{each.name}_values": each.values,
            f"{each.name}_effects": each.effects,
            f"{each.name}_differences": each.differences,
            f"{each.name}_changes": each.changes,
        }
    return made


def write(
    source: Path,
    roadmap: str | None = None,
    *,
    mixed_code: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the report of the runs that exist, and return the path of its report.md.

    It is the folder `source`/report, or NAME-report next to a pack NAME.pack. A roadmap other than
    the study's first has a folder of its name in it. `tell` is called with a sentence for each run
    that is left out; `mixed_code` is that of `collect.read`.

    All files are written to a temporary folder and then renamed into place, by one process at a
    time; a figure that the study no longer has is removed.

    Raises:
        ValueError: `source` is no study's folder nor a whole pack, or holds no run at all.
        OSError: the report cannot be written.
    """
    with pack.opened(source) as folder:
        summary = Summary(collect.read(folder, roadmap, mixed_code=mixed_code))
    for sentence in summary.study.oddities:
        tell(sentence)
    study = summary.study
    place, name = (
        (source, "report") if source.is_dir() else (source.parent, f"{source.stem}-report")
    )
    whole = place / name
    target = whole / ("" if study.roadmap.name == study.first_roadmap else study.roadmap.name)
    try:
        work = Path(tempfile.mkdtemp(prefix=".report-", dir=place))
    except OSError as error:
        raise OSError(f"the report of {source} could not be written ({error.strerror})") from error
    try:
        names = _save(drawn(summary), work)
        for name, table in tables(summary).items():
            # The shortest repr of a float, which pandas writes, reads back as the same number.
            table.to_csv(work / f"{name}.csv", index=False, lineterminator="\n")
        hparams.write(summary, work / hparams.FOLDER)
        page = render(summary, names)
        (work / "report.md").write_text(page, encoding="utf-8")
        (work / "report.html").write_text(web.to_html(page, study.name, work), encoding="utf-8")
        with one_writer(whole):  # processes that share a study end it at the same moment
            target.mkdir(parents=True, exist_ok=True)
            made = sorted(work.iterdir(), key=lambda path: path.name == "report.md")
            for path in made:  # the page last: it names the others
                _flush(path)
                if path.is_dir():
                    shutil.rmtree(target / path.name, ignore_errors=True)
                path.replace(target / path.name)
            for old in (*target.glob("*.png"), *target.glob("*.svg")):
                if old.stem not in names and (
                    old.stem in FIGURES or old.stem.startswith(("design_", "sweep_"))
                ):
                    old.unlink()
            _flush(target)
    except OSError as error:
        raise OSError(
            f"the report of {source} could not be written ({error.strerror or error}); the one "
            "before is kept"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target / "report.md"


def drawn(summary: Summary) -> Iterator[tuple[str, Figure]]:
    """Draw each figure for which the study has something to show; yields (file name, figure)."""
    for name, (_, draw) in figures(summary).items():
        figure = draw(summary)
        if figure is not None:
            yield name, figure


def _save(figures: Iterable[tuple[str, Figure]], folder: Path) -> list[str]:
    names = []
    for name, figure in figures:
        plots.save(figure, folder / name)
        names.append(name)
    return names


def _flush(path: Path) -> None:
    """Flush a file's contents, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def render(summary: Summary, drawn: Sequence[str]) -> str:
    """The report in GitHub's Markdown, with the figures named in `drawn`."""
    study = summary.study
    environment = markdown.environment(Path(__file__).parent / "templates")
    titles = {name: title for name, (title, _) in figures(summary).items()}
    environment.globals |= {
        "table": markdown.table,
        "interval": markdown.interval,
        "plural": plural,
        "listed": listed,
        "duration": duration,
        "label": lambda name: provenance.step_label(study, name),
        "figure": lambda name: f"![{titles[name]}]({name}.png)",
    }
    compared = [summary.differences[s.name] for s in study.steps if s.name in summary.differences]
    seeds = {name: len(correct) for name, correct in summary.correct.items()}
    return environment.get_template("report.md.j2").render(
        summary=summary,
        study=study,
        plan=summary.plan,
        paper=summary.held_against_the_paper,
        resolution=provenance.resolution(study),
        finished=study.all_finished,
        compared=compared,
        answered=[one for one in compared if one.answer is not None],
        off_path=[step.name for step in study.steps if step.off_path],
        one_seed=[name for name, count in seeds.items() if count == 1],
        several_seeds=max(seeds.values(), default=0) > 1,
        images="new images" if summary.plan.images == "new" else "this test set",
        analyses=summary.interim_analyses,
        sequential=summary.own_plan.sequential,
        missing=provenance.missing(summary),
        provenance=provenance.provenance(summary).to_dict("records"),
        recipe=provenance.recipe(summary).to_dict("records"),
        recipe_changes=provenance.recipe_changes(summary),
        time=provenance.time(summary).to_dict("records"),
        costs=costs.section(summary),
        differences=differences.section(summary),
        figures=drawn,
        designs=[one.section() for one in design_sections.of(summary)],
        sweeps=[one.section() for one in sweeps.of(summary)],
        after_steps=[name for name in drawn if name in FIGURES and name not in _BESIDE_THEIR_TABLE],
    )
