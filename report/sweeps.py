"""Sweeps: each variant at its own best value of a recipe field, chosen on validation images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ablations.designs import Design, Effect, Variant
from ablations.sweep import Sweep
from report.collect import RunRecord, measure
from report.design_sections import unchanged
from report.judgement import Judgement, estimate_effect, judge_effects
from report.numbers import possible
from report.plots import COLORS, add_legend, forest
from report.statistics import VarianceComponents, holm
from report.tables import Summary, bounds

Runs = Mapping[str, Sequence[RunRecord]]


@dataclass(frozen=True)
class Swept:
    """A variant of the sweep, and the validation top-1 of its values."""

    name: str
    names: Mapping[str, str]
    """Value to the variant to take there: that of the roadmap where the value is its own."""
    seeds: tuple[int, ...]
    """Seeds with a finished run of the variant as it is and at every value."""
    validation: Mapping[str, float]
    """Value to validation top-1, the mean over these seeds; empty without any."""
    own: str | None
    """The value that the variant has in the roadmap; None if the sweep lacks it."""

    @property
    def best(self) -> str | None:
        """The value with the highest validation top-1; of equals its own, then the first."""
        order = sorted(self.validation, key=lambda value: value != self.own)
        return max(order, key=self.validation.__getitem__, default=None)

    @property
    def keeps(self) -> bool:
        """Whether it does best at the value that it has."""
        return self.best == self.own


@dataclass(frozen=True)
class SweepSummary:
    """A sweep of a study, with everything computed from it."""

    summary: Summary
    design: Design
    sweep: Sweep
    number: int
    """Among the study's sweeps, from 1."""

    @property
    def name(self) -> str:
        """The beginning of its files' names."""
        return f"sweep_{self.number}_{self.sweep.field}"

    @property
    def title(self) -> str:
        kind = self.design.spec.kind
        suffix = "" if kind == "cumulative" else f", {kind}"
        return f"Sweep of {self.sweep.field}: roadmap {self.design.roadmap.name}{suffix}"

    def _runs(self, name: str, seeds: Sequence[int]) -> tuple[RunRecord, ...]:
        return tuple(run for run in self.summary.study.finished(name) if run.seed in seeds)

    @cached_property
    def tried(self) -> tuple[Swept, ...]:
        """The variants of which any value has a finished run."""
        rows = [row for row in self.design.variants if row.of is None]
        return tuple(one for row in rows if (one := self._swept(row)))

    def _swept(self, row: Variant) -> Swept | None:
        settings = [other for other in self.design.settings(row) if other.setting]
        names = {other.setting.value: other.name for other in settings if other.setting}
        finished = self.summary.study.finished
        runs, own = {value: finished(name) for value, name in names.items()}, finished(row.name)
        if not any(runs.values()):
            return None
        seeds = set.intersection(*({run.seed for run in each} for each in (own, *runs.values())))
        digests = {run.identity.get("variant_digest") for run in own}
        same = (
            value
            for value, each in runs.items()
            if digests & {run.identity.get("variant_digest") for run in each}
        )
        validation = {
            value: float(np.mean([_validation(run) for run in each if run.seed in seeds]))
            for value, each in runs.items()
            if seeds
        }
        value = next(same, None)
        if value is not None:
            names[value] = row.name
        return Swept(row.name, names, tuple(sorted(seeds)), validation, value)

    @cached_property
    def chosen(self) -> dict[str, Swept]:
        """The variants that have a best value, by name."""
        return {one.name: one for one in self.tried if one.best is not None}

    @cached_property
    def judged(self) -> dict[str, tuple[Judgement, Judgement]]:
        """Each effect as the variants are and with each at its own best, on the same seeds."""
        best = {name: one.names[one.best or ""] for name, one in self.chosen.items()}
        same = unchanged(self.summary.study, self.design)
        effects = [
            effect
            for effect in self.design.effects
            if effect.name not in same and effect.weights.keys() <= best.keys()
        ]
        if not effects:
            return {}
        runs = {
            variant: self._runs(variant, one.seeds)
            for name, one in self.chosen.items()
            for variant in (name, best[name])
        }
        components, plan = VarianceComponents(measure(runs)), self.summary.plan
        common, tuned = (
            judge_effects(
                components, each, margin=plan.margin, level=plan.level, question=plan.images
            )
            for each in (effects, [_renamed(effect, best) for effect in effects])
        )
        return {one.effect.name: (one, other) for one, other in zip(common, tuned, strict=True)}

    @cached_property
    def values(self) -> pd.DataFrame:
        """One row for each variant and value; percent of the validation images."""
        columns = ["row", self.sweep.field, "own", "best", "seeds", "validation_top1"]
        rows = []
        for one, value in itertools.product(self.tried, self.sweep.values):
            seeds, top1 = " ".join(map(str, one.seeds)), one.validation.get(value, math.nan)
            rows.append((one.name, value, value == one.own, value == one.best, seeds, top1))
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """One row for each effect with an estimate; points of top-1 on the test images."""
        rows = []
        for name, (common, tuned) in self.judged.items():
            seeds = {seed for row in common.effect.weights for seed in self.chosen[row].seeds}
            sides = [(one.points, *bounds(one), one.text) for one in (common, tuned)]
            known = name, " ".join(map(str, sorted(seeds))), *sides[0], *sides[1]
            rows.append((*known, self._change(common, tuned)))
        columns = ["effect", "seeds"]
        for which in ("common", "own_best"):
            columns += [f"{which}_{what}" for what in ("points", "low", "high", "verdict")]
        return pd.DataFrame(rows, columns=[*columns, "change"])

    def _change(self, common: Judgement, tuned: Judgement) -> str:
        """The change of the verdict, or of sign and size if one seed gives none."""
        if common.answer and tuned.answer:
            same = common.text == tuned.text
            return "" if same else f"{common.text} becomes {tuned.text}"
        margin, changes = self.summary.plan.margin, []
        large = [abs(one.points) > margin for one in (common, tuned)]
        if common.points * tuned.points < 0 and any(large):
            changes.append("the sign changes")
        if large[0] != large[1]:
            changes.append(f"{'beyond' if large[1] else 'within'} {margin:g} points")
        return ", now ".join(changes)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """One row for each effect and value, with all variants at the value, on the sweep's seeds.

        The interval answers the plan's question; if a variant has one seed, it is for these runs.
        """
        runs = {
            name: self._runs(name, one.seeds)
            for one in self.chosen.values()
            for name in one.names.values()
        }
        return self._at_values(runs, change=False).drop(columns="p")

    @cached_property
    def changes(self) -> pd.DataFrame:
        """How much larger each effect is with all variants at a value than as they are.

        Uses all seeds of each variant; one with a single seed is taken to spread as the others do.
        `p_holm` is for no change, corrected for all of these. Empty if no variant has two seeds.
        """
        runs = dict(self.summary.runs_of_variants)
        for one in self.tried:
            for name in (one.name, *one.names.values()):
                if own := self.summary.study.finished(name):
                    runs[name] = own
        replicated = any(len(own) > 1 for own in runs.values())
        table = self._at_values(runs if replicated else {}, change=True)
        return table.assign(p_holm=holm(table["p"])).drop(columns="p")

    def _at_values(self, runs: Runs, *, change: bool) -> pd.DataFrame:
        """Estimate each effect, or its change, with all variants at each value."""
        rows, plan = [], self.summary.plan
        judged = self.judged.values() if runs else ()
        components = VarianceComponents(measure(runs)) if judged else None
        for (common, _), value in itertools.product(judged, self.sweep.values):
            assert components is not None
            effect = common.effect
            names = {one.name: one.names[value] for one in self.tried}
            contrast = _renamed(effect, names, minus_own=change)
            if contrast.weights:
                one = estimate_effect(components, contrast, borrow=change)
                uncertainty = one.uncertainty.get(plan.images, one.these_runs)
                half, points = uncertainty.half_width(plan.level / 2), one.points
                p = min(1.0, 2 * uncertainty.tail(abs(points)))
                ends = possible(points - half, points + half)
                rows.append((effect.name, value, points, *ends, p))
        return pd.DataFrame(rows, columns=["effect", "value", "points", "low", "high", "p"])

    @property
    def beyond_chance(self) -> list[str]:
        """The effects, and values, whose change is beyond chance after Holm's correction."""
        table = self.changes[self.changes["p_holm"] < self.summary.plan.level]
        return [f"{row['effect']} at {row['value']}" for row in table.to_dict("records")]

    @property
    def verdicts(self) -> bool:
        """Whether all comparisons have enough seeds for a verdict."""
        return all(one.answer for pair in self.judged.values() for one in pair)

    @property
    def gaps(self) -> list[tuple[str, list[str]]]:
        """What the sweep lacks, and the rows that lack it."""
        without = [one.name for one in self.chosen.values() if one.own is None]
        unfinished = [one.name for one in self.tried if one.best is None]
        return [
            ("Not finished with every value", unfinished),
            ("Their own value is none of these", without),
        ]

    def figure(self) -> Figure | None:
        """Draw each effect at each value."""
        table = self.differences
        if table.empty:
            return None
        table = table.assign(name=table["effect"], series=table["value"], decided=True, note="")
        label = f"points of top-1, all rows at one value of {self.sweep.field}"
        figure, axes = forest(table, self.summary.plan.margin, label)
        axes.set_title(self.title, loc="left", fontweight="bold", fontsize=11)
        handles = [
            Line2D([], [], color=color, marker="o", ms=5, label=value)
            for value, color in zip(self.sweep.values, COLORS)
        ]
        add_legend(figure, handles)
        return figure


def _renamed(effect: Effect, names: Mapping[str, str], *, minus_own: bool = False) -> Effect:
    """The effect among other variants; or how much larger it is there than among its own."""

    def renamed(weights: Mapping[str, float]) -> dict[str, float]:
        new = {name: -weight for name, weight in weights.items()} if minus_own else {}
        for name, weight in weights.items():
            new[names[name]] = new.get(names[name], 0.0) + weight
        return {name: weight for name, weight in new.items() if weight}

    sampled = tuple(map(renamed, effect.sampled))
    return replace(effect, weights=renamed(effect.weights), sampled=sampled)


def _validation(run: RunRecord) -> float:
    """Validation top-1 of the weights that were tested, those of the best epoch."""
    return max(float(epoch["validation_top1"]) for epoch in run.metrics)


def of(summary: Summary) -> list[SweepSummary]:
    """The study's sweeps."""
    return [
        SweepSummary(summary, design, design.spec.sweep, number)
        for number, design in enumerate(summary.study.sweeps, start=1)
        if design.spec.sweep is not None
    ]
