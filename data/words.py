"""Words for messages: names, numbers and complaints as a reader is told them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def require_option(values: object, name: str, holds: bool, remedy: str) -> None:
    """Raise ValueError, naming the option of field `name` and what to do, unless its value `holds`."""
    if not holds:
        raise ValueError(f"--{name.replace('_', '-')} is {getattr(values, name)}: {remedy}")


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested fields side by side; those of an inner record keep their own name where it is free."""
    side_by_side: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            for name, inner in flat(value).items():
                side_by_side[name if name not in side_by_side and name not in values else f"{key}.{name}"] = inner
        else:
            side_by_side[key] = value
    return side_by_side
