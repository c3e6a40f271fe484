"""A study as tables: one row a step, one a run, one an epoch; full precision, the form the CSV
files have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

import ablations
from ablations import PaperRow, Step
from ablations.roadmap import ends
from report.agreement import RankCorrelation, Side, SignAgreement, rank_correlation, sign_agreement
from report.checks import SECONDS, RunRecord
from report.collect import StudyRecord
from report.judgement import Answer, Judgement
from report.sequential import Judged, judge
from report.variance import Measured, Runs
from studies.plan import Family, Plan, deviations, fixed
from utils.text import plural


def runs_of(records: Sequence[RunRecord]) -> Runs:
    """Finished runs of a row as statistics know them."""
    correct = [run.correct for run in records if run.correct is not None]  # all have it
    digests = tuple(str(run.identity.get("digest", run.name)) for run in records)
    return Runs(tuple(run.seed for run in records), np.stack(correct), digests)


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
        return {row: runs.correct for row, runs in self.runs_of_steps.items()}

    @cached_property
    def runs_of_steps(self) -> dict[str, Runs]:
        """For each step with a finished run."""
        steps = {step.name for step in self.study.steps}
        return {row: runs for row, runs in self.runs_of_rows.items() if row in steps}

    @cached_property
    def _rows(self) -> list[str]:
        """Of the roadmap and its designs, run or not."""
        return [step.name for step in self.study.steps] + [
            row.name for design in self.study.designs for row in design.variants
        ]

    @cached_property
    def runs_of_rows(self) -> dict[str, Runs]:
        """For each row of the roadmap and its designs with a finished run."""
        found: dict[str, Runs] = {}
        for row in self._rows:
            if own := self.study.finished(row):
                found[row] = runs_of(own)
        return found

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
        """The one in study.json, with a family of what it did not foresee; or one made of what is
        there."""
        steps = [
            (step.name, step.after)
            for step in self.study.steps
            if step.after is not None and {step.name, step.after} <= self.runs_of_rows.keys()
            if step.name not in self.unchanged
        ]
        last = [pair for pair in ends(self.study.steps) if set(pair) <= self.runs_of_rows.keys()]
        if not self.study.plans:
            return fixed(
                (Family("steps", tuple(steps)), Family("ends", tuple(last))),
                self.study.seeds or (0,),
            )
        planned = self.study.plans[-1].plan
        foreseen = {pair for family in planned.families for pair in family.comparisons}
        if new := tuple(pair for pair in (*steps, *last) if pair not in foreseen):
            return replace(planned, families=(*planned.families, Family("not planned", new)))
        return planned

    @property
    def deviations(self) -> tuple[str, ...]:
        """What is no longer as it was planned before the first result."""
        first = self.study.plans[0] if self.study.plans else None
        if first is None:
            return ("no plan was written before the first result",)
        late = (
            (f"the plan was written after {plural(first.results, 'finished run')}",)
            if first.results
            else ()
        )
        return (*late, *deviations(first.plan, self.plan))

    @cached_property
    def measured(self) -> Measured | None:
        """None where no run is finished."""
        return Measured.of(self.runs_of_rows) if self.runs_of_rows else None

    @cached_property
    def judged(self) -> Judged | None:
        """None where no run is finished."""
        return judge(self.measured, self.plan.within(self._rows)) if self.measured else None

    @cached_property
    def judgements(self) -> dict[tuple[str, str], Judgement]:
        """All comparisons of the plan that have runs, by (row, the row it is compared with)."""
        found: dict[tuple[str, str], Judgement] = {}
        for family in self.judged.families.values() if self.judged else ():
            for one in family:
                found.setdefault(
                    (one.row, one.after), one
                )  # of a pair in two families, as it was planned first
        return found

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
        return ablations.REGIMES[self.study.regime].paper

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

    @cached_property
    def rank_of_levels(self) -> RankCorrelation | None:
        """The steps' accuracies here and in the paper."""
        rows = [
            (step, paper)
            for step in self.study.steps
            if step.name in self.runs_of_rows and (paper := self.paper(step))
        ]
        if self.judged is None or not rows:
            return None
        noise = self.judged.noise
        known = np.full(len(noise.levels), np.nan)
        if noise.freedom:
            known = np.sqrt(np.maximum(0, np.diag(noise.covariance_of_levels("new"))))
        place = {row: index for index, row in enumerate(noise.measured.rows)}
        here = [place[step.name] for step, _ in rows]
        theirs = Side(
            np.array([paper.top1 for _, paper in rows]),
            np.array([_error(paper) for _, paper in rows]),
        )
        return rank_correlation(Side(noise.levels[here], known[here]), theirs)

    @cached_property
    def rank_of_differences(self) -> RankCorrelation | None:
        ours, paper = self._both_differences
        return rank_correlation(ours, paper)

    @cached_property
    def signs(self) -> SignAgreement:
        """Of the steps that are a gain or a loss here."""
        (ours, paper), clear = (
            self._both_differences,
            [one.sign != 0 for one in self._with_paper.values()],
        )
        return sign_agreement(ours.values[clear], paper.values[clear])

    @cached_property
    def _with_paper(self) -> dict[str, Judgement]:
        steps = {step.name: step for step in self.study.steps}
        return {
            name: one
            for name, one in self.differences.items()
            if self.paper_difference(steps[name]) is not None
        }

    @property
    def _both_differences(self) -> tuple[Side, Side]:
        steps = {step.name: step for step in self.study.steps}
        shown = self._with_paper
        errors = [one.answer.standard_error if one.answer else math.nan for one in shown.values()]
        rows = [
            (self.paper(steps[name]), ablations.paper_row(self.paper_regime, one.after))
            for name, one in shown.items()
        ]
        return (
            Side(np.array([one.points for one in shown.values()]), np.array(errors)),
            Side(
                np.array([self.paper_difference(steps[name]) for name in shown], dtype=float),
                np.array(
                    [
                        np.hypot(_error(mine), _error(before))
                        for mine, before in rows
                        if mine and before
                    ]
                ),
            ),
        )

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row a step of the regime, whether it was run or not."""
        return pd.DataFrame([self._row(step) for step in self.study.steps]).astype(
            dict.fromkeys(("number", "params", "paper_seeds", "seeds_needed", "looks"), "Int64")
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
        these, new = (
            (difference.these_images, difference.new_images) if difference else (None, None)
        )
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
            **_bounds("these_images", these),
            **_bounds("new_images", new),
            "low_these_runs": difference.these_runs[0] if difference else np.nan,
            "high_these_runs": difference.these_runs[1] if difference else np.nan,
            "standard_error": deciding.standard_error if deciding else np.nan,
            "p": deciding.p if deciding else np.nan,
            "p_holm": deciding.p_holm if deciding else np.nan,
            "p_margin": deciding.p_margin if deciding else np.nan,
            "p_margin_holm": deciding.p_margin_holm if deciding else np.nan,
            "verdict": difference.words if difference else "",
            "detectable": deciding.detectable if deciding else np.nan,
            "seeds_needed": deciding.seeds_needed if deciding else None,
            "looks": difference.look if difference else None,
            "paper_regime": self.paper_regime,
            "paper_top1": paper.top1 if paper else np.nan,
            "paper_top1_std": paper.top1_std if paper else np.nan,
            "paper_seeds": paper.seeds if paper else None,
            "paper_gflops": paper.gflops if paper else np.nan,
            "paper_difference": _or_nan(self.paper_difference(step)),
        }

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


PAPER_DEVIATION = 0.09
"""Points: the paper's seeds, pooled over its steps with three of them; for its steps with one."""


def _error(paper: PaperRow) -> float:
    """Standard error of a row of the paper, for its seeds and two printed digits."""
    seeds = (PAPER_DEVIATION if paper.top1_std is None else paper.top1_std) / (
        paper.seeds or 1
    ) ** 0.5
    return float(np.hypot(seeds, 0.01 / 12**0.5))


def _bounds(name: str, answer: Answer | None) -> dict[str, float | str]:
    return {
        f"low_{name}": answer.low if answer else np.nan,
        f"high_{name}": answer.high if answer else np.nan,
        f"verdict_{name}": answer.verdict if answer else "",
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
        "made_as": run.made_as,
    }
