"""A sweep: every row of a design at several values of one field of its recipe, so that each may
have its best."""

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from types import NoneType
from typing import Any

from ablations.roadmap import Setup
from ablations.step import RECIPE, field_value
from training.recipe import follow
from utils.text import did_you_mean, of_fields

_FACTOR = re.compile(r"(\d+\.?\d*|\.\d+)x")
_EXAMPLE = "--sweep lr=0.5x,1x,2x or --sweep weight_decay=0.05,0.3"


@dataclass(frozen=True)
class Sweep:
    """A field and the values that it is to have in turn, as words: "0.5x" is half of the row's own
    value, "0.3" is 0.3.

    Raises:
        ValueError: no such field, or words that can be no values of it, in one sentence.
    """

    field: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Sweep":
        """What the option --sweep says, "lr=0.5x,1x,2x"; the two numbers of a pair are joined by a
        colon."""
        field, equals, values = text.partition("=")
        if not equals:
            raise ValueError(
                f"--sweep is {text!r}: give a field of the recipe and its values, such as "
                f"{_EXAMPLE}"
            )
        return cls(
            field.strip().replace("-", "_"), tuple(value.strip() for value in values.split(","))
        )

    def __post_init__(self) -> None:
        if self.field not in RECIPE:
            hint = did_you_mean(self.field, RECIPE, after=" ")
            raise ValueError(
                f"--sweep: a recipe has no field {self.field!r}: {hint}choose {', '.join(RECIPE)}"
            )
        try:
            words = tuple(
                str(self._factor(value) or _word(_plain(self.field, value)))
                for value in self.values
            )
        except ValueError as error:
            raise ValueError(
                f"--sweep {error} (commas part values, a colon the two numbers of one)"
            ) from None
        if len(words) < 2:
            raise ValueError(
                f"--sweep {self.field} has one value: give two or more, such as {_EXAMPLE}"
            )
        if twice := next((word for word in words if words.count(word) > 1), None):
            raise ValueError(
                f"--sweep {self.field} has the value {twice} twice: give each value once"
            )
        object.__setattr__(self, "values", words)

    @property
    def settings(self) -> tuple["Setting", ...]:
        return tuple(Setting(self.field, value) for value in self.values)

    def _factor(self, word: str) -> "str | None":
        """A factor in its shortest form; None where the word is none."""
        if not (found := _FACTOR.fullmatch(word)):
            return None
        if RECIPE[self.field] not in (int, float, float | None):
            raise ValueError(f"{self.field} is no number, so it has no {word}: give plain values")
        return f"{Decimal(found[1]).normalize():f}x"


@dataclass(frozen=True)
class Setting:
    """One value of a sweep; `value` is a word of `Sweep.values`."""

    field: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}={self.value}"

    @property
    def name(self) -> str:
        """As part of a row's: lr-0.5x."""
        return f"{self.field}-{self.value}".replace("_", "-").replace(":", "-")

    def of(self, setup: Setup) -> Setup:
        """The row's network and recipe with this value; steps of its rate are as long in proportion
        as its training.

        Raises:
            ValueError: its recipe cannot have it, as the end of a sentence.
        """
        own = setup.recipe
        try:
            recipe = own.change(**{self.field: self._value(own.values()[self.field])})
            if self.field == "epochs" and own.schedule == "step":
                recipe = follow(own, own, recipe)
        except ValueError as error:
            raise ValueError(of_fields(error)) from None
        return replace(setup, recipe=recipe)

    def _value(self, own: Any) -> Any:
        if not _FACTOR.fullmatch(self.value):
            return _plain(self.field, self.value)
        if own is None:
            raise ValueError(
                f"{self.field} is none there, so it has no {self.value}: give plain values"
            )
        # In decimals, so that half of 0.004 is the 0.002 that somebody would have written.
        product = Decimal(str(own)) * Decimal(self.value.removesuffix("x"))
        if not isinstance(own, int):
            return float(product)
        if product != int(product):
            raise ValueError(f"{self.field} is {own} there, and {self.value} of it no whole number")
        return int(product)


def _plain(field: str, word: str) -> Any:
    """The value of a field that a word says. Raises ValueError where it can be none of it."""
    parts = [_typed(part) for part in word.split(":")]
    return field_value(field, parts if len(parts) > 1 else parts[0], RECIPE, "a recipe")


def _typed(word: str) -> Any:
    """What a word says: a number, true, false, none or itself."""
    known = {"true": True, "false": False}
    if word in known:
        return known[word]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return ":".join(map(_word, value))
    if isinstance(value, bool | NoneType):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
