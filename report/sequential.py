"""Interim analyses: a study gets more seeds only where a comparison is open.

A comparison stops when it is resolved, or when its last analysis is unlikely to resolve it. Its
p-value over several analyses is the smallest level at which it would have stopped (Liu and Anderson
2008, doi 10.1198/016214508000000986); Holm's correction of these keeps the level of a family at
every analysis.

The level is spent as Lan and DeMets describe (1983, doi 10.2307/2336502), with Pocock's function.
An analysis of n of at most N seeds sees n / N of the information, and successive estimates are
correlated as sums of independent parts. On new images they share the images' part and are
correlated more, so the levels err on the careful side. With few seeds Student's quantile replaces
the normal one (Jennison and Turnbull 2000, 3.8).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from scipy import optimize, special

from ablations.designs import Design, Effect
from report import collect
from report.judgement import Judgement, analyse
from report.statistics import Measurements, VarianceComponents
from studies.plan import Family, Plan

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_GRID = np.concatenate([np.geomspace(1e-9, 0.5, 48), np.linspace(0.55, 0.999, 10)])
"""Levels with computed nominal levels; between them logarithms are interpolated."""

Seeds = dict[str, tuple[int, ...]]
"""Variant to seeds."""


def judge(runs: Measurements, plan: Plan) -> tuple[Judgement, ...]:
    """Judge all comparisons of a plan that have runs.

    A family with one analysis is judged on all runs, or, where others are analysed several times,
    on those of its own seeds: another family's interim analyses must not add runs to it. A family
    with several takes them in order, each on the seeds that the plan foresees, and a resolved
    comparison is not analysed again. So the same runs always give the same verdicts.
    """
    judged = [_judge_family(runs, family, plan, {})[0] for family in plan.families]
    return tuple(one for family in judged for one in family if one.estimated is not None)


def next_seeds(runs: Measurements | None, plan: Plan) -> Seeds:
    """The seeds that each variant needs next by the plan's rule; empty when training may stop."""
    requested: Seeds = {}
    for family in plan.families:
        for variant, seeds in _judge_family(runs, family, plan, requested)[1].items():
            requested[variant] = tuple(dict.fromkeys((*requested.get(variant, ()), *seeds)))
    return requested


def missing_seeds(
    study_dir: Path, plan: Plan, design: Design, *, mixed_code: bool = False
) -> Seeds:
    """The further seeds that the plan's rule asks for of a design, by a study's finished runs.

    Raises:
        ValueError: the folder is not a study's.
    """
    plan = plan.within({row.name for row in design.variants})
    started = any(study_dir.glob("*/seed-*/result.json"))
    if not started or design.roadmap.name not in collect.roadmaps(study_dir):
        return next_seeds(None, plan)
    study = collect.read(study_dir, design.roadmap.name, mixed_code=mixed_code)
    runs = study.finished_by_variant()
    return next_seeds(collect.measure(runs) if runs else None, plan)


def _judge_family(
    runs: Measurements | None, family: Family, plan: Plan, requested: Seeds
) -> tuple[list[Judgement], Seeds]:
    """A family's judgements, and the seeds that its open comparisons lack for the next analysis."""
    judgements = [
        Judgement(Effect(one, "", {one: 1.0, other: -1.0}), plan.margin, plan.images, family.name)
        for one, other in family.comparisons
    ]
    finished = 0 if runs is None else len(runs.seed)
    if runs is not None and plan.sequential and not family.sequential:
        runs = runs.with_seeds(plan.seeds[: family.analyses[0]])
    has = {name: set(runs.seeds_of(name) if runs else ()) for name in family.variants}
    present = [one for one in judgements if runs and set(one.pair) <= set(runs.variants)]
    lacking: Seeds = {}
    for number, count in enumerate(family.analyses):
        still = [one for one in judgements if not one.closed]
        missing = _missing(still, plan.seeds[:count], has)
        lacking = _affordable(still, missing, plan, finished, requested)
        ready = [one for one in still if not missing.keys() & set(one.pair)]
        if not family.sequential:
            ready = present
        if not ready or runs is None or (lacking and family.sequential):
            break
        seen = runs.with_seeds(plan.seeds[:count]) if family.sequential else runs
        over_analyses = partial(whole_level, analysis=number, analyses=family.analyses)
        analyse(judgements, ready, VarianceComponents(seen), plan.level, over_analyses)
        if family.sequential:
            _stop_futile(judgements, ready, family, plan)
    components = VarianceComponents(runs) if runs else None
    for one in present:
        if one.estimated is None and components:
            one.measure(components)
        # The intervals of all analyses hold at once, so also the one that stopped.
        levels = [plan.level, plan.level / len(family.comparisons)]
        done = max(0, one.analyses - 1)
        one.conclude(plan.level, *(nominal_level(a, done, family.analyses) for a in levels))
    return judgements, lacking


def _missing(
    open_: Iterable[Judgement], wanted: Sequence[int], has: Mapping[str, set[int]]
) -> Seeds:
    variants = dict.fromkeys(name for one in open_ for name in one.pair)
    lacking = {name: tuple(seed for seed in wanted if seed not in has[name]) for name in variants}
    return {name: seeds for name, seeds in lacking.items() if seeds}


def _affordable(
    open_: Iterable[Judgement],
    missing: Seeds,
    plan: Plan,
    finished: int,
    requested: Seeds,
) -> Seeds:
    """Choose from the missing runs what the plan's limit allows: whole comparisons, in order."""
    if plan.runs_at_most is None:
        return missing
    left = plan.runs_at_most - finished - sum(map(len, requested.values()))
    chosen: Seeds = {}
    for one in open_:
        needed = {v: missing[v] for v in one.pair if v in missing and v not in chosen}
        cost = sum(len(set(seeds) - {*requested.get(v, ())}) for v, seeds in needed.items())
        if cost <= left:
            chosen |= needed
            left -= cost
    return chosen


def _stop_futile(
    judgements: Sequence[Judgement], ready: Iterable[Judgement], family: Family, plan: Plan
) -> None:
    """Close each comparison that its last analysis would resolve with less than the plan's chance.

    The true gap is taken to be as far from the observed one as its standard error says.
    """
    question, last = plan.images, len(family.analyses) - 1
    unresolved = [one.answers[question].verdict for one in judgements].count("not resolved")
    for one in ready:
        if one.closed or one.answer is None:
            continue
        now = one.estimate.uncertainty[question]
        final = one.estimate.with_seeds(question, family.analyses[-1])
        level = nominal_level(plan.level / unresolved, last, family.analyses)
        move = max(now.variance - final.variance, 1e-12) ** 0.5
        bound, gap = final.half_width(level / 2), abs(one.points)
        inside = plan.margin - final.half_width(level)
        chance = 1 - special.ndtr((bound - gap) / move) + special.ndtr((-bound - gap) / move)
        if inside > 0:
            chance += special.ndtr((inside - gap) / move) - special.ndtr((-inside - gap) / move)
        one.futile = bool(chance < plan.futility)


def spent_level(level: float, share: float) -> float:
    """The part of a two-sided level that may be spent at a share of all information (Pocock)."""
    return float(level * np.log1p((np.e - 1) * share))


def nominal_levels(level: float, analyses: tuple[int, ...]) -> list[float]:
    """The two-sided level of each analysis' own test, so that all together err with `level`."""
    shares = np.array(analyses) / analyses[-1]
    levels: list[float] = []
    # Where the sum of parts may be after an analysis that did not stop, with weights.
    place = density = np.empty(0)
    before = 0.0
    for index, share in enumerate(shares):
        allowed = spent_level(level, share) - before
        before += allowed
        step = (share - (shares[index - 1] if index else 0.0)) ** 0.5
        if index == 0:
            bound = -special.ndtri(allowed / 2)
        else:
            arguments = place, density, share**0.5, step, allowed
            bound = optimize.brentq(_log_excess, 0.0, 40.0, args=arguments, xtol=1e-8)
        levels.append(float(2 * special.ndtr(-bound)))
        # Beyond nine standard deviations there is nothing to integrate.
        half = min(bound, 9) * share**0.5
        now = half * _NODES
        moved = now / step if index == 0 else (now[:, None] - place[None, :]) / step
        kernel = np.exp(-(moved**2) / 2) / (step * (2 * np.pi) ** 0.5)
        density = half * _WEIGHTS * (kernel if index == 0 else kernel @ density)
        place = now
    return levels


def _log_excess(
    bound: float, place: np.ndarray, density: np.ndarray, scale: float, step: float, allowed: float
) -> float:
    """The log of the chance to cross a bound only now, over the allowed chance."""
    edge = bound * scale
    out = special.ndtr((place - edge) / step) + special.ndtr((-place - edge) / step)
    return float(np.log(max(density @ out, 1e-300)) - np.log(allowed))


@lru_cache(maxsize=32)
def _log_levels(analyses: tuple[int, ...]) -> np.ndarray:
    """(levels, analyses) logarithms of nominal levels for `_GRID`."""
    table: np.ndarray = np.log([nominal_levels(float(level), analyses) for level in _GRID])
    return table


def nominal_level(level: float, analysis: int, analyses: tuple[int, ...]) -> float:
    """The level of one analysis' own test, 0 being the first, where all together have `level`."""
    if len(analyses) == 1:
        return level
    return float(np.exp(_line(np.log(level), np.log(_GRID), _log_levels(analyses)[:, analysis])))


def whole_level(p: float, analysis: int, analyses: tuple[int, ...]) -> float:
    """The sequential p-value: the smallest level at which an analysis with `p` would have
    stopped."""
    if len(analyses) == 1:
        return p
    own = _log_levels(analyses)[:, analysis]
    return min(1.0, float(np.exp(_line(np.log(max(p, 1e-300)), own, np.log(_GRID)))))


def _line(x: float, xs: np.ndarray, ys: np.ndarray) -> float:
    """Linear interpolation; below the first point, along the first line."""
    if x >= xs[0]:
        return float(np.interp(x, xs, ys))
    return float(ys[0] + (x - xs[0]) * (ys[1] - ys[0]) / (xs[1] - xs[0]))
