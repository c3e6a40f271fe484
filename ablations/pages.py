"""Pages in Markdown from templates: what the report and the model card have in common."""

import html
import re
from pathlib import Path

import jinja2

from utils.text import printable


def environment(templates: Path) -> jinja2.Environment:
    """Templates of that folder; a name that is not given is an error, and text from files goes
    through `|plain`."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    made.filters["plain"] = plain
    return made


def plain(text: object) -> str:
    """Text from a file as text of the page: one line, no HTML, no table cell, no Markdown code or
    emphasis.

    What cannot be printed is written as Python would escape it.
    """
    words = printable(" ".join(str(text).split()))
    return re.sub(r"([\\`*|\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", html.escape(words, quote=False))
