"""Where the numbers come from: provenance, recipes, time, and what is missing."""

from __future__ import annotations

import pandas as pd

from report.collect import SECONDS
from report.numbers import NOTHING
from report.tables import Summary
from utils.text import duration, flat, left_out, listed, plural


def provenance(summary: Summary) -> pd.DataFrame:
    """The study, its data, and the code and machines of its runs, as text."""
    study, data = summary.study, summary.study.dataset
    finished = study.all_finished
    trained = [{**run.environment, **(run.result or {})} for run in finished if not run.alias_of]
    shared = len(finished) - len(trained)
    known = {
        name: ", ".join(sorted({str(one[name]) for one in trained if one.get(name)})) or "unknown"
        for name in ("device", "cpu", "python", "torch", "torchvision", "cuda", "code_version")
    }
    dates = sorted(str(one.get("finished", "unknown")) for one in trained) or ["none"]
    rows = {
        "Study": study.name,
        "Config hash": study.hash,
        "Plan": summary.plan.digest if study.plans else "none",
        "Data set": f"{data.name}: {data.description}",
        "Images": f"{data.train:,} training, {data.validation:,} validation, {data.test:,} test",
        "Left out": left_out(data.skipped) or "none",
        "Precision": str(study.config.get("precision", "unknown")),
        "Runs": f"{len(finished)} finished ({shared} of them shared between rows), "
        f"{len(study.runs) - len(finished)} unfinished, {len(study.left_out)} left out",
        "Finished": f"{dates[0]} to {dates[-1]}",
        "Time of the finished runs": duration(sum(one["seconds"]["total"] for one in trained)),
    }
    rows |= {name.replace("_", " ").capitalize(): value for name, value in known.items()}
    return pd.DataFrame(list(rows.items()), columns=["what", "value"])


def recipe(summary: Summary) -> pd.DataFrame:
    """One row per field of the recipes, its values as text."""
    config = summary.study.config
    modern, classic = flat(config["recipe"]), flat(config.get("classic") or {})
    rows = [
        (name, _text(modern.get(name)), _text(classic.get(name)) if classic else NOTHING)
        for name in dict.fromkeys([*modern, *classic])
    ]
    return pd.DataFrame(rows, columns=["field", "recipe", "classic"])


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def time(summary: Summary) -> pd.DataFrame:
    """Seconds of all finished runs together, by what they were spent on."""
    runs = [run for run in summary.study.all_finished if not run.alias_of]
    results = [run.result for run in runs if run.result is not None]
    spent = [sum(result["seconds"][part] for result in results) for part in SECONDS]
    return pd.DataFrame({"part": SECONDS, "seconds": spent})


def missing(summary: Summary) -> list[str]:
    """A line for each unfinished run and for the seeds and variants that lack.

    Where a study may stop early, seeds that no comparison requested are not missing.
    """
    study = summary.study
    plan = summary.own_plan if study.plans and summary.components else None
    lines: list[str] = []
    lacking: dict[tuple[int, ...], list[str]] = {}
    known = {run.name for run in study.runs} | {run.name for run in study.left_out}
    for step in study.steps:
        label = summary.label(step.name)
        for run in study.unfinished(step.name):
            epochs = plural(len(run.metrics), "epoch")
            lines.append(f"{label}: seed {run.seed} is unfinished ({epochs} done).")
        wanted = study.seeds if plan is None else plan.sure_seeds(step.name)
        lacks = tuple(seed for seed in wanted if f"{step.name}/seed-{seed}" not in known)
        if lacks:
            lacking.setdefault(lacks, []).append(label)
    for seeds, labels in lacking.items():
        which = f"seed{'s' * (len(seeds) > 1)} {listed(map(str, seeds))}"
        lines.append(f"Not run: {which} of {listed(labels)}.")
    steps = {step.name for step in study.steps}
    for design in study.designs:
        names_of_design = (row.name for row in design.variants if row.name not in steps)
        without = [name for name in names_of_design if not study.finished(name)]
        if without:
            lines.append(f"Of the design {design.spec.kind}, no finished run: {listed(without)}.")
    return lines
