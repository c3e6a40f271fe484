"""Sweeps: each row at its own best value of a field of the recipe, chosen on validation images;
what that changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from ablations.designs import Design, Effect, Variant
from ablations.sweep import Sweep
from report import sweep_curves
from report.checks import RunRecord
from report.design_sections import unchanged
from report.effects import EffectJudgement, judge_effects
from report.judgement import Answer
from report.plots import INK, SOFT, points_axes
from report.tables import Summary, runs_of
from report.variance import Measured, Runs, VarianceComponents
from utils.markdown import NOTHING, plain, signed
from utils.text import listed, plural


@dataclass(frozen=True)
class Tried:
    """A row of the sweep, and what its values came to on the validation images."""

    row: Variant
    seeds: tuple[int, ...]
    """With which the row as it is and every value of the sweep have a finished run."""
    validation: Mapping[str, float]
    """Value to validation top-1, the mean over these seeds; empty where there are none."""
    own: str | None
    """The value that is the row's own; None where it is none of the sweep's."""

    @property
    def best(self) -> str | None:
        """The value with the highest validation top-1; of equals the row's own, else the first."""
        return max(
            self.validation,
            key=lambda value: (self.validation[value], value == self.own),
            default=None,
        )


@dataclass(frozen=True)
class SweepSummary:
    """A sweep of a study, with everything computed from it."""

    summary: Summary
    design: Design
    sweep: Sweep
    place: int
    """Among the study's sweeps, from 1."""

    @property
    def name(self) -> str:
        """Of its files."""
        return f"sweep_{self.place}_{self.sweep.field}"

    @property
    def title(self) -> str:
        request = self.design.spec
        walked = "" if request.kind == "cumulative" else f", {request.kind}"
        return (
            f"Each row at its own best {self.sweep.field}: roadmap "
            f"{self.design.roadmap.name}{walked}"
        )

    def _runs(self, row: str) -> dict[int, RunRecord]:
        return {run.seed: run for run in self.summary.study.finished(row)}

    @cached_property
    def tried(self) -> tuple[Tried, ...]:
        """The rows of which any value has a finished run."""
        rows = [row for row in self.design.variants if row.of is None]
        return tuple(one for row in rows if (one := self._tried(row)))

    def _tried(self, row: Variant) -> Tried | None:
        own = self._runs(row.name)
        settings = {
            other.setting.value: self._runs(other.name)
            for other in self.design.settings(row)
            if other.setting
        }
        if not any(settings.values()):
            return None
        seeds = sorted(set(own).intersection(*settings.values()))
        mine = {run.identity.get("variant_digest") for run in own.values()}
        return Tried(
            row,
            tuple(seeds),
            {
                value: float(np.mean([_validation(runs[seed]) for seed in seeds]))
                for value, runs in settings.items()
            }
            if seeds
            else {},
            next(
                (
                    value
                    for value, runs in settings.items()
                    if any(run.identity.get("variant_digest") in mine for run in runs.values())
                ),
                None,
            ),
        )

    @cached_property
    def _best(self) -> dict[str, str]:
        """The row to its row of the best value, which is itself where that is its own value."""
        return {
            one.row.name: one.row.name if one.best == one.own else self._row_of(one.row, one.best)
            for one in self.tried
            if one.best is not None
        }

    def _row_of(self, row: Variant, value: str) -> str:
        return next(
            other.name
            for other in self.design.settings(row)
            if other.setting and other.setting.value == value
        )

    @cached_property
    def judged(self) -> dict[str, tuple[EffectJudgement, EffectJudgement]]:
        """Each effect whose rows all have a choice: as the rows are, and each at its own best, with
        the same seeds."""
        runs: dict[str, Runs] = {}
        for one in self.tried:
            for name in {one.row.name, self._best[one.row.name]} if one.best is not None else ():
                runs[name] = self._correct(name, one.seeds)
        same = unchanged(self.summary.study, self.design)
        effects = [
            effect
            for effect in self.design.effects
            if effect.name not in same and effect.weights.keys() <= self._best.keys()
        ]
        if not runs or not effects:
            return {}
        noise, plan = VarianceComponents(Measured.of(runs)), self.summary.plan
        common, tuned = (
            {
                one.effect.name: one
                for one in judge_effects(noise, asked, margin=plan.margin, level=plan.level)
            }
            for asked in (effects, [self._tuned(effect) for effect in effects])
        )
        return {name: (common[name], tuned[name]) for name in common if name in tuned}

    def _correct(self, row: str, seeds: tuple[int, ...]) -> Runs:
        own = self._runs(row)
        return runs_of([own[seed] for seed in seeds])

    def _tuned(self, effect: Effect) -> Effect:
        weights, *sampled = (
            {self._best[row]: weight for row, weight in each.items()}
            for each in (effect.weights, *effect.sampled)
        )
        return replace(effect, weights=weights, sampled=tuple(sampled))

    @cached_property
    def values(self) -> pd.DataFrame:
        """One row a row and value; percent of the validation images."""
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
        """One row an effect that can be read off; points of top-1 on the test images."""
        found = []
        for name, (common, tuned) in self.judged.items():
            row: dict[str, object] = {"effect": name, "seeds": self._seeds(common.effect)}
            for which, one in (("common", common), ("own_best", tuned)):
                answer = self._answer(one)
                row |= {
                    f"{which}_points": one.points,
                    f"{which}_low": answer.low if answer else math.nan,
                    f"{which}_high": answer.high if answer else math.nan,
                    f"{which}_verdict": self._words(one),
                    f"{which}_weights": " ".join(
                        f"{weight:+.4g} {row}" for row, weight in one.effect.weights.items()
                    ),
                }
            found.append(row | {"change": self._change(common, tuned)})
        sides = [
            f"{which}_{what}"
            for which in ("common", "own_best")
            for what in ("points", "low", "high", "verdict", "weights")
        ]
        return pd.DataFrame(found, columns=["effect", "seeds", *sides, "change"])

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Each effect that can be read off with all rows at one value; see
        `sweep_curves.differences`."""
        chosen = [one for one in self.tried if one.best is not None]
        rows = {
            value: {one.row.name: self._row_of(one.row, value) for one in chosen}
            for value in self.sweep.values
        }
        runs = {
            rows[value][one.row.name]: self._correct(rows[value][one.row.name], one.seeds)
            for one in chosen
            for value in self.sweep.values
        }
        effects, plan = [common.effect for common, _ in self.judged.values()], self.summary.plan
        return sweep_curves.differences(runs, effects, rows, plan.images, plan.level)

    @cached_property
    def changes(self) -> pd.DataFrame:
        """How far each of `differences` is from that of the rows as they are; see
        `sweep_curves.changes`."""
        rows = {
            value: {
                one.row.name: self._row_of(one.row, value) if value != one.own else one.row.name
                for one in self.tried
            }
            for value in self.sweep.values
        }
        effects, plan = [common.effect for common, _ in self.judged.values()], self.summary.plan
        return sweep_curves.changes(
            self.summary.runs_of_rows | self._swept, effects, rows, plan.images, plan.level
        )

    @cached_property
    def _swept(self) -> dict[str, Runs]:
        """All finished runs of the rows that were tried, as they are and at each value."""
        own = [one.row.name for one in self.tried]
        names = own + [
            self._row_of(one.row, value) for one in self.tried for value in self.sweep.values
        ]
        return {name: runs_of(list(runs.values())) for name in names if (runs := self._runs(name))}

    def _answer(self, one: EffectJudgement) -> Answer | None:
        return one.answer_to(self.summary.plan.images)

    def _seeds(self, effect: Effect) -> str:
        by_name = {one.row.name: one.seeds for one in self.tried}
        return " ".join(map(str, sorted({seed for row in effect.weights for seed in by_name[row]})))

    def _words(self, one: EffectJudgement) -> str:
        return one.in_words(self.summary.plan.images, self.summary.plan.margin)

    def _change(self, common: EffectJudgement, tuned: EffectJudgement) -> str:
        """Of the verdict, or of sign and size where one seed gives none; empty where there is
        none."""
        if self._answer(common) and self._answer(tuned):
            before, after = (self._words(one) for one in (common, tuned))
            return "" if before == after else f"{before} becomes {after}"
        margin, said = self.summary.plan.margin, []
        large = [abs(one.points) > margin for one in (common, tuned)]
        if common.points * tuned.points < 0 and any(large):
            said.append("the sign changes")
        if large[0] != large[1]:
            said.append(f"{'beyond' if large[1] else 'within'} {margin:g} points")
        return ", now ".join(said)

    def section(self) -> dict[str, Any]:
        """What the page says of the sweep."""
        more = ["common setting, all seeds"] if self._more_seeds else []
        return {
            "name": self.name,
            "title": self.title,
            "field": self.sweep.field,
            "count": len(self.sweep.values),
            "row_headers": [
                "row",
                *(f"validation, {plain(value)}" for value in self.sweep.values),
                "best",
                "seeds",
                "test, as it is",
                "test, at its best",
            ],
            "rows": [self._row_cells(one) for one in self.tried],
            "effect_headers": [
                "comparison",
                "common setting",
                "verdict",
                "each at its own best",
                "verdict",
                "change",
                *more,
            ],
            "effects": [
                self._effect_cells(*pair)[: 6 + len(more)] for pair in self.judged.values()
            ],
            "answer": self._answer_in_words(),
            "value_headers": [plain(value) for value in self.sweep.values],
            "at_values": self._at_values(),
            "changes": self._changes(),
            "intervals": not self.effects["common_low"].isna().all(),
            "own": self._own_in_words(),
            "chance": self._chance(),
            "missing": listed(one.row.name for one in self.tried if one.best is None),
            "not_own": listed(
                one.row.name for one in self.tried if one.own is None and one.validation
            ),
        }

    def _at_values(self) -> list[tuple[str, ...]]:
        return [
            (plain(name), *map(_with_interval, own.to_dict("records")))
            for name, own in self.differences.groupby("effect", sort=False)
        ]

    def _changes(self) -> dict[str, Any] | None:
        """A table of `changes`, how many there are, which of them are beyond chance, whether a row
        has one seed."""
        if self.changes.empty:
            return None
        at = {(one["effect"], one["value"]): one for one in self.changes.to_dict("records")}
        values = [value for value in self.sweep.values if any(of == value for _, of in at)]
        names = dict.fromkeys(effect for effect, _ in at)
        level = self.summary.plan.level
        return {
            "headers": ["comparison", *map(plain, values)],
            "rows": [
                (plain(name), *(_with_interval(at.get((name, value))) for value in values))
                for name in names
            ],
            "count": len(at),
            "beyond": listed(
                f"{name} at {value}" for (name, value), one in at.items() if one["p_holm"] < level
            ),
            "borrowed": any(len(own.seeds) == 1 for own in self._swept.values()),
        }

    def _own_in_words(self) -> str:
        chosen = [one for one in self.tried if one.best is not None]
        kept = sum(one.best == one.own for one in chosen)
        do, have = ("does", "it has") if kept == 1 else ("do", "they have")
        return f"{kept} of {plural(len(chosen), 'row')} {do} best at the value that {have}"

    def _answer_in_words(self) -> str:
        table = self.effects
        if table.empty:
            return "No difference can be read off yet"
        changed = "; ".join(
            f"{row['effect']} ({row['change']})"
            for row in table.to_dict("records")
            if row["change"]
        )
        count = (table["change"] != "").sum()
        told = f"in {count} of {plural(len(table), 'comparison')}" + (
            f": {changed}" if changed else ""
        )
        if all(self._answer(one) for pair in self.judged.values() for one in pair):
            return told[0].upper() + told[1:]
        margin = f"{self.summary.plan.margin:g}"
        return (
            f"One seed gives no verdict; being beyond {margin} points, or the sign beyond it, "
            f"changes {told}"
        )

    def _chance(self) -> tuple[str, str] | None:
        """Points by which two values, and the best of equals, are off by the chance of the
        validation images."""
        chosen = [one for one in self.tried if one.best is not None]
        if not chosen:
            return None
        share = float(np.mean([value for one in chosen for value in one.validation.values()])) / 100
        images = self.summary.study.dataset.validation * min(len(one.seeds) for one in chosen)
        error = 100 * math.sqrt(share * (1 - share) / max(1, images))
        count = len(self.sweep.values)
        luck = error * float(
            stats.norm.ppf((count - 0.375) / (count + 0.25))
        )  # Blom: the largest of so many
        return f"{math.sqrt(2) * error:.2f}", f"{luck:.2f}"

    def _top1(self, row: str, seeds: tuple[int, ...]) -> str:
        found = [
            float(run.result["top1"]) for seed in seeds if (run := self._runs(row)[seed]).result
        ]
        return f"{np.mean(found):.2f}" if found else NOTHING

    def _row_cells(self, one: Tried) -> tuple[str, ...]:
        cells = []
        for value in self.sweep.values:
            said = f"{one.validation[value]:.2f}" if one.validation else NOTHING
            said = f"**{said}**" if value == one.best else said
            cells.append(f"{said} (own)" if value == one.own else said)
        best = self._best.get(one.row.name)
        return (
            plain(one.row.name),
            *cells,
            plain(one.best or NOTHING),
            str(len(one.seeds)),
            self._top1(one.row.name, one.seeds),
            self._top1(best, one.seeds) if best else NOTHING,
        )

    @cached_property
    def _more_seeds(self) -> bool:
        """Whether the study judges any of these comparisons with more seeds than the sweep has."""
        return any(self._with_all_seeds(common) != NOTHING for common, _ in self.judged.values())

    def _with_all_seeds(self, common: EffectJudgement) -> str:
        one = self.summary.judgements.get(common.effect.pair) if common.effect.pair else None
        most = len(self._seeds(common.effect).split())
        return (
            f"{signed(one.points)}, {one.words} (n = {min(one.seeds)})"
            if one and min(one.seeds) > most
            else NOTHING
        )

    def _effect_cells(self, common: EffectJudgement, tuned: EffectJudgement) -> tuple[str, ...]:
        def cells(one: EffectJudgement) -> tuple[str, str]:
            answer = self._answer(one)
            interval = f" [{signed(answer.low)}, {signed(answer.high)}]" if answer else ""
            return signed(one.points) + interval, self._words(one)

        ends = [*cells(common), *cells(tuned)]
        return (
            plain(common.effect.name),
            *ends,
            self._change(common, tuned) or "no",
            self._with_all_seeds(common),
        )

    def figures(self) -> dict[str, tuple[str, Callable[[Summary], Figure | None]]]:
        """By the name of their files: what each stands for, and how it is drawn."""
        each = (
            f"Each comparison at each value of {self.sweep.field}: roadmap "
            f"{self.design.roadmap.name}"
        )
        return {
            self.name: (self.title, lambda _: self._figure()),
            f"{self.name}_differences": (
                each,
                lambda _: sweep_curves.panels(self.differences, self.sweep.field, each),
            ),
        }

    def _figure(self) -> Figure | None:
        """Each effect with the common setting and with every row at its own best."""
        table = self.effects
        if table.empty:
            return None
        margin, places = self.summary.plan.margin, range(len(table))
        what = f"hollow: common setting, filled: own best; grey: within {margin:g}"
        with points_axes(list(table["effect"]), f"points of top-1 ({what})") as (figure, axes):
            axes.set_title(self.title, loc="left", fontweight="bold")
            axes.axvspan(-margin, margin, color=SOFT, alpha=0.15, lw=0, zorder=0)
            axes.hlines(
                places,
                table["common_points"],
                table["own_best_points"],
                color=SOFT,
                lw=1.4,
                zorder=2,
            )
            for which, colour in (("common", "white"), ("own_best", INK)):
                axes.scatter(
                    table[f"{which}_points"], places, s=55, c=colour, edgecolors=INK, zorder=3
                )
        return figure


def _with_interval(one: Mapping[Any, Any] | None) -> str:
    return (
        f"{signed(one['points'])} [{signed(one['low'])}, {signed(one['high'])}]" if one else NOTHING
    )


def _validation(run: RunRecord) -> float:
    """Validation top-1 of the weights that were tested, those of the best epoch."""
    return max(float(epoch["validation_top1"]) for epoch in run.metrics)


def of(summary: Summary) -> Iterator[SweepSummary]:
    """The study's sweeps."""
    for place, design in enumerate(summary.study.sweeps, start=1):
        if design.spec.sweep is not None:
            yield SweepSummary(summary, design, design.spec.sweep, place)
