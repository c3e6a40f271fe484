"""report.html: the Markdown page as one file that needs no network."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path

import markdown
import pandas as pd

from report.numbers import NOTHING
from report.plots import FAINT, GRID, INK, PAPER, SOFT
from utils.markdown import environment

TEMPLATES = Path(__file__).parent / "templates"
CSS_COLORS = {INK: "ink", SOFT: "soft", FAINT: "line", GRID: "grid", PAPER: "paper"}
"""Variables of report.css, which has a light and a dark value for each."""
_WRAPPER = '<div class="wide" role="region" tabindex="0" aria-label="Table"><table>'
_FOLDED_RUNS = ["step", "seed", "state", "top1", "device", "code_version", "torch", "finished"]


def to_html(page: str, title: str, folder: Path, folded: Mapping[str, pd.DataFrame]) -> str:
    """The Markdown `page` as HTML; the SVG files of its figures are read from `folder`. The
    `folded` tables follow in a fold each."""
    converter = markdown.Markdown(
        extensions=["tables", "toc"],
        output_format="html",
        extension_configs={"toc": {"permalink": "#", "permalink_title": "Link to this section"}},
    )
    body = converter.convert(page)

    def figure(match: re.Match[str]) -> str:
        caption, name = match[1], match[2]
        svg = inline_svg((folder / f"{name}.svg").read_text(encoding="utf-8"), caption)
        files = " ".join(f'<a href="{name}.{kind}">{kind.upper()}</a>' for kind in ("svg", "png"))
        return (
            f'<figure id="figure-{name}"><div class="drawing" role="region" tabindex="0" '
            f'aria-label="Figure: {caption}">{svg}</div><figcaption class="tools">'
            f"{files}</figcaption></figure>"
        )

    body = re.sub(r'<p><img alt="([^"]*)" src="(\w+)\.png"\s*/?></p>', figure, body)
    body = re.sub(r"<code>(\w+\.csv)</code>", r'<a href="\1">\1</a>', body)
    body += "".join(_fold(name, table) for name, table in folded.items())
    # A class instead of a style in each of the thousands of cells.
    body = body.replace(' style="text-align: right;"', " class=num")
    body = body.replace(' style="text-align: left;"', "")
    body = body.replace("<table>", _WRAPPER).replace("</table>", "</table></div>")
    template = environment(TEMPLATES).get_template("page.html.j2")
    return template.render(title=html.escape(title), body=body)


def _fold(name: str, table: pd.DataFrame) -> str:
    if name == "runs":
        table = table.reindex(columns=_FOLDED_RUNS).round({"top1": 2})
    rows = table.to_html(index=False, na_rep=NOTHING, border=0, justify="unset")
    rows = re.sub(r"<table[^>]*>", "<table>", rows).replace(' style="text-align: unset;"', "")
    return f"<details><summary>{name.capitalize()} ({len(table)})</summary>{rows}</details>"


def inline_svg(svg: str, title: str) -> str:
    """An SVG file as an element of the page, in the page's colors and as wide as its column."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    for color, variable in CSS_COLORS.items():
        svg = svg.replace(color, f"var(--{variable})")
    svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    width = re.search(r'<svg [^>]*width="([\d.]+)pt"', svg)
    size = f' style="max-width: {width[1]}pt"' if width else ""
    head = re.sub(r' (width|height|version|xmlns(:\w+)?)="[^"]*"', "", svg[: svg.index(">")])
    return f'{head} role="img" aria-label="{title}"{size}{svg[svg.index(">") :]}'
