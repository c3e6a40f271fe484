"""Markdown from templates: plain text from files, tables and formatted numbers."""

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
from tabulate import tabulate

from utils.text import printable

MINUS = "−"
NOTHING = "–"


def environment(templates: Path) -> jinja2.Environment:
    """Jinja templates of a folder; an undefined name is an error.

    Text from files goes through `|plain`.
    """
    templating = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    templating.filters |= {"plain": plain, "signed": signed, "amount": amount}
    return templating


def plain(text: object) -> str:
    """One line of Markdown that shows `text` as it is: no HTML, table cell, code or emphasis.

    What cannot be printed is written as Python would escape it.
    """
    line = printable(" ".join(str(text).split()))
    return re.sub(r"([\\`*|\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", html.escape(line, quote=False))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], align: str = "") -> str:
    """A Markdown table that reads well in raw form; `align` has l or r for each column."""
    sides = tuple("right" if side == "r" else "left" for side in align.ljust(len(headers), "l"))
    return str(
        tabulate(list(rows), list(headers), tablefmt="pipe", colalign=sides, disable_numparse=True)
    )


def signed(value: float, digits: int = 2) -> str:
    """+1.20 or −0.31, with a real minus sign; 0.00 has none."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def interval(low: float, high: float, digits: int = 2) -> str:
    """[−0.31, +1.20]."""
    return f"[{signed(low, digits)}, {signed(high, digits)}]"


def amount(value: float) -> str:
    """Two decimals, or three significant digits below one."""
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:#.3g}"
