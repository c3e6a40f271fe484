"""A study judged by its plan: all at once, or look by look, with more seeds only where a comparison
is open.

A comparison stops where it is resolved either way, or where its last look is unlikely to resolve
it. Its p-value over several looks is the least level at which it would have stopped (Liu and
Anderson 2008, doi 10.1198/016214508000000986), and Holm's correction of these keeps the level of a
family at every look.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scipy import special

from report import spending
from report.contrast import Contrast
from report.judgement import Judgement, SequentialTest, answer, correct
from report.variance import Measured, VarianceComponents
from studies.plan import Plan

_Key = tuple[str, tuple[str, str]]
"""A family's name and a comparison of it."""


@dataclass(frozen=True)
class Judged:
    """A study judged by its plan: for each family its comparisons that have runs, and what to train
    next."""

    plan: Plan
    noise: VarianceComponents
    families: Mapping[str, tuple[Judgement, ...]]
    """In the plan's order."""
    looks: int
    """Looks taken at the study."""
    next_seeds: Mapping[str, tuple[int, ...]]
    """Seeds that rows of open comparisons lack for the next look; empty where all is resolved, all
    looks are taken or no run is left."""


def judge(runs: Measured, plan: Plan) -> Judged:
    """Judge all comparisons of a plan by the runs there are.

    A family with one look is judged at once: on all runs, or on those of its own seeds where others
    are looked at several times. One with several looks takes them in their order, each on the seeds
    that the plan foresees, and a comparison that is closed is not looked at again; so the same runs
    always give the same judgement, and it is the one that stopped them.
    """
    noise = VarianceComponents(runs)
    parts: list[Judged] = []
    asked: dict[str, tuple[int, ...]] = {}
    for part in plan.parts:
        # What others are looked at for may not add runs to what is looked at once.
        whole = part.sequential or not plan.sequential
        own = noise if whole else VarianceComponents(runs.of_seeds(part.schedule(0)))
        judged = _judge(own, part, len(runs.row) + sum(map(len, asked.values())))
        parts.append(judged)
        asked = _together(asked, judged.next_seeds)
    families = {name: found for part in parts for name, found in part.families.items()}
    in_order = {family.name: families[family.name] for family in plan.families}
    looks = max(part.looks for part in parts if part.plan.sequential or not plan.sequential)
    return Judged(plan, noise, in_order, looks, asked)


def _judge(noise: VarianceComponents, plan: Plan, made: int) -> Judged:
    """Judge the comparisons of a plan whose families are looked at alike; so many runs are made or
    asked for."""
    runs = noise.measured
    state = {
        (family.name, pair): _Open() for family in plan.families for pair in family.comparisons
    }
    there = [key for key in state if set(key[1]) <= set(runs.rows)]
    has = {row: set(runs.seeds_of(row)) for row in plan.rows}
    if not plan.sequential:
        _look(state, there, noise, plan, 0)
        lacking = _missing(plan.rows, plan.schedule(0), has)
        return _judged(plan, noise, state, 1, _affordable(state, lacking, plan, made))
    taken = 0
    affordable: dict[str, tuple[int, ...]] = {}
    for look in range(len(plan.looks)):
        still = [key for key, value in state.items() if not value.closed(plan.images)]
        missing = _missing((row for _, pair in still for row in pair), plan.schedule(look), has)
        affordable = _affordable(still, missing, plan, made)
        complete = [key for key in still if not missing.keys() & set(key[1])]
        if affordable or not complete:
            break
        _look(state, complete, VarianceComponents(runs.of_seeds(plan.schedule(look))), plan, look)
        taken = look + 1
    for key in there:
        if state[key].seen is None:  # described by what is there
            state[key].see(noise, key[1])
    return _judged(plan, noise, state, taken, affordable)


def next_seeds(runs: Measured | None, plan: Plan) -> Mapping[str, tuple[int, ...]]:
    """Which rows need which further seeds, by the plan's rule; empty where training may stop. None:
    no run yet."""
    if runs is not None:
        return judge(runs, plan).next_seeds
    asked: dict[str, tuple[int, ...]] = {}
    for part in plan.parts:
        keys = [(family.name, pair) for family in part.families for pair in family.comparisons]
        lacking = _missing(part.rows, part.schedule(0), {})
        asked = _together(asked, _affordable(keys, lacking, part, sum(map(len, asked.values()))))
    return asked


def _together(
    one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    return {
        row: tuple(dict.fromkeys((*one.get(row, ()), *other.get(row, ()))))
        for row in {**one, **other}
    }


@dataclass
class _Open:
    """A comparison on its way through the looks."""

    seen: Contrast | None = None
    seeds: tuple[int, int] = (0, 0)
    shared: int = 0
    looks: int = 0
    futile: bool = False
    tracks: dict[str, SequentialTest] = field(
        default_factory=lambda: {"these": SequentialTest(), "new": SequentialTest()}
    )

    def closed(self, question: str) -> bool:
        return self.futile or self.tracks[question].verdict != "not resolved"

    def see(self, noise: VarianceComponents, pair: tuple[str, str]) -> Contrast:
        one, other = (set(noise.measured.seeds_of(row)) for row in pair)
        self.seeds, self.shared = (len(one), len(other)), len(one & other)
        self.seen = Contrast.between(noise, {pair[0]: 1.0, pair[1]: -1.0})
        return self.seen


def _look(
    state: Mapping[_Key, _Open],
    keys: Collection[_Key],
    noise: VarianceComponents,
    plan: Plan,
    look: int,
) -> None:
    """Take what these comparisons show at a look into the state."""

    def over_looks(p: float) -> float:
        return spending.whole(p, look, plan.looks, plan.spending)

    for key in keys:
        seen = state[key].see(noise, key[1])
        state[key].looks += 1
        for question in seen.of:
            state[key].tracks[question].look(seen, question, plan.margin, over_looks)
    for family, question in itertools.product(plan.families, ("these", "new")):
        members = [state[family.name, pair] for pair in family.comparisons]
        correct([member.tracks[question] for member in members])
        for member in members:
            if member.seen is not None:
                member.tracks[question].decide(member.seen.points, plan.level)
    if plan.sequential:
        for key in keys:
            _give_up(state, key, plan)


def _give_up(state: Mapping[_Key, _Open], key: _Key, plan: Plan) -> None:
    """Close a comparison that is unlikely to be resolved by its last look."""
    own = state[key]
    if own.closed(plan.images) or own.seen is None or plan.images not in own.seen.of:
        return
    others = [
        value.tracks[plan.images].verdict
        for (family, _), value in state.items()
        if family == key[0]
    ]
    own.futile = _chance(own.seen, plan, others.count("not resolved")) < plan.futility


def _missing(
    rows: Iterable[str], wanted: Sequence[int], has: Mapping[str, set[int]]
) -> dict[str, tuple[int, ...]]:
    lacking = {row: tuple(seed for seed in wanted if seed not in has.get(row, ())) for row in rows}
    return {row: seeds for row, seeds in lacking.items() if seeds}


def _affordable(
    comparisons: Iterable[_Key], missing: Mapping[str, tuple[int, ...]], plan: Plan, made: int
) -> dict[str, tuple[int, ...]]:
    """What of the missing runs the plan allows: whole comparisons, in the plan's order."""
    if plan.runs_at_most is None:
        return dict(missing)
    left = plan.runs_at_most - made
    chosen: dict[str, tuple[int, ...]] = {}
    for _, pair in comparisons:
        needed = {row: missing[row] for row in pair if row in missing and row not in chosen}
        cost = sum(map(len, needed.values()))
        if cost <= left:
            chosen |= needed
            left -= cost
    return chosen


def _judged(
    plan: Plan,
    noise: VarianceComponents,
    state: Mapping[_Key, _Open],
    looks: int,
    affordable: Mapping[str, tuple[int, ...]],
) -> Judged:
    families: dict[str, tuple[Judgement, ...]] = {}
    for family in plan.families:
        found = []
        for pair in family.comparisons:
            own = state[family.name, pair]
            if own.seen is None:
                continue
            look = max(0, own.looks - 1)
            each = spending.nominal(
                plan.level / len(family.comparisons), look, plan.looks, plan.spending
            )
            # The interval of a look holds at every look at once, so also at the one that stopped.
            level = spending.nominal(plan.level, look, plan.looks, plan.spending)
            answers = {
                name: answer(own.seen, name, own.tracks[name], level, each) for name in own.seen.of
            }
            reach = own.seen.these_runs.reach(plan.level / 2)
            found.append(
                Judgement(
                    family.name,
                    *pair,
                    own.seen.points,
                    own.seeds,
                    own.shared,
                    own.looks,
                    own.futile,
                    plan.margin,
                    plan.images,
                    answers.get("these"),
                    answers.get("new"),
                    (own.seen.points - reach, own.seen.points + reach),
                )
            )
        families[family.name] = tuple(found)
    return Judged(plan, noise, families, looks, affordable)


def _chance(seen: Contrast, plan: Plan, open_comparisons: int) -> float:
    """That the last look resolves a comparison, if the true gap is as far from the observed as its
    error says."""
    now, last = seen.of[plan.images], seen.with_seeds(plan.images, plan.looks[-1])
    level = spending.nominal(
        plan.level / open_comparisons, len(plan.looks) - 1, plan.looks, plan.spending
    )
    still = max(now.variance - last.variance, 1e-12) ** 0.5
    gap, bound = abs(seen.points), last.reach(level / 2)
    room = plan.margin - last.reach(level)

    def below(points: float) -> float:
        return float(special.ndtr((points - gap) / still))

    return 1 - below(bound) + below(-bound) + (below(room) - below(-room) if room > 0 else 0.0)
