"""What decisions are worth in designs of many networks: averages over orders, main effects and
interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ablations.designs import Effect
from report.contrast import Contrast
from report.judgement import Answer, Answered, SequentialTest, answer, correct
from report.variance import Uncertainty, VarianceComponents


@dataclass(frozen=True)
class Shares:
    """Where the variance of an effect comes from; they add up to 1."""

    seeds: float
    images: float
    orders: float

    @classmethod
    def of(cls, uncertainty: Uncertainty) -> Shares:
        whole = uncertainty.variance or 1.0
        return cls(
            uncertainty.seeds / whole, uncertainty.images / whole, uncertainty.orders / whole
        )


@dataclass(frozen=True)
class EffectJudgement(Answered):
    """An effect of a design in points, and what may be said of it; the answers are None where a row
    has one seed."""

    effect: Effect
    points: float
    these_images: Answer | None
    new_images: Answer | None
    shares: Shares | None
    """Of the uncertainty for new images."""


def judge_effects(
    noise: VarianceComponents, effects: Sequence[Effect], *, margin: float, level: float
) -> tuple[EffectJudgement, ...]:
    """Judge the effects whose rows all have runs; one family for Holm's correction, of all
    `effects`."""
    rows = set(noise.measured.rows)
    seen = {
        effect.name: estimate(noise, effect) for effect in effects if effect.weights.keys() <= rows
    }
    answers: dict[str, dict[str, Answer]] = {name: {} for name in seen}
    for question in ("these", "new"):
        tracks = {effect.name: SequentialTest() for effect in effects}
        for name, contrast in seen.items():
            if contrast.of:
                tracks[name].look(contrast, question, margin, lambda p: p)
        correct(list(tracks.values()))
        for name, contrast in seen.items():
            if contrast.of:
                tracks[name].decide(contrast.points, level)
                answers[name][question] = answer(
                    contrast, question, tracks[name], level, level / len(effects)
                )
    return tuple(
        EffectJudgement(
            effect,
            seen[effect.name].points,
            answers[effect.name].get("these"),
            answers[effect.name].get("new"),
            Shares.of(seen[effect.name].of["new"]) if seen[effect.name].of else None,
        )
        for effect in effects
        if effect.name in seen
    )


def estimate(noise: VarianceComponents, effect: Effect, *, borrow: bool = False) -> Contrast:
    """With what other orders would have given, where these were drawn by lot; `borrow` as in
    `Contrast.between`."""
    found = Contrast.between(noise, effect.weights, borrow=borrow)
    if not effect.sampled or not found.of:
        return found
    each = np.stack([noise.weights(weights) for weights in effect.sampled])
    parts: Mapping[str, Uncertainty] = {
        question: replace(
            own, orders=_between_orders(noise, each, question), orders_freedom=len(each) - 1
        )
        for question, own in found.of.items()
    }
    return replace(found, of=parts)


def _between_orders(noise: VarianceComponents, each: np.ndarray, question: str) -> float:
    """Variance of the mean over orders that comes from drawing them; `each` has their contrasts,
    (orders, rows).

    What an order's effect is off by because its networks' levels are noisy is taken out: that is
    counted once.
    """
    count = len(each)
    observed = float((each @ noise.levels).var(ddof=1))
    ours = noise.covariance_of_levels(question)
    mean = each.mean(axis=0)
    noisy = float(np.einsum("ij,jk,ik->", each, ours, each) - count * mean @ ours @ mean) / (
        count - 1
    )
    return max(0.0, observed - noisy) / count
