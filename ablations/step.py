"""One step of a roadmap, with all that it changes, and the checks of those changes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ablations.presets import Regime, get_regime
from models import Architecture, SwinArchitecture
from training.recipe import Recipe
from utils.text import did_you_mean

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_RESERVED = ("report", "roadmaps")
"""Folders of a study that do not belong to a step."""
_NOT_CHANGED = ("num_classes", "augmentation")
"""The data set gives the first; the second's fields count as fields of the recipe."""


def _types(*kinds: type) -> dict[str, Any]:
    return {
        field.name: get_type_hints(kind)[field.name]
        for kind in kinds
        for field in fields(kind)
        if field.name not in _NOT_CHANGED
    }


ARCHITECTURE: Mapping[str, Any] = _types(Architecture)
RECIPE: Mapping[str, Any] = _types(Recipe, type(Recipe().augmentation))
"""Field to type: what a step may change."""


class RecipeOf(StrEnum):
    """The value of a recipe's field is the one that this recipe of the study has."""

    MODERN = "modern"
    CLASSIC = "classic"

    def __repr__(self) -> str:
        return self.value

    def whole(self) -> dict[str, "RecipeOf"]:
        """Return every field of the recipe with this value."""
        return dict.fromkeys(RECIPE, self)


@dataclass(frozen=True)
class Step:
    """A step of a roadmap.

    Raises:
        ValueError: a name that cannot name a folder, or a change of a field that does not exist or
            to a value of another type.
    """

    name: str
    description: str
    """What changes, in a few words; `{stem_stride}` and the like stand for fields of the network
    (see `describe`)."""
    source: str = ""
    """Where it is described: a section of the paper, or another paper."""
    group: str = ""
    """The part of the roadmap that it belongs to."""
    after: str | None = None
    """The step that this one changes and is compared with; None for the first step."""
    number: int | None = None
    """Place on the path; None for steps off the path."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Architecture` and their new values."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Recipe` and of its augmentation, and their new values or a `RecipeOf`."""
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By regime: fields of both whose new values depend on the model size."""
    needs: tuple[str, ...] = ()
    """Steps without which this one makes no sense."""
    networks: Mapping[str, SwinArchitecture] = field(default_factory=dict)
    """By regime: the network of a reference model, which changes no other step."""
    released_with_layer_scale: bool = False
    """The authors released this network: its published size includes the recipe's layer scale."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name) or self.name.lower() in _RESERVED or self.name.isdecimal():
            raise ValueError(
                f"a step is named {self.name!r}: give up to 60 letters, digits, dots, dashes or "
                f"_, no number and not {' or '.join(_RESERVED)}"
            )
        both = {**ARCHITECTURE, **RECIPE}
        try:
            checked = {
                "architecture": _checked(self.architecture, ARCHITECTURE, "a network"),
                "recipe": _checked(self.recipe, RECIPE, "a recipe"),
                "sizes": {
                    get_regime(regime).name: _checked(changes, both, "a step")
                    for regime, changes in self.sizes.items()
                },
            }
        except ValueError as error:
            raise ValueError(f"step {self.name!r}: {error}") from None
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def reference(self) -> bool:
        """Whether this is a reference model, which is no part of the roadmap."""
        return bool(self.networks)

    @property
    def off_path(self) -> bool:
        """Whether this changes a step of the path without being on it."""
        return self.number is None and self.after is not None

    def describe(self, network: Architecture | SwinArchitecture) -> "Step":
        """Return the step with the values of `network` in place of the braces of its
        description."""
        values = vars(network)
        text = re.sub(
            r"\{(\w+)\}", lambda name: str(values.get(name[1], name[0])), self.description
        )
        return self if text == self.description else replace(self, description=text)

    def all_changes(self, regime: Regime) -> dict[str, Any]:
        """Return the fields of network and recipe that change, with their values in a regime."""
        return {**self.architecture, **self.recipe, **self.sizes.get(regime.name, {})}

    def changes(self, regime: Regime) -> dict[str, Any]:
        """Return the changes of the architecture."""
        changes = self.all_changes(regime)
        return {name: value for name, value in changes.items() if name in ARCHITECTURE}

    def recipe_changes(self, regime: Regime) -> dict[str, Any]:
        """Return the changes of the recipe; a value may be a `RecipeOf`."""
        changes = self.all_changes(regime)
        return {name: value for name, value in changes.items() if name in RECIPE}


def _checked(changes: Mapping[str, Any], known: Mapping[str, Any], what: str) -> dict[str, Any]:
    return {
        name: RecipeOf(value)
        if name in RECIPE and value in tuple(RecipeOf)
        else field_value(name, value, known, what)
        for name, value in changes.items()
    }


def field_value(field: str, value: object, known: Mapping[str, Any], what: str) -> Any:
    """Return `value` as the dataclass holds it: a list as a tuple, "none" as None.

    Raises:
        ValueError: `known` has no such field, or one of another type.
    """
    if field not in known:
        hint = did_you_mean(field, known, before=", ") or f": choose {', '.join(known)}"
        raise ValueError(f"{what} has no field {field!r}{hint}")
    try:
        return _convert(value, known[field])
    except TypeError:
        raise ValueError(f"{field} is {value!r}: give {_describe_type(known[field])}") from None


def _convert(value: object, hint: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        for each in inner:
            try:
                return _convert(value, each)
            except TypeError:
                continue
    elif origin is Literal:
        if value in inner:
            return value
    elif origin is tuple:
        several = isinstance(value, list | tuple)
        if several and (inner[-1] is ... or len(value) == len(inner)):  # type: ignore[arg-type]
            return tuple(_convert(each, inner[0]) for each in value)  # type: ignore[attr-defined]
    elif hint is NoneType:
        if value in (None, "none"):
            return None
    elif type(value) is hint or (hint is float and type(value) is int):
        return value
    raise TypeError


def _describe_type(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_describe_type, inner))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        kind = {int: "whole numbers", float: "numbers"}[inner[0]]
        return f"a list of {kind}" if inner[-1] is ... else f"a list of {len(inner)} {kind}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    return names.get(hint, "'none'")
