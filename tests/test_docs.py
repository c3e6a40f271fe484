"""Documents and code that point at each other."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DECISIONS = (ROOT / "docs" / "decisions.md").read_text()
ANCHORS = Counter(re.findall(r'<a id="([^"]*)"></a>', DECISIONS))
IGNORED = {".venv", ".git", "runs", "datasets", "__pycache__"}
CODE = sorted(
    path
    for path in (*ROOT.rglob("*.py"), ROOT / "Makefile", ROOT / "pyproject.toml")
    if not IGNORED & set(path.relative_to(ROOT).parts) and path != Path(__file__)
)


def test_every_decision_has_an_anchor_of_its_own() -> None:
    without = re.findall(r'^(?:- |## )(?!<a id="[a-z0-9-]+"></a>).*', DECISIONS, re.M)
    assert not without, f'begin these with <a id="..."></a>: {without}'
    assert not [anchor for anchor, count in ANCHORS.items() if count > 1]


def test_code_points_at_the_decision_it_means() -> None:
    vague = {str(path) for path in CODE if re.search(r"decisions\.md(?!#)", path.read_text())}
    assert not vague, "say which decision: docs/decisions.md#anchor"


@pytest.mark.parametrize(
    "path", [*CODE, *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name
)
def test_every_anchor_that_is_named_exists(path: Path) -> None:
    named = re.findall(r"decisions\.md#([\w-]*)", path.read_text())
    assert set(named) <= set(ANCHORS)


def test_citation_names_the_paper_and_the_version_that_is_installed() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert "A ConvNet for the 2020s" in [reference["title"] for reference in citation["references"]]
