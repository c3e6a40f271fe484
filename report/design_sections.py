"""The designs beside the path: what each decision gives when it is left out, taken alone, or
averaged over orders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ablations.designs import Design, Variant
from report.checks import RunRecord
from report.collect import StudyRecord
from report.effects import EffectJudgement, judge_effects
from report.plots import INK, SOFT, points_axes
from report.tables import Summary, link_to_runs, runs_of
from report.variance import Measured, VarianceComponents
from utils.markdown import NOTHING, amount, plain, signed

_TITLES = {
    "cumulative": "Step by step",
    "leave-one-out": "Leave one out",
    "one-at-a-time": "One at a time",
    "orders": "Average over orders",
    "factorial": "Factorial",
}
_READS = {
    "cumulative": "Each row is compared with the one that it changes.",
    "leave-one-out": "An effect is what the last network loses without the decision: a positive "
    "one is a decision "
    "worth having.",
    "one-at-a-time": "An effect is what the first network gains by the decision alone.",
    "orders": "An effect is the average of what the decision changes over the orders in which it "
    "can be taken, its "
    "Shapley value under what needs what.",
    "factorial": "A main effect is the difference between on and off, averaged over the other "
    "factors; an "
    "interaction is half of what one factor changes in the effect of the other.",
}

_FEW_ORDERS = 6
"""With fewer, chance may not show that an effect depends on the order:
docs/decisions.md#few-orders."""


@dataclass(frozen=True)
class DesignSummary:
    """A design of a study, with everything computed from it."""

    summary: Summary
    design: Design
    place: int
    """Among the study's designs, from 1."""

    @property
    def name(self) -> str:
        """Of its files."""
        return f"design_{self.place}_{self.design.spec.kind.replace('-', '_')}"

    @property
    def title(self) -> str:
        request = self.design.spec
        base = f", from {request.base}" if request.base else ""
        return f"{_TITLES[request.kind]}: roadmap {self.design.roadmap.name}{base}"

    def runs(self, row: Variant) -> tuple[RunRecord, ...]:
        return self.summary.study.finished(row.name)

    @cached_property
    def unchanged(self) -> frozenset[str]:
        return unchanged(self.summary.study, self.design)

    @cached_property
    def judged(self) -> tuple[EffectJudgement, ...]:
        correct = {
            row.name: runs_of(runs) for row in self.design.variants if (runs := self.runs(row))
        }
        if not correct:
            return ()
        effects = [effect for effect in self.design.effects if effect.name not in self.unchanged]
        plan = self.summary.plan
        found = judge_effects(
            VarianceComponents(Measured.of(correct)), effects, margin=plan.margin, level=plan.level
        )
        return tuple(map(self._as_looked_at, found))

    def _as_looked_at(self, one: EffectJudgement) -> EffectJudgement:
        """Comparisons of two rows that a plan looks at several times are judged by its rule."""
        by_rule = self.summary.judgements.get(one.effect.pair) if one.effect.pair else None
        if by_rule is None or by_rule.family not in self.summary.plan.looked_at_again:
            return one
        these, new = by_rule.these_images, by_rule.new_images
        return replace(one, points=by_rule.points, these_images=these, new_images=new)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row a network and recipe of the design."""
        found = []
        for row in self.design.variants:
            results = [run.result for run in self.runs(row) if run.result is not None]
            top1 = np.array([result["top1"] for result in results])
            first = results[0] if results else {}
            found.append(
                {
                    "row": row.name,
                    "what": row.description,
                    "params": first.get("params"),
                    "gflops_paper_convention": first.get("gflops_paper_convention", math.nan),
                    "runs": len(results),
                    "seeds": " ".join(str(run.seed) for run in self.runs(row)),
                    "top1": top1.mean() if len(top1) else math.nan,
                    "top1_std": top1.std(ddof=1) if len(top1) > 1 else math.nan,
                }
            )
        return pd.DataFrame(found).astype({"params": "Int64"})

    @cached_property
    def effects(self) -> pd.DataFrame:
        """One row an effect, those that cannot be read off yet among them; points of top-1."""
        judged = {one.effect.name: one for one in self.judged}
        found = []
        for effect in self.design.effects:
            one = judged.get(effect.name)
            these, new = (one.these_images, one.new_images) if one else (None, None)
            found.append(
                {
                    "effect": effect.name,
                    "what": effect.description,
                    "points": one.points if one else math.nan,
                    "these_images_low": these.low if these else math.nan,
                    "these_images_high": these.high if these else math.nan,
                    "new_images_low": new.low if new else math.nan,
                    "new_images_high": new.high if new else math.nan,
                    "p_holm": new.p_holm if new else math.nan,
                    "verdict": self._verdict(effect.name, one),
                    "variance_from_seeds": one.shares.seeds if one and one.shares else math.nan,
                    "variance_from_images": one.shares.images if one and one.shares else math.nan,
                    "variance_from_orders": one.shares.orders if one and one.shares else math.nan,
                    "weights": " ".join(
                        f"{weight:+.4g} {row}" for row, weight in effect.weights.items()
                    ),
                }
            )
        return pd.DataFrame(found)

    def _verdict(self, name: str, one: EffectJudgement | None) -> str:
        if name in self.unchanged:
            return "changes nothing here"
        plan = self.summary.plan
        return "a run is missing" if one is None else one.in_words(plan.images, plan.margin)

    def in_short(self) -> str:
        """The design's effects in a line, by what may be said of them."""
        told: dict[str, list[str]] = {}
        for effect in self.effects.to_dict("records"):
            points = "" if pd.isna(effect["points"]) else f" ({signed(effect['points'])})"
            told.setdefault(effect["verdict"], []).append(plain(effect["effect"]) + points)
        return "; ".join(f"{verdict}: {', '.join(effects)}" for verdict, effects in told.items())

    def section(self) -> dict[str, Any]:
        """What the page says of the design."""
        drawn, shares = self.design.orders, self.effects["variance_from_orders"].dropna()
        notes = list(self.design.notes)
        if drawn:
            told = (
                f": {shares.min():.0%} to {shares.max():.0%} of the variance of an effect"
                if len(shares)
                else ""
            )
            notes.append(
                f"{drawn} orders were drawn at random; which ones is part of the uncertainty{told}"
            )
            if drawn < _FEW_ORDERS:
                notes.append(
                    "so few orders may happen to be alike where a decision's effect depends on "
                    "the order, and its "
                    "interval is then too short: six or more seldom are, give a larger "
                    "--runs-at-most"
                )
        return {
            "name": self.name,
            "title": self.title,
            "in_short": self.in_short(),
            "reads": _READS[self.design.spec.kind],
            "notes": notes,
            "aliases": self.design.aliases,
            "rows": [self._row_cells(row) for row in self.rows.to_dict("records")],
            "effects": [self._effect_cells(effect) for effect in self.effects.to_dict("records")],
            "shares": bool(drawn),
        }

    @staticmethod
    def _row_cells(row: dict[Any, Any]) -> tuple[str, ...]:
        top1 = NOTHING
        if row["runs"]:
            spread = "" if row["runs"] == 1 else f" ± {row['top1_std']:.2f} (n = {row['runs']})"
            top1 = link_to_runs(row["row"], f"{row['top1']:.2f}{spread}")
        params = NOTHING if pd.isna(row["params"]) else amount(row["params"] / 1e6)
        flops = row["gflops_paper_convention"]
        return row["row"], row["what"], params, NOTHING if pd.isna(flops) else amount(flops), top1

    @staticmethod
    def _effect_cells(effect: dict[Any, Any]) -> tuple[str, ...]:
        def interval(which: str) -> str:
            low, high = effect[f"{which}_low"], effect[f"{which}_high"]
            return NOTHING if pd.isna(low) else f"[{signed(low)}, {signed(high)}]"

        points = NOTHING if pd.isna(effect["points"]) else signed(effect["points"])
        return (
            effect["effect"],
            effect["what"],
            points,
            interval("these_images"),
            interval("new_images"),
            effect["verdict"],
        )

    def figure(self) -> Figure | None:
        """Effects in points, with the interval for new images as a line and for these images as a
        thick one."""
        table = self.effects.dropna(subset="points")
        if table.empty:
            return None
        what = "filled: a gain or a loss; thick: these images, thin: new ones, 95 %"
        with points_axes(list(table["effect"]), f"points of top-1 ({what})") as (figure, axes):
            axes.set_title(self.title, loc="left", fontweight="bold")
            for place, effect in enumerate(table.to_dict("records")):
                for which, width in (("new_images", 1.4), ("these_images", 4.0)):
                    ends = [effect[f"{which}_low"], effect[f"{which}_high"]]
                    axes.plot(
                        ends, [place, place], color=SOFT, lw=width, solid_capstyle="butt", zorder=2
                    )
                sure = effect["verdict"] in ("gain", "loss")
                axes.scatter(
                    effect["points"],
                    place,
                    s=55,
                    c=INK if sure else "white",
                    edgecolors=INK,
                    zorder=3,
                )
        return figure


def unchanged(study: StudyRecord, design: Design) -> frozenset[str]:
    """Effects that compare a network and recipe with itself in this study."""
    variants = {
        row.name: runs[0].identity.get("variant_digest")
        for row in design.variants
        if (runs := study.finished(row.name))
    }
    same = set()
    for effect in design.effects:
        weights: dict[object, float] = {}
        for row, weight in effect.weights.items():
            weights[variants.get(row, row)] = weights.get(variants.get(row, row), 0.0) + weight
        if all(abs(weight) < 1e-9 for weight in weights.values()):
            same.add(effect.name)
    return frozenset(same)


def of(summary: Summary) -> Iterator[DesignSummary]:
    """The study's designs that are not walked step by step."""
    for place, design in enumerate(summary.study.designs, start=1):
        yield DesignSummary(summary, design, place)
