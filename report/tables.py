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
from report.agreement import RankCorrelation, SignAgreement, rank_correlation, sign_agreement
from report.collect import SECONDS, RunRecord, StudyRecord, measure
from report.judgement import Answer, Judgement
from report.sequential import judge
from report.statistics import VarianceComponents
from studies.plan import Family, Plan, deviations
from utils.markdown import NOTHING
from utils.text import plural


def link_to_runs(row: str, text: str | None = None) -> str:
    """`text`, or the row's name, as a link to the list of the row's finished runs."""
    return f"[{row if text is None else text}](#runs-{row})"


@dataclass(frozen=True, eq=False)
class Summary:
    """A study with everything computed from it."""

    study: StudyRecord

    @cached_property
    def correct(self) -> dict[str, np.ndarray]:
        """For each step with a finished run, bool (seeds, images)."""
        return {
            step: np.stack([run.correct for run in runs if run.correct is not None])
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
        last = [pair for pair in ends(self.study.steps) if set(pair) <= known]
        if not self.study.plans:
            seeds = self.study.seeds or (0,)
            families = {"steps": steps, "ends": last}.items()
            count = (len(seeds),)
            return Plan(tuple(Family(name, tuple(own), count) for name, own in families), seeds)
        planned = self.study.plans[-1]
        foreseen = {pair for family in planned.families for pair in family.comparisons}
        if new := tuple(pair for pair in (*steps, *last) if pair not in foreseen):
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
        return (*([late] if first.finished_runs else []), *deviations(first, self.plan))

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
        return self.components.odd_runs if self.components else {}

    @property
    def collapsed(self) -> dict[str, str]:
        """The finished runs that learned nothing, such as "gelu/seed-0", and how that shows."""
        return {run.name: run.collapsed for run in self.study.all_finished if run.collapsed}

    @cached_property
    def judgements(self) -> dict[tuple[str, str], Judgement]:
        """Every comparison of the plan that has runs; in two families, by the first."""
        judged = judge(self.components.runs, self.own_plan) if self.components else ()
        judgements: dict[tuple[str, str], Judgement] = {}
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
        pairs = ((step.name, step.after or "") for step in self.study.steps)
        return {pair[0]: self.judgements[pair] for pair in pairs if pair in self.judgements}

    @cached_property
    def ends(self) -> list[Judgement]:
        """The end of the path against its beginning and against the reference."""
        return [one for one in self.judgements.values() if one.family.endswith("ends")]

    @property
    def held_against_the_paper(self) -> bool:
        return self.study.roadmap.name == ablations.PAPER.name

    @property
    def paper_regime(self) -> str:
        return ablations.get_regime(self.study.regime).paper

    def paper(self, step: Step) -> PaperRow | None:
        """The paper's row; a pocket study is held against another regime's, its Swin against that
        one's.

        None in other roadmaps, whose steps are other ones, whatever their names.
        """
        if not self.held_against_the_paper:
            return None
        rows = ablations.PAPER.steps_in(ablations.REGIMES[self.paper_regime])
        name = (
            next((row.name for row in rows if row.reference), step.name)
            if step.reference
            else step.name
        )
        return ablations.paper_row(self.paper_regime, name)

    def paper_difference(self, step: Step) -> float | None:
        """Points of top-1 between the paper's row of a step and that of the step it changes."""
        mine = self.paper(step)
        before = ablations.paper_row(self.paper_regime, step.after) if mine and step.after else None
        return None if mine is None or before is None else mine.top1 - before.top1

    @property
    def rank_of_levels(self) -> RankCorrelation | None:
        """Compare the steps' accuracies with the paper's."""
        both = [
            (self.correct[step.name].mean(), paper.top1)
            for step in self.study.steps
            if step.name in self.correct and (paper := self.paper(step))
        ]
        return rank_correlation(*np.array(both).reshape(-1, 2).T)

    @property
    def rank_of_differences(self) -> RankCorrelation | None:
        """Compare the steps' differences with the paper's."""
        return rank_correlation(*self._differences_with_paper(resolved=False))

    @property
    def signs(self) -> SignAgreement:
        """Compare the signs of the steps that are a gain or a loss here."""
        return sign_agreement(*self._differences_with_paper(resolved=True))

    def _differences_with_paper(self, *, resolved: bool) -> np.ndarray:
        """(2, steps): our differences and the paper's, of all steps or of the resolved ones."""
        both = [
            (one.points, paper)
            for step in self.study.steps
            if (one := self.differences.get(step.name)) and (one.sign or not resolved)
            if (paper := self.paper_difference(step)) is not None
        ]
        return np.array(both, dtype=float).reshape(-1, 2).T

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row a step of the regime, whether it was run or not."""
        return pd.DataFrame([self._row(step) for step in self.study.steps]).astype(
            dict.fromkeys(("number", "params", "paper_seeds", "seeds_needed", "analyses"), "Int64")
        )

    @cached_property
    def by_step(self) -> dict[str, dict[str, Any]]:
        """The rows of `steps` by name."""
        rows: list[dict[str, Any]] = self.steps.to_dict("records")
        return {row["name"]: row for row in rows}

    def _row(self, step: Step) -> dict[str, object]:
        runs = self.study.finished(step.name)
        results = [run.result for run in runs if run.result is not None]
        top1 = np.empty(0)
        if runs:
            correct = self.correct[step.name]
            top1 = 100 * correct.sum(axis=1) / correct.shape[1]
        difference = self.differences.get(step.name)
        fixed, new = (difference.fixed_test, difference.new_images) if difference else (None, None)
        deciding = difference.answer if difference else None
        paper = self.paper(step)
        first: Mapping[str, object] = results[0] if results else {}
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
            "top1": float(top1.mean()) if runs else np.nan,
            "top1_std": float(top1.std(ddof=1)) if len(runs) > 1 else np.nan,
            "top5": float(np.mean([result["top5"] for result in results])) if results else np.nan,
            "difference": difference.points if difference else np.nan,
            **_bounds("fixed_test", fixed),
            **_bounds("new_images", new),
            "these_runs_low": difference.these_runs[0] if difference else np.nan,
            "these_runs_high": difference.these_runs[1] if difference else np.nan,
            "standard_error": deciding.standard_error if deciding else np.nan,
            "p": deciding.p if deciding else np.nan,
            "p_holm": deciding.p_holm if deciding else np.nan,
            "p_margin": deciding.p_margin if deciding else np.nan,
            "p_margin_holm": deciding.p_margin_holm if deciding else np.nan,
            "verdict": difference.text if difference else "",
            "rests_on_pooling": difference.rests_on_pooling if difference else False,
            "odd_runs": " ".join(map(str, self.odd_runs.get(step.name, ()))),
            "collapsed": " ".join(str(run.seed) for run in runs if run.collapsed),
            "detectable": deciding.detectable if deciding else np.nan,
            "seeds_needed": deciding.seeds_needed if deciding else None,
            "analyses": difference.analyses if difference else None,
            "paper_regime": self.paper_regime,
            "paper_top1": paper.top1 if paper else np.nan,
            "paper_top1_std": paper.top1_std if paper else np.nan,
            "paper_seeds": paper.seeds if paper else None,
            "paper_gflops": paper.gflops if paper else np.nan,
            "paper_difference": _or_nan(self.paper_difference(step)),
        }

    def verdict_text(self, step: Step) -> str:
        """The verdict on a step, or why it has none."""
        if step.name not in self.correct:
            return "no finished run"
        if step.name in self.unchanged:
            return "changes nothing here"
        if step.name in self.differences:
            return self.differences[step.name].text
        return NOTHING if step.after is None else f"{step.after} has no finished run"

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row a run: those reported, finished or not, and then those left out."""
        number = {step.name: step.number for step in self.study.steps}
        rows = [_run_row(run, number.get(run.step)) for run in self.study.runs]
        for run in self.study.left_out:
            step, _, seed = run.name.rpartition("/seed-")
            rows.append(
                {
                    "step": step,
                    "number": number.get(step),
                    "seed": int(seed),
                    "state": "left out",
                    "reason": run.reason,
                }
            )
        columns = list(_run_row(RunRecord("", 0), None))
        table = pd.DataFrame(rows, columns=columns)
        whole = ("number", "seed", "epochs", "selected_epoch", "test_images", "params")
        return table.astype(dict.fromkeys(whole, "Int64"))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row an epoch of every reported run."""
        keys = (
            "epoch",
            "update",
            "lr",
            "train_loss",
            "validation_loss",
            "validation_top1",
            "images_per_second",
        )
        rows = []
        for run in self.study.runs:
            for record in run.metrics:
                row = {"step": run.step, "seed": run.seed} | {key: record.get(key) for key in keys}
                rows.append(row | {f"seconds_{key}": record["seconds"][key] for key in SECONDS})
        return pd.DataFrame(
            rows, columns=["step", "seed", *keys, *(f"seconds_{key}" for key in SECONDS)]
        )


def _bounds(name: str, answer: Answer | None) -> dict[str, float | str]:
    return {
        f"{name}_low": answer.low if answer else np.nan,
        f"{name}_high": answer.high if answer else np.nan,
        f"{name}_verdict": answer.verdict if answer else "",
    }


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _run_row(run: RunRecord, number: int | None) -> dict[str, object]:
    result: Mapping[str, object] = run.result or {}
    seconds = result.get("seconds", {})
    assert isinstance(seconds, Mapping)
    copied = ("top1", "top5", "loss", "test_images", "selected_epoch", "params", "gflops_fvcore")
    return {
        "step": run.step,
        "number": number,
        "seed": run.seed,
        "state": "unfinished" if run.result is None else "finished",
        "reason": "",
        "epochs": len(run.metrics),
        **{key: result.get(key) for key in copied},
        "gflops_paper_convention": result.get("gflops_paper_convention"),
        "images_per_second": result.get("images_per_second"),
        **{f"seconds_{key}": seconds.get(key) for key in (*SECONDS, "total")},
        "device": result.get("device"),
        "code_version": result.get("code_version"),
        "finished": result.get("finished"),
        "digest": run.identity.get("digest"),
        "alias_of": run.alias_of,
    }
