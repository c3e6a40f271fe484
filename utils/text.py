"""Words for messages: names, numbers and complaints as a reader is told them."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def require_option(values: object, name: str, holds: bool, remedy: str) -> None:
    """Raise ValueError, naming the option of field `name` and what to do, unless its value
    `holds`."""
    if not holds:
        raise ValueError(f"--{name.replace('_', '-')} is {getattr(values, name)}: {remedy}")


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested fields side by side; those of an inner record keep their own name where it is free."""
    side_by_side: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            for name, inner in flat(value).items():
                side_by_side[
                    name if name not in side_by_side and name not in values else f"{key}.{name}"
                ] = inner
        else:
            side_by_side[key] = value
    return side_by_side


def did_you_mean(word: object, known: Iterable[str], before: str = "", after: str = "") -> str:
    """The question "did you mean 'this'?" between `before` and `after`, or nothing if no known word
    is near."""
    near = difflib.get_close_matches(str(word).lower(), list(known), 1, 0.5)
    return f"{before}did you mean {near[0]!r}?{after}" if near else ""


def printable(name: object) -> str:
    """A name from outside as it may be shown on a terminal: what cannot be printed as Python would
    escape it."""
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
    """Words as English lists them: a, b and c; none."""
    *most, last = list(words) or ["none"]
    return f"{', '.join(most)} and {last}" if most else last


def of_fields(said: object) -> str:
    """What a recipe says of its fields, which it names as options (--min-lr), with their own names
    (min_lr)."""
    return re.sub(r"--([a-z-]+)", lambda option: option[1].replace("-", "_"), str(said))


def left_out(unreadable: Mapping[str, Sequence[str]]) -> str:
    """Which images were left out, by split: '4 train images that cannot be read (a, b, c and 1
    more)'."""
    return "; ".join(
        f"{len(names):,} {part} image{'s' * (len(names) != 1)} that cannot be read "
        f"({first_few(names)})"
        for part, names in unreadable.items()
    )


def one_line(text: object, most: int = 1000) -> str:
    """`text` without line breaks and other control characters, and without the middle if it is very
    long."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(text).split()))
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"


def readable_bytes(count: int) -> str:
    """`count` bytes for a reader: '812 bytes', '3.2 MB', '19.8 GB' (decimal units)."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """'42 s', '12 min', '3 h 20 min', for a reader."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
