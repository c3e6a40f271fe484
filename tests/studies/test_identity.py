"""A run is known by what it is."""

import json
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from models import Architecture, SwinArchitecture
from studies.identity import Identity, difference, essence, hexdigest
from training import device
from training.recipe import CLASSIC, Recipe

RECORD = Path(__file__).with_name("record.json")
"""The record of `RUN` on 2026-11-25, with the digests of format 2."""
RUN = Identity(Architecture(), Recipe(), "abc", 224, "bf16", None, 0)
CHANGES: list[dict[str, Any]] = [
    {"architecture": Architecture(activation="gelu")},
    {"architecture": SwinArchitecture()},
    {"recipe": RUN.recipe.change(mixup=0.2)},
    {"recipe": CLASSIC},
    {"images": "abd"},
    {"resolution": 256},
    {"precision": "fp32"},
    {"init_weights": "0" * 64},
    {"custom_parts": {"norm": "0" * 16}},
]


def test_whatever_changes_a_result_changes_the_digest() -> None:
    others = [replace(RUN, **change) for change in CHANGES]
    assert len({run.digest for run in (RUN, replace(RUN, seed=1), *others)}) == len(CHANGES) + 2
    assert len({run.variant_digest for run in (RUN, *others)}) == len(CHANGES) + 1


def test_a_run_recorded_before_fields_were_added_is_known() -> None:
    """A changed default would give old runs the digests of new ones, so it needs a new field."""
    assert RUN.difference(json.loads(RECORD.read_text())) == []


@dataclass(frozen=True)
class Inner:
    crop: tuple[float, float] = (0.5, 1.0)


@dataclass(frozen=True)
class Before:
    epochs: int
    inner: Inner = Inner()


@dataclass(frozen=True)
class After:
    epochs: int
    inner: Inner = Inner()
    later: float = 0.5
    listed: list[int] = field(default_factory=list)


def test_a_new_field_changes_no_digest_until_it_is_used() -> None:
    assert hexdigest({"x": Before(4)}) == hexdigest({"x": After(4)})
    assert hexdigest({"x": After(4)}) != hexdigest({"x": After(4, later=0.6)})
    assert essence(After(4, Inner((0.25, 1.0)))) == {"epochs": 4, "inner": {"crop": [0.25, 1]}}


def test_equal_numbers_are_the_same_choice() -> None:
    one, other = (replace(RUN, recipe=Recipe(lr=value)) for value in (1, 1.0))
    assert one == other
    assert one.digest == other.digest


def test_a_difference_is_named_by_its_field() -> None:
    record = RUN.record()
    assert RUN.difference(record) == []
    assert replace(RUN, **CHANGES[0]).difference(record) == [
        "architecture.activation was 'relu', is 'gelu'"
    ]
    assert replace(RUN, seed=3).difference(record) == ["seed was 0, is 3"]
    assert "recipe.optimizer was 'adamw', is 'sgd'" in replace(RUN, recipe=CLASSIC).difference(
        record
    )
    assert "architecture.embed_dim was None, is 96" in replace(RUN, **CHANGES[1]).difference(record)


def test_a_default_that_was_changed_is_noticed_under_the_same_digest() -> None:
    record = RUN.record()
    record["recipe"]["lr"] = 3e-3
    assert RUN.difference(record) == ["recipe.lr was 0.003, is 0.004"]


def test_records_without_a_digest_are_nobodys() -> None:
    assert difference({"seed": 0}, RUN.record()) == [f"its digest was None, is {RUN.digest}"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for words in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "a"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    (tmp_path / "model.py").write_text("relu")
    (tmp_path / ".gitignore").write_text("ignored*")
    for words in (["add", "."], ["commit", "-qm", "first"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    return tmp_path


def test_two_different_edits_are_two_versions(project: Path) -> None:
    version = device.code_version.__wrapped__
    seen = [version(project)]
    assert len(seen[0]) == 12
    for name, text in (
        ("model.py", "gelu"),
        ("model.py", "silu"),
        ("own.py", "x = 1"),
        ("own.py", "x = 2"),
    ):
        (project / name).write_text(text)
        seen.append(version(project))
    subprocess.run(
        ["git", "-C", project, "add", "own.py"], check=True
    )  # a change that is staged is one too
    seen.append(version(project))
    assert len(set(seen)) == len(seen)
    assert {text[:13] for text in seen[1:]} == {seen[0] + "+"}


def test_what_git_ignores_and_what_is_no_code_is_no_other_version(project: Path) -> None:
    version = device.code_version.__wrapped__
    before = version(project)
    (project / "ignored.py").write_text("x")
    (project / "notes.txt").write_text("x")
    assert version(project) == before
    assert version(project / "nowhere") == "unknown"
