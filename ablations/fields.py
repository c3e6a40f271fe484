"""What a step may change: the fields of a network and of a recipe, and which values each can
have."""

from collections.abc import Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from models import Architecture
from training.recipe import Recipe
from utils.text import did_you_mean

_LEFT_OUT = ("num_classes", "augmentation")
"""The images have the one; the other's own fields are fields of the recipe."""


def _hints(*kinds: type) -> dict[str, Any]:
    return {
        field.name: get_type_hints(kind)[field.name]
        for kind in kinds
        for field in fields(kind)
        if field.name not in _LEFT_OUT
    }


ARCHITECTURE: Mapping[str, Any] = _hints(Architecture)
RECIPE: Mapping[str, Any] = _hints(Recipe, type(Recipe().augmentation))
"""Field to type."""

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    NoneType: "'none'",
}
_MANY = {int: "whole numbers", float: "numbers"}


def value_of(field: str, value: object, known: Mapping[str, Any], what: str) -> Any:
    """`value` as the dataclass has it: a list as a tuple, "none" as None.

    Raises:
        ValueError: no such field, or a value of another type, in one sentence.
    """
    if field not in known:
        hint = did_you_mean(field, known, before=", ") or f": choose {', '.join(known)}"
        raise ValueError(f"{what} has no field {field!r}{hint}")
    try:
        return _as(value, known[field])
    except TypeError:
        raise ValueError(f"{field} is {value!r}: give {_in_words(known[field])}") from None


def _as(value: object, hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        for each in get_args(hint):
            try:
                return _as(value, each)
            except TypeError:
                continue
        raise TypeError
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise TypeError
    if get_origin(hint) is tuple:
        kind, *others = get_args(hint)
        if isinstance(value, list | tuple) and (others == [...] or len(value) == 1 + len(others)):
            return tuple(_as(each, kind) for each in value)
        raise TypeError
    if hint is NoneType and value in (None, "none"):
        return None
    if hint is not NoneType and (type(value) is hint or (hint is float and type(value) is int)):
        return value
    raise TypeError


def _in_words(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_in_words, get_args(hint)))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        kind, *others = get_args(hint)
        return (
            f"a list of {_MANY[kind]}"
            if others == [...]
            else f"a list of {1 + len(others)} {_MANY[kind]}"
        )
    return _WORDS[hint]
