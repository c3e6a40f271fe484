"""Text of messages: names, numbers, hints."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def require_option(values: object, name: str, holds: bool, remedy: str) -> None:
    """Raise ValueError, which names the option of field `name`, unless its value `holds`."""
    if not holds:
        raise ValueError(f"--{name.replace('_', '-')} is {getattr(values, name)}: {remedy}")


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested mappings. An inner key keeps its name where that is free, else it becomes
    'outer.inner'."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        if not isinstance(value, Mapping):
            flattened[key] = value
            continue
        for name, inner in flat(value).items():
            taken = name in flattened or name in values
            flattened[f"{key}.{name}" if taken else name] = inner
    return flattened


def did_you_mean(word: object, known: Iterable[str], before: str = "", after: str = "") -> str:
    """The question "did you mean 'this'?", or nothing if no known word is near."""
    near = difflib.get_close_matches(str(word).lower(), list(known), 1, 0.5)
    return f"{before}did you mean {near[0]!r}?{after}" if near else ""


def printable(name: object) -> str:
    """Escape the unprintable characters of a name from outside, for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def first_few(names: Iterable[str], limit: int = 3) -> str:
    """'a, b, c and 4 more' for messages."""
    listed = [printable(name) for name in names]
    rest = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {rest:,} more" if rest > 0 else "")


def plural(count: int, word: str) -> str:
    """'1 run', '2 runs'."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def listed(words: Iterable[str]) -> str:
    """'a, b and c', or 'none'."""
    *most, last = list(words) or ["none"]
    return f"{', '.join(most)} and {last}" if most else last


def of_fields(message: object) -> str:
    """A message with names of fields (min_lr) in place of options (--min-lr)."""
    return re.sub(r"--([a-z-]+)", lambda option: option[1].replace("-", "_"), str(message))


def left_out(unreadable: Mapping[str, Sequence[str]]) -> str:
    """Left-out images by split: '4 train images that cannot be read (a, b, c and 1 more)'."""
    return "; ".join(
        f"{plural(len(names), f'{part} image')} that cannot be read ({first_few(names)})"
        for part, names in unreadable.items()
    )


def one_line(text: object, most: int = 1000) -> str:
    """`text` without control characters, and without its middle if it is very long."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(text).split()))
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"


def readable_bytes(count: int) -> str:
    """'812 bytes', '3.2 MB', '19.8 GB' (decimal units)."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:.1f} {unit}"
    return f"{count} bytes"


def duration(seconds: float) -> str:
    """'42 s', '12 min', '3 h 20 min', '9 days', '5 months', '10 years'."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, days = round(seconds / 60), seconds / (24 * 3600)
    if minutes < 100:
        return f"{minutes} min"
    if days < 5:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if days < 100:
        return f"{days:.0f} days"
    return f"{days / 30.4:.0f} months" if days < 730 else f"{days / 365:.0f} years"
