"""Text from files that others wrote, made safe to show."""

import html
import re


def plain(text: object) -> str:
    """Text from a file as text of a Markdown page: one line, no HTML, table cell, code, emphasis or control character.

    What cannot be printed is written as Python would escape it.
    """
    words = " ".join(str(text).split())
    words = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    return re.sub(r"([\\`*|\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", html.escape(words, quote=False))
