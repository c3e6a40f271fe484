"""The committed reports are what the committed runs give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from report import collect, page
from report.tables import Summary
from studies import pack

RESULTS = Path(__file__).parents[2] / "docs" / "results"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study() -> Iterator[Path]:
    with pack.opened(RESULTS / "fashion-mnist.pack") as folder:
        yield folder


@pytest.mark.parametrize("roadmap", ["", "recipe", "stems", "lengths", "large-maps"])
def test_a_committed_report_has_the_numbers_of_its_runs(study: Path, roadmap: str) -> None:
    """Times and accuracies are in the runs, so every table is known; a last digit may be rounded
    otherwise on another machine."""
    folder = RESULTS / "fashion-mnist-report" / roadmap
    committed = (folder / "report.md").read_text(encoding="utf-8")
    summary = Summary(collect.read(study, roadmap or None))
    names = [name for name, _ in page.drawn(summary)]
    rebuilt = page.render(summary, page.tables(summary), names)
    (words, values), (own_words, own_values) = map(_tables, (rebuilt, committed))
    assert words == own_words
    assert values == pytest.approx(own_values, abs=0.011)
    assert {path.stem for path in folder.glob("*.png")} == set(names)
    assert committed.count("\n") <= 350


def _tables(text: str) -> tuple[str, list[float]]:
    """The words of a page's tables, and the numbers between them."""
    lines = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    number = r"[−+]?\d+(?:\.\d+)?"
    values = [float(found.replace("−", "-")) for found in re.findall(number, lines)]
    return re.sub(rf"{number}| +|-{{2,}}", "#", lines), values
