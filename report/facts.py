"""The words and numbers of the page: everything that the template prints, formatted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ablations import REGIMES, RecipeOf, Step
from report.collect import RunRecord, StudyRecord
from report.judgement import Answer, Judgement
from report.tables import Summary, link_to_runs
from studies.plan import Plan
from utils.markdown import NOTHING, amount, plain, signed
from utils.text import duration, flat, left_out, listed, plural


def analysed(analyses: tuple[int, ...]) -> str:
    """When comparisons are judged."""
    if len(analyses) == 1:
        return f"{plural(analyses[0], 'seed')}, one analysis"
    return f"analyses after {', '.join(map(str, analyses))} seeds"


def _present(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def page(summary: Summary) -> dict[str, Any]:
    """All variables of the template."""
    study = summary.study
    finished = study.all_finished
    differences = [
        summary.differences[step.name] for step in study.steps if step.name in summary.differences
    ]
    answered = [one for one in differences if one.answer is not None]
    return {
        "study": study,
        "finished": len(finished),
        "done_steps": len(summary.correct),
        "resolution": _resolution(study.config),
        "rows": [
            _row(summary, step)[: None if summary.held_against_the_paper else -2]
            for step in study.steps
        ],
        "held_against_the_paper": summary.held_against_the_paper,
        "many_seeds": any(len(array) > 1 for array in summary.correct.values()),
        "one_seed": [name for name, array in summary.correct.items() if len(array) == 1],
        "compared": len(differences),
        "referred": any(step.reference for step in study.steps),
        "answered": len(answered),
        "gains": _verdicts(study, differences, "gain"),
        "losses": _verdicts(study, differences, "loss"),
        "equal": _verdicts(study, differences, "no difference"),
        "open": _verdicts(study, differences, "not resolved"),
        "described": _verdicts(study, differences, "one seed"),
        "counts": Counter(one.verdict for one in differences),
        "ends": [
            f"{_label(study, one.pair[0])} against {_label(study, one.pair[1])}: {_points(one)}, "
            f"{one.text}"
            for one in summary.ends
        ],
        "plan": summary.plan,
        "images": "new images" if summary.plan.images == "new" else "this test set",
        "planned": bool(study.plans),
        "deviations": summary.deviations,
        "analyses": summary.interim_analyses,
        "sequential": summary.own_plan.sequential,
        "sureness": [
            _sureness(study, one)
            for one in (*answered, *(end for end in summary.ends if end.answer))
        ],
        "seed_correlation": summary.components.seed_correlation if summary.components else None,
        "smallest_p": max((one.smallest_p for one in answered), default=None),
        "ranks": [
            (name, rank)
            for name, rank in (
                ("differences", summary.rank_of_differences),
                ("levels", summary.rank_of_levels),
            )
            if rank is not None
        ],
        "signs": summary.signs,
        "paper_regime": summary.paper_regime,
        "missing": _missing(
            study, summary.own_plan if study.plans and summary.components else None
        ),
        "runs": _runs(finished),
        "certificate": _certificate(summary, finished),
        "recipe": _recipe(study.config),
        "recipe_changes": _recipe_changes(study),
        "time": _time(finished),
    }


def certificate(summary: Summary) -> pd.DataFrame:
    """The provenance: what, and its value in words."""
    return pd.DataFrame(
        _certificate(summary, summary.study.all_finished), columns=["what", "value"]
    )


def recipe(summary: Summary) -> pd.DataFrame:
    """One row a field of the recipes, its values in words."""
    return pd.DataFrame(_recipe(summary.study.config), columns=["field", "recipe", "classic"])


def time(summary: Summary) -> pd.DataFrame:
    """Seconds of all finished runs together, by what they were spent on."""
    spent = _seconds(summary.study.all_finished)
    return pd.DataFrame({"part": list(spent), "seconds": list(spent.values())})


def _label(study: StudyRecord, name: str) -> str:
    number = next((step.number for step in study.steps if step.name == name), None)
    return name if number is None else f"{number} {name}"


def _interval(bounds: tuple[float, float]) -> str:
    return f"[{signed(bounds[0])}, {signed(bounds[1])}]"


def _points(one: Judgement) -> str:
    """The gap with the interval that decides, or that of these runs where there is no other."""
    bounds = one.these_runs if one.answer is None else (one.answer.low, one.answer.high)
    return f"{signed(one.points)} {_interval(bounds)}"


def _verdicts(study: StudyRecord, differences: Iterable[Judgement], verdict: str) -> str:
    beside = {step.name for step in study.steps if step.off_path}
    return listed(
        f"{_label(study, one.pair[0])} "
        f"({'off the path, ' if one.pair[0] in beside else ''}{signed(one.points)})"
        for one in differences
        if one.verdict == verdict
    )


def _answers(one: Judgement) -> tuple[str, str, str]:
    """The gap, and its interval for each of the two questions."""
    these, new = (NOTHING if own is None else _interval((own.low, own.high)) for own in _both(one))
    return (
        signed(one.points),
        these,
        f"{_interval(one.these_runs)} for these runs" if one.answer is None else new,
    )


def _both(one: Judgement) -> tuple[Answer | None, Answer | None]:
    return one.fixed_test, one.new_images


def _sureness(study: StudyRecord, one: Judgement) -> tuple[str, ...]:
    assert one.answer is not None
    needed = one.answer.seeds_needed
    return (
        f"{_label(study, one.pair[0])} against {_label(study, one.pair[1])}",
        signed(one.points),
        *(
            _p(p) if one.analyses else NOTHING
            for p in (one.answer.p_holm, one.answer.p_margin_holm)
        ),
        f"{one.answer.detectable:.2f}",
        NOTHING if one.sign else f"{needed:,}" if needed else "more than 1,000",
        f"{one.text} ({one.analyses} analyses)" if one.analyses > 1 else one.text,
    )


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _row(summary: Summary, step: Step) -> tuple[str, ...]:
    record = summary.by_step[step.name]
    difference = summary.differences.get(step.name)
    top1 = NOTHING
    if record["runs"]:
        top1 = f"{record['top1']:.2f}"
        if record["runs"] > 1:
            top1 += f" ± {record['top1_std']:.2f} (n = {record['runs']})"
        top1 = link_to_runs(step.name, top1)
    paper = summary.paper(step)
    theirs = summary.paper_difference(step)
    paper_top1 = NOTHING if paper is None else f"{paper.top1:.2f}"
    if paper is not None and paper.top1_std is not None:
        paper_top1 += f" ± {paper.top1_std:.2f}"
    after = ""
    if step.off_path:
        after = f" (from {_label(summary.study, step.after or '')})"
    return (
        NOTHING if step.number is None else str(step.number),
        f"*{step.name}*" if step.off_path or step.reference else step.name,
        step.description + after,
        amount(record["params"] / 1e6) if record["runs"] else NOTHING,
        amount(record["gflops_paper_convention"]) if record["runs"] else NOTHING,
        top1,
        *(_answers(difference) if difference else (NOTHING, NOTHING, NOTHING)),
        _verdict(summary, step),
        paper_top1,
        NOTHING if theirs is None else signed(theirs),
    )


def _verdict(summary: Summary, step: Step) -> str:
    if step.name not in summary.correct:
        return "no finished run"
    if step.name in summary.unchanged:
        return "changes nothing here"
    if step.name in summary.differences:
        return summary.differences[step.name].text
    return NOTHING if step.after is None else f"{step.after} has no finished run"


def _missing(study: StudyRecord, plan: Plan | None) -> list[str]:
    """One sentence a step that was begun and has no result, one for all not begun, one a seed that
    steps lack, one for the planned seeds that all of them lack, and one a design of which rows lack
    all.

    Where a study may stop early, seeds that no comparison asked for are not missing.
    """
    wanted = {
        step.name: study.seeds if plan is None else plan.sure_seeds(step.name)
        for step in study.steps
    }
    lines: list[str] = []
    unseen: list[str] = []
    lacking: dict[int, list[str]] = {}
    for step in study.steps:
        begun = {run.seed: len(run.metrics) for run in study.unfinished(step.name)}
        seen = {run.seed for run in study.finished(step.name)} | begun.keys()
        left_out = {
            int(run.name.rpartition("-")[2])
            for run in study.left_out
            if run.name.startswith(f"{step.name}/")
        }
        parts = [
            f"seed {seed} is unfinished ({plural(n, 'epoch')} done)" for seed, n in begun.items()
        ]
        if not seen:
            if left_out:
                parts.append("no run that can be reported")
            else:
                unseen.append(_label(study, step.name))
        else:
            for seed in set(wanted[step.name]) & set(study.seeds) - seen - left_out:
                lacking.setdefault(seed, []).append(_label(study, step.name))
        if parts:
            lines.append(f"{_label(study, step.name)}: {'; '.join(parts)}.")
    lines += [f"Not run yet: {listed(unseen)}."] if unseen else []
    lines += [
        f"Seed {seed} was not run for {listed(names)}." for seed, names in sorted(lacking.items())
    ]
    planned = dict.fromkeys(seed for seeds in wanted.values() for seed in seeds)
    if unmade := [str(seed) for seed in planned if seed not in study.seeds]:
        lines.append(
            f"In the plan and not run for any step: seed{'s' * (len(unmade) > 1)} {listed(unmade)}."
        )
    steps = {step.name for step in study.steps}
    for design in study.designs:
        if without := [
            row.name
            for row in design.variants
            if row.name not in steps and not study.finished(row.name)
        ]:
            lines.append(f"Of the design {design.spec.kind}, no finished run: {listed(without)}.")
    return lines


def _runs(finished: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """What each finished run's number comes from; other numbers of the page link to its anchors."""
    rows: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for run in finished:
        assert run.result is not None
        anchors = [
            f"run-{run.step}-{run.seed}",
            *([] if run.step in seen else [f"runs-{run.step}"]),
        ]
        seen.add(run.step)
        made = {**run.environment, **run.result, "digest": run.identity.get("digest")}
        keys = ("digest", "code_version", "device", "torch", "torchvision", "finished")
        name = run.name + (f" (run of {run.alias_of})" if run.alias_of else "")
        rows.append(
            (
                "".join(f'<a id="{anchor}"></a>' for anchor in anchors) + name,
                f"{run.result['top1']:.2f}",
                f"{run.result['top5']:.2f}",
                *(plain(made.get(key, NOTHING)) for key in keys),
            )
        )
    return rows


def _values(values: Iterable[object]) -> str:
    return ", ".join(sorted({str(value) for value in values if value is not None})) or "unknown"


def _certificate(summary: Summary, finished: Sequence[RunRecord]) -> list[tuple[str, str]]:
    study = summary.study
    data = study.dataset
    results = [run.result for run in finished if run.result is not None and not run.alias_of]
    dates = sorted(str(result["finished"]) for result in results if result.get("finished"))
    libraries = [
        f"{name} {_values(versions)}"
        for name in ("python", "torch", "torchvision", "cuda", "numpy")
        if (versions := [run.environment[name] for run in study.runs if run.environment.get(name)])
    ]
    devices = [result.get("device") for result in results] + [
        run.environment.get("device") for run in study.runs
    ]
    return [
        ("Study", study.name),
        ("Config hash", study.hash),
        ("Data set", f"{data.name}: {data.description}"),
        ("Classes", f"{len(data.classes):,}"),
        ("Images", f"{data.train:,} training, {data.validation:,} validation, {data.test:,} test"),
        *([("Left out", left_out(data.skipped))] if data.skipped else []),
        ("Regime", study.regime),
        ("Resolution", f"{_resolution(study.config)} pixels"),
        ("Precision", str(study.config.get("precision", "unknown"))),
        ("Seeds", ", ".join(map(str, study.seeds)) or "none"),
        (
            "Runs",
            f"{len(finished)} finished{_shared(finished)}, {len(study.runs) - len(finished)} "
            "unfinished, "
            f"{len(study.left_out)} left out",
        ),
        ("Device", _values(devices)),
        ("CPU", _values(run.environment.get("cpu") for run in study.runs)),
        ("Libraries", ", ".join(libraries) or "unknown"),
        ("Code version", _values(result.get("code_version") for result in results)),
        (
            "Finished",
            NOTHING
            if not dates
            else dates[0]
            if dates[0] == dates[-1]
            else f"{dates[0]} to {dates[-1]}",
        ),
        (
            "Time of the finished runs",
            duration(sum(result["seconds"]["total"] for result in results)),
        ),
    ]


def _shared(finished: Sequence[RunRecord]) -> str:
    count = sum(run.alias_of is not None for run in finished)
    return f" ({count} of them shared between rows)" if count else ""


def _time(finished: Sequence[RunRecord]) -> list[tuple[str, str, str]]:
    """(part, time, share) over all finished runs."""
    spent = _seconds(finished)
    total = sum(spent.values())
    return (
        [(key, duration(value), f"{100 * value / total:.1f} %") for key, value in spent.items()]
        if total
        else []
    )


def _seconds(finished: Sequence[RunRecord]) -> dict[str, float]:
    results = [run.result for run in finished if run.result is not None and not run.alias_of]
    order = ("forward", "backward", "optimizer", "evaluation", "data", "other")
    return {key: sum(result["seconds"][key] for result in results) for key in order}


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


def _recipe_changes(study: StudyRecord) -> list[tuple[str, str]]:
    """(step, what it changes of the recipe), for each that changes some of it, but not all."""
    regime = REGIMES[study.regime]
    whole = [of.whole() for of in RecipeOf]
    changed = [(step, step.recipe_changes(regime)) for step in study.steps]
    return [
        (
            _label(study, step.name),
            ", ".join(f"{name} {_in_study(study, name, value)}" for name, value in of.items()),
        )
        for step, of in changed
        if of and of not in whole
    ]


def _in_study(study: StudyRecord, name: str, value: object) -> str:
    if isinstance(value, RecipeOf):
        value = flat(
            study.config[{RecipeOf.MODERN: "recipe", RecipeOf.CLASSIC: "classic"}[value]]
        ).get(name)
    return _value(list(value) if isinstance(value, tuple) else value)


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
