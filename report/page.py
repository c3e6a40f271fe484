"""Write a study's report: a page in Markdown and in HTML, tables as CSV, figures as PNG and SVG."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from report import (
    calibration,
    claims,
    classes,
    collect,
    costs,
    design_sections,
    numbers,
    plots,
    provenance,
    sweeps,
    web,
)
from report.judgement import Judgement
from report.tables import Summary, bounds
from studies import pack
from training.spec import LIKELY_CAUSES
from utils import markdown
from utils.files import one_writer, sync_files, sync_folder
from utils.text import left_out, listed, plural

FIGURES: dict[str, tuple[str, Callable[[Summary], Figure | None]]] = {
    "differences": ("What each step changes", plots.differences),
    "steps": ("Top-1 accuracy step by step", plots.steps),
    "accuracy_vs_gflops": ("Accuracy against compute", plots.accuracy_vs_gflops),
    "learning_curves": ("Learning curves on the validation images", plots.learning_curves),
}
TABLES: dict[str, Callable[[Summary], pd.DataFrame]] = {
    "claims": claims.table,
    "steps": lambda summary: summary.steps,
    "runs": lambda summary: summary.runs,
    "curves": lambda summary: summary.curves,
    "costs": costs.table,
    "classes": classes.table,
    "confusion": classes.confusion,
    "calibration": calibration.table,
    "changed_predictions": classes.changed_predictions,
    "provenance": provenance.provenance,
    "recipe": provenance.recipe,
    "time": provenance.time,
}
"""Each is written as CSV with full precision."""
FOLDED = ("runs", "recipe", "time", "provenance")
"""Tables that only the HTML page shows, in a fold."""


def sections(
    summary: Summary,
) -> list[design_sections.DesignSummary | sweeps.SweepSummary]:
    """The study's designs and sweeps, each with a figure of its own."""
    return [*design_sections.of(summary), *sweeps.of(summary)]


def tables(summary: Summary) -> dict[str, pd.DataFrame]:
    """All tables by file name."""
    made = {name: make(summary) for name, make in TABLES.items()}
    for one in design_sections.of(summary):
        made[f"{one.name}_effects"] = one.effects
    for each in sweeps.of(summary):
        for name in ("values", "effects", "differences", "changes"):
            made[f"{each.name}_{name}"] = getattr(each, name)
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
    options: Any = {"prefix": ".report-", "dir": place, "ignore_cleanup_errors": True}
    try:
        with tempfile.TemporaryDirectory(**options) as work:
            _write_files(summary, Path(work))
            with one_writer(whole):  # processes that share a study end it at the same moment
                _move(Path(work), target)
    except OSError as error:
        raise OSError(
            f"the report of {source} could not be written ({error.strerror or error}); the one "
            "before is kept"
        ) from error
    return target / "report.md"


def _write_files(summary: Summary, folder: Path) -> None:
    names, made = [], tables(summary)
    for name, figure in drawn(summary):
        plots.save(figure, folder / name)
        names.append(name)
    for name, table in made.items():
        # The shortest repr of a float, which pandas writes, reads back as the same number.
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    page = render(summary, made, names)
    (folder / "report.md").write_text(page, encoding="utf-8")
    folded = {name: made[name] for name in FOLDED}
    html = web.to_html(page, summary.study.name, folder, folded)
    (folder / "report.html").write_text(html, encoding="utf-8")


def _move(work: Path, target: Path) -> None:
    """Rename all files into place, the page last, for it names the others; remove old figures."""
    target.mkdir(parents=True, exist_ok=True)
    sync_files(work)
    made = sorted(work.iterdir(), key=lambda path: path.name == "report.md")
    names = {path.name for path in made}
    for path in made:
        path.replace(target / path.name)
    for old in (*target.glob("*.png"), *target.glob("*.svg")):
        drawn_before = old.stem in FIGURES or old.stem.startswith(("design_", "sweep_"))
        if drawn_before and old.name not in names:
            old.unlink()
    sync_folder(target)


def drawn(summary: Summary) -> Iterator[tuple[str, Figure]]:
    """Draw each figure for which the study has something to show; yields (file name, figure)."""
    for name, (_, draw) in FIGURES.items():
        if figure := draw(summary):
            yield name, figure
    for one in sections(summary):
        if figure := one.figure():
            yield one.name, figure


def render(summary: Summary, tables: Mapping[str, pd.DataFrame], drawn: Sequence[str]) -> str:
    """The report in GitHub's Markdown, with the figures named in `drawn`."""
    study, path = summary.study, summary.study.path_requested
    environment = markdown.environment(Path(__file__).parent / "templates")
    environment.filters |= {
        "signed": numbers.signed,
        "amount": numbers.amount,
        "probability": numbers.probability,
        "with_interval": _with_interval,
        "code": lambda name: f"`{name}.csv`",
    }
    titles = {name: title for name, (title, _) in FIGURES.items()}
    titles |= {one.name: one.title for one in sections(summary)}
    environment.globals |= {
        "table": markdown.table,
        "interval": numbers.interval,
        "intervals": intervals,
        "percent": numbers.percent,
        "seeds": numbers.seeds,
        "plural": plural,
        "listed": listed,
        "left_out": left_out,
        "label": lambda name: markdown.plain(summary.label(name)),
        "figure": lambda name: f"![{titles[name]}]({name}.png)",
        "summary": summary,
        "study": study,
    }
    designs = design_sections.of(summary)
    judged = list(summary.differences.values())
    if not path and designs:
        judged = list(designs[0].judged.values())
    changed = tables["changed_predictions"]
    most = (changed["to_right"] + changed["to_wrong"]).sort_values(ascending=False, kind="stable")
    return environment.get_template("report.md.j2").render(
        path=path,
        resolution=study.config["resolution"],
        parts_off=claims.parts_off(summary),
        seeds_a_row=claims.seeds_a_row(summary),
        judged=judged,
        reach=claims.reach(judged),
        chance=claims.chance_of_images(judged) if judged else None,
        claims=tables["claims"] if path and judged and summary.compared_with_paper else None,
        counts=claims.counts(tables["claims"]),
        compared=[*summary.ends, *summary.differences.values()],
        off_path=[step.name for step in study.steps if step.off_path],
        rank=claims.rank_correlation(summary),
        same_recipe=claims.under_one_recipe(summary),
        spread=claims.spread(summary),
        designs=designs,
        sweeps=sweeps.of(summary),
        costs=tables["costs"],
        shown_costs=[cost for cost in costs.COSTS if cost.shown],
        flops=numbers.flops_unit(tables["costs"]["gflops"]),
        devices=listed({str(run.result["device"]) for run in study.all_finished if run.result}),
        classes=classes.extremes(tables["classes"]),
        confused=tables["confusion"],
        calibration=tables["calibration"],
        calibrated=calibration.most_telling(tables["calibration"], summary),
        changed_predictions=changed.loc[most.index[:5]],
        missing=provenance.missing(summary),
        likely_causes=LIKELY_CAUSES,
        tables=list(tables),
        figures=drawn,
    )


def intervals(one: Judgement) -> str:
    """The interval of the verdict's question, and the other where it is a tenth of a point off."""
    low, high = bounds(one)
    if high - low >= 2 * numbers.MOST:
        return "anything"
    text = numbers.interval(low, high)
    fixed, new = (one.answer_to(question) for question in ("fixed", "new"))
    if not (fixed and new):
        return text
    apart = max(abs(fixed.low - new.low), abs(fixed.high - new.high))
    if apart < 0.1:
        return text
    other, name = (new, "new images") if one.question == "fixed" else (fixed, "this test set")
    return f"{text}<br>{name} {numbers.interval(other.low, other.high)}"


def _with_interval(row: Mapping[str, Any]) -> str:
    return f"{numbers.signed(row['points'])} {numbers.interval(row['low'], row['high'])}"
