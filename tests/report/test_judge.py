"""Verdicts for anybody's table of variant, seed and value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import report
from report.results_table import read

CASES = Path(__file__).parent / "judge_cases"


def difference(expected: Any, found: Any, place: str = "") -> list[str]:
    """Where `found` lacks what is expected, to a relative 1e-6."""
    if isinstance(expected, dict):
        return [
            line
            for key, value in expected.items()
            for line in difference(value, found.get(key, "missing"), f"{place}.{key}")
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for i, pair in pairs for line in difference(*pair, f"{place}.{i}")]
    same = isinstance(expected, float) and found == pytest.approx(expected, rel=1e-6)
    return [] if same or expected == found else [f"{place}: {expected} expected, {found} found"]


@pytest.mark.parametrize("case", sorted(CASES.glob("case*.csv")), ids=lambda path: path.stem)
def test_the_worked_cases(case: Path) -> None:
    options = json.loads(case.with_suffix(".args.json").read_text())
    expected = json.loads(case.with_suffix(".expected.json").read_text())
    assert difference(expected, report.judge(read(str(case)), **options)) == []
