"""Sweeps: each variant at its own best value of a recipe field, chosen on validation images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ablations.designs import Design, Effect, Variant
from ablations.sweep import Sweep
from report.collect import RunRecord, measure
from report.design_sections import bounds, unchanged, weights_text
from report.judgement import Judgement, estimate_effect, judge_effects
from report.plots import INK, SOFT, STYLE, empty_figure, points_axes
from report.statistics import VarianceComponents, holm
from report.tables import Summary
from utils.markdown import MINUS, NOTHING, plain, signed
from utils.text import listed, plural

_ACROSS = 4
"""Panels side by side."""


@dataclass(frozen=True)
class Swept:
    """A variant of the sweep, and the validation top-1 of its values."""

    row: Variant
    names: Mapping[str, str]
    """Value to the name of the variant that has it."""
    seeds: tuple[int, ...]
    """Seeds with a finished run of the variant as it is and at every value."""
    validation: Mapping[str, float]
    """Value to validation top-1, the mean over these seeds; empty without any."""
    own: str | None
    """The value that the variant has in the roadmap; None if the sweep lacks it."""

    @property
    def best(self) -> str | None:
        """The value with the highest validation top-1; of equals its own, then the first."""
        return max(
            self.validation,
            key=lambda value: (self.validation[value], value == self.own),
            default=None,
        )

    def name_at(self, value: str) -> str:
        """The variant to take at a value: the one of the roadmap where the value is its own."""
        return self.row.name if value == self.own else self.names[value]


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
        return (
            f"Each row at its own best {self.sweep.field}: roadmap "
            f"{self.design.roadmap.name}{suffix}"
        )

    def _runs(self, name: str, seeds: Sequence[int] | None = None) -> tuple[RunRecord, ...]:
        runs = self.summary.study.finished(name)
        return tuple(run for run in runs if seeds is None or run.seed in seeds)

    @cached_property
    def tried(self) -> tuple[Swept, ...]:
        """The variants of which any value has a finished run."""
        rows = [row for row in self.design.variants if row.of is None]
        return tuple(one for row in rows if (one := self._swept(row)))

    def _swept(self, row: Variant) -> Swept | None:
        names = {
            other.setting.value: other.name for other in self.design.settings(row) if other.setting
        }
        runs = {value: self._runs(name) for value, name in names.items()}
        if not any(runs.values()):
            return None
        own = self._runs(row.name)
        seeds = {run.seed for run in own}.intersection(
            *({run.seed for run in each} for each in runs.values())
        )
        digests = {run.identity.get("variant_digest") for run in own}
        same = [
            value
            for value, each in runs.items()
            if any(run.identity.get("variant_digest") in digests for run in each)
        ]
        validation = {
            value: float(np.mean([_validation(run) for run in each if run.seed in seeds]))
            for value, each in runs.items()
            if seeds
        }
        own_value = same[0] if same else None
        return Swept(row, names, tuple(sorted(seeds)), validation, own_value)

    @cached_property
    def chosen(self) -> dict[str, Swept]:
        """The variants that have a best value, by name."""
        return {one.row.name: one for one in self.tried if one.best is not None}

    @cached_property
    def judged(self) -> dict[str, tuple[Judgement, Judgement]]:
        """Each effect as the variants are and with each at its own best, on the same seeds."""
        best = {name: one.name_at(one.best or "") for name, one in self.chosen.items()}
        same = unchanged(self.summary.study, self.design)
        effects = [
            effect
            for effect in self.design.effects
            if effect.name not in same and effect.weights.keys() <= best.keys()
        ]
        if not effects:
            return {}
        runs = {
            name: self._runs(name, one.seeds)
            for one in self.chosen.values()
            for name in (one.row.name, best[one.row.name])
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
        return pd.DataFrame(
            [
                {
                    "row": one.row.name,
                    self.sweep.field: value,
                    "own": value == one.own,
                    "best": value == one.best,
                    "seeds": " ".join(map(str, one.seeds)),
                    "validation_top1": one.validation.get(value, math.nan),
                }
                for one in self.tried
                for value in self.sweep.values
            ]
        )

    @cached_property
    def effects(self) -> pd.DataFrame:
        """One row for each effect with an estimate; points of top-1 on the test images."""
        rows = []
        for name, (common, tuned) in self.judged.items():
            row: dict[str, object] = {"effect": name, "seeds": self._seeds(common.effect)}
            for which, one in (("common", common), ("own_best", tuned)):
                row[f"{which}_points"] = one.points
                row |= bounds(which, one.answer)
                row[f"{which}_verdict"] = one.text
                row[f"{which}_weights"] = weights_text(one.effect)
            rows.append(row | {"change": self._change(common, tuned)})
        sides = [
            f"{which}_{what}"
            for which in ("common", "own_best")
            for what in ("points", "low", "high", "verdict", "weights")
        ]
        return pd.DataFrame(rows, columns=["effect", "seeds", *sides, "change"])

    def _seeds(self, effect: Effect) -> str:
        seeds = {seed for name in effect.weights for seed in self.chosen[name].seeds}
        return " ".join(map(str, sorted(seeds)))

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
        names = {
            value: {name: one.names[value] for name, one in self.chosen.items()}
            for value in self.sweep.values
        }
        runs = {
            names[value][name]: self._runs(names[value][name], one.seeds)
            for name, one in self.chosen.items()
            for value in self.sweep.values
        }
        return self._at_values(runs, names).drop(columns="p")

    @cached_property
    def changes(self) -> pd.DataFrame:
        """How much larger each effect is with all variants at a value than as they are.

        Uses all seeds of each variant; one with a single seed is taken to spread as the others do.
        `p_holm` is for no change, corrected for all of these. Empty if no variant has two seeds.
        """
        names = {
            value: {one.row.name: one.name_at(value) for one in self.tried}
            for value in self.sweep.values
        }
        runs = {**self.summary.runs_of_variants, **self._all_runs}
        replicated = any(len(own) > 1 for own in runs.values())
        table = self._at_values(runs if replicated else {}, names, change=True)
        return table.assign(p_holm=holm(table["p"])).drop(columns="p")

    def _at_values(
        self,
        runs: Mapping[str, Sequence[RunRecord]],
        names: Mapping[str, Mapping[str, str]],
        *,
        change: bool = False,
    ) -> pd.DataFrame:
        """Estimate each effect, or its change, among the variants that `names` gives a value."""
        rows = []
        plan, effects = self.summary.plan, [common.effect for common, _ in self.judged.values()]
        components = VarianceComponents(measure(runs)) if runs and effects else None
        for effect, value in itertools.product(effects if components else (), self.sweep.values):
            assert components is not None
            contrast = _renamed(effect, names[value], minus_own=change)
            if contrast.weights:
                one = estimate_effect(components, contrast, borrow=change)
                uncertainty = one.uncertainty.get(plan.images, one.these_runs)
                half, points = uncertainty.half_width(plan.level / 2), one.points
                p = min(1.0, 2 * uncertainty.tail(abs(points)))
                rows.append((effect.name, value, points, points - half, points + half, p))
        return pd.DataFrame(rows, columns=["effect", "value", "points", "low", "high", "p"])

    @cached_property
    def _all_runs(self) -> dict[str, tuple[RunRecord, ...]]:
        """All finished runs of the tried variants, as they are and at each value."""
        names = [name for one in self.tried for name in (one.row.name, *one.names.values())]
        return {name: runs for name in names if (runs := self._runs(name))}

    def section(self) -> dict[str, Any]:
        """The variables of sweeps.md.j2."""
        values = list(map(plain, self.sweep.values))
        return {
            "name": self.name,
            "title": self.title,
            "field": self.sweep.field,
            "count": len(values),
            "row_headers": [
                "row",
                *(f"validation, {value}" for value in values),
                *("best", "seeds", "test, as it is", "test, at its best"),
            ],
            "rows": [self._row_cells(one) for one in self.tried],
            "effect_headers": [
                *("comparison", "common setting", "verdict", "each at its own best", "verdict"),
                "change",
            ],
            "effects": [self._effect_cells(*pair) for pair in self.judged.values()],
            "answer": self._answer_text(),
            "value_headers": values,
            "at_values": [
                (plain(name), *map(_with_interval, own.to_dict("records")))
                for name, own in self.differences.groupby("effect", sort=False)
            ],
            "changes": None if self.changes.empty else self._changes_section(),
            "intervals": not self.effects["common_low"].isna().all(),
            "own": self._own_text(),
            "missing": listed(one.row.name for one in self.tried if one.best is None),
            "not_own": listed(
                one.row.name for one in self.tried if one.own is None and one.validation
            ),
        }

    def _changes_section(self) -> dict[str, Any]:
        cells = {(one["effect"], one["value"]): one for one in self.changes.to_dict("records")}
        values = [value for value in self.sweep.values if value in set(self.changes["value"])]
        level = self.summary.plan.level
        return {
            "headers": ["comparison", *map(plain, values)],
            "rows": [
                (plain(name), *(_with_interval(cells.get((name, value))) for value in values))
                for name in dict.fromkeys(self.changes["effect"])
            ],
            "count": len(cells),
            "beyond": listed(
                f"{name} at {value}"
                for (name, value), one in cells.items()
                if one["p_holm"] < level
            ),
            "borrowed": any(len(runs) == 1 for runs in self._all_runs.values()),
        }

    def _own_text(self) -> str:
        kept = sum(one.best == one.own for one in self.chosen.values())
        does, it_has = ("does", "it has") if kept == 1 else ("do", "they have")
        rows = plural(len(self.chosen), "row")
        return f"{kept} of {rows} {does} best at the value that {it_has}"

    def _answer_text(self) -> str:
        table = self.effects
        if table.empty:
            return "No difference can be estimated yet"
        changed = table[table["change"] != ""]
        names = "; ".join(
            f"{name} ({change})"
            for name, change in zip(changed["effect"], changed["change"], strict=True)
        )
        text = f"in {len(changed)} of {plural(len(table), 'comparison')}"
        text += f": {names}" if names else ""
        if all(one.answer for pair in self.judged.values() for one in pair):
            return text[0].upper() + text[1:]
        return (
            f"One seed gives no verdict; being beyond {self.summary.plan.margin:g} points, or the "
            f"sign beyond it, changes {text}"
        )

    def _top1(self, name: str, seeds: tuple[int, ...]) -> str:
        top1 = [float(run.result["top1"]) for run in self._runs(name, seeds) if run.result]
        return f"{np.mean(top1):.2f}" if top1 else NOTHING

    def _row_cells(self, one: Swept) -> tuple[str, ...]:
        cells = []
        for value in self.sweep.values:
            cell = f"{one.validation[value]:.2f}" if one.validation else NOTHING
            cell = f"**{cell}**" if value == one.best else cell
            cells.append(f"{cell} (own)" if value == one.own else cell)
        return (
            plain(one.row.name),
            *cells,
            plain(one.best or NOTHING),
            str(len(one.seeds)),
            self._top1(one.row.name, one.seeds),
            NOTHING if one.best is None else self._top1(one.name_at(one.best), one.seeds),
        )

    def _effect_cells(self, common: Judgement, tuned: Judgement) -> tuple[str, ...]:
        cells = []
        for one in (common, tuned):
            answer = one.answer
            interval = f" [{signed(answer.low)}, {signed(answer.high)}]" if answer else ""
            cells += [signed(one.points) + interval, one.text]
        change = self._change(common, tuned) or "no"
        return (plain(common.effect.name), *cells, change)

    def figures(self) -> dict[str, tuple[str, Callable[[Summary], Figure | None]]]:
        """File name to the figure's title and the function that draws it."""
        each = (
            f"Each comparison at each value of {self.sweep.field}: roadmap "
            f"{self.design.roadmap.name}"
        )
        return {
            self.name: (self.title, lambda _: self._figure()),
            f"{self.name}_differences": (each, lambda _: self._panels(each)),
        }

    def _figure(self) -> Figure | None:
        """Draw each effect with the common setting and with every variant at its own best."""
        table = self.effects
        if table.empty:
            return None
        margin, places = self.summary.plan.margin, range(len(table))
        common, tuned = table["common_points"], table["own_best_points"]
        what = f"hollow: common setting, filled: own best; grey: within {margin:g}"
        with points_axes(list(table["effect"]), f"points of top-1 ({what})") as (figure, axes):
            axes.set_title(self.title, loc="left", fontweight="bold")
            axes.axvspan(-margin, margin, color=SOFT, alpha=0.15, lw=0, zorder=0)
            axes.hlines(places, common, tuned, color=SOFT, lw=1.4, zorder=2)
            axes.scatter(common, places, s=55, c="white", edgecolors=INK, zorder=3)
            axes.scatter(tuned, places, s=55, c=INK, edgecolors=INK, zorder=3)
        return figure

    def _panels(self, title: str) -> Figure | None:
        """Draw `differences` in a panel for each effect."""
        table = self.differences
        if table.empty:
            return None
        values, groups = self.sweep.values, list(table.groupby("effect", sort=False))
        columns = min(_ACROSS, len(groups))
        lines = math.ceil(len(groups) / columns)
        with matplotlib.rc_context(STYLE):
            figure = empty_figure(max(4.8, 2.4 * columns), 1.9 * lines + 0.9)
            grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
            for axes, (name, own) in zip(grid.flat, groups, strict=False):
                axes.axhline(0, color=SOFT, lw=1, zorder=1)
                half, x = own["high"] - own["points"], range(len(own))
                line = {"color": INK, "marker": "o", "ms": 5, "lw": 1.2, "capsize": 2}
                axes.errorbar(x, own["points"], half, **line)
                axes.set_title(str(name), loc="left", fontsize=9)
                axes.set_xticks(range(len(values)), values)
                axes.set_xlim(-0.4, len(values) - 0.6)
                axes.yaxis.set_major_formatter(
                    lambda y, _: f"{y:+g}".replace("-", MINUS) if y else "0"
                )
                sns.despine(ax=axes)
            for axes in list(grid.flat)[len(groups) :]:
                axes.set_axis_off()
            figure.supxlabel(self.sweep.field, fontsize=10)
            figure.supylabel("points of top-1", fontsize=10)
            figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
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


def _with_interval(one: Mapping[Any, Any] | None) -> str:
    if one is None:
        return NOTHING
    return f"{signed(one['points'])} [{signed(one['low'])}, {signed(one['high'])}]"


def _validation(run: RunRecord) -> float:
    """Validation top-1 of the weights that were tested, those of the best epoch."""
    return max(float(epoch["validation_top1"]) for epoch in run.metrics)


def of(summary: Summary) -> Iterator[SweepSummary]:
    """The study's sweeps."""
    for number, design in enumerate(summary.study.sweeps, start=1):
        if design.spec.sweep is not None:
            yield SweepSummary(summary, design, design.spec.sweep, number)
