"""Verdicts on effects: two questions, two intervals and Holm's correction within a family."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ablations.designs import Effect
from report.statistics import Estimate, Uncertainty, VarianceComponents, holm
from studies.plan import Question

Unjudged = Literal["one seed", "failed runs", "no spread", "collapsed"]
Verdict = Literal["gain", "loss", "no difference", "not resolved"] | Unjudged
QUESTIONS: tuple[Question, ...] = ("fixed", "new")
_TESTS = ("p", "p_margin", "p_alone", "p_margin_alone")


@dataclass
class Answer:
    """What the runs say about an effect in one question, in the unit of the accuracy.

    `low` to `high` covers the truth with the plan's confidence, also after several analyses. `p` is
    for no difference at all and `p_margin` for one as large as the margin, both over the analyses
    so far; `p_alone` and `p_margin_alone` are those of a comparison's two variants by themselves.
    Those that end in `_holm` are corrected for the family, and decide.
    """

    question: Question
    p: float = 1.0
    p_margin: float = 1.0
    p_alone: float = 1.0
    p_margin_alone: float = 1.0
    p_holm: float = 1.0
    p_margin_holm: float = 1.0
    p_alone_holm: float = 1.0
    p_margin_alone_holm: float = 1.0
    verdict: Verdict = "not resolved"
    rests_on_pooling: bool = False
    """The verdict needs the spread of other variants: the two alone would not give it."""
    low: float = math.nan
    high: float = math.nan
    estimate: Estimate | None = None
    margin: float = 0.0
    family_level: float = math.nan
    """The corrected level that a verdict needs, which sets the power."""

    @property
    def uncertainty(self) -> Uncertainty:
        assert self.estimate is not None
        return self.estimate.uncertainty[self.question]

    @property
    def standard_error(self) -> float:
        return self.uncertainty.standard_error

    @property
    def detectable(self) -> float:
        """The gap that such runs detect with 80 % power, corrected for the family."""
        return self.uncertainty.detectable(self.family_level)

    @property
    def seeds_needed(self) -> int | None:
        """Seeds per variant that detect a gap as large as the margin; None: 1,000 would not."""
        assert self.estimate is not None
        return self.estimate.seeds_needed(self.question, self.margin, self.family_level)


@dataclass(eq=False)
class Judgement:
    """An effect, what is known about it, and the verdict. Its analyses fill it in."""

    effect: Effect
    margin: float
    question: Question
    """The question that the verdict answers."""
    family: str = ""
    unjudged: Unjudged | None = None
    """Why there is no verdict."""
    estimated: Estimate | None = None
    """By the runs of the last analysis; None without runs."""
    these_runs: tuple[float, float] = (math.nan, math.nan)
    """The interval for these very networks on new images: a description, whatever the seeds."""
    seeds: tuple[int, int] = (0, 0)
    shared: int = 0
    """Seeds that both variants of a comparison have."""
    analyses: int = 0
    futile: bool = False
    """Gets no more seeds, because they are unlikely to resolve it."""
    answers: dict[str, Answer] = field(default_factory=lambda: {q: Answer(q) for q in QUESTIONS})

    @property
    def estimate(self) -> Estimate:
        assert self.estimated is not None
        return self.estimated

    @property
    def points(self) -> float:
        return self.estimate.points

    @property
    def pair(self) -> tuple[str, str]:
        """(the variant, the one that it is compared with)."""
        assert self.effect.pair is not None
        return self.effect.pair

    def answer_to(self, question: str) -> Answer | None:
        """None if there is no verdict."""
        known = question in self.estimate.uncertainty and self.unjudged is None
        return self.answers[question] if known else None

    @property
    def answer(self) -> Answer | None:
        """To the question that the plan chose for the verdict."""
        return self.answer_to(self.question)

    @property
    def verdict(self) -> Verdict:
        return self.unjudged or self.answers[self.question].verdict

    @property
    def rests_on_pooling(self) -> bool:
        return self.answer is not None and self.answer.rests_on_pooling

    @property
    def sign(self) -> int:
        """1 for a gain, -1 for a loss, 0 for anything else."""
        return {"gain": 1, "loss": -1}.get(self.verdict, 0)

    @property
    def text(self) -> str:
        """The verdict for a reader."""
        if self.unjudged:
            return f"{self.unjudged}, no verdict"
        if not self.analyses:
            return "not analysed yet"
        large = f" larger than {self.margin:g}" if self.verdict == "no difference" else ""
        rests = " (rests on the pooled spread)" if self.rests_on_pooling else ""
        return f"{self.verdict}{large}{rests}"

    @property
    def smallest_p(self) -> float:
        """The smallest p that a permutation test of these seeds could give.

        Smaller p-values rest on seeds being normal and variants sharing one spread.
        """
        a, b = self.seeds
        if self.shared == a == b:
            return 2.0 ** (1 - a)
        return min(1.0, 2 / math.comb(a + b, a))

    @property
    def closed(self) -> bool:
        """Whether it needs no further analysis."""
        return self.futile or self.verdict not in ("not resolved", "one seed", "no spread")

    def measure(self, components: VarianceComponents) -> None:
        """Estimate the effect from runs, without a test; find whether there can be a verdict."""
        self.estimated = estimate_effect(components, self.effect)
        if self.effect.pair:
            one, other = (set(components.runs.seeds_of(name)) for name in self.pair)
            self.seeds, self.shared = (len(one), len(other)), len(one & other)
        pooled = ~components.apart & (components.weights(self.effect.weights) != 0)
        if components.collapsed & self.effect.weights.keys():
            self.unjudged = "collapsed"
        elif not self.estimate.uncertainty:
            self.unjudged = "one seed"
        else:
            self.unjudged = "no spread" if components.no_spread and pooled.any() else None

    def conclude(self, level: float, interval_level: float, family_level: float) -> None:
        """Fill in the intervals.

        `family_level` is the corrected level that a verdict needs, which sets the power.
        """
        points = self.points
        for question, uncertainty in self.estimate.uncertainty.items():
            half = uncertainty.half_width(interval_level / 2)
            self.answers[question] = replace(
                self.answers[question],
                low=points - half,
                high=points + half,
                estimate=self.estimate,
                margin=self.margin,
                family_level=family_level,
            )
        half = self.estimate.these_runs.half_width(level / 2)
        self.these_runs = (points - half, points + half)


def analyse(
    family: Sequence[Judgement],
    measured: Sequence[Judgement],
    components: VarianceComponents,
    level: float,
    over_analyses: Callable[[float], float] = lambda p: p,
) -> None:
    """Test the `measured` members of a family and correct for all of it.

    `over_analyses` turns a two-sided p-value into that of all analyses so far. A verdict stands
    once it is given. A gap that is both real and small is real.
    """
    for one in measured:
        one.measure(components)
        one.analyses += 1
        if not one.unjudged:
            _test(one, components, over_analyses)
    for question in QUESTIONS:
        answers = [one.answers[question] for one in family]
        for name in _TESTS:
            corrected = holm([getattr(answer, name) for answer in answers])
            for answer, value in zip(answers, corrected, strict=True):
                setattr(answer, f"{name}_holm", float(value))
        for one, answer in zip(family, answers, strict=True):
            if answer.verdict == "not resolved" and one.estimated is not None:
                if answer.p_holm < level:
                    answer.verdict = "gain" if one.points > 0 else "loss"
                elif answer.p_margin_holm < level:
                    answer.verdict = "no difference"
            equal = answer.verdict == "no difference"
            p_alone = answer.p_margin_alone_holm if equal else answer.p_alone_holm
            given = answer.verdict != "not resolved" and one.effect.pair is not None
            answer.rests_on_pooling = given and p_alone >= level


def _test(one: Judgement, components: VarianceComponents, over: Callable[[float], float]) -> None:
    """Keep the smallest p-values so far, those of the pooled spread and those of a pair alone."""
    for question, uncertainty in one.estimate.uncertainty.items():
        answer, tests = one.answers[question], [("", one.points, uncertainty)]
        if one.effect.pair:
            points, own = components.alone(*one.pair)
            tests.append(("_alone", points, replace(uncertainty, seeds=own.seeds, df=own.df)))
        for suffix, points, own in tests:
            gap = abs(points)
            p = over(min(1.0, 2 * own.tail(gap)))
            # Of two one-sided tests, each spends its level as one side of a two-sided test does.
            within = over(min(1.0, 2 * own.tail(one.margin - gap))) / 2
            for name, value in ((f"p{suffix}", p), (f"p_margin{suffix}", within)):
                setattr(answer, name, min(getattr(answer, name), value))


def judge_effects(
    components: VarianceComponents,
    effects: Sequence[Effect],
    *,
    margin: float,
    level: float,
    question: Question = "new",
) -> tuple[Judgement, ...]:
    """Judge the effects whose variants all have runs, once, as one family of all `effects`."""
    family = [Judgement(effect, margin, question) for effect in effects]
    names = set(components.runs.variants)
    measured = [one for one in family if one.effect.weights.keys() <= names]
    analyse(family, measured, components, level)
    for one in measured:
        one.conclude(level, level, level / len(effects))
    return tuple(measured)


def estimate_effect(
    components: VarianceComponents, effect: Effect, *, borrow: bool = False
) -> Estimate:
    """Estimate an effect; where orders were drawn at random, add what other orders would give.

    `borrow` as in `VarianceComponents.estimate`.
    """
    plain = components.estimate(effect.weights, borrow=borrow)
    if not effect.sampled or not plain.uncertainty:
        return plain
    each = np.stack([components.weights(weights) for weights in effect.sampled])
    uncertainty = {}
    for question, own in plain.uncertainty.items():
        orders = _order_variance(components, each, question)
        uncertainty[question] = replace(own, orders=orders, orders_df=len(each) - 1)
    return replace(plain, uncertainty=uncertainty)


def _order_variance(components: VarianceComponents, each: np.ndarray, question: str) -> float:
    """The variance of the mean over randomly drawn orders; `each` are contrasts (orders, variants).

    The part that comes from noise in the variants' means is subtracted: it is counted elsewhere.
    """
    count = len(each)
    observed = float((each @ components.means).var(ddof=1))
    uncertainty = components.fixed_test if question == "fixed" else components.new_images
    *own, mean = (found.variance for w in [*each, each.mean(axis=0)] if (found := uncertainty(w)))
    return max(0.0, observed - (sum(own) - count * mean) / (count - 1)) / count
