"""What the report answers first: the study's scope, what it can find, and what became of each
claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from report.judgement import Judgement
from report.numbers import seeds as seeds_text
from report.statistics import MOST_SEEDS
from report.tables import Summary, bounds
from training.recipe import Recipe
from utils.text import flat, plural

EXCLUDED = "undecided, but not as large as in the paper"
_PARTS = {
    "rand_augment_magnitude": "RandAugment",
    "mixup": "mixup",
    "cutmix": "cutmix",
    "random_erasing": "random erasing",
    "color_jitter": "color jitter",
    "label_smoothing": "label smoothing",
    "drop_path": "stochastic depth",
    "layer_scale": "layer scale",
}
"""The parts of the modern recipe that a study can switch off."""


def parts_off(summary: Summary) -> list[str]:
    """The parts of the paper's modern recipe that this study trains without."""
    paper, own = flat(Recipe().values()), flat(summary.study.config["recipe"])
    return [part for name, part in _PARTS.items() if paper[name] and not own.get(name, paper[name])]


def seeds_a_row(summary: Summary) -> str:
    """The number of seeds of the rows, for the scope; empty without a finished run."""
    counts = [len(runs) for runs in summary.runs_of_variants.values()]
    if not counts:
        return ""
    most = plural(max(counts), "seed")
    return f"{'' if min(counts) == max(counts) else f'{min(counts)} to '}{most} a row; "


def outcome(one: Judgement, paper: float | None) -> str:
    """What became of the claim that a difference is as the paper's; without one, the verdict."""
    if paper is None or one.verdict not in ("gain", "loss", "no difference", "not resolved"):
        return one.text
    if one.verdict != "not resolved":
        small = one.verdict == "no difference"
        as_there = abs(paper) <= one.margin if small else one.sign * paper > 0
        rests = " (rests on the pooled spread)" if one.rests_on_pooling else ""
        return f"{'confirmed' if as_there else 'contradicted'}{rests}"
    low, high = bounds(one)
    return EXCLUDED if (high < paper if paper > 0 else low > paper) else "undecided"


def table(summary: Summary) -> pd.DataFrame:
    """One row a claim: the path's ends, then each step; points of top-1.

    A claim is the paper's difference, or, in another roadmap, that of each step.
    """
    changes = {step.name: step.description for step in summary.study.steps}
    rows = []
    for one in [*summary.ends, *summary.differences.values()]:
        paper = summary.paper_difference(one.pair)
        low, high = bounds(one)
        rows.append(
            {
                "claim": one.pair[0],
                "against": one.pair[1],
                "change": changes[one.pair[0]] if one not in summary.ends else "the whole path",
                "paper": np.nan if paper is None else paper,
                "difference": one.points,
                "low": low,
                "high": high,
                "n": seeds_text(one.seeds),
                "outcome": outcome(one, paper),
                "verdict": one.text,
                "rests_on_pooling": one.rests_on_pooling,
            }
        )
    columns = "claim against change paper difference low high n outcome verdict rests_on_pooling"
    return pd.DataFrame(rows, columns=columns.split())


def counts(table: pd.DataFrame) -> str:
    """How many claims became what, in a sentence."""
    outcomes = [outcome.partition(" (")[0].partition(",")[0] for outcome in table["outcome"]]
    counted = [(name, outcomes.count(name)) for name in ("confirmed", "contradicted", "undecided")]
    parts = [f"{count} {name}" for name, count in counted if count]
    if not parts:
        return "None of these claims can be judged yet."
    excluded = list(table["outcome"]).count(EXCLUDED)
    suffix = f" ({excluded} of them surely not as large as in the paper)" if excluded else ""
    return f"Of {len(outcomes)} claims: {', '.join(parts)}{suffix}."


class Reach(NamedTuple):
    """What these seeds and images can find, in points of top-1, over several comparisons."""

    typical: float
    """The median of the smallest differences that 80 of 100 such studies find."""
    least: float
    most: float
    margin_seeds: int | None
    """Seeds in every row that find a difference of the margin as surely; None: 1,000 would not."""
    equivalence: bool
    """Whether any comparison could be shown to differ by less than the margin."""


def reach(judged: Sequence[Judgement]) -> Reach | None:
    """None if no comparison has more than one seed on both sides."""
    answered = [(one, one.answer) for one in judged if one.answer]
    if not answered:
        return None
    gaps = [answer.detectable for _, answer in answered]
    needed = [answer.seeds_needed or np.inf for _, answer in answered]
    return Reach(
        float(np.median(gaps)),
        min(gaps),
        max(gaps),
        int(middle) if (middle := np.median(needed)) <= MOST_SEEDS else None,
        any((answer.high - answer.low) / 2 < one.margin for one, answer in answered),
    )


def chance_of_images(judged: Sequence[Judgement]) -> float:
    """The median half-width of intervals that know only the test images, in points."""
    return float(np.median([(one.these_runs[1] - one.these_runs[0]) / 2 for one in judged]))


def rank_correlation(summary: Summary) -> tuple[int, float, float] | None:
    """(steps, Spearman's correlation of our differences with the paper's, its p-value)."""
    pairs = [
        (one.points, paper)
        for one in summary.differences.values()
        if (paper := summary.paper_difference(one.pair)) is not None
    ]
    if len(pairs) < 5:
        return None
    found = stats.spearmanr(*np.array(pairs).T)
    return len(pairs), float(found.statistic), float(found.pvalue)


def under_one_recipe(summary: Summary) -> tuple[float, float, float] | None:
    """The path's end against its second step, where both have the modern recipe: points and the
    interval of the plan's question. It is in no family and gets no verdict."""
    last = next((one.pair[0] for one in summary.ends), None)
    second = next((step.name for step in summary.path if step.number == 1), None)
    if last is None or second is None or summary.components is None or last == second:
        return None
    estimate = summary.components.estimate({last: 1.0, second: -1.0})
    uncertainty = estimate.uncertainty.get(summary.plan.images, estimate.these_runs)
    half = uncertainty.half_width(summary.plan.level / 2)
    return estimate.points, estimate.points - half, estimate.points + half


def spread(summary: Summary) -> float:
    """The median standard deviation between a row's seeds, in points; NaN with one seed."""
    variance = summary.components.seed_variance if summary.components else np.empty(0)
    return float(np.sqrt(np.median(variance))) if len(variance) else float("nan")
