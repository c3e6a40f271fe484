"""The designs off the path: each decision left out, taken alone, or averaged over orders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ablations.designs import Design, Effect
from report.collect import StudyRecord, measure
from report.judgement import Answer, Judgement, judge_effects
from report.plots import INK, SOFT, points_axes
from report.statistics import VarianceComponents
from report.tables import Summary, link_to_runs
from utils.markdown import NOTHING, amount, plain, signed

_TITLES = {
    "cumulative": "Step by step",
    "leave-one-out": "Leave one out",
    "one-at-a-time": "One at a time",
    "orders": "Average over orders",
    "factorial": "Factorial",
}
_READING = {
    "cumulative": "Each variant is compared with the one that it changes.",
    "leave-one-out": "An effect is what the last network loses without the decision: a positive "
    "one is a decision worth having.",
    "one-at-a-time": "An effect is what the first network gains by the decision alone.",
    "orders": "An effect is the average of what the decision changes over the orders in which it "
    "can be taken, its Shapley value under what needs what.",
    "factorial": "A main effect is the difference between on and off, averaged over the other "
    "factors; an interaction is half of what one factor changes in the effect of the other.",
}
_FEW_ORDERS = 6
"""With fewer, chance may hide that an effect depends on the order."""


@dataclass(frozen=True)
class DesignSummary:
    """A design of a study, with everything computed from it."""

    summary: Summary
    design: Design
    number: int
    """Among the study's designs, from 1."""

    @property
    def name(self) -> str:
        """The beginning of its files' names."""
        return f"design_{self.number}_{self.design.spec.kind.replace('-', '_')}"

    @property
    def title(self) -> str:
        spec = self.design.spec
        base = f", from {spec.base}" if spec.base else ""
        return f"{_TITLES[spec.kind]}: roadmap {self.design.roadmap.name}{base}"

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
    def rows(self) -> pd.DataFrame:
        """One row for each variant of the design."""
        rows = []
        for row in self.design.variants:
            runs = self.summary.study.finished(row.name)
            results = [run.result for run in runs if run.result is not None]
            top1 = np.array([result["top1"] for result in results])
            first = results[0] if results else {}
            rows.append(
                {
                    "row": row.name,
                    "what": row.description,
                    "params": first.get("params"),
                    "gflops_paper_convention": first.get("gflops_paper_convention", math.nan),
                    "runs": len(results),
                    "seeds": " ".join(str(run.seed) for run in runs),
                    "top1": top1.mean() if len(top1) else math.nan,
                    "top1_std": top1.std(ddof=1) if len(top1) > 1 else math.nan,
                }
            )
        return pd.DataFrame(rows).astype({"params": "Int64"})

    @cached_property
    def effects(self) -> pd.DataFrame:
        """One row for each effect in points of top-1, also if it cannot be estimated yet."""
        return pd.DataFrame([self._effect(effect) for effect in self.design.effects])

    def _effect(self, effect: Effect) -> dict[str, object]:
        one = self.judged.get(effect.name)
        fixed, new = (one.fixed_test, one.new_images) if one else (None, None)
        uncertainty = one.estimate.uncertainty.get("new") if one else None
        whole = (uncertainty.variance or 1.0) if uncertainty else math.nan
        if effect.name in unchanged(self.summary.study, self.design):
            verdict = "changes nothing here"
        else:
            verdict = one.text if one else "a run is missing"
        return {
            "effect": effect.name,
            "what": effect.description,
            "points": one.points if one else math.nan,
            **bounds("fixed_test", fixed),
            **bounds("new_images", new),
            "p_holm": new.p_holm if new else math.nan,
            "verdict": verdict,
            **{
                f"variance_from_{part}": getattr(uncertainty, part, math.nan) / whole
                for part in ("seeds", "images", "orders")
            },
            "weights": weights_text(effect),
        }

    def in_short(self) -> str:
        """The design's effects by verdict, in a line."""
        by_verdict: dict[str, list[str]] = {}
        for effect in self.effects.to_dict("records"):
            points = "" if pd.isna(effect["points"]) else f" ({signed(effect['points'])})"
            by_verdict.setdefault(effect["verdict"], []).append(plain(effect["effect"]) + points)
        return "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in by_verdict.items())

    def section(self) -> dict[str, Any]:
        """The variables of designs.md.j2."""
        drawn, notes = self.design.orders, list(self.design.notes)
        if drawn:
            shares = self.effects["variance_from_orders"].dropna()
            part = f": {shares.min():.0%} to {shares.max():.0%} of an effect's variance"
            notes.append(
                f"{drawn} orders were drawn at random; which ones is part of the uncertainty"
                + (part if len(shares) else "")
            )
            if drawn < _FEW_ORDERS:
                notes.append(
                    "so few orders may happen to be alike where a decision's effect depends on "
                    "the order, and its interval is then too short: six or more seldom are, give "
                    "a larger --runs-at-most"
                )
        return {
            "name": self.name,
            "title": self.title,
            "in_short": self.in_short(),
            "reads": _READING[self.design.spec.kind],
            "notes": notes,
            "aliases": self.design.aliases,
            "rows": [_row_cells(row) for row in self.rows.to_dict("records")],
            "effects": [_effect_cells(effect) for effect in self.effects.to_dict("records")],
        }

    def figure(self) -> Figure | None:
        """Draw effects in points, with both intervals."""
        table = self.effects.dropna(subset="points")
        if table.empty:
            return None
        what = "filled: a gain or a loss; thick: this test set, thin: new images, 95 %"
        with points_axes(list(table["effect"]), f"points of top-1 ({what})") as (figure, axes):
            axes.set_title(self.title, loc="left", fontweight="bold")
            for y, effect in enumerate(table.to_dict("records")):
                for which, width in (("new_images", 1.4), ("fixed_test", 4.0)):
                    x = [effect[f"{which}_low"], effect[f"{which}_high"]]
                    axes.plot(x, [y, y], color=SOFT, lw=width, solid_capstyle="butt", zorder=2)
                fill = INK if effect["verdict"] in ("gain", "loss") else "white"
                axes.scatter(effect["points"], y, s=55, c=fill, edgecolors=INK, zorder=3)
        return figure


def bounds(name: str, answer: Answer | None) -> dict[str, float]:
    """The columns of an interval."""
    low, high = (answer.low, answer.high) if answer else (math.nan, math.nan)
    return {f"{name}_low": low, f"{name}_high": high}


def weights_text(effect: Effect) -> str:
    """The weights of an effect, as '+1 gelu -1 kernel-7'."""
    return " ".join(f"{weight:+.4g} {name}" for name, weight in effect.weights.items())


def _row_cells(row: dict[Any, Any]) -> tuple[str, ...]:
    top1 = NOTHING
    if row["runs"]:
        spread = "" if row["runs"] == 1 else f" ± {row['top1_std']:.2f} (n = {row['runs']})"
        top1 = link_to_runs(row["row"], f"{row['top1']:.2f}{spread}")
    params = NOTHING if pd.isna(row["params"]) else amount(row["params"] / 1e6)
    flops = row["gflops_paper_convention"]
    return row["row"], row["what"], params, NOTHING if pd.isna(flops) else amount(flops), top1


def _effect_cells(effect: dict[Any, Any]) -> tuple[str, ...]:
    intervals = [
        NOTHING
        if pd.isna(effect[f"{which}_low"])
        else f"[{signed(effect[f'{which}_low'])}, {signed(effect[f'{which}_high'])}]"
        for which in ("fixed_test", "new_images")
    ]
    points = NOTHING if pd.isna(effect["points"]) else signed(effect["points"])
    return effect["effect"], effect["what"], points, *intervals, effect["verdict"]


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


def of(summary: Summary) -> Iterator[DesignSummary]:
    """The study's designs off the path."""
    for number, design in enumerate(summary.study.designs, start=1):
        yield DesignSummary(summary, design, number)
