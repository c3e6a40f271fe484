"""Packages import one way, and nothing heavy before it is needed."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "utils": set(),
    "models": {"utils"},
    "data": {"utils"},
    "training": {"utils", "models", "data"},
    "ablations": {"utils", "models", "data", "training"},
    "studies": {"utils", "models", "data", "training", "ablations"},
    "report": {"utils", "models", "data", "training", "ablations", "studies"},
    "inference": {"utils", "models", "data", "training", "ablations", "studies"},
}


def imported(file: Path) -> set[str]:
    """The modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file} imports relatively"
            names.add(node.module)
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        others = {name.partition(".")[0] for name in imported(file)} & set(ALLOWED) - {package}
        assert others <= ALLOWED[package], f"{file} imports {others - ALLOWED[package]}"


def test_ablations_know_of_training_only_the_recipe() -> None:
    for file in (ROOT / "ablations").rglob("*.py"):
        training = {name for name in imported(file) if name.partition(".")[0] == "training"}
        assert training <= {"training.recipe"}, file


def test_no_file_imports_torchvision_at_its_top() -> None:
    """It takes as long to import as torch itself (docs/decisions.md#imports)."""
    files = [file for package in ALLOWED for file in (ROOT / package).rglob("*.py")]
    for file in (*files, ROOT / "runner.py"):
        top = ast.parse(file.read_text()).body
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
        assert not [name for name in names if name.partition(".")[0] == "torchvision"], file
