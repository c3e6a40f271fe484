"""A roadmap as data: named steps, each a change of the architecture, of the recipe or of both."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ablations.presets import REGIMES, Regime
from ablations.step import NAME, RecipeOf, Step
from models import Architecture, SwinArchitecture
from training.recipe import Recipe, StudyConfig
from utils.text import did_you_mean, of_fields


@dataclass(frozen=True)
class Setup:
    """What a run trains."""

    architecture: Architecture | SwinArchitecture
    recipe: Recipe


@dataclass(frozen=True)
class Roadmap:
    """Rows in the order of a table, each after the one that it changes.

    Raises:
        ValueError: rows that cannot be a roadmap, in one sentence that names the step.
    """

    name: str
    description: str
    steps: tuple[Step, ...]
    start: tuple[Step, ...] = ()
    """Steps of another roadmap that were taken before the first row, which otherwise changes the
    regime's baseline and the classic recipe."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"the roadmap is named {self.name!r}: give up to 60 letters, digits, dots and "
                "dashes"
            )
        _check_order(self.steps)
        _check_needs(self)

    @property
    def first(self) -> Step:
        """The row that the others come from."""
        return next(step for step in self.steps if step.after is None and not step.reference)

    @property
    def path(self) -> tuple[Step, ...]:
        """The numbered rows, from the first to the last."""
        return tuple(step for step in self.steps if step.number is not None)

    @property
    def decisions(self) -> tuple[Step, ...]:
        """The steps of the path after its first: all of them combined are its last network and
        recipe."""
        return tuple(step for step in self.path if step.after is not None)

    def steps_in(self, regime: Regime) -> tuple[Step, ...]:
        """All rows that there are in this regime, its reference among them, with sentences that are
        true there."""
        there = (step for step in self.steps if not step.networks or regime.name in step.networks)
        return tuple(
            step.describe(_network(self.way(step), regime, None))
            if "{" in step.description
            else step
            for step in there
        )

    def step(self, asked: str, regime: Regime | None = None) -> Step:
        """The step of that number or name, of those of the regime or of all.

        Raises:
            ValueError: there is none, in one sentence that says which there are.
        """
        rows = self.steps if regime is None else self.steps_in(regime)
        for step in rows:
            if asked == step.name or (
                asked.isdecimal() and len(asked) < 4 and step.number == int(asked)
            ):
                return step
        numbers = [step.number for step in rows if step.number is not None]
        if asked.lstrip("+-").isdecimal():
            raise ValueError(
                f"there is no step {asked[:20]}: steps are numbered {min(numbers)} to "
                f"{max(numbers)}"
            )
        names = [step.name for step in rows]
        numbered = f"a number from {min(numbers)} to {max(numbers)}, or {', '.join(names)}"
        raise ValueError(
            f"there is no step {asked!r}{did_you_mean(asked, names, before=', ')} ({numbered})"
        )

    def way(self, step: Step | str) -> tuple[Step, ...]:
        """The steps from the beginning to this one."""
        found = self.step(step) if isinstance(step, str) else step
        if found.reference:
            return (found,)
        return (*(self.start if found.after is None else self.way(found.after)), found)

    def architecture(
        self, step: Step | str, regime: Regime, num_classes: int | None = None
    ) -> Architecture | SwinArchitecture:
        """The network of a step in a regime. Raises ValueError as `setup`."""
        found = self.step(step, regime) if isinstance(step, str) else step
        try:
            return _network(self.way(found), regime, num_classes)
        except ValueError as error:
            raise self._impossible(found.name, error) from None

    def setup(
        self, step: Step | str, regime: Regime, config: StudyConfig, num_classes: int | None = None
    ) -> Setup:
        """The network and the recipe of a step: every change on the way to it.

        Raises:
            ValueError: there can be no such network or recipe, in one sentence that names the step.
        """
        found = self.step(step, regime) if isinstance(step, str) else step
        return self._setup(found.name, self.way(found), regime, config, num_classes)

    def recipe(self, step: Step | str, regime: Regime) -> dict[str, Any]:
        """Every field of a step's recipe: its value, or in which of the study's recipes to find
        it."""
        return {**RecipeOf.CLASSIC.whole(), **_recipe_changes(self.way(step), regime)}

    def check(self, regime: Regime, config: StudyConfig) -> None:
        """Raise ValueError as `setup` if any row cannot be."""
        for step in self.steps_in(regime):
            self.setup(step, regime, config)

    def difference(
        self, step: Step, regime: Regime, config: StudyConfig
    ) -> dict[str, tuple[Any, Any]]:
        """What a step changes in a study: field to the value before and after. Empty where it
        changes nothing there."""
        if step.after is None:
            return {}
        pair = [self.setup(each, regime, config) for each in (step.after, step)]
        before, after = ({**vars(each.architecture), **each.recipe.values()} for each in pair)
        return {
            name: (before[name], value) for name, value in after.items() if value != before[name]
        }

    def needed(self, decisions: Iterable[str]) -> frozenset[str]:
        """These steps and all that they need, which may need others in turn."""
        closed = frozenset(decisions)
        while more := {need for name in closed for need in self.step(name).needs} - closed:
            closed |= more
        return closed

    def needing(self, decisions: Iterable[str]) -> frozenset[str]:
        """These steps and all that need them, directly or not: what goes where they are left
        out."""
        gone = frozenset(decisions)
        return gone | {step.name for step in self.steps if self.needed([step.name]) & gone}

    def combine(
        self,
        decisions: Collection[str],
        regime: Regime,
        config: StudyConfig,
        num_classes: int | None = None,
    ) -> Setup:
        """The first row's network and recipe with the changes of just these steps, in the roadmap's
        order.

        Raises:
            ValueError: a step is unknown, is no decision, or needs one that is not there; or as
                `setup`.
        """
        chosen = {self.step(name).name for name in decisions}
        for step in self.steps:
            if step.name in chosen and step.after is None:
                raise ValueError(
                    f"step {step.name!r} of the roadmap {self.name!r} changes no other: it is no "
                    "decision"
                )
            if step.name in chosen and (
                missing := [need for need in step.needs if need not in chosen]
            ):
                raise ValueError(
                    f"step {step.name!r} of the roadmap {self.name!r} needs {', '.join(missing)}"
                )
        way = (*self.way(self.first), *(step for step in self.steps if step.name in chosen))
        return self._setup(
            " + ".join(step.name for step in way[1:]), way, regime, config, num_classes
        )

    def _setup(
        self,
        name: str,
        way: tuple[Step, ...],
        regime: Regime,
        config: StudyConfig,
        num_classes: int | None,
    ) -> Setup:
        try:
            return Setup(_network(way, regime, num_classes), _recipe(way, regime, config))
        except ValueError as error:
            raise self._impossible(name, error) from None

    def _impossible(self, name: str, error: ValueError) -> ValueError:
        return ValueError(f"step {name!r} of the roadmap {self.name!r}: {of_fields(error)}")


def ends(steps: Iterable[Step]) -> tuple[tuple[str, str], ...]:
    """What else than its own change a path is asked about: its last step against its first and each
    reference."""
    steps = tuple(steps)
    path = [step.name for step in steps if step.number is not None]
    others = [
        *(path[:1] if len(path) > 2 else []),
        *(step.name for step in steps if step.reference),
    ]
    return tuple((last, other) for last in path[-1:] for other in others)


def _network(
    way: Iterable[Step], regime: Regime, num_classes: int | None
) -> Architecture | SwinArchitecture:
    built: Architecture | SwinArchitecture = regime.baseline
    changes: dict[str, Any] = {}
    for step in way:
        if step.reference:
            built = step.networks[regime.name]
        changes |= step.changes(regime)
    if num_classes is not None:
        changes["num_classes"] = num_classes
    return replace(built, **changes)


def _recipe_changes(way: Iterable[Step], regime: Regime) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for step in way:
        changes |= step.recipe_changes(regime)
    return changes


def _recipe(way: Iterable[Step], regime: Regime, config: StudyConfig) -> Recipe:
    of = {RecipeOf.MODERN: config.recipe.values(), RecipeOf.CLASSIC: config.classic.values()}
    changes = _recipe_changes(way, regime).items()
    return config.classic.change(
        **{
            name: of[value][name] if isinstance(value, RecipeOf) else value
            for name, value in changes
        }
    )


def _check_order(steps: tuple[Step, ...]) -> None:
    """Raise ValueError unless there is one first row, and every other one comes after a row that it
    changes."""
    before: set[str] = set()
    names = [step.name for step in steps]
    firsts = [step.name for step in steps if step.after is None and not step.reference]
    if len(firsts) != 1:
        raise ValueError(
            f"{len(firsts)} steps ({', '.join(firsts) or 'none'}) come after no other: let one "
            "begin"
        )
    for place, step in enumerate(steps):
        if step.name.lower() in (name.lower() for name in names[:place]):
            raise ValueError(f"two steps are named {step.name!r}: give each a name of its own")
        if step.after is not None and step.after not in before:
            later = (
                f"stands below it: put {step.after!r} above it"
                if step.after in names
                else "is no step"
            )
            hint = did_you_mean(step.after, before, before=", ")
            raise ValueError(f"step {step.name!r}: after names {step.after!r}, which {later}{hint}")
        if step.after is not None and not (step.architecture or step.recipe or step.sizes):
            raise ValueError(
                f"step {step.name!r} changes nothing: give architecture, recipe or sizes"
            )
        before.add(step.name)
    path = [step for step in steps if step.number is not None]
    numbers = [step.number for step in path if step.number is not None]
    if not path or path[0].after is not None or numbers != sorted(set(numbers)):
        raise ValueError(
            f"steps are numbered {', '.join(map(str, numbers)) or 'not at all'}: number the path "
            "upwards"
        )
    for one, other in pairwise(path):
        if other.after != one.name:
            raise ValueError(
                f"step {other.name!r} has a number, and comes after {other.after!r}: after names "
                f"{one.name!r}"
            )


def _check_needs(roadmap: Roadmap) -> None:
    """Raise ValueError where a step needs what is not before it, or they need each other, or
    contradict each other."""
    steps = {step.name: step for step in roadmap.steps}
    for step in roadmap.steps:
        if strange := [
            need for need in step.needs if need not in steps or need == roadmap.first.name
        ]:
            raise ValueError(
                f"step {step.name!r}: needs names {strange[0]!r}, which is no step that could be "
                "left out"
                f"{did_you_mean(strange[0], steps, before=', ')}"
            )
    for step in roadmap.steps:
        for need in step.needs:
            if step.name in roadmap.needed([need]):
                other = (
                    "itself"
                    if need == step.name
                    else f"{need!r}, which needs {step.name!r} in turn"
                )
                raise ValueError(f"step {step.name!r} needs {other}: let neither need the other")
            if need not in [one.name for one in roadmap.way(step)[:-1]]:
                raise ValueError(
                    f"step {step.name!r} needs {need!r}, which is not on the way to it: put it "
                    "there"
                )
        for need in sorted(roadmap.needed(step.needs)):
            _check_agreement(step, steps[need])


def _check_agreement(step: Step, needed: Step) -> None:
    for regime in REGIMES.values():
        theirs, ours = needed.all_changes(regime), step.all_changes(regime)
        for name in theirs.keys() & ours.keys():
            if theirs[name] != ours[name]:
                raise ValueError(
                    f"step {step.name!r} contradicts {needed.name!r}, which it needs: {name} is "
                    f"{theirs[name]!r} there "
                    f"and {ours[name]!r} here"
                )
