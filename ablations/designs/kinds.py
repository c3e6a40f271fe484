"""The five kinds of design, each a function, and sweeps of any of them."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablations import roadmaps
from ablations.designs.design import Design, DesignSpec, Effect, Kind, Variant
from ablations.designs.precedence import Orders, passing
from ablations.presets import Regime
from ablations.roadmap import Roadmap
from ablations.step import Step
from ablations.sweep import Sweep
from utils.text import listed

_MOST_EXACT = 64
"""Sets of decisions that the design orders trains without a limit from the user."""


def build_design(roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> Design:
    """Return the requested design of a roadmap in a regime.

    Raises:
        ValueError: the roadmap has no such design.
    """
    design = _KINDS[spec.kind](roadmap, regime, replace(spec, sweep=None))
    return design if spec.sweep is None else _swept(design, spec.sweep)


def recorded(record: Mapping[str, Any], regime: Regime) -> Design:
    """Return the design that study.json records. Raises ValueError if the record is damaged."""
    try:
        spec: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in record.items()
        }
        if sweep := spec.pop("sweep", None):
            spec["sweep"] = Sweep(sweep["field"], tuple(sweep["values"]))
        roadmap = roadmaps.recorded(spec.pop("roadmap"))
        return build_design(roadmap, regime, DesignSpec(**spec))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a design is recorded as {record!r}") from error


def cumulative(roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> Design:
    """Every step of the roadmap, each against the step that it changes."""
    steps = {step.name: step for step in roadmap.steps_in(regime)}
    variants = {name: Variant(name, step.description, step=step) for name, step in steps.items()}
    effects = [
        _difference(step.name, variants[step.name], variants[step.after], step.description)
        for step in steps.values()
        if step.after is not None
    ]
    return Design(spec, roadmap, tuple(variants.values()), tuple(effects))


def leave_one_out(roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> Design:
    """The last network, and it without each decision and those that need it."""
    path = _Decisions(roadmap, regime, spec)
    last, everything = path.variant(path.names), frozenset(path.names)
    variants, effects = [last], []
    for step in path.steps:
        gone = roadmap.needing([step.name]) & everything
        also = [name for name in path.names if name in gone and name != step.name]
        description = f"all but {step.name}"
        if also:
            description += f", and {listed(also)} with it, which need it"
        variants.append(path.variant(everything - gone, f"without-{step.name}", description))
        effects.append(_difference(step.name, last, variants[-1], _with(step, also)))
    return path.design(variants, effects)


def one_at_a_time(roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> Design:
    """The first network, and it with each decision and those that it needs."""
    path = _Decisions(roadmap, regime, spec)
    variants, effects = [path.first], []
    for step in path.steps:
        added = path.needed([step.name])
        also = [name for name in path.names if name in added and name != step.name]
        description = f"only {step.name}"
        if also:
            description += f", and {listed(also)} with it, which it needs"
        variants.append(path.variant(added, f"only-{step.name}", description))
        effects.append(_difference(step.name, variants[-1], path.first, _with(step, also)))
    return path.design(variants, effects)


def orders(roadmap: Roadmap, regime: Regime, spec: DesignSpec, seed: int = 0) -> Design:
    """Every set of decisions that an order passes through, or those of orders drawn at random.

    The effect of a decision is its average over the orders. `seed` is that of the draw: always 0 in
    studies, another in simulations.
    """
    path = _Decisions(roadmap, regime, spec)
    factors = _Factors(path, path.factors() if spec.factors else path.singles())
    names = factors.names
    allowed = Orders(factors.bits())
    drawn = _drawn(path, allowed, names, seed)
    sets = sorted({done for order in drawn for done in passing(order)}) if drawn else allowed.sets
    variants = {
        done: factors.variant([name for i, name in enumerate(names) if done >> i & 1])
        for done in sets
    }
    weights: list[dict[str, float]] = [{} for _ in names]
    samples: list[list[dict[str, float]]] = [[] for _ in names]

    def add(decision: int, before: int, share: float) -> None:
        with_it, without = variants[before | 1 << decision].name, variants[before].name
        weights[decision][with_it] = weights[decision].get(with_it, 0.0) + share
        weights[decision][without] = weights[decision].get(without, 0.0) - share
        if drawn:
            samples[decision].append({with_it: 1.0, without: -1.0})

    if drawn:
        for order in drawn:
            for decision, before in zip(order, passing(order), strict=False):
                add(decision, before, 1 / len(drawn))
    else:
        for (decision, before), share in allowed.exact().items():
            add(decision, before, share)
    over = f"{len(drawn)} orders drawn at random" if drawn else "all orders"
    effects = [
        Effect(name, f"average effect over {over}", weights[i], tuple(samples[i]))
        for i, name in enumerate(names)
    ]
    return path.design(variants.values(), effects, notes=factors.notes, orders=len(drawn))


def _drawn(
    path: "_Decisions", allowed: Orders, names: Sequence[str], seed: int
) -> list[tuple[int, ...]]:
    """Return random orders within the limit of the spec; none where all orders are within it."""
    most = path.spec.variants_at_most
    if most is None and len(allowed.sets) > _MOST_EXACT:
        raise ValueError(
            f"{len(names)} decisions can be combined in {len(allowed.sets):,} ways: give "
            "--runs-at-most for as many orders as that allows, or --factors for fewer decisions "
            f"(groups: {', '.join(path.groups)})"
        )
    if most is None or len(allowed.sets) <= most:
        return []
    drawn = allowed.within(most, seed)
    if len(drawn) < 2:
        raise ValueError(
            f"--runs-at-most leaves {most} networks: two orders of {len(names)} decisions pass "
            f"through more, give {2 * len(names)} or more"
        )
    return drawn


def factorial(roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> Design:
    """Factors on and off in all combinations or a fraction of them: main effects and two-way
    interactions, with those that a fraction cannot distinguish."""
    path = _Decisions(roadmap, regime, spec)
    factors = _Factors(path, path.factors())
    names, count = factors.names, len(factors.names)
    factors.require_independent()
    erased = spec.fraction.bit_length() - 1
    if erased and count - erased < 2:
        raise ValueError(
            f"--fraction is {spec.fraction}, and {count} factors have {2**count} combinations: a "
            "fraction needs at least four of them, give a smaller number or more --factors"
        )
    levels: list[tuple[int, ...]] = list(itertools.product((-1, 1), repeat=count))
    aliases: tuple[str, ...] = ()
    if erased:
        levels, aliases = _fraction(names, erased)
    variants = [
        factors.variant([name for name, on in zip(names, level, strict=True) if on > 0])
        for level in levels
    ]
    effects, seen = list[Effect](), set[tuple[int, ...]]()
    for size, description in (
        (1, "main effect: on against off, averaged over the other factors"),
        (2, "interaction: half of what one changes in the effect of the other"),
    ):
        for chosen in itertools.combinations(range(count), size):
            signs = tuple(math.prod(level[i] for i in chosen) for level in levels)
            opposite = tuple(-sign for sign in signs)
            if len(set(signs)) == 1 or (size == 2 and {signs, opposite} & seen):
                continue
            seen.add(signs)
            weights: dict[str, float] = {}
            for variant, sign in zip(variants, signs, strict=True):
                weights[variant.name] = weights.get(variant.name, 0.0) + 2 * sign / len(variants)
            effects.append(Effect(" x ".join(names[i] for i in chosen), description, weights))
    return path.design(variants, effects, aliases=aliases, notes=factors.notes)


def _fraction(names: Sequence[str], erased: int) -> tuple[list[tuple[int, ...]], tuple[str, ...]]:
    """Return the levels of a 2^(n - erased) fraction, and the main effects and two-way interactions
    that it cannot distinguish, as equations."""
    import pydoe  # takes two seconds, and only fractions use it

    generators, *_ = pydoe.fracfact_opt(len(names), erased)
    levels = pydoe.fracfact(generators)
    equations = []
    for line in pydoe.fracfact_aliasing(levels)[0]:
        terms = [term for term in line.split(" = ") if len(term) <= 2]
        if len(terms) > 1:
            named = (" x ".join(names[ord(letter) - ord("a")] for letter in term) for term in terms)
            equations.append(" = ".join(named))
    return [tuple(map(int, level)) for level in levels], tuple(equations)


_KINDS: dict[Kind, Callable[[Roadmap, Regime, DesignSpec], Design]] = {
    "cumulative": cumulative,
    "leave-one-out": leave_one_out,
    "one-at-a-time": one_at_a_time,
    "orders": orders,
    "factorial": factorial,
}


def _swept(design: Design, sweep: Sweep) -> Design:
    """Add each variant with each value of the sweep."""
    variants = list[Variant]()
    for variant in design.variants:
        variants.append(variant)
        for setting in sweep.settings:
            name, description = f"{variant.name}-{setting.name}", f"{variant.name} with {setting}"
            variants.append(
                Variant(name, description, variant.decisions, of=variant.name, setting=setting)
            )
    names = [variant.name for variant in variants]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(
            f"two variants of the sweep are named {twice!r}: rename the roadmap's step"
        )
    return replace(design, spec=replace(design.spec, sweep=sweep), variants=tuple(variants))


def _difference(name: str, variant: Variant, base: Variant, description: str) -> Effect:
    return Effect(name, description, {variant.name: 1.0, base.name: -1.0})


def _with(step: Step, also: Sequence[str]) -> str:
    return step.description + (f"; with {listed(also)}" if also else "")


class _Decisions:
    """The decisions of a design, which are the steps of the path after its base, and variants with
    some of them."""

    def __init__(self, roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> None:
        self.roadmap, self.spec = roadmap, spec
        path = [step for step in roadmap.steps_in(regime) if step.number is not None]
        start = path[0] if spec.base is None else roadmap.step(spec.base, regime)
        if start not in path:
            raise ValueError(
                f"--base {start.name} is not on the path of the roadmap {roadmap.name}: give a "
                "step of it"
            )
        place = path.index(start)
        self.steps = path[place + 1 :]
        self.names = [step.name for step in self.steps]
        self.base = frozenset(step.name for step in path[1 : place + 1])
        if len(self.steps) < 2:
            raise ValueError(
                f"a design {spec.kind} of the roadmap {roadmap.name} from {start.name} on has "
                f"{len(self.steps)} decision: it needs at least two, give an earlier --base or a "
                "longer roadmap"
            )
        self._on_path = {
            frozenset(step.name for step in path[1 : i + 1]): step for i, step in enumerate(path)
        }
        self.first = self.variant(())
        self.groups: dict[str, frozenset[str]] = {}
        """Their steps, by names that suit a folder."""
        for step in self.steps:
            group = re.sub(r"[^a-z0-9.]+", "-", step.group.lower()).strip("-") or "others"
            self.groups[group] = self.groups.get(group, frozenset()) | {step.name}

    def variant(self, decisions: Iterable[str], name: str = "", description: str = "") -> Variant:
        """Return the base with these decisions: a step of the path, or a variant of that name."""
        together = self.base | frozenset(decisions)
        if step := self._on_path.get(together):
            return Variant(step.name, step.description, together, step)
        return Variant(name, description, together)

    def needed(self, decisions: Iterable[str]) -> frozenset[str]:
        """Return these decisions and those that they need, without the base's."""
        return self.roadmap.needed(decisions) - self.base

    def singles(self) -> dict[str, frozenset[str]]:
        """Return every step as a factor of its own."""
        return {name: frozenset({name}) for name in self.names}

    def factors(self) -> dict[str, frozenset[str]]:
        """Return the requested factors by name; by default every group.

        Raises:
            ValueError: a factor is unknown, or two share a step.
        """
        known = self.singles() | self.groups
        factors: dict[str, frozenset[str]] = {}
        for requested in self.spec.factors or self.groups:
            members: frozenset[str] = frozenset()
            for part in requested.split("+"):
                if part not in known:
                    names = ", ".join(self.groups | known)
                    raise ValueError(
                        f"--factors names {part!r}, which the design does not have: choose among "
                        f"{names}"
                    )
                members |= known[part]
            for name, others in factors.items():
                if shared := sorted(others & members):
                    raise ValueError(f"--factors {name} and {requested} share {', '.join(shared)}")
            factors[requested] = members
        if len(factors) < 2:
            raise ValueError(
                f"--factors {' '.join(factors) or 'none'}: a design {self.spec.kind} needs at "
                "least two"
            )
        return factors

    def design(
        self, variants: Iterable[Variant], effects: Iterable[Effect], **others: Any
    ) -> Design:
        """Return the design of these variants, each of them once."""
        distinct = tuple({variant.name: variant for variant in variants}.values())
        return Design(self.spec, self.roadmap, distinct, tuple(effects), **others)


class _Factors:
    """Factors of a design, and variants with some of them. All have the steps that a factor needs
    and none contains."""

    def __init__(self, path: _Decisions, factors: Mapping[str, frozenset[str]]) -> None:
        self.names = list(factors)
        self._path, self._factors = path, factors
        members = frozenset[str]().union(*factors.values())
        self._background = path.needed(members) - members
        self.notes: tuple[str, ...] = ()
        if self._background:
            self.notes = (
                f"every variant has {listed(sorted(self._background))}, which others need",
            )

    def needs(self, name: str) -> frozenset[str]:
        """Return the steps of other factors that a factor needs."""
        return self._path.needed(self._factors[name]) - self._factors[name] - self._background

    def bits(self) -> tuple[int, ...]:
        """Return the factors that each factor needs, as the bits of a number.

        Raises:
            ValueError: they need each other in a circle.
        """
        needs = [
            sum(1 << i for i, other in enumerate(self.names) if self._factors[other] & needed)
            for needed in map(self.needs, self.names)
        ]
        done, left = 0, set(range(len(needs)))
        while ready := {i for i in left if needs[i] & ~done == 0}:
            done |= sum(1 << i for i in ready)
            left -= ready
        if left:
            stuck = [self.names[i] for i in sorted(left)]
            raise ValueError(
                f"the factors {listed(stuck)} need each other in a circle: make them one, as "
                f"{'+'.join(stuck)}"
            )
        return tuple(needs)

    def require_independent(self) -> None:
        """Raise ValueError if a factor needs another, without which it cannot be on."""
        for name, other in itertools.product(self.names, self.names):
            if shared := self.needs(name) & self._factors[other]:
                raise ValueError(
                    f"the factor {name} needs {listed(sorted(shared))} of {other}, so it cannot be "
                    f"on where that is off: make them one factor, {other}+{name}"
                )

    def variant(self, chosen: Sequence[str]) -> Variant:
        """Return the variant with these factors."""
        path = self._path
        decisions = self._background.union(*(self._factors[name] for name in chosen))
        # Numbers in place of names: thirteen names of steps are too long for a folder's.
        numbers = {} if path.spec.factors else {step.name: str(step.number) for step in path.steps}
        short = "+".join(numbers.get(name, name) for name in chosen) or "none"
        since = f"from-{path.first.number}-" if path.base else ""
        return path.variant(
            decisions,
            f"{path.roadmap.name}-{since}{short}",
            f"with {listed(chosen) or 'none of them'}",
        )
