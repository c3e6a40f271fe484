"""A roadmap: named steps, and the network and recipe that each step or set of steps leads to."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ablations.presets import Regime
from ablations.step import NAME, RecipeOf, Step
from models import Architecture, SwinArchitecture
from training.recipe import Recipe, StudyConfig
from utils.text import did_you_mean, of_fields


@dataclass(frozen=True)
class Setup:
    """What a run trains, and how."""

    architecture: Architecture | SwinArchitecture
    recipe: Recipe


@dataclass(frozen=True)
class Roadmap:
    """Steps in the order of a table; each comes below the step that it changes.

    Raises:
        ValueError: steps that cannot be a roadmap, with the name of the step.
    """

    name: str
    description: str
    steps: tuple[Step, ...]
    start: tuple[Step, ...] = ()
    """Steps of another roadmap that precede the first step. Without any, the first step changes the
    regime's baseline and the classic recipe."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"the roadmap is named {self.name!r}: give up to 60 letters, digits, dots and "
                "dashes"
            )
        _check_order(self.steps)
        _check_path(self.path)
        _check_needs(self)

    @property
    def first(self) -> Step:
        """The step that changes no other."""
        return next(step for step in self.steps if step.after is None and not step.reference)

    @property
    def path(self) -> tuple[Step, ...]:
        """The numbered steps, from the first to the last."""
        return tuple(step for step in self.steps if step.number is not None)

    def steps_in(self, regime: Regime) -> tuple[Step, ...]:
        """Return the steps that exist in a regime, its reference model among them, with
        descriptions that are true there."""
        return tuple(
            step.describe(_network(self.path_to(step), regime)) if "{" in step.description else step
            for step in self.steps
            if not step.networks or regime.name in step.networks
        )

    def step(self, requested: str, regime: Regime | None = None) -> Step:
        """Return the step of that number or name, in a regime or in any.

        Raises:
            ValueError: there is no such step.
        """
        steps = self.steps if regime is None else self.steps_in(regime)
        for step in steps:
            if requested == step.name or (
                step.number is not None and requested == str(step.number)
            ):
                return step
        names, last = [step.name for step in steps], len(self.path) - 1
        if requested.lstrip("+-").isdecimal():
            raise ValueError(f"there is no step {requested[:20]}: steps are numbered 0 to {last}")
        hint = did_you_mean(requested, names, before=", ")
        raise ValueError(
            f"there is no step {requested!r}{hint} (a number from 0 to {last}, or "
            f"{', '.join(names)})"
        )

    def path_to(self, step: Step | str) -> tuple[Step, ...]:
        """Return the steps from the beginning to this one, which is the last of them."""
        if isinstance(step, str):
            step = self.step(step)
        if step.reference:
            return (step,)
        return (*(self.start if step.after is None else self.path_to(step.after)), step)

    def architecture(
        self, step: Step | str, regime: Regime, num_classes: int | None = None
    ) -> Architecture | SwinArchitecture:
        """Return the network of a step in a regime. Raises ValueError as `setup`."""
        if isinstance(step, str):
            step = self.step(step, regime)
        try:
            return _network(self.path_to(step), regime, num_classes)
        except ValueError as error:
            raise self._impossible(step.name, error) from None

    def setup(
        self, step: Step | str, regime: Regime, config: StudyConfig, num_classes: int | None = None
    ) -> Setup:
        """Return the network and recipe of a step: the changes of all steps that lead to it.

        Raises:
            ValueError: no such network or recipe is possible, with the name of the step.
        """
        if isinstance(step, str):
            step = self.step(step, regime)
        return self._setup(step.name, self.path_to(step), regime, config, num_classes)

    def combine(
        self,
        decisions: Collection[str],
        regime: Regime,
        config: StudyConfig,
        num_classes: int | None = None,
    ) -> Setup:
        """Return the first step's network and recipe with the changes of only these steps, in the
        roadmap's order.

        Raises:
            ValueError: a step does not exist, changes no other, or needs one that is left out; or
                as `setup`.
        """
        chosen = {self.step(name).name for name in decisions}
        added = [step for step in self.steps if step.name in chosen]
        for step in added:
            if step.after is None:
                raise ValueError(
                    f"step {step.name!r} of the roadmap {self.name!r} changes no other: it is no "
                    "decision"
                )
            if missing := [need for need in step.needs if need not in chosen]:
                raise ValueError(
                    f"step {step.name!r} of the roadmap {self.name!r} needs {', '.join(missing)}"
                )
        name = " + ".join(step.name for step in added)
        return self._setup(name, (*self.path_to(self.first), *added), regime, config, num_classes)

    def recipe(self, step: Step | str, regime: Regime) -> dict[str, Any]:
        """Return every field of a step's recipe: its value, or the recipe of the study that has
        it."""
        return {**RecipeOf.CLASSIC.whole(), **_recipe_changes(self.path_to(step), regime)}

    def check(self, regime: Regime, config: StudyConfig) -> None:
        """Raise ValueError as `setup` if any step is impossible."""
        for step in self.steps_in(regime):
            self.setup(step, regime, config)

    def difference(
        self, step: Step, regime: Regime, config: StudyConfig
    ) -> dict[str, tuple[Any, Any]]:
        """Return what a step changes in a study: field to the value before and after."""
        if step.after is None:
            return {}
        pair = [self.setup(each, regime, config) for each in (step.after, step)]
        before, after = ({**vars(each.architecture), **each.recipe.values()} for each in pair)
        return {
            name: (before[name], value) for name, value in after.items() if value != before[name]
        }

    def needed(self, decisions: Iterable[str]) -> frozenset[str]:
        """Return these steps and all that they need, directly or not."""
        closed = frozenset(decisions)
        while more := {need for name in closed for need in self.step(name).needs} - closed:
            closed |= more
        return closed

    def needing(self, decisions: Iterable[str]) -> frozenset[str]:
        """Return these steps and all that need them, directly or not."""
        gone = frozenset(decisions)
        return gone | {step.name for step in self.steps if self.needed([step.name]) & gone}

    def _setup(
        self,
        name: str,
        steps: tuple[Step, ...],
        regime: Regime,
        config: StudyConfig,
        num_classes: int | None,
    ) -> Setup:
        try:
            return Setup(_network(steps, regime, num_classes), _recipe(steps, regime, config))
        except ValueError as error:
            raise self._impossible(name, error) from None

    def _impossible(self, name: str, error: ValueError) -> ValueError:
        return ValueError(f"step {name!r} of the roadmap {self.name!r}: {of_fields(error)}")


def ends(steps: Iterable[Step]) -> tuple[tuple[str, str], ...]:
    """Return the pairs that compare a path's last step with its first and with each reference
    model."""
    steps = tuple(steps)
    path = [step.name for step in steps if step.number is not None]
    others = [
        *(path[:1] if len(path) > 2 else []),
        *(step.name for step in steps if step.reference),
    ]
    return tuple((last, other) for last in path[-1:] for other in others)


def _network(
    steps: Iterable[Step], regime: Regime, num_classes: int | None = None
) -> Architecture | SwinArchitecture:
    network: Architecture | SwinArchitecture = regime.baseline
    changes: dict[str, Any] = {}
    for step in steps:
        if step.reference:
            network = step.networks[regime.name]
        changes |= step.changes(regime)
    if num_classes is not None:
        changes["num_classes"] = num_classes
    return replace(network, **changes)


def _recipe_changes(steps: Iterable[Step], regime: Regime) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for step in steps:
        changes |= step.recipe_changes(regime)
    return changes


def _recipe(steps: Iterable[Step], regime: Regime, config: StudyConfig) -> Recipe:
    values = {RecipeOf.MODERN: config.recipe.values(), RecipeOf.CLASSIC: config.classic.values()}
    changes = _recipe_changes(steps, regime)
    return config.classic.change(
        **{
            name: values[value][name] if isinstance(value, RecipeOf) else value
            for name, value in changes.items()
        }
    )


def _check_order(steps: tuple[Step, ...]) -> None:
    """Require one first step, and each other step below the one that it changes."""
    firsts = [step.name for step in steps if step.after is None and not step.reference]
    if len(firsts) != 1:
        raise ValueError(
            f"{len(firsts)} steps ({', '.join(firsts) or 'none'}) come after no other: let one "
            "begin"
        )
    above: list[str] = []
    for step in steps:
        if step.name.lower() in (name.lower() for name in above):
            raise ValueError(f"two steps are named {step.name!r}: rename one")
        if step.after is not None and step.after not in above:
            below = step.after in [other.name for other in steps]
            problem = f"stands below it: put {step.after!r} above it" if below else "is no step"
            hint = did_you_mean(step.after, above, before=", ")
            raise ValueError(
                f"step {step.name!r}: after names {step.after!r}, which {problem}{hint}"
            )
        if step.after is not None and not (step.architecture or step.recipe or step.sizes):
            raise ValueError(
                f"step {step.name!r} changes nothing: give architecture, recipe or sizes"
            )
        above.append(step.name)


def _check_path(path: tuple[Step, ...]) -> None:
    """Require a path that is numbered from 0 on and whose steps change each other in turn."""
    numbers = [step.number for step in path]
    if not path or path[0].after is not None or numbers != list(range(len(path))):
        raise ValueError(
            f"steps are numbered {', '.join(map(str, numbers)) or 'not at all'}: number the path "
            "from 0 on"
        )
    for before, step in pairwise(path):
        if step.after != before.name:
            raise ValueError(
                f"step {step.name!r} has a number, and comes after {step.after!r}: after names "
                f"{before.name!r}"
            )


def _check_needs(roadmap: Roadmap) -> None:
    """Require that a step needs only steps that precede it and can be left out."""
    names = [step.name for step in roadmap.steps]
    for step in roadmap.steps:
        before = [one.name for one in roadmap.path_to(step)[:-1] if one.after is not None]
        for need in step.needs:
            if need not in names or need == roadmap.first.name:
                raise ValueError(
                    f"step {step.name!r}: needs names {need!r}, which is no step that could be "
                    f"left out{did_you_mean(need, names, before=', ')}"
                )
            if need not in before:
                raise ValueError(
                    f"step {step.name!r} needs {need!r}, which is not on the path to it: put it "
                    "there"
                )
