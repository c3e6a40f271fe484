"""Markdown from templates: plain text from files, and tables."""

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
from tabulate import tabulate

from utils.text import printable


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
    templating.filters["plain"] = plain
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
