"""Documents and code that point at each other."""

import re
import tomllib
from collections import Counter
from pathlib import Path

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


def test_code_points_at_the_decision_it_means() -> None:
    vague = {str(path) for path in CODE if re.search(r"decisions\.md(?!#)", path.read_text())}
    assert not vague, "say which decision: docs/decisions.md#anchor"


def test_every_anchor_that_is_named_exists_once() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    for path in (*CODE, *pages):
        for anchor in re.findall(r"decisions\.md#([\w-]*)", path.read_text()):
            assert ANCHORS[anchor] == 1, (path, anchor)


def test_citation_names_the_paper_and_the_version_that_is_installed() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert "A ConvNet for the 2020s" in [reference["title"] for reference in citation["references"]]
