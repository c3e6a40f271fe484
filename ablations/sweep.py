"""A sweep: every variant of a design at several values of one field of its recipe."""

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from ablations.roadmap import Setup
from ablations.step import RECIPE, field_value
from training.recipe import follow
from utils.text import did_you_mean, of_fields

_FACTOR = re.compile(r"(\d+\.?\d*|\.\d+)x")
_EXAMPLE = "--sweep lr=0.5x,1x,2x or --sweep weight_decay=0.05,0.3"


@dataclass(frozen=True)
class Sweep:
    """A field of the recipe and its values as text: "0.5x" is half of the variant's own value,
    "0.3" is 0.3.

    Raises:
        ValueError: there is no such field, or it cannot have such values.
    """

    field: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Sweep":
        """Return the sweep of the option --sweep, "lr=0.5x,1x,2x"; a colon joins the two numbers of
        a pair."""
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
            values = tuple(_shortest(self.field, value) for value in self.values)
        except ValueError as error:
            raise ValueError(
                f"--sweep {error} (commas part values, a colon the two numbers of one)"
            ) from None
        if len(values) < 2:
            raise ValueError(
                f"--sweep {self.field} has one value: give two or more, such as {_EXAMPLE}"
            )
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise ValueError(
                f"--sweep {self.field} has the value {twice} twice: give each value once"
            )
        object.__setattr__(self, "values", values)

    @property
    def settings(self) -> tuple["Setting", ...]:
        return tuple(Setting(self.field, value) for value in self.values)


@dataclass(frozen=True)
class Setting:
    """One of the values of a sweep."""

    field: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}={self.value}"

    @property
    def name(self) -> str:
        """The setting as part of a variant's name: lr-0.5x."""
        return f"{self.field}-{self.value}".replace("_", "-").replace(":", "-")

    def apply(self, setup: Setup) -> Setup:
        """Return the setup with this value. A step schedule keeps its proportion to the epochs.

        Raises:
            ValueError: the recipe cannot have the value.
        """
        before = setup.recipe
        try:
            recipe = before.change(**{self.field: self._value(before.values()[self.field])})
            if self.field == "epochs" and before.schedule == "step":
                recipe = follow(before, before, recipe)
        except ValueError as error:
            raise ValueError(of_fields(error)) from None
        return replace(setup, recipe=recipe)

    def _value(self, before: Any) -> Any:
        if not _FACTOR.fullmatch(self.value):
            return _parse(self.field, self.value)
        if before is None:
            raise ValueError(
                f"{self.field} is none there, so it has no {self.value}: give plain values"
            )
        # In decimals, so that half of 0.004 is the 0.002 that a person would write.
        product = Decimal(str(before)) * Decimal(self.value.removesuffix("x"))
        if not isinstance(before, int):
            return float(product)
        if product != int(product):
            raise ValueError(
                f"{self.field} is {before} there, and {self.value} of it no whole number"
            )
        return int(product)


def _shortest(field: str, text: str) -> str:
    """Return a value's shortest form, a factor or plain. Raises ValueError if the field cannot have
    it."""
    if not (factor := _FACTOR.fullmatch(text)):
        return _format(_parse(field, text))
    if RECIPE[field] not in (int, float, float | None):
        raise ValueError(f"{field} is no number, so it has no {text}: give plain values")
    return f"{Decimal(factor[1]).normalize():f}x"


def _parse(field: str, text: str) -> Any:
    parts = [_literal(part) for part in text.split(":")]
    return field_value(field, parts if len(parts) > 1 else parts[0], RECIPE, "a recipe")


def _literal(text: str) -> Any:
    """Return the number, true or false that a text stands for, or the text itself."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _format(value: Any) -> str:
    if isinstance(value, tuple):
        return ":".join(map(_format, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
