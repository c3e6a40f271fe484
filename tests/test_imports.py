"""docs/architecture.md shows the rooms, and the arrows between them, as they are."""

import ast
import re
from pathlib import Path

HOUSE = Path(__file__).parents[1]
DOOR = ("runner.py", "commands.py", "command_line.py", "training_command.py")
ROOMS = ("ablations", "data", "inference", "models", "report", "training")


def imported(file: Path) -> set[str]:
    """The first name of every import, wherever in the file it stands."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file} imports relatively"
            names.add(node.module.partition(".")[0])
    return names


def arrows() -> set[tuple[str, str]]:
    found = {("runner", room) for name in DOOR for room in imported(HOUSE / name) if room in ROOMS}
    for room in ROOMS:
        for file in (HOUSE / room).rglob("*.py"):
            found |= {(room, other) for other in imported(file) if other in ROOMS and other != room}
    return found


def test_the_image_has_the_arrows_of_the_code() -> None:
    image = (
        (HOUSE / "docs/architecture.md").read_text().partition("```mermaid")[2].partition("```")[0]
    )
    drawn = re.findall(r"(\w+) --> (\w+)", image)
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == arrows()


def test_no_arrow_leads_back() -> None:
    above = arrows()
    while more := {(a, d) for a, b in above for c, d in above if b == c} - above:
        above |= more
    assert not {room for room, other in above if room == other}


def test_every_file_that_the_page_names_is_there() -> None:
    page = HOUSE / "docs/architecture.md"
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link
    for test in re.findall(r"`(tests/[^`]+)`", page.read_text()):
        assert (HOUSE / test).exists(), test


def test_no_file_imports_torchvision_before_it_is_needed() -> None:
    """It takes as long to import as torch itself (docs/decisions.md#imports)."""
    for file in (
        path for room in (*ROOMS, *DOOR) for path in [HOUSE / room, *(HOUSE / room).rglob("*.py")]
    ):
        at_once = ast.parse(file.read_text()).body if file.suffix else []
        names = {
            alias.name for node in at_once if isinstance(node, ast.Import) for alias in node.names
        }
        names |= {str(node.module) for node in at_once if isinstance(node, ast.ImportFrom)}
        assert not [name for name in names if name.partition(".")[0] == "torchvision"], file
