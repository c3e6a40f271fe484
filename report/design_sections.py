"""The designs off the path: each decision left out, taken alone, or averaged over orders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ablations.designs import Design, Effect
from report.collect import StudyRecord, measure
from report.judgement import Judgement, judge_effects
from report.numbers import seeds as seeds_text
from report.plots import forest, forest_key
from report.statistics import VarianceComponents
from report.tables import Summary, judged_columns


@dataclass(frozen=True)
class DesignSummary:
    """A design of a study, with everything computed from it."""

    summary: Summary
    design: Design
    number: int
    """Among the study's designs, from 1."""

    @property
    def kind(self) -> str:
        return self.design.spec.kind

    @property
    def name(self) -> str:
        """The beginning of its files' names."""
        return f"design_{self.number}_{self.kind.replace('-', '_')}"

    @property
    def title(self) -> str:
        base = f", from {self.design.spec.base}" if self.design.spec.base else ""
        return (
            f"{self.kind.replace('-', ' ').capitalize()}: roadmap {self.design.roadmap.name}{base}"
        )

    @cached_property
    def judged(self) -> dict[str, Judgement]:
        """The effects whose variants all have runs, by name."""
        study, plan = self.summary.study, self.summary.plan
        runs = {row.name: own for row in self.design.variants if (own := study.finished(row.name))}
        if not runs:
            return {}
        same = unchanged(study, self.design)
        judged = judge_effects(
            VarianceComponents(measure(runs)),
            [effect for effect in self.design.effects if effect.name not in same],
            margin=plan.margin,
            level=plan.level,
            question=plan.images,
        )
        return {one.effect.name: self._by_plan(one) for one in judged}

    def _by_plan(self, one: Judgement) -> Judgement:
        """Take points and answers from the plan if it analyses the comparison several times."""
        planned = self.summary.judgements.get(one.effect.pair) if one.effect.pair else None
        repeated = {family.name for family in self.summary.plan.families if family.sequential}
        if planned is None or planned.family not in repeated:
            return one
        own = replace(one.estimate, points=planned.points)
        return replace(one, estimated=own, answers=planned.answers, analyses=planned.analyses)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """One row for each effect in points of top-1, also if it cannot be estimated yet."""
        return pd.DataFrame([self._effect(effect) for effect in self.design.effects])

    def _effect(self, effect: Effect) -> dict[str, object]:
        one = self.judged.get(effect.name)
        uncertainty = one.estimate.uncertainty.get("new") if one else None
        whole = (uncertainty.variance or 1.0) if uncertainty else np.nan
        verdict = one.text if one else "a run is missing"
        if effect.name in unchanged(self.summary.study, self.design):
            verdict = "changes nothing here"
        return {
            "effect": effect.name,
            "what": effect.description,
            **judged_columns(one),
            "seeds": seeds_text(len(self.summary.study.finished(name)) for name in effect.weights),
            "verdict": verdict,
            **{
                f"variance_from_{part}": getattr(uncertainty, part, np.nan) / whole
                for part in ("seeds", "images", "orders")
            },
            "weights": weights_text(effect),
        }

    def figure(self) -> Figure | None:
        """Draw effects in points, with the intervals that decide."""
        table = self.effects.dropna(subset="difference")
        if table.empty:
            return None
        table = table.assign(
            name=table["effect"],
            points=table["difference"],
            decided=table["verdict"].str.startswith(("gain", "loss")),
            note="n = " + table["seeds"],
        )
        figure, axes = forest(table, self.summary.plan.margin, "effect in points of top-1")
        axes.set_title(self.title, loc="left", fontweight="bold", fontsize=11)
        forest_key(figure, self.summary.plan.margin)
        return figure


def weights_text(effect: Effect) -> str:
    """The weights of an effect, as '+1 gelu -1 kernel-7'."""
    return " ".join(f"{weight:+.4g} {name}" for name, weight in effect.weights.items())


def unchanged(study: StudyRecord, design: Design) -> frozenset[str]:
    """The effects that compare a network and recipe with itself in this study."""
    digests = {
        row.name: runs[0].identity.get("variant_digest")
        for row in design.variants
        if (runs := study.finished(row.name))
    }
    same = set()
    for effect in design.effects:
        weights: dict[object, float] = {}
        for name, weight in effect.weights.items():
            digest = digests.get(name, name)
            weights[digest] = weights.get(digest, 0.0) + weight
        if all(abs(weight) < 1e-9 for weight in weights.values()):
            same.add(effect.name)
    return frozenset(same)


def of(summary: Summary) -> list[DesignSummary]:
    """The study's designs off the path."""
    designs = enumerate(summary.study.designs, start=1)
    return [DesignSummary(summary, design, number) for number, design in designs]
