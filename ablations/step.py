"""A step of a roadmap: one row, with all that it changes written on it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from ablations.fields import ARCHITECTURE, RECIPE, value_of
from ablations.presets import REGIMES, Regime
from models import Architecture, SwinArchitecture
from utils.text import did_you_mean


class RecipeOf(StrEnum):
    """A value of a recipe's field: what one of the study's two recipes has there."""

    MODERN = "modern"
    CLASSIC = "classic"

    def __repr__(self) -> str:
        return self.value

    def whole(self) -> dict[str, "RecipeOf"]:
        """Every field of the recipe, as this one has it."""
        return dict.fromkeys(RECIPE, self)


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_TAKEN = ("report", "roadmaps")
"""Folders of a study that are no row's."""


@dataclass(frozen=True)
class Step:
    """One row of a roadmap."""

    name: str
    description: str
    """What changes, in a few words; `{stem_stride}` and the like stand for fields of the network
    (see `describe`)."""
    source: str = ""
    """Where it is described: a section of the paper, or another paper."""
    after: str | None = None
    """Name of the step that this one changes, and is compared with; None where there is none."""
    number: int | None = None
    """Place on the path; None for steps off it."""
    group: str = ""
    """The part of the roadmap that it belongs to."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Architecture` and their new values."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Recipe`, those of its parts too, and their new values; or a `RecipeOf`."""
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of either whose new values differ from regime to regime, by the regime's name."""
    needs: tuple[str, ...] = ()
    """Steps without which it makes no sense."""
    networks: Mapping[str, SwinArchitecture] = field(default_factory=dict)
    """Of a reference, which changes no other row: its network by regime; in others there is no such
    row."""
    released_with_layer_scale: bool = False
    """The paper's authors released this network (ConvNeXt): its published size includes the
    recipe's layer scale."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name) or self.name.lower() in _TAKEN or self.name.isdecimal():
            raise ValueError(
                f"a step is named {self.name!r}: give up to 60 letters, digits, dots, dashes or "
                "_, no number "
                f"and not {' or '.join(_TAKEN)}"
            )
        both = {**ARCHITECTURE, **RECIPE}
        try:
            architecture = {
                key: value_of(key, value, ARCHITECTURE, "a network")
                for key, value in self.architecture.items()
            }
            recipe = {
                key: _of_recipe(key, value, RECIPE, "a recipe")
                for key, value in self.recipe.items()
            }
            sizes = {
                regime: {
                    key: _of_recipe(key, value, both, "a step") for key, value in changes.items()
                }
                for regime, changes in self.sizes.items()
            }
            for regime in sizes:
                if regime not in REGIMES:
                    hint = did_you_mean(regime, REGIMES, before=", ")
                    raise ValueError(
                        f"there is no regime {regime!r}{hint} (choose {', '.join(REGIMES)})"
                    )
        except ValueError as error:
            raise ValueError(f"step {self.name!r}: {error}") from None
        for name, value in (
            ("architecture", architecture),
            ("recipe", recipe),
            ("sizes", sizes),
            ("networks", self.networks),
        ):
            object.__setattr__(self, name, MappingProxyType(dict(value)))

    @property
    def reference(self) -> bool:
        """Whether it is a network of its own beside the roadmap."""
        return bool(self.networks)

    @property
    def off_path(self) -> bool:
        """Whether it changes a step of the path without being on it."""
        return self.number is None and self.after is not None

    def describe(self, network: Architecture | SwinArchitecture) -> "Step":
        """With a description that is true of `network`: its value for each field in braces."""
        values = vars(network)
        description = re.sub(
            r"\{(\w+)\}", lambda field: str(values.get(field[1], field[0])), self.description
        )
        return self if description == self.description else replace(self, description=description)

    def changes(self, regime: Regime) -> dict[str, Any]:
        """The fields of the architecture that it changes, with their values in this regime."""
        return {
            key: value for key, value in self.all_changes(regime).items() if key in ARCHITECTURE
        }

    def recipe_changes(self, regime: Regime) -> dict[str, Any]:
        """The fields of the recipe that it changes, likewise; a value may be a `RecipeOf`."""
        return {key: value for key, value in self.all_changes(regime).items() if key in RECIPE}

    def all_changes(self, regime: Regime) -> dict[str, Any]:
        """Both."""
        return {**self.architecture, **self.recipe, **self.sizes.get(regime.name, {})}


def _of_recipe(key: str, value: Any, known: Mapping[str, Any], what: str) -> Any:
    if key in RECIPE and value in tuple(RecipeOf):
        return RecipeOf(value)
    return value_of(key, value, known, what)
