"""Designs: which combinations of a roadmap's decisions are trained, and what is read off them.

A design is a list of rows and of effects; an effect weighs the accuracies of rows. Nothing is trained twice: rows of
several designs, or of one, that are the same network and recipe share their runs (`training.index`).
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ablations import roadmaps
from ablations.orders import Orders, passing
from ablations.regimes import Regime
from ablations.roadmap import Roadmap, Variant
from ablations.step import Step
from data.words import did_you_mean
from training.recipe import StudyConfig

Kind = Literal["cumulative", "leave-one-out", "one-at-a-time", "orders", "factorial"]
_MOST_EXACT = 64
"""Sets of decisions that are all trained if nothing else is said."""


@dataclass(frozen=True)
class Row:
    """A network and recipe of a design."""

    name: str
    """Of its folder, and in tables."""
    sentence: str
    decisions: frozenset[str] = frozenset()
    """The steps whose changes it has."""
    step: Step | None = None
    """The step of the roadmap that it is, if it is one."""

    @property
    def number(self) -> int | None:
        return None if self.step is None else self.step.number


@dataclass(frozen=True)
class Effect:
    """What a weighted sum of rows' accuracies says of a decision."""

    name: str
    """Of the decision, or of the two that interact."""
    sentence: str
    weights: Mapping[str, float]
    """Row to weight; they add up to 0."""
    sampled: tuple[Mapping[str, float], ...] = ()
    """Where it is the average over orders drawn at random: the weights in each of them."""

    @classmethod
    def between(cls, name: str, row: Row, base: Row, sentence: str) -> "Effect":
        return cls(name, sentence, {row.name: 1.0, base.name: -1.0})

    @property
    def pair(self) -> tuple[str, str] | None:
        """(row, what it is compared with), where it is a difference of two."""
        ends = {weight: row for row, weight in self.weights.items()}
        return (ends[1.0], ends[-1.0]) if len(self.weights) == 2 and ends.keys() == {1.0, -1.0} else None


@dataclass(frozen=True)
class Request:
    """A design as it is asked for, and as study.json records it.

    Raises:
        ValueError: an impossible value, in one sentence.
    """

    kind: Kind = "cumulative"
    base: str | None = None
    """The step that the design starts from, whose changes every row has; the roadmap's first row if none is given."""
    factors: tuple[str, ...] = ()
    """Of a factorial or of orders: groups or steps, several as one with +."""
    fraction: int = 1
    """Of a factorial: only one in so many of all combinations, 2, 4, 8 ..."""
    rows_at_most: int | None = None
    """Of orders: networks that may be trained; orders are drawn at random where all would be more."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"--design is {self.kind!r}: choose {', '.join(get_args(Kind))}")
        if self.factors and self.kind not in ("orders", "factorial"):
            raise ValueError(f"--factors belong to the designs orders and factorial: --design is {self.kind}")
        if self.fraction != 1 and self.kind != "factorial":
            raise ValueError(f"--fraction belongs to the design factorial: --design is {self.kind}")
        if self.fraction < 1 or self.fraction & (self.fraction - 1):
            raise ValueError(f"--fraction is {self.fraction}: give 2 for a half, 4 for a quarter, 8 ... of the runs")


@dataclass(frozen=True)
class Design:
    """Rows to train and effects to read off them."""

    request: Request
    roadmap: Roadmap
    rows: tuple[Row, ...]
    effects: tuple[Effect, ...]
    aliases: tuple[str, ...] = ()
    """Of a fraction: "a = b x c" for each effect that cannot be told from another."""
    notes: tuple[str, ...] = ()
    """What a reader has to know of it."""
    orders: int = 0
    """How many orders were drawn at random; 0 where all are counted."""

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def find(self, asked: str) -> Row:
        """The row of that name, or the step of that number.

        Raises:
            ValueError: there is none, in one sentence that says which there are.
        """
        for row in self.rows:
            if asked in (row.name, str(row.number)):
                return row
        if self.request.kind == "cumulative":
            self.roadmap.step(asked)
        hint = did_you_mean(asked, [row.name for row in self.rows], after=" ")
        known = ", ".join(row.name for row in self.rows)
        raise ValueError(f"the design {self.request.kind} has no row {asked!r}: {hint}choose among {known}")

    @property
    def record(self) -> dict[str, Any]:
        """What study.json says of it, and `recorded` makes it of again."""
        return {"roadmap": roadmaps.record(self.roadmap), **asdict(self.request)}

    @property
    def family(self) -> tuple[tuple[str, str], ...]:
        """The effects that compare two rows, as pairs."""
        return tuple(effect.pair for effect in self.effects if effect.pair)

    def variant(self, row: Row, regime: Regime, config: StudyConfig, num_classes: int | None = None) -> Variant:
        """The network and recipe of a row."""
        if row.step is not None:
            return self.roadmap.variant(row.step, regime, config, num_classes)
        return self.roadmap.combine(row.decisions, regime, config, num_classes)


def recorded(record: Mapping[str, Any], regime: Regime) -> Design:
    """The design that study.json says was asked for. Raises ValueError where it says something else."""
    request: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    try:
        return design(roadmaps.recorded(request.pop("roadmap")), regime, Request(**request))
    except (KeyError, TypeError) as error:
        raise ValueError(f"a design is recorded as {record!r}") from error


def design(roadmap: Roadmap, regime: Regime, request: Request) -> Design:
    """The design that `request` asks for, of the roadmap's rows in a regime.

    Raises:
        ValueError: it cannot be made, in one sentence that says what could.
    """
    if request.kind == "cumulative":
        return _cumulative(roadmap, regime, request)
    parts = _Parts(roadmap, regime, request)
    make = {
        "leave-one-out": _leave_one_out,
        "one-at-a-time": _one_at_a_time,
        "orders": _orders,
        "factorial": _factorial,
    }
    return make[request.kind](parts)


def _cumulative(roadmap: Roadmap, regime: Regime, request: Request) -> Design:
    rows = {step.name: Row(step.name, step.sentence, step=step) for step in roadmap.rows(regime)}
    effects = [
        Effect.between(name, row, rows[row.step.after], row.sentence)
        for name, row in rows.items()
        if row.step is not None and row.step.after in rows
    ]
    return Design(request, roadmap, tuple(rows.values()), tuple(effects))


class _Parts:
    """The decisions of a design, and rows made of them."""

    def __init__(self, roadmap: Roadmap, regime: Regime, request: Request) -> None:
        self.roadmap, self.regime, self.request = roadmap, regime, request
        path = list(roadmap.path)
        start = path[0]
        if request.base is not None:
            start = roadmap.step(request.base, regime)
            if start not in path:
                raise ValueError(
                    f"--base {start.name} is not on the path of the roadmap {roadmap.name}: give a step of it"
                )
        place = path.index(start)
        self.steps = path[place + 1 :]
        self.base = frozenset(step.name for step in path[1 : place + 1])
        if len(self.steps) < 2:
            raise ValueError(
                f"a design {request.kind} of the roadmap {roadmap.name} from {start.name} on has {len(self.steps)} "
                "decision: it needs at least two, give an earlier --base or a longer roadmap"
            )
        self._on_path = {frozenset(step.name for step in path[1 : i + 1]): step for i, step in enumerate(path)}
        self.first, self.last = self.row(frozenset(), "", ""), self.row(frozenset(s.name for s in self.steps), "", "")

    def row(self, decisions: Iterable[str], name: str, sentence: str) -> Row:
        """The row with these decisions and the base's; where that is a step of the path, this step."""
        all_ = self.base | frozenset(decisions)
        if step := self._on_path.get(all_):
            return Row(step.name, step.sentence, all_, step)
        return Row(name, sentence, all_)

    def needed(self, decisions: Iterable[str]) -> frozenset[str]:
        """These decisions and what they need, without the base's."""
        return self.roadmap.needed(decisions) - self.base

    def factors(self) -> dict[str, frozenset[str]]:
        """The asked groups and steps by name; every group, if none is asked for.

        Raises:
            ValueError: one is unknown, or two share a step.
        """
        groups: dict[str, frozenset[str]] = {}
        for step in self.steps:
            groups[_slug(step.group)] = groups.get(_slug(step.group), frozenset()) | {step.name}
        names = {step.name: frozenset({step.name}) for step in self.steps}
        found: dict[str, frozenset[str]] = {}
        for asked in self.request.factors or groups:
            members: frozenset[str] = frozenset()
            for part in asked.split("+"):
                if part not in groups and part not in names:
                    known = ", ".join(dict.fromkeys([*groups, *names]))
                    raise ValueError(f"--factors names {part!r}, which the design does not have: choose among {known}")
                members |= groups.get(part) or names[part]
            if twice := next((name for name, others in found.items() if others & members), None):
                raise ValueError(f"--factors {twice} and {asked} share {', '.join(sorted(found[twice] & members))}")
            found[asked] = members
        if len(found) < 2:
            raise ValueError(f"--factors {' '.join(found) or 'none'}: a design {self.request.kind} needs at least two")
        return found


def _slug(group: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", group.lower()).strip("-") or "others"


def _leave_one_out(parts: _Parts) -> Design:
    rows, effects, everything = [parts.last], list[Effect](), parts.last.decisions - parts.base
    for step in parts.steps:
        gone = parts.roadmap.needing([step.name]) & everything
        also = [other.name for other in parts.steps if other.name in gone and other != step]
        sentence = f"all but {step.name}" + (f", and {_and(also)} with it, which need it" if also else "")
        row = parts.row(everything - gone, f"without-{step.name}", sentence)
        rows.append(row)
        effects.append(Effect.between(step.name, parts.last, row, _what(step, also)))
    return Design(parts.request, parts.roadmap, _distinct(rows), tuple(effects))


def _one_at_a_time(parts: _Parts) -> Design:
    rows, effects = [parts.first], list[Effect]()
    for step in parts.steps:
        with_needs = parts.needed([step.name])
        also = [other.name for other in parts.steps if other.name in with_needs and other != step]
        sentence = f"only {step.name}" + (f", and {_and(also)} with it, which it needs" if also else "")
        row = parts.row(with_needs, f"only-{step.name}", sentence)
        rows.append(row)
        effects.append(Effect.between(step.name, row, parts.first, _what(step, also)))
    return Design(parts.request, parts.roadmap, _distinct(rows), tuple(effects))


def _what(step: Step, also: Sequence[str]) -> str:
    return step.sentence + (f"; with {_and(also)}" if also else "")


def _orders(parts: _Parts) -> Design:
    players = parts.factors() if parts.request.factors else {step.name: frozenset({step.name}) for step in parts.steps}
    names, background = list(players), _background(parts, players)
    needs = []
    for name in names:
        needed = parts.needed(players[name]) - players[name] - background
        needs.append(sum(1 << i for i, other in enumerate(names) if players[other] & needed))
    _require_no_circle(parts, names, needs)
    orders = Orders(tuple(needs))
    most = parts.request.rows_at_most
    drawn: list[tuple[int, ...]] = []
    if most is not None and len(orders.sets) > most:
        drawn = orders.within(most)
        if len(drawn) < 2:
            raise ValueError(
                f"--runs-at-most leaves {most} networks: two orders of {len(names)} decisions pass through more, give "
                f"{2 * len(names)} or more"
            )
    elif most is None and len(orders.sets) > _MOST_EXACT:
        raise ValueError(
            f"{len(names)} decisions can be combined in {len(orders.sets):,} ways: give --runs-at-most for as many "
            f"orders as that allows, or --factors for fewer decisions (groups: {', '.join(_groups(parts))})"
        )
    sets = sorted({done for order in drawn for done in passing(order)}) if drawn else orders.sets
    rows = {
        done: _combined(parts, background, [(i, name) for i, name in enumerate(names) if done >> i & 1], players)
        for done in sets
    }
    weights: list[dict[str, float]] = [{} for _ in names]
    samples: list[list[dict[str, float]]] = [[] for _ in names]
    if drawn:
        for order in drawn:
            for decision, (before, after) in zip(order, itertools.pairwise(passing(order)), strict=True):
                _add(weights[decision], rows[before], rows[after], 1 / len(drawn))
                samples[decision].append({rows[after].name: 1.0, rows[before].name: -1.0})
    else:
        for (decision, done), share in orders.exact().items():
            _add(weights[decision], rows[done], rows[done | 1 << decision], share)
    over = f"{len(drawn)} orders drawn at random" if drawn else "all orders"
    effects = [
        Effect(name, f"average effect over {over}", weights[i], tuple(samples[i])) for i, name in enumerate(names)
    ]
    return Design(
        parts.request, parts.roadmap, _distinct(rows.values()), tuple(effects), notes=_always(background),
        orders=len(drawn),
    )  # fmt: skip


def _groups(parts: _Parts) -> list[str]:
    return list(dict.fromkeys(_slug(step.group) for step in parts.steps))


def _add(weights: dict[str, float], before: Row, after: Row, share: float) -> None:
    weights[after.name] = weights.get(after.name, 0.0) + share
    weights[before.name] = weights.get(before.name, 0.0) - share


def _background(parts: _Parts, players: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """What the players need and none of them brings: every row has it."""
    members = frozenset().union(*players.values())
    return parts.needed(members) - members


def _always(background: frozenset[str]) -> tuple[str, ...]:
    return (f"every row has {_and(sorted(background))}, which others need",) if background else ()


def _require_no_circle(parts: _Parts, names: Sequence[str], needs: Sequence[int]) -> None:
    done = 0
    while more := sum(1 << i for i, needed in enumerate(needs) if not done >> i & 1 and needed & ~done == 0):
        done |= more
    if stuck := [name for i, name in enumerate(names) if not done >> i & 1]:
        raise ValueError(f"the factors {_and(stuck)} need each other in a circle: make them one, as {'+'.join(stuck)}")


def _combined(
    parts: _Parts, background: frozenset[str], chosen: Sequence[tuple[int, str]], players: Mapping[str, frozenset[str]]
) -> Row:
    decisions = background.union(*(players[name] for _, name in chosen))
    # Thirteen names of steps would make too long a name of a folder.
    numbers = {} if parts.request.factors else {step.name: str(step.number) for step in parts.steps}
    short = "+".join(numbers.get(name, name) for _, name in chosen) or "none"
    since = f"from-{parts.first.number}-" if parts.base else ""
    name = f"{parts.roadmap.name}-{since}{short}"
    return parts.row(decisions, name, f"with {_and([name for _, name in chosen]) or 'none of them'}")


def _factorial(parts: _Parts) -> Design:
    import numpy as np
    import pydoe

    factors = parts.factors()
    names, background = list(factors), _background(parts, factors)
    for name in names:
        for other in names:
            if shared := (parts.needed(factors[name]) - factors[name]) & factors[other]:
                raise ValueError(
                    f"the factor {name} needs {_and(sorted(shared))} of {other}, so it cannot be on where that is off: "
                    f"make them one factor, {other}+{name}"
                )
    erased = parts.request.fraction.bit_length() - 1
    if erased and len(names) - erased < 2:
        raise ValueError(
            f"--fraction is {parts.request.fraction}, and {len(names)} factors have {2 ** len(names)} combinations: "
            "a fraction needs at least four of them, give a smaller number or more --factors"
        )
    levels = pydoe.ff2n(len(names))
    aliases: tuple[str, ...] = ()
    if erased:
        generators, *_ = pydoe.fracfact_opt(len(names), erased)
        levels = pydoe.fracfact(generators)
        aliases = _aliases(levels, names)
    rows = [
        _combined(parts, background, [(i, name) for i, name in enumerate(names) if level[i] > 0], factors)
        for level in levels
    ]
    effects, seen = list[Effect](), set[bytes]()
    for size in (1, 2):
        for chosen in itertools.combinations(range(len(names)), size):
            signs = np.prod(levels[:, chosen], axis=1)
            if np.abs(signs.sum()) == len(signs) or (
                size == 2 and (signs.tobytes() in seen or (-signs).tobytes() in seen)
            ):
                continue
            seen.add(signs.tobytes())
            weights: dict[str, float] = {}
            for row, sign in zip(rows, signs, strict=True):
                weights[row.name] = weights.get(row.name, 0.0) + 2 * float(sign) / len(rows)
            what = "main effect: on against off, averaged over the other factors" if size == 1 else \
                "interaction: half of what one changes in the effect of the other"  # fmt: skip
            effects.append(Effect(" x ".join(names[i] for i in chosen), what, weights))
    return Design(parts.request, parts.roadmap, _distinct(rows), tuple(effects), aliases, _always(background))


def _aliases(levels: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Main effects and two-way interactions that a fraction cannot tell apart, one equation a line."""
    import pydoe

    lines = []
    for line in pydoe.fracfact_aliasing(levels)[0]:
        terms = [term for term in line.split(" = ") if len(term) <= 2]
        if len(terms) > 1:
            lines.append(" = ".join(" x ".join(names[ord(letter) - ord("a")] for letter in term) for term in terms))
    return tuple(lines)


def _distinct(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple({row.name: row for row in rows}.values())


def _and(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)
