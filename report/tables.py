"""A study as tables: one row a step, one a run, one an epoch; full precision, the form the CSV files have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

import ablations
from ablations import PaperRow, Step
from report import statistics
from report.checks import SECONDS, RunRecord
from report.collect import StudyRecord


@dataclass(frozen=True)
class Summary:
    """A study with everything computed from it."""

    study: StudyRecord

    @cached_property
    def correct(self) -> dict[str, np.ndarray]:
        """For each step with a finished run, bool (seeds, pictures)."""
        arrays: dict[str, np.ndarray] = {}
        for step in self.study.steps:
            runs = [run.correct for run in self.study.finished(step.name) if run.correct is not None]
            if runs:
                arrays[step.name] = np.stack(runs)
        return arrays

    @cached_property
    def differences(self) -> dict[str, statistics.Difference]:
        """Each step that can be compared with the step it changes; one family for Holm's correction."""
        pairs = [
            (step.name, step.after)
            for step in self.study.steps
            if step.after is not None and step.name in self.correct and step.after in self.correct
        ]
        return {step: value for (step, _), value in statistics.compare(self.correct, pairs).items()}

    @cached_property
    def ends(self) -> list[statistics.Difference]:
        """The end of the path against its beginning and against the reference; a family of its own."""
        path = [step.name for step in self.study.steps if step.number is not None]
        others = [*path[:1], *(step.name for step in self.study.steps if step.reference)]
        pairs = [(last, other) for last in path[-1:] for other in others if {last, other} <= self.correct.keys()]
        return list(statistics.compare(self.correct, pairs).values())

    @property
    def paper_regime(self) -> str:
        return ablations.REGIMES[self.study.regime].paper

    def paper(self, step: Step) -> PaperRow | None:
        """The paper's row; a pocket study is held against another regime's, its Swin against that one's."""
        rows = ablations.PAPER.rows(ablations.REGIMES[self.paper_regime])
        name = next((row.name for row in rows if row.reference), step.name) if step.reference else step.name
        return ablations.paper_row(self.paper_regime, name)

    def paper_difference(self, step: Step) -> float | None:
        """Points of top-1 between the paper's row of a step and that of the step it changes."""
        mine = self.paper(step)
        before = ablations.paper_row(self.paper_regime, step.after) if step.after else None
        return None if mine is None or before is None else mine.top1 - before.top1

    @cached_property
    def agreement(self) -> statistics.Agreement | None:
        ours, paper, clear = [], [], []
        for step in self.study.steps:
            theirs = self.paper_difference(step)
            if step.name in self.differences and theirs is not None:
                ours.append(self.differences[step.name].points)
                paper.append(theirs)
                clear.append(self.differences[step.name].sign != 0)
        return statistics.agreement(ours, paper, clear) if ours else None

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row a step of the regime, whether it was run or not."""
        return pd.DataFrame([self._row(step) for step in self.study.steps]).astype(
            {"number": "Int64", "params": "Int64", "paper_seeds": "Int64"}
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
        paper = self.paper(step)
        first: Mapping[str, object] = results[0] if results else {}
        return {
            "number": step.number,
            "name": step.name,
            "group": step.group,
            "source": step.source,
            "change": step.sentence,
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
            "low": difference.low if difference else np.nan,
            "high": difference.high if difference else np.nan,
            "p": difference.p if difference else np.nan,
            "p_holm": difference.p_holm if difference else np.nan,
            "verdict": difference.verdict if difference else "",
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
        keys = ("epoch", "update", "lr", "train_loss", "validation_loss", "validation_top1", "images_per_second")
        rows = []
        for run in self.study.runs:
            for record in run.metrics:
                row = {"step": run.step, "seed": run.seed} | {key: record.get(key) for key in keys}
                rows.append(row | {f"seconds_{key}": record["seconds"][key] for key in SECONDS})
        return pd.DataFrame(rows, columns=["step", "seed", *keys, *(f"seconds_{key}" for key in SECONDS)])


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
