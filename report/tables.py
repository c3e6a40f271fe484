"""A study as tables: one row a step, one a run, one an epoch; full precision, the form the CSV
files have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

import ablations
from ablations import PaperRow, Step
from ablations.roadmap import ends
from report.collect import RunRecord, StudyRecord, measure
from report.judgement import Answer, Judgement
from report.numbers import NOTHING, possible
from report.sequential import judge
from report.statistics import VarianceComponents
from studies.plan import Family, Plan, deviations
from utils.text import plural

_ANSWER = (
    "standard_error",
    "p",
    "p_holm",
    "p_margin",
    "p_margin_holm",
    "detectable",
    "seeds_needed",
)
Pair = tuple[str, str]
"""A variant and the one that it is compared with."""


@dataclass(frozen=True, eq=False)
class Summary:
    """A study with everything computed from it."""

    study: StudyRecord

    @cached_property
    def correct(self) -> dict[str, np.ndarray]:
        """For each step with a finished run, bool (seeds, images)."""
        return {
            step: np.stack([run.predictions.correct for run in runs if run.predictions])
            for step, runs in self.runs_of_steps.items()
        }

    @cached_property
    def runs_of_steps(self) -> dict[str, tuple[RunRecord, ...]]:
        """The finished runs of each step that has any."""
        names = {step.name for step in self.study.steps}
        return {name: runs for name, runs in self.runs_of_variants.items() if name in names}

    @cached_property
    def runs_of_variants(self) -> dict[str, tuple[RunRecord, ...]]:
        """The finished runs of each variant of the roadmap and its designs that has any."""
        return self.study.finished_by_variant()

    @cached_property
    def path(self) -> tuple[Step, ...]:
        """The numbered steps that have a finished run."""
        steps = self.study.steps
        return tuple(
            step for step in steps if step.number is not None and step.name in self.correct
        )

    def label(self, name: str) -> str:
        """The step's number, where it has one, and name."""
        numbers = {step.name: step.number for step in self.study.steps}
        number = numbers.get(name)
        return name if number is None else f"{number} {name}"

    @cached_property
    def unchanged(self) -> frozenset[str]:
        """Steps that change nothing in this study: the runs of the step before are theirs too."""
        digests = {run.step: run.identity.get("variant_digest") for run in self.study.runs}
        names = {step.name: step.after for step in self.study.steps if digests.get(step.name)}
        return frozenset(
            name for name, after in names.items() if after and digests.get(after) == digests[name]
        )

    @cached_property
    def plan(self) -> Plan:
        """The plan in study.json, with a family for what it lacks; without one, a fixed plan."""
        known = self.runs_of_variants.keys()
        steps = [
            (step.name, step.after)
            for step in self.study.steps
            if step.after is not None and {step.name, step.after} <= known
            if step.name not in self.unchanged
        ]
        if not self.study.plans:
            last = [pair for pair in ends(self.study.steps) if set(pair) <= known]
            seeds = self.study.seeds or (0,)
            families = {"steps": steps, "ends": last}.items()
            count = (len(seeds),)
            return Plan(tuple(Family(name, tuple(own), count) for name, own in families), seeds)
        planned = self.study.plans[-1]
        foreseen = {pair for family in planned.families for pair in family.comparisons}
        new = tuple(pair for pair in steps if pair not in foreseen)
        if new and self.study.path_requested:
            family = Family("not planned", new, planned.analyses)
            return replace(planned, families=(*planned.families, family))
        return planned

    @property
    def deviations(self) -> tuple[str, ...]:
        """Changes since the plan that was written before the first result."""
        if not self.study.plans:
            return ("no plan was written before the first result",)
        first = self.study.plans[0]
        late = f"the plan was written after {plural(first.finished_runs, 'finished run')}"
        changes = deviations(first.within(self.study.variants), self.own_plan)
        return (*([late] if first.finished_runs else []), *changes)

    @cached_property
    def own_plan(self) -> Plan:
        """The plan without the comparisons of other roadmaps."""
        return self.plan.within(self.study.variants)

    @cached_property
    def components(self) -> VarianceComponents | None:
        """None if no run is finished."""
        runs = self.runs_of_variants
        return VarianceComponents(measure(runs)) if runs else None

    @property
    def odd_runs(self) -> dict[str, tuple[int, ...]]:
        """By variant, the seeds of runs far from the others, whose spread the study does not
        share."""
        return self.components.pool.odd_runs if self.components else {}

    @property
    def collapsed(self) -> dict[str, str]:
        """The finished runs that learned nothing, such as "gelu/seed-0", and how that shows."""
        return {run.name: run.collapsed for run in self.study.all_finished if run.collapsed}

    @cached_property
    def judgements(self) -> dict[Pair, Judgement]:
        """Every comparison of the plan that has runs; in two families, by the first."""
        judged = judge(self.components.runs, self.own_plan) if self.components else ()
        judgements: dict[Pair, Judgement] = {}
        for one in judged:
            judgements.setdefault(one.pair, one)
        return judgements

    @property
    def interim_analyses(self) -> int:
        """The analyses so far of comparisons with several."""
        families = {family.name for family in self.own_plan.families if family.sequential}
        own = [one.analyses for one in self.judgements.values() if one.family in families]
        return max(own, default=0)

    @cached_property
    def differences(self) -> dict[str, Judgement]:
        """Each step that can be compared with the step it changes."""
        if not self.study.path_requested:
            return {}
        pairs = ((step.name, step.after or "") for step in self.study.steps)
        return {pair[0]: self.judgements[pair] for pair in pairs if pair in self.judgements}

    @cached_property
    def ends(self) -> list[Judgement]:
        """The end of the path against its beginning and against the reference."""
        return [one for one in self.judgements.values() if one.family.endswith("ends")]

    @property
    def compared_with_paper(self) -> bool:
        """Whether the steps are the paper's."""
        return self.study.roadmap.name == ablations.PAPER.name

    @property
    def paper_regime(self) -> str:
        return ablations.get_regime(self.study.regime).paper

    def paper(self, name: str) -> PaperRow | None:
        """The paper's row of a step. A small study is compared with another regime's rows, and its
        Swin with that regime's; None in other roadmaps, whatever their steps' names."""
        if not self.compared_with_paper:
            return None
        if any(step.reference for step in self.study.steps if step.name == name):
            rows = ablations.PAPER.steps_in(ablations.get_regime(self.paper_regime))
            name = next((row.name for row in rows if row.reference), name)
        return ablations.paper_row(self.paper_regime, name)

    def paper_difference(self, pair: tuple[str, str | None]) -> float | None:
        """Points of top-1 between the paper's rows of two steps."""
        one, other = self.paper(pair[0]), self.paper(pair[1] or "")
        return None if one is None or other is None else one.top1 - other.top1

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row a requested step, whether it was run or not."""
        rows = [self._row(step) for step in self.study.steps]
        columns = list(self._row(self.study.roadmap.steps[0]))
        return pd.DataFrame(rows, columns=columns).astype(
            dict.fromkeys(("number", "params", "paper_seeds", "analyses"), "Int64")
        )

    @cached_property
    def by_step(self) -> dict[str, dict[str, Any]]:
        """The rows of `steps` by name."""
        rows: list[dict[str, Any]] = self.steps.to_dict("records")
        return {row["name"]: row for row in rows}

    def _row(self, step: Step) -> dict[str, object]:
        runs = self.study.finished(step.name)
        results = [run.result for run in runs if run.result is not None]
        first: Mapping[str, object] = results[0] if results else {}
        scores = pd.DataFrame(results, columns=["top1", "top5"], dtype=float)
        paper = self.paper(step.name)
        difference = self.paper_difference((step.name, step.after))
        judged = self.differences.get(step.name)
        return {
            "number": step.number,
            "name": step.name,
            "group": step.group,
            "source": step.source,
            "change": step.description,
            "after": step.after,
            "params": first.get("params"),
            "gflops_fvcore": first.get("gflops_fvcore", np.nan),
            "gflops_paper_convention": first.get("gflops_paper_convention", np.nan),
            "runs": len(runs),
            "seeds": " ".join(str(run.seed) for run in runs),
            "top1": scores["top1"].mean(),
            "top1_std": scores["top1"].std(),
            "top5": scores["top5"].mean(),
            **judged_columns(judged),
            "verdict": self.verdict_text(step),
            "rests_on_pooling": bool(judged and judged.rests_on_pooling),
            "odd_runs": " ".join(map(str, self.odd_runs.get(step.name, ()))),
            "collapsed": " ".join(str(run.seed) for run in runs if run.collapsed),
            "paper_regime": self.paper_regime,
            "paper_top1": paper.top1 if paper else np.nan,
            "paper_top1_std": paper.top1_std if paper else np.nan,
            "paper_seeds": paper.seeds if paper else None,
            "paper_gflops": paper.gflops if paper else np.nan,
            "paper_difference": np.nan if difference is None else difference,
        }

    def verdict_text(self, step: Step) -> str:
        """The verdict on a step, or why it has none."""
        if step.name not in self.correct:
            return "no finished run"
        if step.name in self.unchanged:
            return "changes nothing here"
        if step.name in self.differences:
            return self.differences[step.name].text
        missing = step.after is not None and self.study.path_requested
        return f"{step.after} has no finished run" if missing else NOTHING

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row a run: those reported, finished or not, and then those left out."""
        rows: list[dict[str, Any]] = []
        for run in self.study.runs:
            state = "unfinished" if run.result is None else "finished"
            row = {"step": run.step, "seed": run.seed, "state": state, "epochs": len(run.metrics)}
            row |= {"torch": run.environment.get("torch"), "alias_of": run.alias_of, "reason": ""}
            rows.append(_flat(run.result or {}) | row | {"digest": run.identity.get("digest")})
        for left_out in self.study.left_out:
            step, _, seed = left_out.name.rpartition("/seed-")
            row = {"step": step, "seed": int(seed), "state": "left out"}
            rows.append(row | {"reason": left_out.reason})
        # Whole numbers stay whole beside the gaps of runs that are left out.
        return pd.DataFrame(rows, dtype=object)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row an epoch of every reported run."""
        rows = [
            {"step": run.step, "seed": run.seed, **_flat(record)}
            for run in self.study.runs
            for record in run.metrics
        ]
        return pd.DataFrame(rows, columns=None if rows else ["step", "seed", "epoch"])


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its seconds as fields of their own."""
    seconds = {f"seconds_{key}": value for key, value in record.get("seconds", {}).items()}
    return {key: value for key, value in record.items() if key != "seconds"} | seconds


def judged_columns(one: Judgement | None) -> dict[str, Any]:
    """The columns of a comparison; NaN where it has no answer."""
    answer = one.answer if one else None
    low, high = bounds(one) if one else (np.nan, np.nan)
    return {
        "difference": one.points if one else np.nan,
        "low": low,
        "high": high,
        **_ends("fixed_test", one.answer_to("fixed") if one else None),
        **_ends("new_images", one.answer_to("new") if one else None),
        "these_runs_low": one.these_runs[0] if one else np.nan,
        "these_runs_high": one.these_runs[1] if one else np.nan,
        **{name: getattr(answer, name, np.nan) for name in _ANSWER},
        "n": one.seeds[0] if one else np.nan,
        "n_after": one.seeds[1] if one else np.nan,
        "analyses": one.analyses if one else np.nan,
    }


def _ends(name: str, answer: Answer | None) -> dict[str, float]:
    low, high = possible(answer.low, answer.high) if answer else (np.nan, np.nan)
    return {f"{name}_low": low, f"{name}_high": high}


def bounds(one: Judgement) -> tuple[float, float]:
    """The interval that the page shows: of the verdict's question, or of these runs where a row
    has one seed."""
    low, high = (one.answer.low, one.answer.high) if one.answer else one.these_runs
    return possible(low, high)
