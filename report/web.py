"""report.html: the Markdown page as one file that needs no network, with tables that sort and
figures that answer."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from pathlib import Path
from typing import Any

import jinja2
import markdown
import numpy as np

from report import calibration, classes, costs, difference_plots
from report.collect import RunRecord
from report.judgement import Judgement
from report.plots import group_colours
from report.tables import Summary

PARTS = Path(__file__).parent / "templates"
LIBRARY = PARTS / "plotly-cartesian-4.1.1.min.js"
INTERACTIVE = (
    "steps",
    "accuracy_vs_gflops",
    "differences",
    "learning_curves",
    "classes",
    "confusion",
    "reliability",
)
"""Figures that report.js draws; any other is shown as its SVG."""
NUMBERS = "The numbers are in the tables of this section and in the files named below the figure."
MOST_EPOCHS = 40_000
"""Points of all learning curves together; of more, some epochs are left out of the page (not of
curves.csv)."""


def to_html(page: str, summary: Summary, folder: Path) -> str:
    """The Markdown `page` as HTML; the SVG files of figures that are not interactive are read from
    `folder`."""
    made = markdown.Markdown(
        extensions=["tables", "toc"],
        output_format="html",
        extension_configs={
            "toc": {"permalink": "#", "permalink_title": "Permanent link to this section"}
        },
    )
    body = made.convert(page)

    def figure(match: re.Match[str]) -> str:
        title, name = match[1], match[2]
        if name in INTERACTIVE:
            what = f'<div class="plot" role="img" data-figure="{name}" aria-label="{title}. {NUMBERS}"></div>'
            what = f'<div class="controls"></div>{what}'
        else:
            image = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()
            img = f'<img alt="{title}. {NUMBERS}" src="data:image/svg+xml;base64,{image}">'
            what = f'<div class="broad" role="region" tabindex="0" aria-label="Figure: {title}">{img}</div>'
        link = f'<a class="headerlink" href="#figure-{name}" title="Permanent link to this figure">#</a>'
        caption = f"{title}. Alone: <code>{name}.svg</code>, <code>{name}.png</code>.{link}"
        return f'<figure id="figure-{name}">{what}<figcaption>{caption}</figcaption></figure>'

    body = re.sub(r'<p><img alt="([^"]*)" src="(\w+)\.png"\s*/?></p>', figure, body)
    body = body.replace(
        "<table>", '<div class="wide" role="region" tabindex="0" aria-label="Table"><table>'
    )
    body = body.replace("</table>", "</table></div>")
    template = (PARTS / "page.html.j2").read_text(encoding="utf-8")
    parts = {name: (PARTS / f"report.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    # "<" as an escape: no text from a file can end the element that holds it.
    data = json.dumps(_finite(payload(summary)), ensure_ascii=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    return str(
        jinja2.Template(template, keep_trailing_newline=True).render(
            title=html.escape(summary.study.name),
            body=body,
            data=data,
            style=parts["css"],
            script=parts["js"],
            library=LIBRARY.read_text(encoding="utf-8"),
        )
    )


def payload(summary: Summary) -> dict[str, Any]:
    """What report.js draws; accuracies in percent, differences in points, rounded to what a screen
    can show."""
    colours = group_colours(summary)
    table = costs.table(summary)
    known = costs.known(table)
    steps = [step for step in summary.study.steps if step.name in summary.correct]
    by_name = {row["name"]: row for row in table.to_dict("records")}
    return {
        "costs": [{"name": cost.name, "title": cost.title} for cost in known],
        "rows": [
            {
                "name": step.name,
                "number": step.number,
                "group": step.group,
                "after": step.after,
                "colour": None if step.reference else colours[step.name],
                "off_path": bool(step.off_path),
                "reference": bool(step.reference),
                "change": step.description,
                "top1": by_name[step.name]["top1"],
                "std": by_name[step.name]["top1_std"],
                "seeds": [run.seed for run in summary.study.finished(step.name)],
                "costs": {cost.name: by_name[step.name][cost.name] for cost in known},
                "front": [cost.name for cost in known if by_name[step.name][f"front_{cost.name}"]],
            }
            for step in steps
        ],
        "runs": [_run(run, known) for step in steps for run in summary.study.finished(step.name)],
        "differences": [
            _difference(summary, step.name, summary.differences[step.name])
            for step in summary.study.steps
            if step.name in summary.differences
        ],
        "curves": _curves(summary),
        "classes": _classes(summary),
        "confusion": _confusion(summary),
        "reliability": _reliability(summary),
    }


def _run(run: RunRecord, known: tuple[costs.Cost, ...]) -> dict[str, Any]:
    assert run.result is not None
    return {
        "row": run.step,
        "seed": run.seed,
        "top1": run.result["top1"],
        "digest": run.identity.get("digest"),
        "code": run.result.get("code_version"),
        "device": run.result.get("device"),
        "costs": {cost.name: cost.of(run.result) for cost in known},
    }


def _difference(summary: Summary, name: str, one: Judgement) -> dict[str, Any]:
    step = next(step for step in summary.study.steps if step.name == name)
    bounds = {
        key: answer and [answer.low, answer.high]
        for key, answer in (("fixed", one.fixed_test), ("new", one.new_images))
    }
    return {
        "row": name,
        "after": one.pair[1],
        "points": one.points,
        "seeds": list(one.seeds),
        "runs": list(one.these_runs),
        "words": one.text,
        "paper": summary.paper_difference(step),
        "clear": bool(one.sign),
        **bounds,
    }


def _curves(summary: Summary) -> list[dict[str, Any]]:
    every = max(1, math.ceil(sum(len(run.metrics) for run in summary.study.runs) / MOST_EPOCHS))
    return [
        {
            "row": run.step,
            "seed": run.seed,
            "done": run.result is not None,
            "epoch": [record["epoch"] for record in run.metrics[::-every][::-1]],
            "top1": [record["validation_top1"] for record in run.metrics[::-every][::-1]],
        }
        for run in summary.study.runs
    ]


def _classes(summary: Summary) -> dict[str, Any] | None:
    if not classes.pairs(summary):
        return None
    grid, rows, columns = difference_plots.changes_grid(summary)
    table = classes.table(summary)
    bounds = {
        key: table.pivot(index="class", columns=["step", "after"], values=key).reindex(
            index=rows, columns=classes.pairs(summary)
        )
        for key in ("low", "high")
    }
    return {"rows": rows, "columns": columns, "points": grid, **bounds}


def _confusion(summary: Summary) -> dict[str, Any] | None:
    pairs = classes.confusion(summary)
    if pairs.empty:
        return None
    names = list(summary.study.dataset.classes)
    grid = pairs.pivot(index="class", columns="taken_for", values="percent").reindex(
        index=names, columns=names
    )
    return {"names": names, "percent": grid.fillna(0), "step": classes.last(summary)}


def _reliability(summary: Summary) -> list[dict[str, Any]]:
    table = calibration.reliability(summary)
    return [
        {"row": name, **{key: mine[key].tolist() for key in ("confidence", "accuracy", "images")}}
        for name, mine in table.groupby("name", sort=False)
    ]


def _finite(value: Any) -> Any:
    """As JSON has it: lists instead of arrays, five digits, null for what is not a number."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
