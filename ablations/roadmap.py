"""A roadmap as data: named steps, each a change of the architecture, of the recipe or of both."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from ablations.regimes import Regime
from models import Architecture, SwinArchitecture
from training.recipe import Recipe, StudyConfig


class RecipeOf(StrEnum):
    """A value of a recipe's field: what one of the study's two recipes has there."""

    MODERN = "modern"
    CLASSIC = "classic"

    def whole(self) -> dict[str, "RecipeOf"]:
        """Every field of the recipe, as this one has it."""
        return dict.fromkeys(Recipe().values(), self)


@dataclass(frozen=True)
class Step:
    """One row of a roadmap."""

    name: str
    sentence: str
    """What changes, in a few words."""
    source: str
    """Where it is described: a section of the paper, or another paper."""
    after: str | None
    """Name of the step that this one changes, and is compared with; None where there is none."""
    number: int | None = None
    """Place on the path; None for rows beside it."""
    group: str = ""
    """The part of the roadmap that it belongs to."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Architecture` and their new values."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Recipe`, those of its parts too, and their new values; or a `RecipeOf`."""
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of `Architecture` whose new values differ from regime to regime, by the regime's name."""
    needs: tuple[str, ...] = ()
    """Steps without which it makes no sense."""
    networks: Mapping[str, SwinArchitecture] = field(default_factory=dict)
    """Of a reference, which changes no other row: its network by regime; in others there is no such row."""
    released_with_layer_scale: bool = False
    """The paper's authors released this network (ConvNeXt): its published size includes the recipe's layer scale."""

    def __post_init__(self) -> None:
        for name in ("architecture", "recipe", "sizes", "networks"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def reference(self) -> bool:
        """Whether it is a network of its own beside the roadmap."""
        return bool(self.networks)

    @property
    def beside(self) -> bool:
        """Whether it changes a step of the path without being on it."""
        return self.number is None and self.after is not None

    def changes(self, regime: Regime) -> dict[str, Any]:
        """The fields of the architecture that it changes, with their values in this regime."""
        return {**self.architecture, **self.sizes.get(regime.name, {})}


@dataclass(frozen=True)
class Variant:
    """What a run trains."""

    architecture: Architecture | SwinArchitecture
    recipe: Recipe


@dataclass(frozen=True)
class Roadmap:
    """Rows in the order of a table. The first changes nothing before it: the regime's baseline and the classic recipe,
    or, with `start`, a row of another roadmap.
    """

    name: str
    sentence: str
    steps: tuple[Step, ...]
    start: "tuple[Step, ...]" = ()
    """Steps of another roadmap that were taken before the first row."""

    @property
    def first(self) -> Step:
        """The row that the others come from."""
        return next(step for step in self.steps if step.after is None and not step.reference)

    @property
    def path(self) -> tuple[Step, ...]:
        """The numbered rows, from the first to the last."""
        return tuple(step for step in self.steps if step.number is not None)

    def rows(self, regime: Regime) -> tuple[Step, ...]:
        """All rows that there are in this regime, its reference among them."""
        return tuple(step for step in self.steps if not step.networks or regime.name in step.networks)

    def step(self, asked: str, regime: Regime | None = None) -> Step:
        """The step of that number or name, of those of the regime or of all.

        Raises:
            ValueError: there is none, in one sentence that says which there are.
        """
        rows = self.steps if regime is None else self.rows(regime)
        for step in rows:
            if asked == step.name or (asked.isdecimal() and len(asked) < 4 and step.number == int(asked)):
                return step
        numbers = [step.number for step in rows if step.number is not None]
        if asked.lstrip("+-").isdecimal():
            raise ValueError(f"there is no step {asked[:20]}: steps are numbered {min(numbers)} to {max(numbers)}")
        names = [step.name for step in rows]
        near = difflib.get_close_matches(asked.lower(), names, 1, 0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        numbered = f"a number from {min(numbers)} to {max(numbers)}, or {', '.join(names)}"
        raise ValueError(f"there is no step {asked!r}{hint} ({numbered})")

    def way(self, step: Step | str) -> tuple[Step, ...]:
        """The steps from the beginning to this one."""
        found = self.step(step) if isinstance(step, str) else step
        if found.reference:
            return (found,)
        return (*(self.start if found.after is None else self.way(found.after)), found)

    def architecture(
        self, step: Step | str, regime: Regime, num_classes: int | None = None
    ) -> Architecture | SwinArchitecture:
        """The network of a step in a regime."""
        found = self.step(step, regime) if isinstance(step, str) else step
        return _network(self.way(found), regime, num_classes)

    def variant(self, step: Step | str, regime: Regime, config: StudyConfig, num_classes: int | None = None) -> Variant:
        """The network and the recipe of a step: every change on the way to it."""
        way = self.way(self.step(step, regime) if isinstance(step, str) else step)
        return Variant(_network(way, regime, num_classes), _recipe(way, config))

    def recipe(self, step: Step | str) -> dict[str, Any]:
        """Every field of a step's recipe: its value, or in which of the study's recipes to find it."""
        return {**RecipeOf.CLASSIC.whole(), **_recipe_changes(self.way(step))}

    def needed(self, decisions: Iterable[str]) -> frozenset[str]:
        """These steps and all that they need, which may need others in turn."""
        closed = frozenset(decisions)
        while more := {need for name in closed for need in self.step(name).needs} - closed:
            closed |= more
        return closed

    def needing(self, decisions: Iterable[str]) -> frozenset[str]:
        """These steps and all that need them, directly or not: what goes where they are left out."""
        gone = frozenset(decisions)
        return gone | {step.name for step in self.steps if self.needed([step.name]) & gone}

    def combine(
        self, decisions: Collection[str], regime: Regime, config: StudyConfig, num_classes: int | None = None
    ) -> Variant:
        """The first row's network and recipe with the changes of just these steps, in the roadmap's order.

        Raises:
            ValueError: a step is unknown, has nothing to change, or needs one that is not there.
        """
        chosen = {self.step(name).name for name in decisions}
        for step in self.steps:
            if step.name in chosen and (step.after is None or set(step.needs) - chosen):
                missing = ", ".join(sorted(set(step.needs) - chosen))
                why = f"needs {missing}" if missing else "is no decision, nothing comes before it"
                raise ValueError(f"step {step.name!r} of the roadmap {self.name!r} {why}")
        way = (*self.way(self.first), *(step for step in self.steps if step.name in chosen))
        return Variant(_network(way, regime, num_classes), _recipe(way, config))


def _network(way: Iterable[Step], regime: Regime, num_classes: int | None) -> Architecture | SwinArchitecture:
    built: Architecture | SwinArchitecture = regime.baseline
    changes: dict[str, Any] = {}
    for step in way:
        if step.reference:
            built = step.networks[regime.name]
        changes |= step.changes(regime)
    if num_classes is not None:
        changes["num_classes"] = num_classes
    return replace(built, **changes)


def _recipe_changes(way: Iterable[Step]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for step in way:
        changes |= step.recipe
    return changes


def _recipe(way: Iterable[Step], config: StudyConfig) -> Recipe:
    values = {RecipeOf.MODERN: config.recipe.values(), RecipeOf.CLASSIC: config.classic.values()}
    changes = {
        name: values[RecipeOf(value)][name] if value in tuple(RecipeOf) else value
        for name, value in _recipe_changes(way).items()
    }
    return config.classic.change(**changes)
