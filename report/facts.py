"""The words and numbers of the page: everything that the template prints, formatted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from ablations import Step
from data.words import duration, flat, left_out
from report.checks import SECONDS, RunRecord
from report.collect import StudyRecord
from report.statistics import Difference
from report.tables import Summary

MINUS = "−"
NOTHING = "–"


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def listed(words: Iterable[str]) -> str:
    """Words as English lists them: a, b and c."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"


def signed(value: float, digits: int = 2) -> str:
    """+1.20 or −0.31, with a real minus sign; 0.00 has none."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def amount(value: float) -> str:
    """Two decimals, or three digits below one."""
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:#.3g}"


def _present(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def page(summary: Summary) -> dict[str, Any]:
    """All variables of the template."""
    study = summary.study
    finished = [run for run in study.runs if run.result is not None]
    differences = [summary.differences[step.name] for step in study.steps if step.name in summary.differences]
    covers = [difference.covers_seeds for difference in differences]
    return {
        "study": study,
        "finished": len(finished),
        "done_steps": len(summary.correct),
        "resolution": _resolution(study.config),
        "rows": [_row(summary, step) for step in study.steps],
        "many_seeds": any(len(array) > 1 for array in summary.correct.values()),
        "covers": "all" if covers and all(covers) else "some" if any(covers) else "none",
        "one_seed": [name for name, array in summary.correct.items() if len(array) == 1],
        "scope": "" if all(covers) else " (some for these seeds only)" if any(covers) else " (for this seed)",
        "compared": len(differences),
        "gains": _verdicts(study, differences, 1),
        "losses": _verdicts(study, differences, -1),
        "noise": listed(_label(study, d.step) for d in differences if d.sign == 0),
        "noise_count": sum(d.sign == 0 for d in differences),
        "detectable": f"{statistics.median(d.detectable for d in differences):.2f}" if differences else None,
        "ends": [
            f"{_label(study, d.step)} against {_label(study, d.after)}: {_difference(d)}, {d.verdict}"
            for d in summary.ends
        ],
        "paper_regime": summary.paper_regime,
        "agreement": summary.agreement,
        "missing": _missing(study),
        "certificate": _certificate(summary, finished),
        "recipe": _recipe(study.config),
        "time": _time(finished),
    }


def _label(study: StudyRecord, name: str) -> str:
    number = next((step.number for step in study.steps if step.name == name), None)
    return name if number is None else f"{number} {name}"


def _difference(difference: Difference) -> str:
    return f"{signed(difference.points)} [{signed(difference.low)}, {signed(difference.high)}]"


def _verdicts(study: StudyRecord, differences: Iterable[Difference], sign: int) -> str:
    beside = {step.name for step in study.steps if step.beside}
    return listed(
        f"{_label(study, d.step)} ({'off the path, ' if d.step in beside else ''}{signed(d.points)})"
        for d in differences
        if d.sign == sign
    )


def _row(summary: Summary, step: Step) -> tuple[str, ...]:
    record = summary.by_step[step.name]
    difference = summary.differences.get(step.name)
    top1 = NOTHING
    if record["runs"]:
        top1 = f"{record['top1']:.2f}"
        if record["runs"] > 1:
            top1 += f" ± {record['top1_std']:.2f} (n = {record['runs']})"
    paper = summary.paper(step)
    theirs = summary.paper_difference(step)
    paper_top1 = NOTHING if paper is None else f"{paper.top1:.2f}"
    if paper is not None and paper.top1_std is not None:
        paper_top1 += f" ± {paper.top1_std:.2f}"
    after = ""
    if step.beside:
        after = f" (from {_label(summary.study, step.after or '')})"
    return (
        NOTHING if step.number is None else str(step.number),
        f"*{step.name}*" if step.beside or step.reference else step.name,
        step.sentence + after,
        amount(record["params"] / 1e6) if record["runs"] else NOTHING,
        amount(record["gflops_paper_convention"]) if record["runs"] else NOTHING,
        top1,
        _difference(difference) if difference else NOTHING,
        _verdict(summary, step),
        paper_top1,
        NOTHING if theirs is None else signed(theirs),
    )


def _verdict(summary: Summary, step: Step) -> str:
    if step.name not in summary.correct:
        return "no finished run"
    if step.name in summary.differences:
        return summary.differences[step.name].verdict
    return NOTHING if step.after is None else f"{step.after} has no finished run"


def _missing(study: StudyRecord) -> list[str]:
    """One sentence a step that was begun and has no result, one for all not begun, one a seed that steps lack."""
    lines: list[str] = []
    unseen: list[str] = []
    lacking: dict[int, list[str]] = {}
    for step in study.steps:
        begun = {run.seed: len(run.metrics) for run in study.unfinished(step.name)}
        seen = {run.seed for run in study.finished(step.name)} | begun.keys()
        parts = [f"seed {seed} is unfinished ({plural(n, 'epoch')} done)" for seed, n in begun.items()]
        if not seen:
            if any(run.name.startswith(f"{step.name}/") for run in study.left_out):
                parts.append("no run that can be reported")
            else:
                unseen.append(_label(study, step.name))
        else:
            for seed in set(study.seeds) - seen:
                lacking.setdefault(seed, []).append(_label(study, step.name))
        if parts:
            lines.append(f"{_label(study, step.name)}: {'; '.join(parts)}.")
    lines += [f"Not run yet: {listed(unseen)}."] if unseen else []
    lines += [f"Seed {seed} was not run for {listed(names)}." for seed, names in sorted(lacking.items())]
    return lines


def _values(values: Iterable[object]) -> str:
    return ", ".join(sorted({str(value) for value in values if value is not None})) or "unknown"


def _certificate(summary: Summary, finished: list[RunRecord]) -> list[tuple[str, str]]:
    study = summary.study
    data = study.dataset
    results = [run.result for run in finished if run.result is not None and not run.made_as]
    dates = sorted(str(result["finished"]) for result in results if result.get("finished"))
    libraries = [
        f"{name} {_values(versions)}"
        for name in ("python", "torch", "torchvision", "cuda", "numpy")
        if (versions := [run.environment[name] for run in study.runs if run.environment.get(name)])
    ]
    devices = [result.get("device") for result in results] + [run.environment.get("device") for run in study.runs]
    return [
        ("Study", study.name),
        ("Config hash", study.hash),
        ("Data set", f"{data.name}: {data.description}"),
        ("Classes", f"{len(data.classes):,}"),
        ("Pictures", f"{data.train:,} training, {data.validation:,} validation, {data.test:,} test"),
        *([("Left out", left_out(data.skipped))] if data.skipped else []),
        ("Regime", study.regime),
        ("Resolution", f"{_resolution(study.config)} pixels"),
        ("Precision", str(study.config.get("precision", "unknown"))),
        ("Seeds", ", ".join(map(str, study.seeds)) or "none"),
        ("Runs", f"{len(finished)} finished{_shared(finished)}, {len(study.runs) - len(finished)} unfinished, "
                 f"{len(study.left_out)} left out"),
        ("Device", _values(devices)),
        ("CPU", _values(run.environment.get("cpu") for run in study.runs)),
        ("Libraries", ", ".join(libraries) or "unknown"),
        ("Code version", _values(result.get("code_version") for result in results)),
        ("Finished", NOTHING if not dates else dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"),
        ("Time of the finished runs", duration(sum(result["seconds"]["total"] for result in results))),
    ]  # fmt: skip


def _shared(finished: list[RunRecord]) -> str:
    count = sum(run.made_as is not None for run in finished)
    return f" ({count} of them shared between rows)" if count else ""


def _time(finished: list[RunRecord]) -> list[tuple[str, str, str]]:
    """(part, time, share) over all finished runs."""
    results = [run.result for run in finished if run.result is not None and not run.made_as]
    total = sum(sum(result["seconds"][key] for key in SECONDS) for result in results)
    if not total:
        return []
    order = ("forward", "backward", "optimizer", "evaluation", "data", "other")
    spent = {key: sum(result["seconds"][key] for result in results) for key in order}
    return [(key, duration(value), f"{100 * value / total:.1f} %") for key, value in spent.items()]


def _resolution(config: Mapping[str, Any]) -> str:
    return str(config.get("resolution", flat(config["recipe"]).get("resolution", "unknown")))


def _recipe(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(field, the recipe of the steps, the classic recipe of step 0)."""
    recipe = flat(config["recipe"])
    classic = config.get("classic")
    other = flat(classic) if isinstance(classic, Mapping) else {}
    return [
        (name, _value(recipe.get(name)), _value(other.get(name)) if other else NOTHING)
        for name in dict.fromkeys([*recipe, *other])
    ]


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
